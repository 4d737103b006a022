"""What a mixed analysis of variance assumes of its scores, tested."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from recap.analysis.spread import vanishes

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """A test statistic, its degrees of freedom and its p; all ``None`` where it does not exist."""

    statistic: float | None
    df: tuple[float, ...] | None
    p: float | None


_NONE = Check(statistic=None, df=None, p=None)


def shapiro(scores: Floats) -> Check:
    """Return the Shapiro-Wilk test of normality; it needs three scores that are not all the same.

    The statistic is W (scipy's ``shapiro``).
    """
    if len(scores) < 3 or vanishes(float(np.ptp(scores)), scores):
        return _NONE
    found = stats.shapiro(scores)
    return Check(statistic=float(found.statistic), df=None, p=float(found.pvalue))


def levene(groups: list[Floats]) -> Check:
    """Return Levene's test of equal variances about the medians (Brown & Forsythe 1974).

    The statistic is F. It does not exist where the distances
    from the median do not vary within any group.
    """
    if all(vanishes(float(np.ptp(np.abs(g - np.median(g)))), g) for g in groups):
        return _NONE
    found = stats.levene(*groups, center="median")
    df = (len(groups) - 1.0, sum(map(len, groups)) - float(len(groups)))
    return Check(statistic=float(found.statistic), df=df, p=float(found.pvalue))


def box_m(groups: list[Floats]) -> Check:
    """Return Box's M test of equal covariance matrices (Box 1949, chi-squared approximation).

    The statistic is chi-squared (Rencher 2002, section 7.3.2). It does not exist where a group's
    covariance matrix is singular.

    Args:
        groups: One ``(participants, phases)`` a group.
    """
    n_phases, n_groups = groups[0].shape[1], len(groups)
    freedom = np.array([len(group) - 1.0 for group in groups])
    if freedom.min() < n_phases:
        return _NONE
    covariances = np.stack([np.cov(group, rowvar=False) for group in groups])
    pooled = np.tensordot(freedom, covariances, axes=1) / freedom.sum()
    scale = np.prod(np.diagonal(covariances, axis1=1, axis2=2), axis=1)
    determinants = np.linalg.det(covariances)
    if np.any(determinants <= 1e-12 * scale):
        return _NONE
    logs = np.log(determinants)
    m = float(freedom.sum() * np.log(np.linalg.det(pooled)) - freedom @ logs)
    correction = float((1 / freedom).sum() - 1 / freedom.sum())
    correction *= (2 * n_phases**2 + 3 * n_phases - 1) / (6 * (n_phases + 1) * (n_groups - 1))
    df = n_phases * (n_phases + 1) * (n_groups - 1) / 2
    statistic = (1 - correction) * m
    return Check(statistic=statistic, df=(df,), p=float(stats.chi2.sf(statistic, df)))
