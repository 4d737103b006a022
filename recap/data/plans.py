"""Which examples are computed together: optimiser steps, micro-batches and shards.

An epoch is a sequence of optimiser steps of exactly ``global_batch_size`` examples (the last may be
smaller). A step is cut into micro-batches that fit one device; each carries the number of answer
tokens of its whole step, so that the loss is the token mean over the step however it was cut.

Lightning accumulates the same number of micro-batches for every step. Where a budget in tokens
decides how many a step needs, every step has as many rounds as the longest examples could ever
need; the rounds that it does not need come first, are empty and cost nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from recap.data.batches import MicroBatch
from recap.data.encode import EncodedExample
from recap.data.sampling import Sampling, epoch_order, most_of_an_epoch
from recap.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """What one device computes at once, at most.

    Attributes:
        examples: Most examples of a micro-batch.
        tokens: Most tokens of a micro-batch as it is computed, padding included and a shared prefix
            counted once; ``None`` for no limit.
        prefix: Tokens that all examples share; ``None`` for padded rows.
    """

    examples: int
    tokens: int | None = None
    prefix: int | None = None

    def tokens_of(self, lengths: Sequence[int]) -> int:
        """Return how many tokens are computed for examples of these lengths together.

        >>> [Room(examples=2, prefix=p).tokens_of([10, 14]) for p in (None, 0, 8)]
        [28, 24, 16]
        """
        if self.prefix is None:
            return len(lengths) * max(lengths)
        return self.prefix + sum(length - self.prefix for length in lengths)


def count_rounds(
    examples: Sequence[EncodedExample],
    room: Room,
    n: int,
    world_size: int,
    sampling: Sampling = "natural",
) -> int:
    """Return the micro-batches per device that any ``n`` examples of an epoch can need.

    This is what ``Trainer(accumulate_grad_batches=)`` has to be for steps of ``n`` examples.
    """
    if room.tokens is None:
        return math.ceil(n / (room.examples * world_size))
    # No n examples need more micro-batches than the n longest: each of those is at least as long.
    drawn = most_of_an_epoch(examples, sampling)
    longest = sorted(_length(examples[i]) for i in drawn)[-n:]
    return max(1, math.ceil(len(_filled(longest, room, room.tokens)) / world_size))


def plan_epoch(
    examples: Sequence[EncodedExample],
    *,
    global_batch_size: int,
    room: Room,
    seed: int,
    epoch: int,
    world_size: int = 1,
    rank: int = 0,
    sampling: Sampling = "natural",
) -> tuple[MicroBatch, ...]:
    """Return one device's micro-batches of one epoch.

    The order depends on ``seed``, ``epoch`` and ``sampling`` alone, and which examples form a step
    not on ``room`` or ``world_size``. Within a step examples are grouped by length; devices get
    groups of similar length.
    """
    order = epoch_order(examples, sampling=sampling, seed=seed, epoch=epoch)
    steps = [order[i : i + global_batch_size] for i in range(0, len(order), global_batch_size)]
    sizes = set(map(len, steps))
    rounds = {n: count_rounds(examples, room, n, world_size, sampling) for n in sizes}
    first = epoch * sum(rounds[len(step)] for step in steps)
    plan: list[MicroBatch] = []
    for step in steps:
        tokens = sum(len(examples[i].answer) for i in step)
        groups = _groups_by_length(step, examples, room, world_size)[rank::world_size]
        empty: list[list[int]] = [[]] * (rounds[len(step)] - len(groups))
        for round_, group in enumerate(empty + groups, start=1):
            filler = round_ > len(empty) and not group
            plan.append(
                MicroBatch(
                    indices=(step[0],) if filler else tuple(group),
                    step_tokens=tokens,
                    number=first + len(plan),
                    ends_step=round_ == rounds[len(step)],
                    filler=filler,
                )
            )
    return tuple(plan)


def plan_scoring(
    examples: Sequence[EncodedExample], *, room: Room, world_size: int = 1, rank: int = 0
) -> tuple[MicroBatch, ...]:
    """Return one device's batches for scoring: every example once over all devices.

    The longest come first, so that a batch that does not fit fails at the start.
    """
    groups = _groups_by_length(range(len(examples)), examples, room, world_size)[::-1]
    tokens = sum(len(example.answer) for example in examples)
    return tuple(
        MicroBatch(
            indices=tuple(group) or (0,),
            step_tokens=tokens,
            number=number,
            ends_step=False,
            filler=not group,
        )
        for number, group in enumerate(groups[rank::world_size])
    )


def require_room(examples: Sequence[EncodedExample], room: Room) -> None:
    """Check that every example can be computed at least on its own.

    Raises:
        ConfigError: When the longest is longer than the budget.
    """
    longest = max(examples, key=_length)
    if room.tokens is not None and _length(longest) > room.tokens:
        raise ConfigError(
            f"trainer.max_tokens_per_device={room.tokens} has no room for example {longest.id!r} "
            f"of {_length(longest)} tokens; raise it to at least that, or set prompt.max_tokens"
        )


def _groups_by_length(
    indices: Sequence[int], examples: Sequence[EncodedExample], room: Room, world_size: int
) -> list[list[int]]:
    """Return groups of neighbours in length, a multiple of the devices; the last may be empty."""
    ordered = sorted(indices, key=lambda i: (_length(examples[i]), i))
    lengths = [_length(examples[i]) for i in ordered]
    if room.tokens is None:
        n_groups = math.ceil(len(ordered) / (room.examples * world_size)) * world_size
        size, larger = divmod(len(ordered), n_groups)
        sizes = [size + (n < larger) for n in range(n_groups)]
    else:
        n_groups = math.ceil(len(_filled(lengths, room, room.tokens)) / world_size) * world_size
        sizes = _evenly_filled(lengths, room, n_groups)
        sizes += [0] * (n_groups - len(sizes))
    ends = itertools.accumulate(sizes)
    return [ordered[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _evenly_filled(lengths: Sequence[int], room: Room, n_groups: int) -> list[int]:
    """Return the sizes of at most ``n_groups`` groups whose largest is as small as can be."""
    assert room.tokens is not None
    too_small, enough = max(lengths) - 1, room.tokens
    while enough - too_small > 1:
        tried = (too_small + enough) // 2
        if len(_filled(lengths, room, tried)) <= n_groups:
            enough = tried
        else:
            too_small = tried
    return _filled(lengths, room, enough)


def _filled(lengths: Sequence[int], room: Room, tokens: int) -> list[int]:
    """Return the sizes of the fewest groups of neighbours of at most so many tokens.

    Filling one after the other is optimal: a group that could take one more gains nothing by
    leaving it to the next.
    """
    return [len(group) for group in _fill(lengths, room, tokens)]


def _fill(lengths: Sequence[int], room: Room, tokens: int) -> Iterator[list[int]]:
    group: list[int] = []
    for length in lengths:
        if group and (len(group) == room.examples or room.tokens_of([*group, length]) > tokens):
            yield group
            group = []
        group.append(length)
    if group:
        yield group


def _length(example: EncodedExample) -> int:
    return len(example.prompt) + len(example.answer)
