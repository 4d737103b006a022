"""Tests of two means: paired, of folds that share training examples, of two groups, Welch's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from recap.analysis.spread import vanishes

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class TTest:
    """A difference of two means, first minus second, and its two-sided test.

    ``t``, ``p`` and the interval are ``None`` where the scores do not vary.
    """

    difference: float
    low: float | None
    """Lower end of the difference's interval."""
    high: float | None
    t: float | None
    df: float
    p: float | None


def paired_t_test(first: Floats, second: Floats, confidence: float = 0.95) -> TTest:
    """Return the test of two measurements of the same participants, at least two of them."""
    n = len(first)
    difference = first - second
    spread = float(difference.std(ddof=1))
    if vanishes(spread, first, second):
        spread = 0
    return _test(float(difference.mean()), spread / math.sqrt(n), n - 1, confidence)


def corrected_t_test(
    first: Floats, second: Floats, *, test_to_train: float, confidence: float = 0.95
) -> TTest:
    """Return the corrected resampled t-test of two systems' scores on the same folds.

    Folds share training examples, so that their differences vary less than those of fresh data
    would; the plain paired test takes this for certainty. With ``n`` differences of variance
    ``s²``, ``t = mean / sqrt((1 / n + test_to_train) s²)`` at ``n - 1`` degrees of freedom (Nadeau
    & Bengio 2003, Inference for the generalization error, Machine Learning 52, section 3; for
    cross-validation repeated ``r`` times with ``k`` folds ``n = r k``: Bouckaert & Frank 2004,
    Evaluating the replicability of significance tests for comparing learning algorithms).

    Args:
        first: Scores ``(n,)`` of one system, a fold each, at least two.
        second: Those of the other.
        test_to_train: Tested examples of a fold as a share of the others: ``1 / (k - 1)``.
        confidence: Of the interval of the difference.

    >>> found = corrected_t_test(np.array([0.9, 0.8]), np.array([0.6, 0.7]), test_to_train=1.0)
    >>> round(found.t or 0, 4)  # 0.2 / sqrt((1/2 + 1) * 0.02)
    1.1547
    """
    n = len(first)
    difference = first - second
    spread = float(difference.std(ddof=1))
    if vanishes(spread, first, second):
        spread = 0
    error = spread * math.sqrt(1 / n + test_to_train)
    return _test(float(difference.mean()), error, n - 1, confidence)


def independent_t_test(
    first: Floats, second: Floats, *, welch: bool = False, confidence: float = 0.95
) -> TTest:
    """Return the test of two groups, each of at least two.

    Args:
        first: Scores of one group.
        second: Scores of the other.
        welch: Whether variances may differ (Welch 1947; degrees of freedom by Satterthwaite);
            otherwise they are pooled (Student).
        confidence: Of the interval of the difference.
    """
    n_first, n_second = len(first), len(second)
    var_first, var_second = float(first.var(ddof=1)), float(second.var(ddof=1))
    df: float = n_first + n_second - 2
    if vanishes(math.sqrt(max(var_first, var_second)), first, second):
        squared_error = 0.0
    elif welch:
        share_first, share_second = var_first / n_first, var_second / n_second
        squared_error = share_first + share_second
        df = squared_error**2 / (share_first**2 / (n_first - 1) + share_second**2 / (n_second - 1))
    else:
        pooled = ((n_first - 1) * var_first + (n_second - 1) * var_second) / df
        squared_error = pooled * (1 / n_first + 1 / n_second)
    return _test(float(first.mean() - second.mean()), math.sqrt(squared_error), df, confidence)


def t_of_d(d: float, n_first: int, n_second: int) -> float:
    """Return the t of two groups that a published Cohen's d stands for.

    >>> round(t_of_d(0.59, 31, 31), 2)
    2.32
    """
    return d / math.sqrt(1 / n_first + 1 / n_second)


def _test(difference: float, standard_error: float, df: float, confidence: float) -> TTest:
    if standard_error <= 0:
        return TTest(difference=difference, low=None, high=None, t=None, df=df, p=None)
    reach = float(stats.t.isf((1 - confidence) / 2, df)) * standard_error
    t = difference / standard_error
    return TTest(
        difference=difference,
        low=difference - reach,
        high=difference + reach,
        t=t,
        df=df,
        p=2 * float(stats.t.sf(abs(t), df)),
    )
