"""Two stages as one system: every figure worked out by hand on a dozen utterances."""

from __future__ import annotations

import pytest
from builders import prediction

from recap.errors import DataError
from recap.evaluate.cascade import (
    cascade_labels,
    count_errors,
    join_stages,
    joint_probabilities,
)
from recap.metrics.scores import score
from recap.records import Prediction
from recap.tasks.library import get_task

BINARY, FINE, FLAT = (get_task(name) for name in ("binary", "fine_grained", "flat"))
OPENED, TOGETHER = cascade_labels(BINARY.taxonomy, BINARY.labels, FINE.labels)
R, C = "Resistance", "Collaboration"


def answer(
    number: int, gold: str, label: str | None, task: str = "binary", **options
) -> Prediction:
    return prediction(f"e{number}", gold, label, task=task, **{"text": "…", **options})


# gold of both stages, first stage's label, second stage's label
CASES = [
    (R, "Blaming", R, "Blaming"),  # right
    (R, "Blaming", R, "Excusing"),  # wrong behaviour: both are Denying
    (R, "Blaming", R, "Challenging"),  # wrong pattern: Arguing
    (R, "Challenging", R, None),  # unreadable in the second stage
    (R, "Challenging", C, "Challenging"),  # missed, though the second stage would have known
    (R, "Challenging", None, "Challenging"),  # unreadable in the first stage
    (C, C, C, None),  # right; the second stage is not asked
    (C, C, C, None),
    (C, C, R, "Blaming"),  # false alarm
    (C, C, None, None),  # unreadable in the first stage
]
FIRST = [answer(i, gold, label) for i, (gold, _, label, _) in enumerate(CASES)]
SECOND = {
    f"e{i}": answer(i, fine, label, "fine_grained", rationale="why", text=f"text {i}")
    for i, (gold, fine, first, label) in enumerate(CASES)
    if gold == R or first == R
}


def test_the_joint_labels_are_those_of_the_flat_task() -> None:
    assert OPENED == R
    assert FLAT.labels == TOGETHER


def test_stages_that_do_not_fit_into_each_other_are_refused() -> None:
    with pytest.raises(DataError, match="no cascade"):
        cascade_labels(BINARY.taxonomy, FINE.labels, BINARY.labels)
    with pytest.raises(DataError, match="no cascade"):
        cascade_labels(BINARY.taxonomy, BINARY.labels, FLAT.labels)


def test_the_second_stage_speaks_where_the_first_says_resistance() -> None:
    joined = join_stages(FIRST, SECOND, opened=OPENED)
    assert [p.label for p in joined] == [
        *("Blaming", "Excusing", "Challenging", None, C, None),
        *(C, C, "Blaming", None),
    ]
    assert [p.gold for p in joined] == [fine for _, fine, _, _ in CASES]
    assert (joined[0].rationale, joined[0].text) == ("why", "text 0")
    assert joined[4].text == "…"  # the first stage's own words
    assert [p.parsed for p in joined] == [p.label is not None for p in joined]


def test_every_error_is_counted_once_and_under_its_stage() -> None:
    joined = join_stages(FIRST, SECOND, opened=OPENED)
    errors = count_errors(FIRST, joined, opened=OPENED, taxonomy=BINARY.taxonomy)
    assert errors["counts"] == {
        "missed": 1,
        "false_alarms": 1,
        "confused": 0,
        "unreadable_first": 2,
        "wrong_pattern": 1,
        "wrong_behavior": 1,
        "unreadable_second": 1,
    }
    assert (errors["first_stage"], errors["second_stage"], errors["total"]) == (4, 3, 7)
    assert errors["shares"]["first_stage"] == pytest.approx(4 / 7)
    assert errors["total"] == sum(p.label != p.gold for p in joined)


def test_end_to_end_scores_of_ten_utterances_worked_out_by_hand() -> None:
    joined = join_stages(FIRST, SECOND, opened=OPENED)
    scores = score(joined, task="cascade", labels=TOGETHER)
    assert scores.metrics["accuracy"] == 3 / 10
    assert scores.metrics["invalid_rate"] == 3 / 10
    # Blaming: said twice, right once, three of gold: F1 = 2*1/(2+3). Challenging: said once, wrong.
    # Collaboration: said three times, right twice, four of gold: 2*2/(3+4).
    assert scores.per_label["Blaming"].f1 == pytest.approx(2 / 5)
    assert scores.per_label["Challenging"].f1 == 0
    assert scores.per_label[C].f1 == pytest.approx(4 / 7)
    assert scores.metrics["macro_f1"] == pytest.approx((2 / 5 + 4 / 7) / 14)


def test_a_false_alarm_without_a_second_answer_has_no_label_and_is_as_wrong() -> None:
    known = {name: p for name, p in SECOND.items() if name != "e8"}
    joined = join_stages(FIRST, known, opened=OPENED)
    assert (joined[8].label, joined[8].text, joined[8].parsed) == (None, "", False)
    errors = count_errors(FIRST, joined, opened=OPENED, taxonomy=BINARY.taxonomy)
    assert (errors["counts"]["false_alarms"], errors["total"]) == (1, 7)


def test_an_example_of_its_own_that_the_second_stage_did_not_answer_is_refused() -> None:
    with pytest.raises(DataError, match="'e0' is Resistance"):
        join_stages(FIRST, {}, opened=OPENED)


def test_joint_probabilities_multiply_along_the_way_and_sum_to_one() -> None:
    first = answer(0, R, R, probabilities={R: 0.75, C: 0.25})
    second = answer(0, "Blaming", "Blaming", probabilities={"Blaming": 0.5, "Excusing": 0.5})
    found = joint_probabilities(first, second, R)
    assert found == {"Blaming": 0.375, "Excusing": 0.375, C: 0.25}
    assert joint_probabilities(first, None, R) is None
    assert joint_probabilities(FIRST[0], second, R) is None


def test_without_errors_there_are_no_shares() -> None:
    joined = join_stages(FIRST[:1], SECOND, opened=OPENED)
    errors = count_errors(FIRST[:1], joined, opened=OPENED, taxonomy=BINARY.taxonomy)
    assert errors["shares"]["first_stage"] is None


def test_a_first_stage_of_three_labels_can_confuse_the_ones_it_does_not_open() -> None:
    first = [answer(0, "B", "D")]
    joined = join_stages(first, {}, opened="A")
    errors = count_errors(first, joined, opened="A", taxonomy=BINARY.taxonomy)
    assert (errors["counts"]["confused"], errors["total"]) == (1, 1)
