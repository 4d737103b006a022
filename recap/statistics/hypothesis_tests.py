"""Tests: t of two means, McNemar's, the mixed analysis of variance and what it assumes.

scipy's own t-tests sum in another order, which changes the last digit of published figures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from recap.metrics.scalar import Floats, Ints

_ROUNDING = 1e-13
"""Share of the largest score that rounding may amount to; doubles have 16 digits."""


def vanishes(spread: float, *scores: Floats) -> bool:
    """Whether a standard deviation or a range is nothing but rounding of the scores it is made of.

    The differences of 0.3 and 0.2, and of 0.2 and 0.1, differ by 3e-17; a mean divided by that is
    no effect.
    """
    return spread <= _ROUNDING * max(float(np.abs(part).max()) for part in scores)


def changes(before: Floats, after: Floats) -> Floats:
    """Return after minus before, all their mean where they differ by nothing but rounding."""
    found = after - before
    same = vanishes(float(np.ptp(found)), before, after)
    return np.full_like(found, found.mean()) if same else found


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
    mean, spread = _paired(first, second)
    return _test(mean, spread / math.sqrt(len(first)), len(first) - 1, confidence)


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
    n, (mean, spread) = len(first), _paired(first, second)
    return _test(mean, spread * math.sqrt(1 / n + test_to_train), n - 1, confidence)


def _paired(first: Floats, second: Floats) -> tuple[float, float]:
    """Return mean and SD of the differences; an SD of 0 where it is nothing but rounding."""
    spread = float((first - second).std(ddof=1))
    return float((first - second).mean()), 0.0 if vanishes(spread, first, second) else spread


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """One line of an analysis of variance: an effect, tested against its error term.

    Where the error term is zero there is no F: ``f`` and ``p`` are ``None``. Sums of squares at the
    level of rounding are zero.
    """

    sum_of_squares: float
    df: int
    error_sum_of_squares: float
    df_error: int
    f: float | None
    p: float | None
    partial_eta_squared: float | None
    """Effect over effect and its own error term."""
    generalized_eta_squared: float | None
    """Effect over effect and all error terms (Olejnik & Algina 2003, Bakeman 2005), with the group
    counted as manipulated."""

    @property
    def mean_square(self) -> float:
        """Sum of squares over degrees of freedom."""
        return self.sum_of_squares / self.df

    @property
    def error_mean_square(self) -> float:
        """The same of the error term."""
        return self.error_sum_of_squares / self.df_error


@dataclass(frozen=True, kw_only=True, slots=True)
class MixedAnova:
    """Effects of group (between), phase (within) and group by phase."""

    group: Effect
    phase: Effect
    """On means weighted by the groups' sizes."""
    phase_unweighted: Effect
    """On means in which every group counts alike (Type III); the same for groups of one size."""
    interaction: Effect


def mixed_anova(scores: Floats, group: Ints) -> MixedAnova:
    """Return the mixed analysis of variance of one score a participant and phase.

    ``phase`` is tested on means weighted by the groups' sizes, as pingouin's ``mixed_anova`` does
    (0.7.0; its sums of squares add up to the total), ``phase_unweighted`` as SPSS and R's afex do.
    Group and interaction are the same in both.

    Args:
        scores: ``(participants, phases)``, without gaps.
        group: ``(participants,)``, each the index of a group; every group has members.
    """
    n, n_phases = scores.shape
    n_groups = int(group.max()) + 1
    grand = scores.mean()
    by_participant = scores.mean(axis=1)
    by_phase = scores.mean(axis=0)
    cells = np.stack([scores[group == g].mean(axis=0) for g in range(n_groups)])
    by_group = cells.mean(axis=1)

    def squares(weight: float, deviations: Floats) -> float:
        # Deviations that are rounding would otherwise be divided by one another: F = 48 of nothing.
        noise = vanishes(float(np.abs(deviations).max()), scores)
        return 0.0 if noise else float(weight * (deviations**2).sum())

    ss_group = squares(n_phases, by_group[group] - grand)
    ss_between_error = squares(n_phases, by_participant - by_group[group])
    ss_phase = squares(n, by_phase - grand)
    unweighted = cells.mean(axis=0)
    harmonic = n_groups**2 / (1 / np.bincount(group)).sum()
    ss_unweighted = squares(harmonic, unweighted - unweighted.mean())
    shift = cells - by_group[:, None]
    ss_interaction = squares(1, shift[group] - (by_phase - grand))
    ss_within_error = squares(1, (scores - by_participant[:, None]) - shift[group])

    df_between, df_within = n - n_groups, (n - n_groups) * (n_phases - 1)
    error = ss_between_error + ss_within_error
    return MixedAnova(
        group=_effect(ss_group, n_groups - 1, ss_between_error, df_between, error),
        phase=_effect(ss_phase, n_phases - 1, ss_within_error, df_within, error),
        phase_unweighted=_effect(ss_unweighted, n_phases - 1, ss_within_error, df_within, error),
        interaction=_effect(
            ss_interaction, (n_groups - 1) * (n_phases - 1), ss_within_error, df_within, error
        ),
    )


def _effect(ss: float, df: int, ss_error: float, df_error: int, all_error: float) -> Effect:
    f = (ss / df) / (ss_error / df_error) if ss_error > 0 else None
    return Effect(
        sum_of_squares=ss,
        df=df,
        error_sum_of_squares=ss_error,
        df_error=df_error,
        f=f,
        p=None if f is None else float(stats.f.sf(f, df, df_error)),
        partial_eta_squared=ss / (ss + ss_error) if ss + ss_error > 0 else None,
        generalized_eta_squared=ss / (ss + all_error) if ss + all_error > 0 else None,
    )


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
    covariance matrix is singular, as where scores of a phase do not vary.

    Args:
        groups: One ``(participants, phases)`` a group.
    """
    n_phases, n_groups = groups[0].shape[1], len(groups)
    if any(vanishes(float(np.ptp(phase)), phase) for group in groups for phase in group.T):
        return _NONE
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


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """The examples on which two systems differ in being right, and the exact test."""

    both_right: int
    first_only: int
    """Examples that the first answers rightly and the second wrongly."""
    second_only: int
    both_wrong: int
    p: float | None
    """Two-sided; 1 where there is no discordant example, ``None`` with too few clusters."""


def mcnemar(first_right: npt.ArrayLike, second_right: npt.ArrayLike) -> McNemar:
    """Return the exact test that both systems are right equally often.

    Under the null hypothesis either of the two is the right one of a discordant pair with
    probability one half: a binomial test (McNemar 1947, Note on the sampling error of the
    difference between correlated proportions). It takes examples for independent.

    Args:
        first_right: Booleans ``(examples,)``.
        second_right: Booleans of the same examples.
    """
    first, second = np.asarray(first_right, dtype=bool), np.asarray(second_right, dtype=bool)
    first_only, second_only = int((first & ~second).sum()), int((~first & second).sum())
    discordant = first_only + second_only
    return McNemar(
        both_right=int((first & second).sum()),
        first_only=first_only,
        second_only=second_only,
        both_wrong=int((~first & ~second).sum()),
        p=float(stats.binomtest(first_only, discordant).pvalue) if discordant else 1.0,
    )
