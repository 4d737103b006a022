"""How long, how different and how like the annotators' rationales are, and what they give away.

What they name and quote stands in :mod:`recap.report.rationale_content`.

chrF and BLEU over characters equal sacrebleu's (2.6: ``CHRF(eps_smoothing=True)``, and ``BLEU``
over characters with spaces between them) and, but for one fault, torchmetrics' (1.9:
``CHRFScore(n_word_order=0)``, ``BLEUScore``); the tests hold them to it. torchmetrics forgets the
reference of a pair that has no character in common, so that its chrF of all pairs comes out too
high; and it counts n-grams in tensors, one at a time, which takes 25 ms a pair of 80 characters and
125 ms a pair of 300 on one core: a run of 10,000 rationales would cost the better part of an hour.

Simulatability: a classifier learns labels from the rationales of the other folds and is asked about
those of one. Rationales that state the label in so many words make that easy and prove nothing, so
it is done a second time with every name of a category masked. Hase et al. (2020, Leakage-Adjusted
Simulatability) split explanations by whether the label can be told from the explanation alone: that
is what is measured here, without their second step, which shows the explained input as well.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from recap.data.words import Lengths, is_chinese, segmenter, summarize
from recap.metrics.scores import scores_from_confusion, spread_over_folds
from recap.records import Spread
from recap.report.rationale_content import comparable

CHRF_ORDER = 6
"""Longest n-grams of chrF (Popović 2015)."""

CHRF_BETA = 2.0
"""Weight of recall in chrF."""

BLEU_ORDER = 4
"""Longest n-grams of BLEU (Papineni et al. 2002)."""


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Scores from 0 to 1 over all pairs of texts, and chrF of each pair."""

    n: int
    chrf: float
    """n-grams of all pairs counted together; the mean over orders of the F score."""
    bleu: float
    """BLEU over characters, not smoothed, brevity penalty included."""
    chrf_of_pair: tuple[float, ...]


def text_overlap(texts: Sequence[str], references: Sequence[str]) -> Overlap:
    """Return the overlap of texts with one reference each, white space apart.

    An order of n-grams that texts or references are too short for counts with 0 in chrF, as in
    chrF++.py and in sacrebleu with ``eps_smoothing=True``.

    Args:
        texts: At least one.
        references: One for each of them.
    """
    pairs = [
        _matches("".join(text.split()), "".join(reference.split()))
        for text, reference in zip(texts, references, strict=True)
    ]
    summed = [tuple(map(sum, zip(*column, strict=True))) for column in zip(*pairs, strict=True)]
    return Overlap(
        n=len(pairs),
        chrf=_chrf(summed),
        bleu=_bleu(summed[:BLEU_ORDER]),
        chrf_of_pair=tuple(map(_chrf, pairs)),
    )


_Counts = Sequence[tuple[int, ...]]


def _matches(text: str, reference: str) -> list[tuple[int, ...]]:
    """Return for each order the n-grams in common, those of the text and of the reference."""
    rows: list[tuple[int, ...]] = []
    for order in range(1, CHRF_ORDER + 1):
        own, wanted = _grams(text, order), _grams(reference, order)
        rows.append(((own & wanted).total(), own.total(), wanted.total()))
    return rows


def _grams(text: str, order: int) -> Counter[str]:
    return Counter(text[i : i + order] for i in range(len(text) - order + 1))


def _chrf(rows: _Counts) -> float:
    weight = CHRF_BETA**2
    total = 0.0
    for common, own, wanted in rows:
        if common:
            precision, recall = common / own, common / wanted
            total += (1 + weight) * precision * recall / (weight * precision + recall)
    return total / CHRF_ORDER


def _bleu(rows: _Counts) -> float:
    if not all(common for common, _, _ in rows):
        return 0.0
    mean = sum(math.log(common / own) for common, own, _ in rows) / BLEU_ORDER
    _, own, wanted = rows[0]
    return math.exp(mean + min(0.0, 1 - wanted / own))


@dataclass(frozen=True, kw_only=True)
class Distinctness:
    """How much rationales differ; all of it falls as their number grows."""

    distinct_1: float | None
    """Different tokens among all tokens (Li et al. 2016)."""
    distinct_2: float | None
    """Different pairs of neighboring tokens among all pairs."""
    duplicates: float
    """Share of rationales that are word for word another one's, white space and width apart."""
    different: int
    """Rationales that are left when each is counted once."""
    most_common: float
    """Share of the rationale that occurs most often."""


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """How much rationales repeat those of annotators, on a scale from 0 to 1."""

    n: int
    chrf: float
    bleu: float
    chrf_same_label: float | None
    """chrF against the annotators' rationale of another example with the same gold label: what the
    label alone gives; ``None`` where no label has two."""
    chrf_of: Mapping[str, float]
    """Of each example, by its id."""


def length_in_characters(rationales: Sequence[str]) -> Lengths:
    """Return the lengths of all rationales in characters."""
    return summarize(map(len, rationales))


def length_in_words(rationales: Sequence[str]) -> Lengths:
    """Return the lengths in words between white space of those that are not Chinese."""
    return summarize(len(text.split()) for text in rationales if not is_chinese(text))


def distinctness(rationales: Sequence[str]) -> Distinctness:
    """Return how much rationales, at least one, differ; tokens are words or Chinese characters."""
    _, split = segmenter("characters")
    stretches = [stretch for text in rationales for stretch in split(text)]
    tokens = [token for stretch in stretches for token in stretch]
    pairs = [pair for stretch in stretches for pair in pairwise(stretch)]
    counts = Counter(map(comparable, rationales))
    return Distinctness(
        distinct_1=len(set(tokens)) / len(tokens) if tokens else None,
        distinct_2=len(set(pairs)) / len(pairs) if pairs else None,
        duplicates=sum(n for n in counts.values() if n > 1) / len(rationales),
        different=len(counts),
        most_common=max(counts.values()) / len(rationales),
    )


def likeness(
    rationales: Mapping[str, str], annotated: Mapping[str, str], gold: Mapping[str, str]
) -> Likeness | None:
    """Return how much rationales repeat the annotators'; ``None`` where no example has both.

    Args:
        rationales: Of the run, by example id.
        annotated: Of the annotators, by example id.
        gold: Gold labels, by example id.
    """
    ids = [key for key in rationales if annotated.get(key, "").strip()]
    if not ids:
        return None
    own = text_overlap([rationales[key] for key in ids], [annotated[key] for key in ids])
    other = _next_of_label(ids, gold)
    same_label = (
        text_overlap(
            [rationales[key] for key in other], [annotated[other[key]] for key in other]
        ).chrf
        if other
        else None
    )
    return Likeness(
        n=own.n,
        chrf=own.chrf,
        bleu=own.bleu,
        chrf_same_label=same_label,
        chrf_of=dict(zip(ids, own.chrf_of_pair, strict=True)),
    )


def draw_by_label(labels: Mapping[str, str], *, size: int, seed: int) -> list[str]:
    """Return ids drawn so that every label comes as often as the others, while it lasts.

    Ids keep the order of ``labels``; the same arguments give the same ids.

    Args:
        labels: The label of each id.
        size: Ids wanted, at most.
        seed: Of the draw.
    """
    rng = random.Random(f"rationale sample {seed}")
    waiting: dict[str, list[str]] = {}
    for key, label in labels.items():
        waiting.setdefault(label, []).append(key)
    for own in waiting.values():
        rng.shuffle(own)
    drawn: set[str] = set()
    while len(drawn) < min(size, len(labels)):
        # Which labels get one more when not all can is drawn anew in each round.
        for label in rng.sample(sorted(waiting), len(waiting)):
            if waiting[label] and len(drawn) < size:
                drawn.add(waiting[label].pop())
    return [key for key in labels if key in drawn]


def _next_of_label(ids: Sequence[str], gold: Mapping[str, str]) -> dict[str, str]:
    """Return for each id the next one with the same label, the first for the last."""
    by_label: dict[str, list[str]] = {}
    for key in ids:
        by_label.setdefault(gold[key], []).append(key)
    return {
        key: own[(place + 1) % len(own)]
        for own in by_label.values()
        if len(own) > 1
        for place, key in enumerate(own)
    }


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
