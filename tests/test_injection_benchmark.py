"""The benchmark of injected instructions: its texts, its trials and its arithmetic."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from recap.records import Example
from recap.tasks.library import builtin_task

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
TASK = builtin_task("fine_grained", style="brief")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import modules as the script ``benchmarks/injection.py`` sees them."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def count(texts: list[str]) -> list[int]:
    """Return lengths in words, as a tokenizer would in tokens."""
    return [len(text.split()) for text in texts]


def example(label: str = "Blaming") -> Example:
    return Example(id=label, history=(), response="said", label=label)


def test_there_are_thirty_texts_that_ask_for_a_label(load: Callable[[str], ModuleType]) -> None:
    texts = load("harness.injection").read_texts()
    assert len({text.words for text in texts}) == 30
    assert [text.language for text in texts].count("zh") == 15
    assert all(text.words.count("{label}") == 1 for text in texts)
    assert all(len(set(text.harmless)) >= 10 for text in texts)


def test_harmless_text_has_as_many_tokens(load: Callable[[str], ModuleType]) -> None:
    harness = load("harness.injection")
    sentences = ("one two three.", "four five.", "six.")
    for wanted in (1, 2, 5, 6, 11, 40):
        text = harness.equal_length(sentences, 1, wanted, count)
        assert len(text.split()) == wanted
        assert text.startswith("four")


def test_every_example_meets_every_text_in_every_place_and_no_text_asks_for_its_label(
    load: Callable[[str], ModuleType],
) -> None:
    harness = load("harness.injection")
    texts = harness.read_texts()
    examples = [example(label) for label in TASK.labels]
    trials = harness.make_trials(examples, TASK, texts, count)
    assert len(trials) == len({(t.example, t.text, t.place) for t in trials}) == 13 * 30 * 2
    assert all(t.asked != examples[t.example].label for t in trials)
    assert {t.asked for t in trials} == set(TASK.labels)
    tasks = {name: builtin_task("fine_grained", language=name) for name in ("en", "zh")}
    for t in trials:
        written = tasks[t.language].written(t.asked)
        assert written in t.injected.response
        before, after = ("said ", "") if t.place == "appended" else ("", " said")
        assert t.injected.response.startswith(before)
        assert t.harmless.response.endswith(after)


def test_flip_rates_and_their_differences_are_those_counted_by_hand(
    load: Callable[[str], ModuleType],
) -> None:
    harness = load("harness.injection")

    def outcome(n: int, before: str, injected: str | None, harmless: str | None) -> Any:
        trial = harness.Trial(
            example=n,
            text=0,
            language="en",
            place="appended",
            asked="A",
            injected=example(),
            harmless=example(),
        )
        return harness.Outcome(trial=trial, before=before, injected=injected, harmless=harmless)

    found = harness.flip_rates(
        [
            outcome(0, "B", "A", "B"),  # flips to what was asked for
            outcome(0, "B", None, "C"),  # unreadable, and another label
            outcome(1, "A", "A", "A"),  # was what was asked for: nothing can flip to it
            outcome(1, "B", "B", "A"),
        ],
        2,
    )
    assert found["trials"] == 4
    assert (found["any_injected"], found["any_harmless"]) == (0.5, 0.5)
    assert (found["asked_injected"], found["asked_harmless"]) == (0.25, 0.25)
    assert found["any_difference"]["value"] == 0
    # Example 0 alone gives 1 - 1/2, example 1 alone 0 - 1/2.
    assert (found["any_difference"]["low"], found["any_difference"]["high"]) == (-0.5, 0.5)


def test_the_kept_results_are_of_a_model_that_reads_the_task() -> None:
    report = json.loads((BENCHMARKS / "results" / "injection.json").read_text(encoding="utf-8"))
    assert report["texts"] == 30
    assert min(report["macro_f1"].values()) >= 0.75
    assert {row["decoding"] for row in report["rows"]} == {"free", "constrained", "scored"}
    asked = {row["value"] for row in report["rows"] if row["by"] == "asked"}
    assert asked == set(TASK.labels)


@pytest.mark.slow
def test_the_command_measures_a_trained_run(
    load: Callable[[str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from recap.train.__main__ import main

    monkeypatch.chdir(tmp_path)
    small = ["experiment=smoke", "run=r", "logger=none", "trainer.progress=false", "cv.fold=0"]
    assert main(small) == 0
    file = tmp_path / "out" / "injection.json"
    arguments = ["--model", "runs/r", "--examples", "2", "--json", str(file)]
    assert load("injection").main(arguments) == 0
    report = json.loads(file.read_text(encoding="utf-8"))
    assert [row["trials"] for row in report["rows"] if row["by"] == "all"] == [120] * 3
    assert "held-out examples" in capsys.readouterr().out
