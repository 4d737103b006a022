"""Whether a rationale alone lets a reader tell the label that it was given for.

A classifier learns labels from the rationales of the other folds and is asked about those of one.
Rationales that say the label in so many words make that easy and prove nothing, so it is done a
second time with every name of a category masked. Hase et al. (2020, Leakage-Adjusted
Simulatability) split explanations by whether the label can be told from the explanation alone: that
is what is measured here, without their second step, which shows the explained input as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from recap.records import Spread
from recap.scoring.confusion import scores_from_confusion
from recap.scoring.summary import spread_over_folds

Classifier = Callable[[Sequence[str], Sequence[str], Sequence[str]], Sequence[Mapping[str, float]]]
"""Training texts, their labels, texts to label; returns a probability for each training label."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Explained:
    """A rationale and the label that it was given for."""

    fold: int
    label: str
    rationale: str


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """How often labels were recovered: mean, sample SD (ddof 1) and values over folds."""

    folds: tuple[int, ...]
    n: int
    accuracy: Spread
    macro_f1: Spread


@dataclass(frozen=True, kw_only=True)
class Simulatability:
    """What rationales alone give away of their labels."""

    unmasked: Recovered
    masked: Recovered
    """With the names of categories masked."""
    majority: Recovered
    """The most frequent label of the other folds, whatever the rationale."""


def simulatability(
    explained: Sequence[Explained],
    *,
    labels: Sequence[str],
    mask: Callable[[str], str],
    classify: Classifier,
) -> Simulatability | None:
    """Return how often a classifier recovers labels from rationales; ``None`` for a single fold.

    Args:
        explained: Rationales and their labels, all from ``labels``.
        labels: The task's labels.
        mask: Returns a rationale without the names of categories.
        classify: Learns from the rationales of all folds but one.
    """
    folds = tuple(sorted({one.fold for one in explained}))
    if len(folds) < 2:
        return None

    def recovered(answer: Classifier, shown: Callable[[str], str]) -> Recovered:
        return _recovered(explained, folds, labels, answer, shown)

    return Simulatability(
        unmasked=recovered(classify, str),
        masked=recovered(classify, mask),
        majority=recovered(_majority, str),
    )


def _recovered(
    explained: Sequence[Explained],
    folds: Sequence[int],
    labels: Sequence[str],
    classify: Classifier,
    shown: Callable[[str], str],
) -> Recovered:
    texts = [shown(one.rationale) for one in explained]
    place = {label: index for index, label in enumerate(labels)}
    found = []
    for fold in folds:
        tested = [i for i, one in enumerate(explained) if one.fold == fold]
        trained = [i for i, one in enumerate(explained) if one.fold != fold]
        answers = classify(
            [texts[i] for i in trained],
            [explained[i].label for i in trained],
            [texts[i] for i in tested],
        )
        counts = [[0] * (len(labels) + 1) for _ in labels]
        for i, probabilities in zip(tested, answers, strict=True):
            answer = max(probabilities, key=lambda label: probabilities[label])
            counts[place[explained[i].label]][place[answer]] += 1
        found.append(scores_from_confusion("simulatability", labels, counts))
    return Recovered(
        folds=tuple(folds),
        n=len(explained),
        accuracy=spread_over_folds([scores.metrics["accuracy"] for scores in found]),
        macro_f1=spread_over_folds([scores.metrics["macro_f1"] for scores in found]),
    )


def _majority(
    texts: Sequence[str], labels: Sequence[str], asked: Sequence[str]
) -> list[Mapping[str, float]]:
    [(most, _)] = Counter(labels).most_common(1)
    return [{most: 1.0} for _ in asked]
