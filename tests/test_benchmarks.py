"""The training benchmark: its work, its ledger and its report; figures of time are not tested."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
OWN = ("trunk", "packed", "padded")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import modules as the script ``benchmarks/training.py`` sees them."""
    monkeypatch.syspath_prepend(str(BENCHMARKS / "workers"))
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


# The work.


def test_lengths_lie_in_the_middle_of_equal_shares_of_real_dialogues(
    load: Callable[[str], ModuleType],
) -> None:
    workload = load("harness.workload")
    two = workload.lengths(workload.Workload(prefix=0, n_examples=2))
    assert sorted(two) == [164 + 88, 367 + 88], "the quartiles, format, template and answer"
    many = workload.lengths(workload.Workload(prefix=0, n_examples=1000))
    shares = (np.arange(1000) + 0.5) / 1000
    expected = np.interp(shares, np.linspace(0, 1, 21), workload.DIALOGUE_QUANTILES) + 88
    assert np.abs(np.sort(many) - expected).max() <= 0.5


def test_examples_share_the_prefix_and_nothing_more(load: Callable[[str], ModuleType]) -> None:
    from recap.data.batches import common_prefix
    from recap.data.encode import EncodedExample

    workload = load("harness.workload")
    work = workload.Workload(prefix=30, vocabulary=5000)
    drawn = workload.examples(work)
    encoded = [EncodedExample(id="", prompt=each.prompt, answer=each.answer) for each in drawn]
    assert common_prefix(encoded) == 30
    assert [len(each.ids) - 30 for each in drawn] == list(workload.lengths(work))
    assert {len(each.answer) for each in drawn} == {workload.ANSWER}
    assert all(3000 <= token < 5000 for each in drawn for token in each.ids)
    first = drawn[0]
    assert [i for i, label in enumerate(first.labels) if label == -100] == list(
        range(len(first.prompt))
    )
    assert workload.examples(workload.workload_of(work.as_json())) == drawn


# What is measured, and what is said of it.


def step(
    system: str, seconds: float, above: int, *, round_: int = 0, **more: Any
) -> dict[str, Any]:
    return {
        "part": "step",
        "shape": "zero_shot",
        "system": system,
        "micro_batch": 4,
        "round": round_,
        "seconds": [seconds],
        "baseline_bytes": 1000,
        "peak_bytes": 1000 + above,
        "loss": 9.0,
        "gradient_norm": 2.0,
        **more,
    }


def test_ratios_are_larger_the_better_recap_is(
    load: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    systems, report = load("harness.systems"), load("harness.report")
    ledger = load("harness.ledger").Ledger(tmp_path / "state.jsonl", {})
    for round_, (ours, packed) in enumerate([(2.0, 5.0), (9.0, 90.0), (1.0, 4.0)]):
        ledger.add(step("trunk", ours, 100, round_=round_))
        ledger.add(step("packed", packed, 300, round_=round_))
    ledger.add(step("trl_packed", 50.0, 900))
    ledger.add(step("hf_trainer", 8.0, 50, loss=9.01))
    found = report.summarize(
        ledger, [*systems.OWN, *systems.PEERS], "seconds", {"trl": "not there"}
    )
    assert found["ratios"] == {
        "speed/zero_shot/packed": 2.5,
        "memory/zero_shot/packed": 3.0,
        "speed/zero_shot/hf_trainer": 4.0,
        "memory/zero_shot/hf_trainer": 0.5,
    }
    assert found["missing"] == [{"system": "trl", "reason": "not there"}]
    notes = {row["system"]: row["note"] for row in found["rows"]}
    assert "no evidence" in notes["trl_packed"]
    assert not notes["packed"]
    assert report.disagreeing(found) == ["zero_shot hf_trainer"]


def test_the_search_stops_behind_the_fastest_and_within_the_memory(
    load: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    plan, systems = load("harness.plan"), load("harness.systems")
    system = systems.OWN[1]
    limits = plan.Limits(memory_bytes=250, clock="seconds", rounds=1)

    def tried(seconds: Mapping[int, float], state: str) -> tuple[list[int], int | None]:
        ledger = load("harness.ledger").Ledger(tmp_path / state, {})
        sizes = []
        for each in plan.search(ledger, system, "zero_shot", limits, (1, 2, 4, 8)):
            size = each.key["micro_batch"]
            sizes.append(size)
            row = step(system.name, seconds[size], 100 * size) | each.key
            ledger.add({name: value for name, value in row.items() if name != "round"})
        return sizes, plan.fastest_micro_batch(ledger, system, "zero_shot", limits)

    assert tried({1: 5.0, 2: 6.0}, "slower") == ([1, 2], 1)
    assert tried({1: 5.0, 2: 4.0, 4: 3.0}, "too_large") == ([1, 2, 4], 2)


def test_rows_of_other_settings_are_refused(
    load: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    ledger = load("harness.ledger")
    ledger.Ledger(tmp_path / "state.jsonl", {"threads": 1})
    with pytest.raises(SystemExit, match="other settings"):
        ledger.Ledger(tmp_path / "state.jsonl", {"threads": 2})


def test_the_figure_is_the_same_for_the_same_report(
    load: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    report = {
        "rows": [
            {**step("trunk", 1.0, 1), "seconds": 1.0, "note": ""},
            {**step("trl_packed", 3.0, 1), "seconds": 3.0, "note": "no evidence"},
            *(
                {"part": "group", "micro_batch": size, "seconds_per_example": 1 / size}
                for size in (1, 2, 4)
            ),
        ]
    }
    for name in ("once.svg", "twice.svg"):
        load("figure").draw(report, tmp_path / name)
    drawn = (tmp_path / "once.svg").read_bytes()
    assert b"trl_packed" in drawn
    assert drawn == (tmp_path / "twice.svg").read_bytes()


# The whole of it, at toy size and in this process.


Runner = Callable[..., dict[str, Any]]


@pytest.fixture
def in_process(load: Callable[[str], ModuleType], tmp_path: Path) -> Runner:
    """Run a worker here instead of in a process of its own."""

    def run(system: Any, spec: dict[str, Any], *, threads: int) -> dict[str, Any]:
        result = tmp_path / "result.json"
        worker = load(system.worker.removesuffix(".py"))
        worker.run({**spec, **system.spec, "result": str(result), "scratch": str(tmp_path)})
        return dict(json.loads(result.read_text(encoding="utf-8")))

    return run


@pytest.fixture
def bench(
    load: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Runner], dict[str, Any]]:
    """Run the quick benchmark over recap's own variants and return what it wrote."""
    training = load("training")

    def run(runner: Runner) -> dict[str, Any]:
        monkeypatch.setattr(training, "run_worker", runner)
        load("model_folder").write_model(
            tmp_path / "model-32-2", vocabulary=8192, hidden=32, layers=2
        )
        written = tmp_path / "report.json"
        options = ["--quick", "--hidden=32", "--layers=2", "--scale=0.02"]
        options += [f"--systems={','.join(OWN)}", f"--work={tmp_path}", f"--json={written}"]
        assert training.main(options) == 0, "the first steps agree"
        return dict(json.loads(written.read_text(encoding="utf-8")))

    return run


def test_the_quick_run_writes_rows_ratios_and_what_is_missing(
    bench: Callable[[Runner], dict[str, Any]], in_process: Runner
) -> None:
    report = bench(in_process)
    assert {"rows", "ratios", "missing"} <= set(report)
    rows = {(row["part"], row["system"]): row for row in report["rows"]}
    assert set(rows) == {
        *(("step", system) for system in OWN),
        ("loss", "full_logits"),
        ("loss", "chunked"),
    }
    for system in OWN:
        row = rows["step", system]
        assert row["loss"] == pytest.approx(math.log(8192), rel=0.05), "a random model"
        assert row["same_step"]
        assert row["difference"] < 1e-5
    assert rows["loss", "full_logits"]["loss"] == pytest.approx(
        rows["loss", "chunked"]["loss"], rel=1e-6
    )
    assert {name for name in report["ratios"] if name.startswith("speed/")} == {
        "speed/zero_shot/packed",
        "speed/zero_shot/padded",
    }
    assert report["ratios"]["memory/zero_shot/full_logits"] > 0


def test_a_stopped_run_goes_on_and_measures_nothing_twice(
    bench: Callable[[Runner], dict[str, Any]], in_process: Runner
) -> None:
    measured: list[str] = []

    def stops(system: Any, spec: dict[str, Any], *, threads: int) -> dict[str, Any]:
        if system.name == "padded":
            return {"error": "exit 1: stopped"}
        measured.append(system.name)
        return in_process(system, spec, threads=threads)

    report = bench(stops)
    assert measured == ["trunk", "packed", "full_logits", "chunked"]
    [missing] = [each for each in report["missing"] if each["system"] == "padded"]
    assert "stopped" in missing["reason"]

    measured.clear()

    def goes_on(system: Any, spec: dict[str, Any], *, threads: int) -> dict[str, Any]:
        measured.append(system.name)
        return in_process(system, spec, threads=threads)

    again = bench(goes_on)
    assert measured == ["padded"]
    assert all(each["system"] not in OWN for each in again["missing"])
    kept = {name: value for name, value in again["ratios"].items() if "padded" not in name}
    assert kept == report["ratios"]


def test_the_quick_run_of_answers_compares_equal_answers(
    load: Callable[[str], ModuleType],
    in_process: Runner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inference = load("inference")
    monkeypatch.setattr(inference, "run_worker", in_process)
    load("model_folder").write_model(
        tmp_path / "model-answers-32-2", vocabulary=8192, hidden=32, layers=2, own_head=True
    )
    written = tmp_path / "report.json"
    options = ["--quick", "--hidden=32", "--layers=2", "--scale=0.05", f"--work={tmp_path}"]
    assert inference.main([*options, f"--json={written}"]) == 0, "token for token"
    report = json.loads(written.read_text(encoding="utf-8"))
    rows = {(row["part"], row["system"]): row for row in report["rows"]}
    ours, plain = rows["answers", "rationale"]["answers"], rows["answers", "hf_generate"]["answers"]
    assert ours == plain
    assert len(set(plain)) > 8, "a model that repeats itself would prove nothing"
    assert set(report["ratios"]) == {
        *(f"{kind}/zero_shot/hf_generate{more}" for kind in ("speed", "memory")
          for more in ("", "_label", "_rationale")),
        "speed/zero_shot/cascade",
    }  # fmt: skip
    assert report["missing"] == []


def test_answers_that_differ_from_plain_generation_are_named(
    load: Callable[[str], ModuleType],
) -> None:
    row = {"part": "answers", "shape": "few_shot"}
    report = {
        "rows": [
            {**row, "system": "rationale", "answers": ["a", "b"]},
            {**row, "system": "hf_generate", "answers": ["a", "c"]},
        ]
    }
    assert load("harness.answers").differing(report) == ["few_shot rationale"]
