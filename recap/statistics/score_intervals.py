"""Pooled scores and their differences, with the intervals of :mod:`recap.statistics.clusters`.

Accuracy, the F1 of a label (``2 correct / (gold + answered)``) and macro-F1 are ratios of sums over
clusters, or means of such ratios.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recap.metrics.scalar import Floats
from recap.statistics.clusters import Interval, jackknife


@dataclass(frozen=True, kw_only=True)
class ScoreIntervals:
    """Pooled scores with their intervals."""

    macro_f1: Interval
    accuracy: Interval
    per_label: Mapping[str, Interval]
    """F1 of each label; no value for one without gold examples."""
    n_units: int
    """Clusters."""
    kind: str
    """What they are."""


@dataclass(frozen=True, kw_only=True)
class ScoreDifferences:
    """Differences of pooled scores, first minus second, over the same clusters."""

    macro_f1: Interval
    macro_f1_p: float | None
    """Two-sided, with the interval; ``None`` where there is none."""
    accuracy: Interval
    accuracy_p: float | None
    n_units: int
    kind: str


def score_intervals(
    confusions: npt.ArrayLike, labels: Sequence[str], *, kind: str, confidence: float | None
) -> ScoreIntervals:
    """Return pooled scores with intervals; a label's rest on the clusters that mention it.

    Args:
        confusions: Counts ``(clusters, n_labels gold, n_labels + 1 predicted)``.
        labels: Their names.
        kind: What the clusters are.
        confidence: Level of the intervals; ``None``: none.
    """
    n = len(labels)
    top, bottom = ratio_parts(confusions)
    everywhere = np.ones((len(top), 2), dtype=bool)
    found = jackknife(
        np.hstack([top, bottom]),
        lambda sums: _scores(sums, n),
        kind=kind,
        parts=np.hstack([everywhere, bottom[:, :n] > 0]),
    )
    macro_f1, accuracy, *per_label = found.intervals(confidence)
    gold = np.asarray(confusions).sum(axis=(0, 2))
    return ScoreIntervals(
        macro_f1=macro_f1,
        accuracy=accuracy,
        per_label={
            label: one if there else Interval(value=None, reason="no gold example")
            for label, one, there in zip(labels, per_label, gold, strict=True)
        },
        n_units=len(top),
        kind=kind,
    )


def difference_intervals(
    first: Sequence[npt.ArrayLike],
    second: Sequence[npt.ArrayLike],
    *,
    kind: str,
    confidence: float | None,
) -> ScoreDifferences:
    """Return the differences of two systems' pooled scores, each with its interval and p.

    Args:
        first: One or several runs of the first system, each counts ``(clusters, n_labels,
            n_labels + 1)`` with the same clusters in the same order; the scores of several runs
            are averaged.
        second: Those of the second.
        kind: What the clusters are.
        confidence: Level of the intervals; ``None``: neither intervals nor p.
    """
    parts = [np.hstack(ratio_parts(run)) for run in (*first, *second)]
    width = parts[0].shape[1]
    n = width // 2 - 1
    signs = [1 / len(first)] * len(first) + [-1 / len(second)] * len(second)

    def differences(sums: Floats) -> Floats:
        runs = (sums[:, start : start + width] for start in range(0, sums.shape[1], width))
        scores = (sign * _scores(run, n) for sign, run in zip(signs, runs, strict=True))
        return np.asarray(sum(scores))[:, :2]

    found = jackknife(np.hstack(parts), differences, kind=kind, scale="signed")
    macro_f1, accuracy = found.intervals(confidence)
    return ScoreDifferences(
        macro_f1=macro_f1,
        macro_f1_p=None if confidence is None else found.p_of_zero(0),
        accuracy=accuracy,
        accuracy_p=None if confidence is None else found.p_of_zero(1),
        n_units=len(parts[0]),
        kind=kind,
    )


def ratio_parts(confusions: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return numerators and denominators ``(clusters, n_labels + 1)``: F1 a label, then accuracy.

    The F1 of a label is twice its correct answers over its gold examples plus the answers that name
    it.
    """
    counts = np.asarray(confusions, dtype=np.float64)
    correct = np.diagonal(counts, axis1=1, axis2=2)
    mentions = counts.sum(axis=2) + counts[:, :, :-1].sum(axis=1)
    total = counts.sum(axis=(1, 2))[:, None]
    top = np.hstack([2 * correct, correct.sum(axis=1, keepdims=True)])
    return top, np.hstack([mentions, total])


def _scores(sums: Floats, n: int) -> Floats:
    """Return macro-F1, accuracy and the F1 of each of ``n`` labels; 0 where one has no mention."""
    top, bottom = sums[:, : n + 1], sums[:, n + 1 :]
    ratios = np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
    return np.column_stack([ratios[:, :n].mean(axis=1), ratios[:, n], ratios[:, :n]])
