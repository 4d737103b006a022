"""Ratings of rationales on a scale: means, and how far raters agree."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from recap.analysis.coefficients import Floats, cohen_kappa, krippendorff_alpha


@dataclass(frozen=True, kw_only=True, slots=True)
class Rating:
    """The points that one rater gave one example on one criterion."""

    id: str
    rater: str
    criterion: str
    points: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RaterMean:
    """The mean of one rater's points."""

    rater: str
    n: int
    mean: float
    std: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class CriterionRatings:
    """What raters said on one criterion; a figure is ``None`` where it is undefined."""

    criterion: str
    examples: int
    n: int
    """Ratings."""
    mean: float | None
    std: float | None
    """Sample standard deviation (ddof 1) over all ratings."""
    counts: tuple[int, ...]
    """Ratings of 1 point, of 2, and so on."""
    raters: tuple[RaterMean, ...]
    rated_by_all: int
    """Examples that every rater rated, over which the intraclass correlations go."""
    alpha_ordinal: float | None
    """Krippendorff's alpha for ranks; missing ratings are allowed."""
    weighted_kappa: float | None
    """Cohen's kappa with quadratic weights, the mean over pairs of raters."""
    icc_single: float | None
    """ICC(2,1): absolute agreement of single raters, two-way random (Shrout & Fleiss 1979)."""
    icc_mean: float | None
    """ICC(2,k): the same of the raters' mean."""
    exact_agreement: float | None
    """Share of pairs of ratings of one example that are equal."""
    within_one: float | None
    """Share of such pairs at most one point apart."""


def summarize_ratings(
    ratings: Sequence[Rating], *, criteria: Sequence[str], points: int = 5
) -> tuple[CriterionRatings, ...]:
    """Return means and agreement on every criterion.

    Args:
        ratings: At most one of each rater for each example and criterion.
        criteria: The criteria in order.
        points: The scale goes from 1 to this.
    """
    raters = tuple(dict.fromkeys(rating.rater for rating in ratings))
    return tuple(
        _summary(name, [r for r in ratings if r.criterion == name], raters, points)
        for name in criteria
    )


def intraclass_correlation(values: Floats) -> tuple[float | None, float | None]:
    """Return ICC(2,1) and ICC(2,k) of ratings of shape (examples, raters) without gaps.

    Two-way random effects, absolute agreement (Shrout & Fleiss 1979, formulas for case 2); ``None``
    with fewer than two examples or raters, or where all ratings are equal.
    """
    n, k = values.shape
    if n < 2 or k < 2 or np.ptp(values) == 0:
        return None, None
    grand = values.mean()
    rows = k * ((values.mean(axis=1) - grand) ** 2).sum() / (n - 1)
    columns = n * ((values.mean(axis=0) - grand) ** 2).sum() / (k - 1)
    residual = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + grand
    error = (residual**2).sum() / ((n - 1) * (k - 1))
    single = rows + (k - 1) * error + k * (columns - error) / n
    mean = rows + (columns - error) / n
    return _ratio(rows - error, single), _ratio(rows - error, mean)


def _summary(
    criterion: str, ratings: Sequence[Rating], raters: Sequence[str], points: int
) -> CriterionRatings:
    ids = tuple(dict.fromkeys(rating.id for rating in ratings))
    row = {identifier: place for place, identifier in enumerate(ids)}
    table = np.zeros((len(ids), len(raters)), dtype=np.int64)
    for rating in ratings:
        table[row[rating.id], raters.index(rating.rater)] = rating.points
    given = [rating.points for rating in ratings]
    counts = np.stack([(table == value).sum(axis=1) for value in range(1, points + 1)], axis=1)
    complete = table[(table > 0).all(axis=1)]
    single, mean = intraclass_correlation(complete.astype(np.float64))
    confusions = _confusions(table, points)
    distance = np.abs(np.subtract.outer(np.arange(points), np.arange(points)))
    pooled = confusions.sum(axis=0)
    kappas = cohen_kappa(confusions, "quadratic")
    defined = kappas[np.isfinite(kappas)]
    alpha = krippendorff_alpha(counts, "ordinal")
    return CriterionRatings(
        criterion=criterion,
        examples=len(ids),
        n=len(given),
        mean=statistics.fmean(given) if given else None,
        std=statistics.stdev(given) if len(given) > 1 else None,
        counts=tuple(int(n) for n in counts.sum(axis=0)),
        raters=tuple(_rater(name, ratings) for name in raters if _points_of(name, ratings)),
        rated_by_all=len(complete),
        alpha_ordinal=alpha if np.isfinite(alpha) else None,
        weighted_kappa=float(defined.mean()) if len(defined) else None,
        icc_single=single,
        icc_mean=mean,
        exact_agreement=_ratio(float(pooled[distance == 0].sum()), float(pooled.sum())),
        within_one=_ratio(float(pooled[distance <= 1].sum()), float(pooled.sum())),
    )


def _confusions(table: NDArray[np.int64], points: int) -> Floats:
    """Return the ratings of every pair of raters, of shape (pairs, points, points)."""
    pairs = list(combinations(range(table.shape[1]), 2))
    confusions = np.zeros((len(pairs), points, points))
    for place, (first, second) in enumerate(pairs):
        both = table[(table[:, first] > 0) & (table[:, second] > 0)]
        np.add.at(confusions[place], (both[:, first] - 1, both[:, second] - 1), 1)
    return confusions


def _points_of(rater: str, ratings: Sequence[Rating]) -> list[int]:
    return [rating.points for rating in ratings if rating.rater == rater]


def _rater(rater: str, ratings: Sequence[Rating]) -> RaterMean:
    own = _points_of(rater, ratings)
    std = statistics.stdev(own) if len(own) > 1 else None
    return RaterMean(rater=rater, n=len(own), mean=statistics.fmean(own), std=std)


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
