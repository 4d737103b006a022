from __future__ import annotations

import pytest

from recap.corpus.exam import Mistake, confused_labels, mark_exams, select_annotators
from recap.data.annotations import AnnotatorLabel

# The paper's Table 6: three exams of the four annotators who were selected.
TABLE_6 = {
    "1": (0.53, 0.48, 0.79),
    "2": (0.58, 0.57, 0.62),
    "3": (0.47, 0.57, 0.64),
    "4": (0.47, 0.52, 0.64),
}


def answers(candidate: str, exam: str, labels: dict[str, str]) -> list[AnnotatorLabel]:
    return [
        AnnotatorLabel(id=item, annotator=candidate, label=label, round=exam)
        for item, label in labels.items()
    ]


def test_means_and_order_are_those_of_table_6() -> None:
    results = select_annotators(TABLE_6, ddof=0)
    assert [(r.candidate, round(r.mean or 0, 2)) for r in results] == [
        ("1", 0.60),
        ("2", 0.59),
        ("3", 0.56),
        ("4", 0.54),
    ]
    assert [r.selected for r in results] == [True] * 4
    assert [r.rank for r in results] == [1, 2, 3, 4]


def test_deviations_of_table_6_are_the_populations() -> None:
    # Printed .13 .02 .07 .07; from the rounded accuracies the first is .1359.
    results = {r.candidate: r.std or 0 for r in select_annotators(TABLE_6, ddof=0)}
    assert results["1"] == pytest.approx(0.1359, abs=5e-5)
    assert [round(results[name], 2) for name in "234"] == [0.02, 0.07, 0.07]
    sample = {r.candidate: r.std or 0 for r in select_annotators(TABLE_6)}
    assert sample["1"] == pytest.approx(0.1664, abs=5e-5)


def test_the_last_exam_decides_who_can_be_selected() -> None:
    # The best mean of all is of no use with 59 % at the end; 60 % is enough.
    candidates = {**TABLE_6, "best": (0.9, 0.9, 0.59), "just": (0.5, 0.5, 0.6)}
    results = {r.candidate: r for r in select_annotators(candidates)}
    assert not results["best"].selected
    assert results["best"].reason == "under 60 % in the last exam"
    assert results["best"].rank is None
    assert results["just"].reason == "rank 5, after the first 4"
    assert [r.candidate for r in select_annotators(candidates)][-2:] == ["best", "just"]
    assert select_annotators({"just": (0.1, 0.1, 0.6)}, top=1)[0].selected


def test_a_missed_exam_leaves_no_mean() -> None:
    [result] = select_annotators({"a": (0.9, None, 0.9)})
    assert (result.mean, result.std, result.selected) == (None, None, False)
    assert result.reason == "missed an exam"


def test_equals_at_the_last_place_are_all_selected() -> None:
    equals = {"a": (0.7, 0.8), "b": (0.8, 0.7), "c": (0.6, 0.6), "d": (0.9, 0.9)}
    results = select_annotators(equals, top=2)
    assert {r.candidate: (r.rank, r.selected) for r in results} == {
        "d": (1, True),
        "a": (2, True),
        "b": (2, True),
        "c": (4, False),
    }


def test_one_exam_has_no_sample_deviation() -> None:
    assert select_annotators({"a": (0.7,)})[0].std is None
    assert select_annotators({"a": (0.7,)}, ddof=0)[0].std == 0.0


def test_exams_are_marked_against_the_key() -> None:
    key = {"1": "x", "2": "y", "3": "x", "4": "y", "never asked": "x"}
    given = [
        *answers("ann", "e1", {"1": "x", "2": "x", "unknown": "x"}),
        *answers("bo", "e1", {"1": "y"}),  # left out item 2: wrong
        *answers("ann", "e2", {"3": "x", "4": "y"}),
    ]
    sheets = mark_exams(given, key, ("e1", "e2"))
    assert [(s.candidate, s.exam, s.items - len(s.mistakes), s.items) for s in sheets] == [
        ("ann", "e1", 1, 2),
        ("ann", "e2", 2, 2),
        ("bo", "e1", 0, 2),
    ]
    assert [sheet.accuracy for sheet in sheets] == [0.5, 1.0, 0.0]
    assert sheets[2].mistakes == (
        Mistake(id="1", given="y", correct="x"),
        Mistake(id="2", given=None, correct="y"),
    )
    assert confused_labels(sheets) == [("y", "x", 1), ("x", "y", 1)]
