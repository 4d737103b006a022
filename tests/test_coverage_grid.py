"""benchmarks/coverage.py at a small size, and the grid that docs/coverage.md shows."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "coverage.json"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import modules as the script ``benchmarks/coverage.py`` sees them."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


@pytest.mark.parametrize(
    "study", ["prevalence", "correction", "scores", "agreement", "correlation"]
)
def test_intervals_of_ten_uneven_clusters_hold_the_truth(
    load: Callable[[str], ModuleType], study: str
) -> None:
    simulated = load("simulations.coverage")
    setting = simulated.Setting(
        study=study, clusters=12, correlation=0.3, share=0.15, known=500, labels="two"
    )
    found = simulated.replicate(setting, 60, np.random.default_rng(0))["intervals"]
    for name, counts in found.items():
        printed = counts["held"] + counts["below"] + counts["above"]
        # Binomial(60, .95) lies at 51 or above in all but two of a thousand draws.
        assert counts["held"] >= 0.85 * printed, name


def test_the_page_and_the_figures_are_those_of_the_run_and_a_low_coverage_is_an_error(
    load: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, simulated = load("coverage"), load("simulations.coverage")
    setting = simulated.Setting(study="carriers", clusters=50, correlation=0.0, carriers=5)
    monkeypatch.setattr(script, "settings", lambda: iter([setting]))
    page, figures = tmp_path / "page.md", tmp_path / "figures.json"
    given = ["--replications", "40", "--processes", "1", "--page", str(page)]
    assert script.main([*given, "--json", str(figures)]) == 0
    [row] = json.loads(figures.read_text())["rows"]
    assert row["intervals"]["rare behavior"]["covered"] > 0.85
    assert "## A behavior in a few sessions" in page.read_text("utf-8")
    row["intervals"]["rare behavior"] |= {"covered": 0.6, "n": 40}
    assert script.below({"rows": [row]}) == ["carriers: rare behavior"]


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return found


def test_every_interval_that_is_printed_covers_at_least_93_percent(
    results: dict[str, Any],
) -> None:
    assert all(row["replications"] >= 2000 for row in results["rows"])
    printed = [
        (one["covered"], name, row["study"])
        for row in results["rows"]
        for name, one in row["intervals"].items()
        if one["n"] >= 200
    ]
    assert len(printed) > 700
    assert min(printed) >= (0.93, "", ""), min(printed)
    assert {row["clusters"] for row in results["rows"]} >= {10, 20, 40, 80}


def test_the_page_is_made_from_the_figures(
    results: dict[str, Any], load: Callable[[str], ModuleType]
) -> None:
    page = (ROOT / "docs" / "coverage.md").read_text(encoding="utf-8")
    assert load("coverage").page(results) == page
