"""Standardized differences of two means with exact intervals; power and sample size.

Names follow Lakens (2013): d_s between two groups, d_z and d_av between two measurements of the
same participants. Each has a Hedges' g that takes out the bias of small samples. Power and sample
size are those of the interaction of group and phase.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import optimize, special, stats

from recap.metrics.scalar import Floats
from recap.statistics.hypothesis_tests import vanishes


@dataclass(frozen=True, kw_only=True, slots=True)
class EffectSize:
    """A standardized difference, its interval, and both again without the bias of small samples.

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
    """Return an effect size whose t, with ``df``, is ``d / unit``; g is as in Hedges (1981)."""
    low, high = (unit * bound for bound in noncentrality_interval(d / unit, df, confidence))
    factor = 1 - 3 / (4 * df_g - 1)
    return EffectSize(
        d=d, low=low, high=high, g=factor * d, g_low=factor * low, g_high=factor * high
    )


_MOST = 10_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class InteractionDesign:
    """A design with groups and repeated measures, and how its interaction will be tested."""

    n_groups: int = 2
    n_phases: int = 2
    rho: float
    """Correlation between the phases, below 1."""
    alpha: float = 0.05

    @property
    def df(self) -> int:
        """Degrees of freedom of the interaction."""
        return (self.n_groups - 1) * (self.n_phases - 1)

    def df_error(self, n: int) -> int:
        """Degrees of freedom of its error term with ``n`` participants in all groups together."""
        return (n - self.n_groups) * (self.n_phases - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleSize:
    """The participants that a wanted power asks for, and the power that these give."""

    n: int
    """In all groups together, equally many in each."""
    power: float


def interaction_noncentrality(f: float, n: int, design: InteractionDesign) -> float:
    """Return the noncentrality of the interaction's F, ``f^2 n m / (1 - rho)``.

    This is G*Power's convention (Faul et al. 2007, "ANOVA: Repeated measures, within-between
    interaction", effect size "as in G*Power 3.0"; sphericity holds), in which ``f`` is measured
    against the spread of one phase: Cohen's .10, .25 and .40 belong here.

    Args:
        f: Cohen's f.
        n: Participants in all groups together.
        design: Groups, phases and their correlation.
    """
    return f**2 * n * design.n_phases / (1 - design.rho)


def interaction_power(f: float, n: int, design: InteractionDesign) -> float:
    """Return the power of the interaction's F test, by :func:`interaction_noncentrality`."""
    return power_of_noncentrality(interaction_noncentrality(f, n, design), n, design)


def power_of_noncentrality(noncentrality: float, n: int, design: InteractionDesign) -> float:
    """Return the probability that F, with this noncentrality, is significant at ``alpha``."""
    df, df_error = design.df, design.df_error(n)
    critical = stats.f.isf(design.alpha, df, df_error)
    return float(stats.ncf.sf(critical, df, df_error, noncentrality))


def interaction_sample_size(f: float, power: float, design: InteractionDesign) -> SampleSize | None:
    """Return the smallest sample, equally many in each group, that has at least this power.

    ``None`` where ten million participants would not do.

    >>> interaction_sample_size(0.25, 0.80, InteractionDesign(rho=0.5)).n
    34

    Args:
        f: Cohen's f, as for :func:`interaction_noncentrality`; above 0.
        power: Between ``alpha`` and 1.
        design: Groups, phases and their correlation.
    """
    groups = design.n_groups

    def enough(size: int) -> bool:
        return interaction_power(f, size * groups, design) >= power

    high = 2
    while not enough(high):
        high *= 2
        if high * groups > _MOST:
            return None
    n = groups * bisect_left(range(high), True, lo=high // 2 + 1, key=enough)
    return SampleSize(n=n, power=interaction_power(f, n, design))
