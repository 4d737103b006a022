"""The share of answers that are not what was held likeliest."""

from __future__ import annotations

from builders import prediction

from recap.metrics.scores import argmax_disagreement
from recap.records import Prediction


def answer(label: str | None, probabilities: dict[str, float] | None) -> Prediction:
    return prediction("e", "a", label, probabilities=probabilities)


def test_one_of_four_disagrees_and_one_without_probabilities_does_not_count() -> None:
    likely_a = {"a": 0.7, "b": 0.3}
    found = argmax_disagreement(
        [answer("a", likely_a)] * 3 + [answer("b", likely_a), answer("b", None)]
    )
    assert found == 1 / 4


def test_an_unreadable_answer_disagrees_and_a_tie_does_not() -> None:
    assert argmax_disagreement([answer(None, {"a": 1.0, "b": 0.0})]) == 1.0
    assert argmax_disagreement([answer("b", {"a": 0.5, "b": 0.5})]) == 0.0


def test_without_any_probabilities_there_is_no_share() -> None:
    assert argmax_disagreement([answer("a", None)]) is None
