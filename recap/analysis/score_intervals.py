"""Intervals of macro-F1, accuracy and the F1 of each label, over whole sessions.

They are intervals of the scores that all folds' predictions have together (pooled), not of the mean
over folds: what these models would score on all the sessions that the data are a sample of. How
much another training would change is no part of them; that is what the spread over folds and the
corrected t-test are about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recap.analysis.cluster_bootstrap import cluster_bootstrap
from recap.analysis.intervals import Floats, Interval

FEW_SESSIONS = 50
"""With fewer sessions than this intervals may cover less than they say (docs/significance.md)."""

FEWEST_SESSIONS_OF_A_LABEL = 10
"""A label that occurs in fewer sessions than this gets no interval: too many resamples lack it."""


@dataclass(frozen=True, kw_only=True)
class ScoreIntervals:
    """Pooled scores with their intervals."""

    macro_f1: Interval
    accuracy: Interval
    per_label: Mapping[str, Interval]
    """F1 of each label."""
    n_units: int
    """Sessions that were resampled (examples, where no session is known)."""


@dataclass(frozen=True, kw_only=True)
class ScoreDifferences:
    """Differences of pooled scores, first minus second; the same sessions are drawn for both."""

    macro_f1: Interval
    macro_f1_p: float | None
    """Two-sided; ``None`` where no session makes a difference."""
    accuracy: Interval
    accuracy_p: float | None
    n_units: int


def score_intervals(
    confusions: npt.ArrayLike,
    labels: Sequence[str],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> ScoreIntervals:
    """Return pooled scores with studentised bootstrap intervals clustered by session.

    Args:
        confusions: Counts ``(sessions, n_labels gold, n_labels + 1 predicted)``.
        labels: Their names.
        resamples: Of the bootstrap; 0 gives no intervals.
        confidence: Level of the intervals.
        seed: Of the bootstrap.
    """
    n = len(labels)
    top, bottom = ratio_parts(confusions)
    weights = np.vstack([_macro_f1(n), _accuracy(n), np.eye(n, n + 1)])
    found = cluster_bootstrap(top, bottom, weights, resamples=resamples, seed=seed)
    sessions = (bottom[:, :n] > 0).sum(axis=0)
    per_label = [found.interval(2 + i, confidence) for i in range(n)]
    return ScoreIntervals(
        macro_f1=found.interval(0, confidence),
        accuracy=found.interval(1, confidence),
        per_label={
            label: interval
            if there >= FEWEST_SESSIONS_OF_A_LABEL
            else Interval(value=interval.value)
            for label, interval, there in zip(labels, per_label, sessions, strict=True)
        },
        n_units=found.n_units,
    )


def difference_intervals(
    first: Sequence[npt.ArrayLike],
    second: Sequence[npt.ArrayLike],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> ScoreDifferences:
    """Return the differences of two systems' pooled scores, with paired bootstrap intervals.

    Args:
        first: One or several runs of the first system, each counts ``(sessions, n_labels,
            n_labels + 1)`` with the same sessions in the same order; the scores of several runs
            are averaged.
        second: Those of the second.
        resamples: Of the bootstrap; 0 gives no intervals.
        confidence: Level of the intervals.
        seed: Of the bootstrap.
    """
    parts = [ratio_parts(run) for run in (*first, *second)]
    n = parts[0][0].shape[1] - 1
    signs = [1 / len(first)] * len(first) + [-1 / len(second)] * len(second)
    weights = np.vstack(
        [np.concatenate([sign * figure(n) for sign in signs]) for figure in (_macro_f1, _accuracy)]
    )
    top, bottom = (np.hstack([part[i] for part in parts]) for i in (0, 1))
    found = cluster_bootstrap(top, bottom, weights, resamples=resamples, seed=seed)
    bounds = (-1.0, 1.0)
    return ScoreDifferences(
        macro_f1=found.interval(0, confidence, bounds=bounds),
        macro_f1_p=found.p_of_zero(0),
        accuracy=found.interval(1, confidence, bounds=bounds),
        accuracy_p=found.p_of_zero(1),
        n_units=found.n_units,
    )


def ratio_parts(confusions: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return numerators and denominators ``(sessions, n_labels + 1)``: F1 a label, then accuracy.

    The F1 of a label is twice its correct answers over its gold examples plus the answers that name
    it.
    """
    counts = np.asarray(confusions, dtype=np.float64)
    correct = np.diagonal(counts, axis1=1, axis2=2)
    mentions = counts.sum(axis=2) + counts[:, :, :-1].sum(axis=1)
    total = counts.sum(axis=(1, 2))[:, None]
    top = np.hstack([2 * correct, correct.sum(axis=1, keepdims=True)])
    return top, np.hstack([mentions, total])


def _macro_f1(n: int) -> Floats:
    return np.append(np.full(n, 1 / n), 0.0)


def _accuracy(n: int) -> Floats:
    return np.append(np.zeros(n), 1.0)
