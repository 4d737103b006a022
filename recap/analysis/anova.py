"""The mixed analysis of variance of a study with groups and phases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from recap.analysis.spread import vanishes

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """One line of an analysis of variance: an effect, tested against its error term.

    Where the error term is zero there is no F: ``f`` and ``p`` are ``None``.
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


def mixed_anova(scores: Floats, group: Integers) -> MixedAnova:
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

    ss_group = n_phases * float(((by_group[group] - grand) ** 2).sum())
    ss_between_error = n_phases * float(((by_participant - by_group[group]) ** 2).sum())
    ss_phase = n * float(((by_phase - grand) ** 2).sum())
    unweighted = cells.mean(axis=0)
    harmonic = n_groups**2 / (1 / np.bincount(group)).sum()
    ss_unweighted = float(harmonic * ((unweighted - unweighted.mean()) ** 2).sum())
    shift = cells - by_group[:, None]
    ss_interaction = float(((shift[group] - (by_phase - grand)) ** 2).sum())
    residual = (scores - by_participant[:, None]) - shift[group]
    ss_within_error = float((residual**2).sum())
    if vanishes(float(np.abs(residual).max()), scores):
        ss_within_error = 0.0

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


def partial_eta_squared(f: float, df: int, df_error: int) -> float:
    """Return the partial eta-squared that a published F stands for (Lakens 2013, equation 13).

    >>> round(partial_eta_squared(17.29, 1, 60), 4)
    0.2237
    """
    return f * df / (f * df + df_error)


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
