"""Which labels are taken for which: ranked, the paper's two kinds, and rolled up to patterns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recap.analysis.intervals import Floats, Interval, resampled, with_intervals
from recap.records import Prediction, Scores
from recap.scoring.confusion import scores_from_confusion
from recap.taxonomy import Taxonomy

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """One label taken for another; ``predicted`` is ``None`` for unreadable answers."""

    gold: str
    predicted: str | None
    count: int
    share_of_gold: float
    """Of all examples with this gold label."""
    share_of_errors: float
    """Of all errors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of error: examples of some labels that were given one of others."""

    name: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class KindCount:
    """How often a kind of error was made."""

    kind: Kind
    n: int
    """Examples with one of the gold labels."""
    count: int
    share: Interval
    """Of those examples."""
    share_of_errors: float | None
    """Of all errors on those examples."""
    ids: tuple[str, ...]
    """Examples with this error, the surest first where probabilities are known."""


@dataclass(frozen=True, kw_only=True)
class PatternErrors:
    """Predictions with every label rolled up to its pattern."""

    patterns: tuple[str, ...]
    pattern_of: Mapping[str, str]
    scores: Scores
    """At the level of patterns."""
    errors: int
    """Readable answers that are wrong."""
    within: float | None
    """Share of these whose pattern is right."""
    within_by_chance: float | None
    """What that share would be if each were one of the other labels, as often as they are answered
    in all."""


SUBTLE = "subtle resistance read as collaboration"
HOPELESS = "hopelessness read as disagreement"

# Section 6.3 of the paper: category of the gold label, category that it is read as.
_NAMED = (
    (SUBTLE, "Resistance", "Collaboration"),
    (HOPELESS, "Pessimism", "Disagreeing"),
)


def rank_confusions(confusion: npt.ArrayLike, labels: Sequence[str]) -> tuple[Confusion, ...]:
    """Return all that was confused, most frequent first, unreadable answers among them.

    Args:
        confusion: Counts ``(n_labels gold, n_labels + 1 predicted)``, as in ``scores.json``.
        labels: Their names.
    """
    counts = np.asarray(confusion, dtype=np.int64)
    support = counts.sum(axis=1)
    errors = int(counts.sum() - np.trace(counts))
    names: list[str | None] = [*labels, None]
    found = [
        Confusion(
            gold=gold,
            predicted=predicted,
            count=int(counts[i, j]),
            share_of_gold=float(counts[i, j] / support[i]),
            share_of_errors=float(counts[i, j] / errors),
        )
        for i, gold in enumerate(labels)
        for j, predicted in enumerate(names)
        if i != j and counts[i, j]
    ]
    return tuple(sorted(found, key=lambda one: (-one.count, -one.share_of_gold)))


def named_kinds(taxonomy: Taxonomy, labels: Sequence[str]) -> tuple[Kind, ...]:
    """Return the paper's two kinds of errors, those of them that a task with these labels knows."""
    kinds = []
    for name, source, target in _NAMED:
        sources, targets = (_at_or_below(taxonomy, labels, top) for top in (source, target))
        if sources and targets:
            kinds.append(Kind(name=name, sources=sources, targets=targets))
    return tuple(kinds)


def count_kind(
    predictions: Iterable[Prediction],
    kind: Kind,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> KindCount:
    """Return how often a kind of error was made, with an interval that resamples sessions."""
    judged = [p for p in predictions if p.gold in kind.sources]
    wrong = [p for p in judged if p.label in kind.targets]
    sessions: dict[str, int] = {}
    for p in judged:
        sessions.setdefault(p.session or p.id, len(sessions))
    sums = np.zeros((len(sessions), 2))
    for p in judged:
        sums[sessions[p.session or p.id]] += (p.label in kind.targets, 1)

    def share(weights: Floats) -> Floats:
        part, whole = (weights @ sums).T
        none = np.full(len(part), np.nan)
        shares: Floats = np.divide(part, whole, out=none, where=whole > 0)
        return shares[:, None]

    n = len(sessions)
    [interval] = with_intervals(
        share(np.ones((1, n)))[0],
        lambda rng, size: share(resampled(rng, n, size)),
        resamples=resamples if n > 1 else 0,
        confidence=confidence,
        seed=seed,
    )
    errors = sum(p.label != p.gold for p in judged)
    return KindCount(
        kind=kind,
        n=len(judged),
        count=len(wrong),
        share=interval,
        share_of_errors=len(wrong) / errors if errors else None,
        ids=tuple(p.id for p in sorted(wrong, key=_doubt)),
    )


def roll_up(
    confusion: npt.ArrayLike, labels: Sequence[str], taxonomy: Taxonomy, *, task: str
) -> PatternErrors | None:
    """Return confusion and scores at the level of patterns; ``None`` where labels have none.

    A label's pattern is the category above it that its qualified name carries; a label without one
    (Collaboration) stands for itself.

    Args:
        confusion: Counts ``(n_labels gold, n_labels + 1 predicted)``.
        labels: Their names.
        taxonomy: Theirs.
        task: The task's name.
    """
    pattern_of = {label: taxonomy.pattern(label) or label for label in labels}
    patterns = tuple(dict.fromkeys(pattern_of.values()))
    if len(patterns) == len(labels):
        return None
    counts = np.asarray(confusion, dtype=np.int64)
    member = np.array([[pattern_of[label] == p for p in patterns] for label in labels])
    fold = member.astype(np.int64)
    rolled = np.column_stack([fold.T @ counts[:, :-1] @ fold, fold.T @ counts[:, -1]])
    answered = counts[:, :-1]
    same = fold @ fold.T
    wrong = answered * (1 - np.eye(len(labels), dtype=np.int64))
    errors = int(wrong.sum())
    return PatternErrors(
        patterns=patterns,
        pattern_of=pattern_of,
        scores=scores_from_confusion(f"{task}, patterns", patterns, rolled),
        errors=errors,
        within=float((wrong * same).sum() / errors) if errors else None,
        within_by_chance=_chance(wrong, answered.sum(axis=0), same) if errors else None,
    )


def _chance(wrong: Counts, answered: Counts, same: Counts) -> float:
    """Return the expected share of errors within a pattern if labels were drawn by frequency."""
    others = np.tile(answered, (len(answered), 1)) * (1 - np.eye(len(answered), dtype=np.int64))
    total = others.sum(axis=1)
    inside = np.divide(
        (others * same).sum(axis=1), total, out=np.zeros(len(total)), where=total > 0
    )
    return float((wrong.sum(axis=1) * inside).sum() / wrong.sum())


def _at_or_below(taxonomy: Taxonomy, labels: Sequence[str], top: str) -> tuple[str, ...]:
    return tuple(label for label in labels if top in taxonomy.lineage(label))


def _doubt(prediction: Prediction) -> float:
    held = (prediction.probabilities or {}).get(prediction.label or "")
    return 0.0 if held is None else -held
