"""Where tokens stand in a row of several examples: trunks, which examples share, and their teeth.

The prompts of a dialogue are one text that grows, each with an end of its own; those of a task
begin with the same instructions. What two or more begin with stands once, as a *trunk*; what is an
example's alone is its *tooth*, which sees so many tokens of the trunks before it and itself. A
trunk may go on from another: a dialogue's turns from the instructions.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WORTH_SHARING = 16
"""Tokens more from which a longer trunk is taken: each is another piece to attend to."""

NO_TRUNK = -1
"""The parent of a span that nothing stands before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Tokens of one sequence, ``[seen, seen + length)`` of it, that stand together in a row.

    Attributes:
        owner: Whose tokens they are, a place among the examples; -1 for those known from before.
        parent: The trunk that holds the tokens before them; :data:`NO_TRUNK` where they begin.
        seen: How many tokens stand before them, in the parent and in what it goes on from.
        length: How many they are.
    """

    owner: int
    parent: int
    seen: int
    length: int


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The spans of a row, trunks before what goes on from them, then a tooth for each example.

    Attributes:
        trunks: What is shared.
        teeth: In the order of the examples.
        known: Whether the first trunk's tokens are known from before, and do not stand in the row.
    """

    trunks: tuple[Span, ...] = ()
    teeth: tuple[Span, ...] = ()
    known: bool = False

    @property
    def spans(self) -> tuple[Span, ...]:
        """Trunks, then teeth; what they are numbered by."""
        return self.trunks + self.teeth

    @property
    def standing(self) -> range:
        """The numbers of the spans whose tokens stand in the row, in its order."""
        return range(int(self.known), len(self.trunks) + len(self.teeth))

    def pieces(self, number: int) -> list[tuple[int, int]]:
        """Return the trunks before a span, from the beginning, and how much is seen of each."""
        found, span = [], self.spans[number]
        while span.parent != NO_TRUNK:
            trunk = self.trunks[span.parent]
            found.append((span.parent, span.seen - trunk.seen))
            span = trunk
        return found[::-1]


def lay_out(
    prompts: Sequence[Sequence[int]],
    tails: Sequence[int] | None = None,
    *,
    known: Sequence[int] = (),
) -> Layout:
    """Return a row in which every token that prompts share stands once.

    Tokens are compared as ids. Each prompt keeps a last token of its own, whose state predicts what
    comes after it. No more than a few tokens are computed twice: those that examples share beyond
    the trunks that are worth being one.

    Args:
        prompts: Token ids.
        tails: How many tokens follow each prompt in its tooth; ``None`` for none.
        known: Tokens whose keys and values are at hand.

    >>> lay_out([(1, 2, 3, 4), (1, 2, 3, 5)]).trunks
    (Span(owner=0, parent=-1, seen=0, length=3),)
    """
    sequences = [tuple(known), *map(tuple, prompts)]
    parents, seen = _hung(sequences, first_is_known=bool(known))
    reach = [0] * len(sequences)
    for i, parent in parents.items():
        if parent is not None:
            reach[parent] = max(reach[parent], seen[i])
    numbers: dict[int | None, int] = {None: NO_TRUNK}
    trunks: list[Span] = []
    for i, parent in parents.items():
        if reach[i]:
            numbers[i] = len(trunks)
            length = reach[i] - seen[i]
            trunks.append(Span(owner=i - 1, parent=numbers[parent], seen=seen[i], length=length))
    teeth = []
    for i, prompt in enumerate(prompts, start=1):
        parent, start = (i, reach[i]) if reach[i] else (parents[i], seen[i])
        length = len(prompt) - start + (tails[i - 1] if tails is not None else 0)
        teeth.append(Span(owner=i - 1, parent=numbers[parent], seen=start, length=length))
    return Layout(trunks=tuple(trunks), teeth=tuple(teeth), known=bool(reach[0]))


def side_by_side(lengths: Sequence[int]) -> Layout:
    """Return a row of examples of these lengths that share nothing."""
    spans = (
        Span(owner=i, parent=NO_TRUNK, seen=0, length=length) for i, length in enumerate(lengths)
    )
    return Layout(teeth=tuple(spans))


def _hung(
    sequences: Sequence[tuple[int, ...]], *, first_is_known: bool
) -> tuple[dict[int, int | None], dict[int, int]]:
    """Return what each sequence goes on from, in the order of being hung, and where.

    The longest are hung first, so that a dialogue's other prompts hang on its last one.
    """
    limits = [len(sequences[0]), *(len(sequence) - 1 for sequence in sequences[1:])]
    # In the order of ids no two share more than those that lie between them.
    order = sorted(range(len(sequences)), key=sequences.__getitem__)
    place = {i: at for at, i in enumerate(order)}
    arrays = [np.asarray(sequences[i], dtype=np.int64) for i in order]
    shared = [common_length(one, other) for one, other in itertools.pairwise(arrays)]
    parents: dict[int, int | None] = {0: None} if first_is_known else {}
    seen = {0: 0}
    for i in sorted(range(1, len(sequences)), key=lambda i: -len(sequences[i])):
        best, most = None, 0
        for step in (-1, 1):
            at, alike = place[i], limits[i]
            while 0 <= at + step < len(order) and alike > most:
                alike = min(alike, shared[min(at, at + step)])
                at += step
                other = order[at]
                if other in parents and min(alike, limits[other]) > most:
                    best, most = other, min(alike, limits[other])
        while best is not None and parents[best] is not None and most - seen[best] < WORTH_SHARING:
            most = min(most, seen[best])
            best = parents[best]
        parents[i], seen[i] = best, most
    return parents, seen


def common_length(one: np.ndarray, other: np.ndarray) -> int:
    """Return how many leading ids two sequences share."""
    n = min(len(one), len(other))
    differ = np.flatnonzero(one[:n] != other[:n])
    return int(differ[0]) if len(differ) else n
