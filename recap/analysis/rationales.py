"""What the rationales of a run look like: how long, how different, how like the annotators'.

What they name stands in :mod:`recap.analysis.rationale_names`, what they quote in
:mod:`recap.analysis.quotes`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from recap.analysis.describe import Lengths, is_chinese, summarize
from recap.analysis.quotes import comparable
from recap.analysis.segment import segmenter
from recap.analysis.text_overlap import text_overlap


@dataclass(frozen=True, kw_only=True)
class Distinctness:
    """How much rationales differ; all of it falls as their number grows."""

    distinct_1: float | None
    """Different tokens among all tokens (Li et al. 2016)."""
    distinct_2: float | None
    """Different pairs of neighbouring tokens among all pairs."""
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
