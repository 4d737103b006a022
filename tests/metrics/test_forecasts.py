"""Predictions as forecasts."""

from __future__ import annotations

from collections.abc import Mapping

import builders
import pytest

from recap.errors import DataError
from recap.metrics.calibration import forecasts_of
from recap.records import Prediction

LABELS = ("Resistance", "Collaboration")


def prediction(
    label: str | None = "Resistance",
    probabilities: Mapping[str, float] | None = None,
    *,
    gold: str = "Resistance",
    identifier: str = "e1",
) -> Prediction:
    return builders.prediction(identifier, gold, label, probabilities=probabilities)


def both(first: float) -> dict[str, float]:
    return {"Collaboration": 1 - first, "Resistance": first}


def test_rows_follow_the_labels_and_add_up_to_1() -> None:
    found = forecasts_of(
        [prediction(probabilities={"Collaboration": 0.2501, "Resistance": 0.75})], labels=LABELS
    )
    assert found.probabilities.tolist() == [pytest.approx([0.75 / 1.0001, 0.2501 / 1.0001])]
    assert found.probabilities.sum() == pytest.approx(1, abs=1e-12)
    assert (found.gold.tolist(), found.likeliest.tolist(), found.correct.tolist()) == (
        [0],
        [0],
        [True],
    )


def test_what_was_answered_is_counted_and_the_likeliest_label_is_judged() -> None:
    found = forecasts_of(
        [
            prediction("Resistance", both(0.9)),
            prediction(None, both(0.8)),
            prediction("Collaboration", both(0.7)),
            prediction("Collaboration", both(0.5)),
            prediction("Resistance", None),
        ],
        labels=LABELS,
    )
    assert found.n == 4
    assert (found.n_left_out, found.n_unreadable, found.n_other_answer) == (1, 1, 1)
    assert found.correct.tolist() == [True, True, True, True]
    assert found.confidence.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.5])


def test_without_any_probabilities_there_are_no_examples() -> None:
    found = forecasts_of([prediction(), prediction()], labels=LABELS)
    assert (found.n, found.n_left_out) == (0, 2)
    assert found.probabilities.shape == (0, 2)


@pytest.mark.parametrize(
    ("probabilities", "gold", "said"),
    [
        ({"Resistance": 1.0}, "Resistance", "of 1 labels, not of the task's 2"),
        ({"Resistance": 0.5, "Blaming": 0.5}, "Resistance", "not of the task's 2"),
        ({"Resistance": 0.5, "Collaboration": 0.4}, "Resistance", "add up to 0.9"),
        ({"Resistance": 1.2, "Collaboration": -0.2}, "Resistance", "hold -0.2"),
        (both(0.5), "Blaming", "its gold label is not one of the 2 labels"),
    ],
)
def test_what_are_no_probabilities_of_the_labels_is_refused_by_id(
    probabilities: Mapping[str, float], gold: str, said: str
) -> None:
    with pytest.raises(DataError, match=said) as caught:
        forecasts_of(
            [prediction(probabilities=probabilities, gold=gold, identifier="e17")], labels=LABELS
        )
    assert "e17" in str(caught.value)
