"""What several runs have in common is said once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from recap.report.runs import ReportedRun, in_one_text, named, read_runs, statements_of
from recap.runs.folder import RunFolder


@pytest.fixture
def three(small_runs: Path) -> tuple[ReportedRun, ...]:
    """Return the runs asked (prompted), trained and words (TF-IDF)."""
    return read_runs([str(small_runs)])


def called(run: ReportedRun, name: str) -> ReportedRun:
    return replace(run, folder=RunFolder(path=Path(name)))


def test_runs_are_named_by_kind_where_all_of_it_are_meant(three: tuple[ReportedRun, ...]) -> None:
    asked, trained, words = three
    among = (asked, trained, called(trained, "again"), words)
    assert named(among, among=among) == "all runs"
    assert named(among[1:3], among=among) == "all trained runs"
    assert named([words], among=among) == "words"
    assert named([asked, words], among=among) == "asked, words"


def test_of_many_runs_those_that_are_not_meant_are_named(three: tuple[ReportedRun, ...]) -> None:
    words = three[2]
    among = [called(words, f"w{k}") for k in range(9)]
    assert named(among[1:], among=among) == "all runs but w0"
    assert named(among[:4], among=among) == "w0, w1, w2, w3"


def test_a_statement_is_grouped_over_the_runs_that_it_holds_for(
    three: tuple[ReportedRun, ...],
) -> None:
    found = statements_of(
        three, lambda run: None if run.kind == "baseline" else "Asked for labels."
    )
    assert {text: [run.name for run in own] for text, own in found.items()} == {
        "Asked for labels.": ["asked", "trained"]
    }


def test_one_text_names_runs_only_where_they_differ(three: tuple[ReportedRun, ...]) -> None:
    assert in_one_text(three, lambda run: "Alike.") == "Alike."
    assert in_one_text(three, lambda run: None) is None
    differing = in_one_text(three, lambda run: f"kind {run.kind}")
    assert differing == "asked: kind prompted. trained: kind trained. words: kind baseline."
