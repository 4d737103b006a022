"""The examples that systems find hardest, by id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recap.analysis.grouped_scores import held_probability
from recap.records import Prediction


@dataclass(frozen=True, kw_only=True, slots=True)
class HardExample:
    """One example that was judged wrong, or held unlikely to be what it is."""

    id: str
    fold: int | None
    gold: str
    label: str | None
    gold_probability: float | None


@dataclass(frozen=True, kw_only=True)
class WrongInAll:
    """Examples that every one of several runs got wrong."""

    runs: int
    examples: int
    """Judged by all runs."""
    ids: tuple[str, ...]
    """Those wrong in all, in the order of the first run."""
    by_gold: Mapping[str, int]
    """How many of each gold label."""
    same_answer: int
    """Of these, examples that all runs gave the same wrong label: candidates for a second look at
    the annotation."""
    by_chance: float
    """How many it would be if runs erred independently, each as often as it does."""


def hardest_examples(predictions: Sequence[Prediction], *, most: int) -> tuple[HardExample, ...]:
    """Return the examples whose gold label got the lowest probability, lowest first.

    Predictions without probabilities are left out.
    """
    rated = [(held, p) for p in predictions if (held := held_probability(p, p.gold)) is not None]
    rated.sort(key=lambda pair: pair[0])
    return tuple(
        HardExample(id=p.id, fold=p.fold, gold=p.gold, label=p.label, gold_probability=held)
        for held, p in rated[:most]
    )


def wrong_in_all(runs: Sequence[Sequence[Prediction]]) -> WrongInAll | None:
    """Return the examples that all runs got wrong; ``None`` without two runs that share examples.

    Args:
        runs: The predictions of each run, of one task, each example once a run.
    """
    answers = [{p.id: p.label for p in run} for run in runs]
    if len(answers) < 2:
        return None
    shared = [p for p in runs[0] if all(p.id in own for own in answers)]
    if not shared:
        return None
    wrong = [p for p in shared if all(own[p.id] != p.gold for own in answers)]
    expected = float(len(shared))
    for own in answers:
        expected *= sum(own[p.id] != p.gold for p in shared) / len(shared)
    return WrongInAll(
        runs=len(answers),
        examples=len(shared),
        ids=tuple(p.id for p in wrong),
        by_gold=dict(Counter(p.gold for p in wrong).most_common()),
        same_answer=sum(
            p.label is not None and len({own[p.id] for own in answers}) == 1 for p in wrong
        ),
        by_chance=expected,
    )
