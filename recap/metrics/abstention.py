"""Where to draw a line: answers left to a human being, utterances flagged for a look."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from recap.errors import DataError
from recap.metrics.arrays import Bools, Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class RiskCoverage:
    """What an abstaining system would get wrong, for every line it could draw.

    Attributes:
        thresholds: The confidences that occur, from the highest down.
        coverage: Share of examples with at least that confidence.
        risk: Share of wrong answers among these.
        aurc: Area under the curve; see :func:`risk_coverage`.
        best_aurc: The area if all wrong answers had the least confidence.
    """

    thresholds: tuple[float, ...]
    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    aurc: float
    best_aurc: float

    @property
    def overall_risk(self) -> float:
        """Share of wrong answers where all are given."""
        return self.risk[-1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """What a system answers with at least ``threshold`` confidence; ``risk``: share it gets wrong.

    ``risk`` is ``None`` where nothing is answered.
    """

    threshold: float
    coverage: float
    risk: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Flagged:
    """What is flagged with a score of at least ``threshold``.

    Attributes:
        threshold: Least score that is flagged.
        share: Share of all examples that is flagged.
        recall: Share of the positive examples that is flagged; ``None`` without any.
        precision: Share of the flagged examples that is positive; ``None`` where none is flagged.
    """

    threshold: float
    share: float
    recall: float | None
    precision: float | None


def risk_coverage(confidence: Floats, correct: Bools) -> RiskCoverage:
    """Return the risk-coverage curve (El-Yaniv and Wiener 2010; Geifman and El-Yaniv 2017).

    Its area is the mean of the risks at every coverage 1/n, 2/n … 1 (Geifman, Uziel and El-Yaniv
    2019, "Bias-Reduced Uncertainty Estimation", Section 2). Examples of equal confidence are
    answered together or not at all: the curve has one point for them, and the area takes the mean
    over all orders in which they could stand.

    Args:
        confidence: ``(example,)``.
        correct: ``(example,)``: whether the answer is right.

    Raises:
        DataError: When there is no example.
    """
    n = len(confidence)
    if not n:
        raise DataError("a risk-coverage curve needs answers, and there are none")
    values, places, counts = np.unique(-confidence, return_inverse=True, return_counts=True)
    wrong = np.bincount(places, weights=~correct, minlength=len(values))
    answered, errors = np.cumsum(counts), np.cumsum(wrong)
    before = np.repeat(answered - counts, counts)
    within = np.arange(1, n + 1) - before
    expected = np.repeat(errors - wrong, counts) + within * np.repeat(wrong / counts, counts)
    last = np.arange(1, int(errors[-1]) + 1)
    return RiskCoverage(
        thresholds=tuple((-values).tolist()),
        coverage=tuple((answered / n).tolist()),
        risk=tuple((errors / answered).tolist()),
        aurc=float((expected / (before + within)).mean()),
        best_aurc=float((last / (n - errors[-1] + last)).sum() / n),
    )


def coverage_at_risk(curve: RiskCoverage, risk: float) -> Accepted | None:
    """Return the largest coverage at which at most this share of the answers is wrong.

    It is what was found on these examples, without a guarantee for others. ``None`` where even the
    surest answers are wrong more often.
    """
    fitting = [place for place, found in enumerate(curve.risk) if found <= risk]
    if not fitting:
        return None
    place = fitting[-1]
    return Accepted(
        threshold=curve.thresholds[place],
        coverage=curve.coverage[place],
        risk=curve.risk[place],
    )


def accept(confidence: Floats, correct: Bools, threshold: float) -> Accepted:
    """Return what comes of a threshold that was chosen on other examples."""
    answered = confidence >= threshold
    return Accepted(
        threshold=threshold,
        coverage=float(answered.mean()),
        risk=float((~correct)[answered].mean()) if answered.any() else None,
    )


def threshold_for_recall(scores: Floats, positive: Bools, recall: float) -> float:
    """Return the highest threshold at which at least this share of the positives is flagged.

    Args:
        scores: ``(example,)``: how likely each is positive.
        positive: ``(example,)``: whether it is.
        recall: Wanted share, above 0 and at most 1.

    Raises:
        DataError: When no example is positive.

    >>> threshold_for_recall(np.array([0.9, 0.7, 0.6, 0.2]), np.array([1, 0, 1, 1]) > 0, 0.66)
    0.6
    """
    found = np.sort(scores[positive])[::-1]
    if not len(found):
        raise DataError("a threshold for a recall needs positive examples, and there are none")
    # 0.9 of 10 are 9, whatever the last digit of the product says.
    needed = max(1, math.ceil(recall * len(found) - 1e-9))
    return float(found[needed - 1])


def flag(
    scores: Floats, positive: Bools, threshold: float, *, weights: Floats | None = None
) -> Flagged:
    """Return what a threshold flags.

    Args:
        scores: ``(example,)``: how likely each is positive.
        positive: ``(example,)``: whether it is.
        threshold: Least score that is flagged.
        weights: ``(example,)``: how much each counts, as
            :func:`recap.metrics.calibration.prior_weights` gives it; ``None``: all the same.
    """
    weight = np.ones(len(scores)) if weights is None else weights
    flagged = scores >= threshold
    n_flagged, n_positive = float(weight[flagged].sum()), float(weight[positive].sum())
    found = float(weight[flagged & positive].sum())
    return Flagged(
        threshold=threshold,
        share=n_flagged / float(weight.sum()),
        recall=found / n_positive if n_positive else None,
        precision=found / n_flagged if n_flagged else None,
    )
