"""Whether probabilities mean what they say: bins, calibration errors, Brier score, likelihood.

Probabilities are arrays ``(example, label)`` whose rows add up to 1, true labels are indices
``(example,)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from recap.errors import DataError
from recap.scoring.forecasts import Bools, Floats, Ints

Scheme = Literal["equal_width", "equal_mass"]

N_BINS = 15
"""Bins of Guo et al. (2017), "On Calibration of Modern Neural Networks", Section 5."""

FLOOR = float(np.finfo(np.float64).eps)
"""Least probability whose logarithm is taken, 2.2e-16, as in scikit-learn 1.9's ``log_loss``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """Examples whose probabilities are alike, ``low`` < probability <= ``high``.

    ``mean_probability`` is what was forecast of them, ``share`` how often it came true; both
    ``None`` where there is no example.
    """

    low: float
    high: float
    n: int
    mean_probability: float | None
    share: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """The figures of one set of forecasts; all are better when smaller.

    Attributes:
        n: Examples.
        accuracy: Share whose likeliest label is the true one.
        mean_confidence: Mean probability of the likeliest label.
        ece: Top-label expected calibration error, bins of equal width.
        ece_equal_mass: The same over bins of equally many examples.
        classwise_ece: Mean over labels of each label's own calibration error.
        per_label_ece: That of each label, in order.
        brier: From 0 to 2; see :func:`brier_score`.
        nll: Negative log-likelihood in nats an example.
        n_floored: Examples whose true label had a probability below :data:`FLOOR`.
    """

    n: int
    accuracy: float
    mean_confidence: float
    ece: float
    ece_equal_mass: float
    classwise_ece: float
    per_label_ece: tuple[float, ...]
    brier: float
    nll: float
    n_floored: int


def calibration_of(probabilities: Floats, gold: Ints, *, n_bins: int = N_BINS) -> Calibration:
    """Return all calibration figures of a set of forecasts.

    Raises:
        DataError: When there is no example.
    """
    if not len(gold):
        raise DataError("there is no forecast to judge; give predictions with probabilities")
    confidence, correct = _top(probabilities, gold)
    per_label = classwise_errors(probabilities, gold, n_bins=n_bins)
    true = probabilities[np.arange(len(gold)), gold]
    return Calibration(
        n=len(gold),
        accuracy=float(correct.mean()),
        mean_confidence=float(confidence.mean()),
        ece=calibration_error(reliability_bins(confidence, correct, n_bins=n_bins)),
        ece_equal_mass=calibration_error(
            reliability_bins(confidence, correct, n_bins=n_bins, scheme="equal_mass")
        ),
        classwise_ece=float(np.mean(per_label)),
        per_label_ece=per_label,
        brier=brier_score(probabilities, gold),
        nll=negative_log_likelihood(probabilities, gold),
        n_floored=int((true < FLOOR).sum()),
    )


def reliability_bins(
    forecast: Floats, happened: Bools, *, n_bins: int = N_BINS, scheme: Scheme = "equal_width"
) -> tuple[Bin, ...]:
    """Return forecasts of one event, put into bins of like probability.

    Args:
        forecast: ``(example,)``: probability of the event.
        happened: ``(example,)``: whether it came true.
        n_bins: Number of bins.
        scheme: ``equal_width`` cuts 0 to 1 into equal parts (Guo et al. 2017, equations 2 and 3: a
            bin holds its upper end; 0 is in the first); ``equal_mass`` cuts where equally many
            examples lie (Nguyen and O'Connor 2015), and as equal probabilities are never parted,
            there may be fewer bins.
    """
    inner = (
        np.arange(1, n_bins) / n_bins
        if scheme == "equal_width"
        else _mass_ends(forecast, n_bins)[:-1]
    )
    ends = [0.0, *inner.tolist(), 1.0]
    places = np.searchsorted(inner, forecast, side="left")
    counts = np.bincount(places, minlength=len(inner) + 1)
    forecast_sums = np.bincount(places, weights=forecast, minlength=len(counts))
    happened_sums = np.bincount(places, weights=happened, minlength=len(counts))
    return tuple(
        Bin(
            low=float(low),
            high=float(high),
            n=int(n),
            mean_probability=float(forecast_sum / n) if n else None,
            share=float(happened_sum / n) if n else None,
        )
        for low, high, n, forecast_sum, happened_sum in zip(
            ends[:-1], ends[1:], counts, forecast_sums, happened_sums, strict=True
        )
    )


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error: the bins' mean gap, weighted by their examples.

    Naeini et al. (2015); Guo et al. (2017), equation 3.
    """
    total = sum(one.n for one in bins)
    gaps = (
        one.n * abs(one.share - one.mean_probability)
        for one in bins
        if one.share is not None and one.mean_probability is not None
    )
    return sum(gaps) / total if total else 0.0


def classwise_errors(
    probabilities: Floats, gold: Ints, *, n_bins: int = N_BINS
) -> tuple[float, ...]:
    """Return each label's calibration error, its probability against how often it is the true one.

    Over all examples and bins of equal width; their mean is the class-wise ECE of Kull et al.
    (2019), "Beyond temperature scaling", Section 2. It sees what the top label's error does not: a
    label whose probability is off wherever it is not the likeliest.
    """
    return tuple(
        calibration_error(reliability_bins(probabilities[:, k], gold == k, n_bins=n_bins))
        for k in range(probabilities.shape[1])
    )


def brier_score(probabilities: Floats, gold: Ints) -> float:
    """Return the Brier score over all labels, from 0 (perfect) to 2 (sure of a wrong label).

    The mean over examples of the summed squared distance from 1 for the true label and 0 for all
    others (Brier 1950, equation 2). For two labels this is twice the score that is usual there.

    >>> brier_score(np.array([[0.8, 0.2]]), np.array([0]))
    0.07999999999999999
    """
    distance = probabilities - np.eye(probabilities.shape[1])[gold]
    return float((distance**2).sum(axis=1).mean())


def negative_log_likelihood(probabilities: Floats, gold: Ints) -> float:
    """Return the mean of minus the logarithm of the true label's probability, in nats.

    A probability below :data:`FLOOR` counts as that, for no finite number could be given otherwise.
    """
    true = probabilities[np.arange(len(gold)), gold]
    return float(np.log(1 / np.maximum(true, FLOOR)).mean())


def _top(probabilities: Floats, gold: Ints) -> tuple[Floats, Bools]:
    confidence = np.asarray(probabilities.max(axis=1), dtype=np.float64)
    return confidence, np.asarray(probabilities.argmax(axis=1) == gold)


def _mass_ends(forecast: Floats, n_bins: int) -> Floats:
    """Return the upper ends of bins of equally many examples, each once."""
    ranks = np.ceil(np.arange(1, n_bins + 1) * len(forecast) / n_bins).astype(int)
    return np.unique(np.sort(forecast)[np.maximum(ranks, 1) - 1])
