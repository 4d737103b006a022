"""Scores of groups of predictions, with intervals that resample whole sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recap.analysis.intervals import Floats, Interval, resampled, with_intervals
from recap.records import Prediction


@dataclass(frozen=True, kw_only=True)
class GroupScores:
    """The scores of one group, over all its predictions together, whatever their fold."""

    group: str
    n: int
    sessions: int
    """Sessions that the predictions come from; one without a session is its own."""
    support: Mapping[str, int]
    """Gold examples of each label that has any."""
    macro_f1: Interval
    """Mean F1 of the labels with gold examples in the group (in each resample: in that resample);
    small groups lack labels, and would otherwise be marked down for it."""
    accuracy: Interval
    overconfidence: Interval
    """Mean probability of the answered label minus the share of right answers, over predictions
    that have both; above 0: surer than right. No value where no prediction has."""


def scores_by_group(
    predictions: Sequence[Prediction],
    group_of: Mapping[str, str],
    *,
    labels: Sequence[str],
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[GroupScores, ...]:
    """Return the scores of each group that occurs, in the order of ``group_of``'s values.

    Percentile intervals of a bootstrap of the group's own sessions; none for a group of a single
    session.

    Args:
        predictions: Each example once.
        group_of: The group of each example id; predictions without one are left out.
        labels: The task's labels.
        resamples: Of the bootstrap; 0 gives no intervals.
        confidence: Level of the intervals.
        seed: Of the bootstrap.
    """
    members: dict[str, list[Prediction]] = {group: [] for group in group_of.values()}
    for prediction in predictions:
        if prediction.id in group_of:
            members[group_of[prediction.id]].append(prediction)
    return tuple(
        _scores(group, own, labels, resamples, confidence, seed)
        for group, own in members.items()
        if own
    )


def _scores(
    group: str,
    predictions: Sequence[Prediction],
    labels: Sequence[str],
    resamples: int,
    confidence: float,
    seed: int,
) -> GroupScores:
    sums = _sums_of_sessions(predictions, labels)
    n_labels, n_sessions = len(labels), len(sums)

    def figures(weights: Floats) -> Floats:
        return _figures(weights @ sums, n_labels)

    intervals = with_intervals(
        figures(np.ones((1, n_sessions)))[0],
        lambda rng, size: figures(resampled(rng, n_sessions, size)),
        resamples=resamples if n_sessions > 1 else 0,
        confidence=confidence,
        seed=seed,
    )
    support = sums[:, n_labels : 2 * n_labels].sum(axis=0)
    return GroupScores(
        group=group,
        n=len(predictions),
        sessions=n_sessions,
        support={label: int(n) for label, n in zip(labels, support, strict=True) if n},
        macro_f1=intervals[0],
        accuracy=intervals[1],
        overconfidence=intervals[2],
    )


def _sums_of_sessions(predictions: Sequence[Prediction], labels: Sequence[str]) -> Floats:
    """Return counts a session: right, gold and answered of each label, then five in all.

    The five: predictions, right ones, those with a probability of their answer, those
    probabilities, and the right ones among them.
    """
    place = {label: index for index, label in enumerate(labels)}
    rows: dict[str, int] = {}
    for p in predictions:
        rows.setdefault(_session(p), len(rows))
    n = len(labels)
    sums = np.zeros((len(rows), 3 * n + 5))
    for p in predictions:
        row, right = sums[rows[_session(p)]], p.label == p.gold
        row[n + place[p.gold]] += 1
        if p.label is not None:
            row[2 * n + place[p.label]] += 1
        row[place[p.gold]] += right
        row[3 * n : 3 * n + 2] += (1, right)
        held = held_probability(p, p.label)
        if held is not None:
            row[3 * n + 2 :] += (1, held, right)
    return sums


def _figures(sums: Floats, n: int) -> Floats:
    """Return macro-F1, accuracy and overconfidence ``(resamples, 3)``, NaN where undefined."""
    right, gold, answered = sums[:, :n], sums[:, n : 2 * n], sums[:, 2 * n : 3 * n]
    counted = gold > 0
    f1 = np.divide(2 * right, gold + answered, out=np.zeros_like(gold), where=counted)
    total, hits, sure, held, sure_hits = sums[:, 3 * n :].T
    return np.column_stack(
        [
            _ratio(f1.sum(axis=1), counted.sum(axis=1)),
            _ratio(hits, total),
            _ratio(held - sure_hits, sure),
        ]
    )


def _ratio(part: Floats, whole: Floats) -> Floats:
    none = np.full(len(part), np.nan)
    shares: Floats = np.divide(part, whole, out=none, where=whole > 0)
    return shares


def held_probability(prediction: Prediction, label: str | None) -> float | None:
    """Return the probability that a prediction gives a label, ``None`` where it gives none."""
    if prediction.probabilities is None or label is None:
        return None
    return prediction.probabilities.get(label)


def _session(prediction: Prediction) -> str:
    # An id may equal another example's session.
    return f"s {prediction.session}" if prediction.session else f"e {prediction.id}"
