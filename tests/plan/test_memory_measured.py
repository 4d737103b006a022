"""Predicted peaks against real training steps in processes of their own."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def benchmark(project_root: Path) -> Any:
    """Return the benchmark as a module; it is a script, not part of the package."""
    place = project_root / "benchmarks" / "plan_memory.py"
    spec = importlib.util.spec_from_file_location("plan_memory", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["plan_memory"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["plan_memory"]


def test_the_check_knows_none_of_the_cases_that_the_model_was_adjusted_on(benchmark: Any) -> None:
    assert len(benchmark.CHECK) >= 12
    assert not set(benchmark.CHECK) & set(benchmark.CALIBRATION)
    assert len(set(benchmark.CHECK)) == len(benchmark.CHECK)


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("number", [2, 8, 10])
def test_the_peak_of_a_real_training_is_within_a_fifth_of_the_plans(
    benchmark: Any, number: int
) -> None:
    case = benchmark.CHECK[number]
    measured = benchmark.measure(case)
    assert measured >= benchmark.SMALLEST_BYTES
    assert benchmark.predict(case)["peak"] == pytest.approx(measured, rel=0.2)
