"""Which examples an epoch holds, and in which order: each once, or classes equally often.

Balanced sampling goes round each class's examples in one fixed order, drawn from the seed, and
takes up in every epoch where the one before left off. So an epoch's length stays the number of
examples, examples of a small class are repeated evenly, and none of a large class is left out for
good. Where the classes do not divide an epoch, the places that are left over go to one class after
another, over epochs too.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import torch

from recap.data.encode import EncodedExample
from recap.errors import ConfigError, quote_id

Sampling = Literal["natural", "balanced"]
"""Each example once an epoch, or every class equally often."""


def epoch_order(
    examples: Sequence[EncodedExample], *, sampling: Sampling, seed: int, epoch: int
) -> list[int]:
    """Return an epoch as indices into the examples, as many as there are examples.

    It depends on the examples, ``seed`` and ``epoch`` alone; the global random state is left alone.

    Raises:
        ConfigError: When classes are to be balanced and an example has none.
    """
    drawn = list(range(len(examples)))
    if sampling == "balanced":
        drawn = _balanced(examples, seed, epoch)
    generator = torch.Generator().manual_seed(_mix(seed, epoch))
    return [drawn[place] for place in torch.randperm(len(drawn), generator=generator).tolist()]


def most_of_an_epoch(examples: Sequence[EncodedExample], sampling: Sampling) -> list[int]:
    """Return indices among which those of every epoch are, each as often as it can ever occur."""
    if sampling == "natural":
        return list(range(len(examples)))
    classes = _classes(examples)
    places = math.ceil(len(examples) / len(classes))
    return [i for members in classes for i in members * math.ceil(places / len(members))]


def _balanced(examples: Sequence[EncodedExample], seed: int, epoch: int) -> list[int]:
    classes = _classes(examples)
    each, left_over = divmod(len(examples), len(classes))
    drawn: list[int] = []
    for rank, members in enumerate(classes):
        first, end = (
            n * each + _dealt(n * left_over, rank, len(classes)) for n in (epoch, epoch + 1)
        )
        generator = torch.Generator().manual_seed(_mix(seed, -1 - rank))  # of no epoch
        order = torch.randperm(len(members), generator=generator).tolist()
        drawn += [members[order[place % len(members)]] for place in range(first, end)]
    return drawn


def _dealt(n: int, rank: int, n_ranks: int) -> int:
    """Return how many of ``n`` places a rank has, when they are dealt out one after another."""
    return max(0, math.ceil((n - rank) / n_ranks))


def _classes(examples: Sequence[EncodedExample]) -> list[list[int]]:
    """Return the examples of each class that occurs, in the order of classes."""
    members: dict[int, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        if example.gold is None:
            raise ConfigError(
                f"sampling=balanced: example {quote_id(example.id)} has no class; "
                "label it, or set sampling=natural"
            )
        members[example.gold].append(index)
    return [members[gold] for gold in sorted(members)]


def _mix(seed: int, number: int) -> int:
    """Return one seed for both numbers, without seeds of neighbouring runs meeting."""
    return (seed * 1_000_003 + number) % 2**63
