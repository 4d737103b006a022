"""Standardised differences of two means, with exact intervals.

Names follow Lakens (2013): d_s between two groups, d_z and d_av between two measurements of the
same participants. Each has a Hedges' g that takes out the bias of small samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from recap.analysis.spread import vanishes

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class EffectSize:
    """A standardised difference, its interval, and both again without the bias of small samples.

    Every figure is ``None`` where the scores that it is divided by do not vary.
    """

    d: float | None
    low: float | None
    high: float | None
    g: float | None
    """Hedges' g: ``d`` times 1 - 3 / (4 df - 1)."""
    g_low: float | None
    g_high: float | None


_NONE = EffectSize(d=None, low=None, high=None, g=None, g_low=None, g_high=None)


def d_s(first: Floats, second: Floats, confidence: float = 0.95) -> EffectSize:
    """Return Cohen's d of two groups, first minus second, over their pooled SD.

    The interval inverts the noncentral t (Cumming & Finch 2001); it is exact for normal scores of
    equal variance. g uses n1 + n2 - 2 degrees of freedom.

    Args:
        first: Scores of one group, at least two.
        second: Scores of the other, at least two.
        confidence: Of the interval.
    """
    n_first, n_second = len(first), len(second)
    df = n_first + n_second - 2
    pooled = ((n_first - 1) * first.var(ddof=1) + (n_second - 1) * second.var(ddof=1)) / df
    if vanishes(math.sqrt(pooled), first, second):
        return _NONE
    d = float((first.mean() - second.mean()) / math.sqrt(pooled))
    unit = math.sqrt(1 / n_first + 1 / n_second)
    return _effect_size(d, unit, df, df, confidence)


def d_z(first: Floats, second: Floats, confidence: float = 0.95) -> EffectSize:
    """Return the mean of the paired differences, first minus second, over their SD.

    The interval inverts the noncentral t; it is exact for normal differences. g uses n - 1 degrees
    of freedom.

    Args:
        first: ``(participants,)``, one measurement of each.
        second: ``(participants,)``, the other.
        confidence: Of the interval.
    """
    n = len(first)
    difference = first - second
    spread = float(difference.std(ddof=1))
    if vanishes(spread, first, second):
        return _NONE
    return _effect_size(
        float(difference.mean()) / spread, 1 / math.sqrt(n), n - 1, n - 1, confidence
    )


def d_av(first: Floats, second: Floats, confidence: float = 0.95) -> EffectSize:
    """Return the mean of the paired differences over the root of the two variances' mean.

    This denominator is Cumming's (2012), as pingouin's paired ``cohen``; the interval
    is that of Algina & Keselman (2003), close but not exact. g uses 2 n - 2 degrees of freedom, as
    Lakens (2013) and pingouin do.

    Args:
        first: ``(participants,)``, one measurement of each.
        second: ``(participants,)``, the other.
        confidence: Of the interval.
    """
    n = len(first)
    both = float(first.var(ddof=1) + second.var(ddof=1))
    spread = float((first - second).std(ddof=1))
    if vanishes(min(spread, math.sqrt(both)), first, second):
        return _NONE
    d = float((first - second).mean()) / math.sqrt(both / 2)
    return _effect_size(d, spread / math.sqrt(n * both / 2), n - 1, 2 * n - 2, confidence)


def hedges_correction(df: int) -> float:
    """Return the factor that makes d unbiased, ``1 - 3 / (4 df - 1)`` (Hedges 1981)."""
    return 1 - 3 / (4 * df - 1)


def noncentrality_interval(t: float, df: int, confidence: float) -> tuple[float, float]:
    """Return the noncentralities under which ``t`` would be just too large and just too small."""
    tail = (1 - confidence) / 2
    return _noncentrality(t, df, 1 - tail), _noncentrality(t, df, tail)


def _noncentrality(t: float, df: int, below: float) -> float:
    """Return the noncentrality whose distribution has the share ``below`` under ``t``."""
    spreads, weights = _spreads(df)

    def excess(noncentrality: float) -> float:
        return float(weights @ special.ndtr(t * spreads - noncentrality)) - below

    # The noncentrality's own spread is about sqrt(1 + t^2 / (2 df)).
    step = 2 * math.sqrt(1 + t**2 / (2 * df)) * abs(float(special.ndtri(below))) + 1
    low, high = t - step, t + step
    while excess(low) < 0:
        low -= step
    while excess(high) > 0:
        high += step
    return float(optimize.brentq(excess, low, high, xtol=1e-12, rtol=1e-14))


@lru_cache(maxsize=8)
def _spreads(df: int) -> tuple[Floats, Floats]:
    """Return values of ``sqrt(chi2 / df)`` and their weights, to integrate over its distribution.

    Given that value s, the noncentral t is under t with the probability that a normal is under
    ``t s``; scipy's own ``nct`` has no value (nan) in far tails at small df (1.17).
    """
    tail = 1e-16
    low, high = np.sqrt(stats.chi2.ppf(tail, df) / df), np.sqrt(stats.chi2.isf(tail, df) / df)
    nodes, weights = np.polynomial.legendre.leggauss(64)
    edges = np.linspace(low, high, 33)
    half = np.diff(edges) / 2
    spreads = ((edges[:-1] + half)[:, None] + half[:, None] * nodes).ravel()
    density = stats.chi.pdf(spreads * math.sqrt(df), df) * math.sqrt(df)
    return spreads, (half[:, None] * weights).ravel() * density


def _effect_size(d: float, unit: float, df: int, df_g: int, confidence: float) -> EffectSize:
    """Return an effect size whose t, with ``df``, is ``d / unit``."""
    low, high = (unit * bound for bound in noncentrality_interval(d / unit, df, confidence))
    factor = hedges_correction(df_g)
    return EffectSize(
        d=d, low=low, high=high, g=factor * d, g_low=factor * low, g_high=factor * high
    )
