"""Calibration figures against hand counts, torchmetrics and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss
from torchmetrics.classification import BinaryCalibrationError, MulticlassCalibrationError

from recap.errors import DataError
from recap.metrics.calibration import (
    Floats,
    Ints,
    brier_score,
    calibration_error,
    calibration_of,
    classwise_errors,
    negative_log_likelihood,
    reliability_bins,
)

FOUR = np.array([0.95, 0.95, 0.55, 0.65])
RIGHT = np.array([True, False, True, False])


def drawn(seed: int, *, n: int = 400, k: int = 5) -> tuple[Floats, Ints]:
    """Return forecasts that are too sure of themselves, and what was true."""
    rng = np.random.default_rng(seed)
    honest = rng.dirichlet(np.full(k, 0.6), size=n)
    gold = np.array([rng.choice(k, p=row) for row in honest])
    sure = honest**2 + 1e-6
    return sure / sure.sum(axis=1, keepdims=True), gold


def test_the_error_of_four_forecasts_counted_by_hand() -> None:
    # Two of 0.95, half of them right; one of 0.55, right; one of 0.65, wrong:
    # 2/4 x 0.45 + 1/4 x 0.45 + 1/4 x 0.65.
    bins = reliability_bins(FOUR, RIGHT, n_bins=10)
    assert calibration_error(bins) == pytest.approx(0.5)
    assert [one.n for one in bins] == [0, 0, 0, 0, 0, 1, 1, 0, 0, 2]
    assert (bins[9].mean_probability, bins[9].share) == (pytest.approx(0.95), 0.5)
    assert (bins[0].mean_probability, bins[0].share) == (None, None)
    assert (bins[9].low, bins[9].high) == (0.9, 1.0)


def test_a_bin_holds_its_upper_end_and_the_first_one_0() -> None:
    bins = reliability_bins(np.array([0.0, 0.5, 0.51, 1.0]), np.ones(4, dtype=bool), n_bins=2)
    assert [one.n for one in bins] == [2, 2]


def test_bins_of_equal_mass_hold_equally_many() -> None:
    forecast = np.array([0.91, 0.3, 0.5, 0.45, 0.99, 0.7])
    bins = reliability_bins(forecast, forecast > 0.4, n_bins=3, scheme="equal_mass")
    assert [(one.n, one.low, one.high) for one in bins] == [
        (2, 0.0, 0.45),
        (2, 0.45, 0.7),
        (2, 0.7, 1.0),
    ]
    # Of 0.3 and 0.45 one came true, of the others all.
    assert calibration_error(bins) == pytest.approx(
        (2 * (0.5 - 0.375) + 2 * (1 - 0.6) + 2 * (1 - 0.95)) / 6
    )


def test_equal_probabilities_are_never_parted() -> None:
    forecast = np.array([0.5, 0.5, 0.5, 0.5, 0.9, 0.9])
    happened = np.array([True, True, False, False, True, True])
    bins = reliability_bins(forecast, happened, n_bins=3, scheme="equal_mass")
    assert [one.n for one in bins] == [4, 2]
    assert calibration_error(bins) == pytest.approx(2 / 6 * 0.1)


@given(st.integers(0, 1000), st.sampled_from(["equal_width", "equal_mass"]), st.integers(1, 20))
def test_the_order_of_examples_plays_no_part(seed: int, scheme: str, n_bins: int) -> None:
    rng = np.random.default_rng(seed)
    forecast = rng.integers(0, 11, size=30) / 10
    happened = rng.random(30) < forecast
    order = rng.permutation(30)
    one = reliability_bins(forecast, happened, n_bins=n_bins, scheme=scheme)  # type: ignore[arg-type]
    other = reliability_bins(forecast[order], happened[order], n_bins=n_bins, scheme=scheme)  # type: ignore[arg-type]
    assert [b.n for b in one] == [b.n for b in other]
    assert sum(b.n for b in one) == 30
    assert calibration_error(one) == pytest.approx(calibration_error(other))


@pytest.mark.parametrize("n_bins", [5, 15, 20])
@pytest.mark.parametrize("seed", range(3))
def test_the_top_labels_error_is_that_of_torchmetrics(seed: int, n_bins: int) -> None:
    probabilities, gold = drawn(seed)
    metric = MulticlassCalibrationError(num_classes=5, n_bins=n_bins, norm="l1")
    expected = metric(torch.tensor(probabilities), torch.tensor(gold))
    found = calibration_of(probabilities, gold, n_bins=n_bins)
    assert found.ece == pytest.approx(float(expected), abs=1e-6)
    assert found.ece > 0.05


@pytest.mark.parametrize("seed", range(3))
def test_each_labels_error_is_that_of_torchmetrics(seed: int) -> None:
    probabilities, gold = drawn(seed)
    expected = [
        float(
            BinaryCalibrationError(n_bins=15, norm="l1")(
                torch.tensor(probabilities[:, k]), torch.tensor(gold == k).long()
            )
        )
        for k in range(5)
    ]
    assert classwise_errors(probabilities, gold) == pytest.approx(expected, abs=1e-6)
    assert calibration_of(probabilities, gold).classwise_ece == pytest.approx(
        np.mean(expected), abs=1e-6
    )


@pytest.mark.parametrize("k", [2, 5])
def test_brier_and_likelihood_are_those_of_scikit_learn(k: int) -> None:
    probabilities, gold = drawn(1, k=k)
    expected = brier_score_loss(gold, probabilities, labels=range(k), scale_by_half=False)
    assert brier_score(probabilities, gold) == pytest.approx(expected)
    assert negative_log_likelihood(probabilities, gold) == pytest.approx(
        log_loss(gold, probabilities, labels=range(k))
    )


def test_a_perfect_forecast_has_no_error_and_a_sure_wrong_one_the_largest() -> None:
    gold = np.array([0, 1, 2, 1])
    perfect = calibration_of(np.eye(3)[gold], gold)
    assert (perfect.brier, perfect.nll, perfect.ece, perfect.classwise_ece) == (0, 0, 0, 0)
    wrong = calibration_of(np.eye(3)[[1, 2, 0, 0]], gold)
    assert (wrong.brier, wrong.ece, wrong.n_floored) == (2, 1, 4)
    # As in scikit-learn: the logarithm of the smallest step from 1.
    assert wrong.nll == pytest.approx(52 * np.log(2))


def test_honest_forecasts_have_no_error_in_a_large_sample() -> None:
    rng = np.random.default_rng(3)
    probabilities = rng.dirichlet(np.full(4, 0.7), size=200_000)
    gold = (probabilities.cumsum(axis=1) < rng.random((200_000, 1))).sum(axis=1)
    found = calibration_of(probabilities, gold)
    assert max(found.ece, found.ece_equal_mass, found.classwise_ece) < 0.005
    assert found.mean_confidence == pytest.approx(found.accuracy, abs=0.005)


def test_the_classwise_error_sees_what_the_top_labels_does_not() -> None:
    # Always 0.5, 0.3, 0.2; the first is right half the time, the others' shares are exchanged.
    probabilities = np.tile([0.5, 0.3, 0.2], (10, 1))
    gold = np.array([0] * 5 + [1] * 2 + [2] * 3)
    found = calibration_of(probabilities, gold)
    assert found.ece == pytest.approx(0)
    assert found.per_label_ece == pytest.approx((0, 0.1, 0.1))
    assert found.classwise_ece == pytest.approx(0.2 / 3)


def test_without_forecasts_there_is_nothing_to_judge() -> None:
    with pytest.raises(DataError, match="no forecast to judge"):
        calibration_of(np.empty((0, 3)), np.empty(0, dtype=np.int64))
