"""Risk against coverage, and thresholds, against hand counts, all orders, and scikit-learn."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve, precision_score, recall_score

from recap.errors import DataError
from recap.metrics.calibration import (
    accept,
    flag,
    risk_coverage,
    threshold_for_recall,
    threshold_for_risk,
)

CONFIDENCE = np.array([0.6, 0.9, 0.7, 0.8])
CORRECT = np.array([True, True, True, False])


def test_the_curve_of_four_answers_counted_by_hand() -> None:
    curve = risk_coverage(CONFIDENCE, CORRECT)
    assert curve.thresholds == (0.9, 0.8, 0.7, 0.6)
    assert curve.coverage == (0.25, 0.5, 0.75, 1.0)
    assert curve.risk == pytest.approx((0, 1 / 2, 1 / 3, 1 / 4))
    assert curve.aurc == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    # The one wrong answer last: risks 0, 0, 0 and 1/4.
    assert curve.best_aurc == pytest.approx(1 / 16)


@pytest.mark.parametrize("confidence", [[5, 5, 5, 5, 5, 5], [9, 7, 7, 7, 2, 2], [3, 3, 3, 8, 8, 8]])
def test_the_area_under_ties_is_the_mean_over_all_their_orders(confidence: list[int]) -> None:
    correct = np.array([True, False, True, True, False, True])

    def area(order: tuple[int, ...]) -> float:
        wrong = np.cumsum(~correct[list(order)])
        return float((wrong / np.arange(1, 7)).mean())

    values = np.array(confidence)
    fitting = [
        order for order in permutations(range(6)) if (np.diff(values[list(order)]) <= 0).all()
    ]
    assert len(fitting) >= 12
    curve = risk_coverage(values / 10, correct)
    assert curve.aurc == pytest.approx(np.mean([area(order) for order in fitting]))
    assert len(curve.thresholds) == len(set(confidence))


@given(st.lists(st.tuples(st.integers(0, 10), st.booleans()), min_size=1, max_size=30))
def test_no_order_of_confidence_beats_the_best_area(rows: list[tuple[int, bool]]) -> None:
    confidence = np.array([row[0] for row in rows]) / 10
    correct = np.array([row[1] for row in rows])
    curve = risk_coverage(confidence, correct)
    assert curve.best_aurc <= curve.aurc + 1e-12
    assert curve.risk[-1] == pytest.approx((~correct).mean())
    assert curve.coverage[-1] == 1
    best = risk_coverage(correct.astype(float), correct)
    assert best.aurc == pytest.approx(curve.best_aurc)


def test_the_largest_coverage_within_a_risk() -> None:
    curve = risk_coverage(CONFIDENCE, CORRECT)
    for risk, threshold, coverage, wrong in ((0.3, 0.6, 1.0, 0.25), (0.1, 0.9, 0.25, 0.0)):
        assert threshold_for_risk(curve, risk) == threshold
        found = accept(CONFIDENCE, CORRECT, threshold)
        assert (found.coverage, found.risk) == (coverage, wrong)
    assert threshold_for_risk(risk_coverage(CONFIDENCE, ~CORRECT), 0.1) is None


def test_a_threshold_of_other_examples_is_applied() -> None:
    found = accept(CONFIDENCE, CORRECT, 0.75)
    assert (found.coverage, found.risk) == (0.5, 0.5)
    nothing = accept(CONFIDENCE, CORRECT, 0.95)
    assert (nothing.coverage, nothing.risk) == (0.0, None)


def scored(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = rng.random(60) < 0.4
    positive[0] = True
    return np.round(np.clip(rng.normal(0.3 + 0.3 * positive, 0.2), 0, 1), 2), positive


@given(st.integers(0, 500), st.floats(0.05, 1))
def test_the_threshold_for_a_recall_is_the_highest_that_scikit_learn_knows(
    seed: int, recall: float
) -> None:
    scores, positive = scored(seed)
    _, recalls, thresholds = precision_recall_curve(positive, scores)
    expected = max(t for t, r in zip(thresholds, recalls[:-1], strict=True) if r >= recall - 1e-9)
    found = threshold_for_recall(scores, positive, recall)
    assert found == expected
    flagged = flag(scores, positive, found)
    assert flagged.recall is not None
    assert flagged.recall >= recall - 1e-9
    assert flagged.recall == pytest.approx(recall_score(positive, scores >= found))
    assert flagged.precision == pytest.approx(precision_score(positive, scores >= found))
    assert flagged.share == pytest.approx((scores >= found).mean())


def test_nine_of_ten_are_a_recall_of_90_percent() -> None:
    scores = np.arange(1, 11) / 10
    assert threshold_for_recall(scores, np.ones(10, dtype=bool), 0.9) == pytest.approx(0.2)


def test_flags_count_by_weight_where_there_are_weights() -> None:
    scores, positive = scored(4)
    weights = np.where(positive, 0.4, 1.3)
    found = flag(scores, positive, 0.45, weights=weights)
    expected = precision_score(positive, scores >= 0.45, sample_weight=weights)
    assert found.precision == pytest.approx(expected)
    assert found.recall == pytest.approx(recall_score(positive, scores >= 0.45))
    assert found.share == pytest.approx(np.average(scores >= 0.45, weights=weights))


def test_nothing_flagged_has_no_precision_and_no_positive_no_threshold() -> None:
    found = flag(np.array([0.2, 0.1]), np.array([True, False]), 0.5)
    assert (found.share, found.recall, found.precision) == (0, 0, None)
    with pytest.raises(DataError, match="positive examples"):
        threshold_for_recall(np.array([0.2]), np.array([False]), 0.9)
    with pytest.raises(DataError, match="there are none"):
        risk_coverage(np.empty(0), np.empty(0, dtype=bool))
