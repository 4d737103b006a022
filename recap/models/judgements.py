"""Label probabilities of held-out examples, put back into the order of their set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch.distributed as dist


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """How likely a model holds each label of one example.

    ``index`` is the example's place in its set; ``probabilities`` has one value a label, in the
    task's order, and adds up to 1.
    """

    index: int
    id: str
    probabilities: tuple[float, ...]


class Placed(Protocol):
    """What belongs to one example of a set."""

    @property
    def index(self) -> int:
        """The example's place in the set."""


P = TypeVar("P", bound=Placed)


def gathered(shard: Sequence[P]) -> list[P]:
    """Return what all devices have found of a set, in the set's order, on every device."""
    found = list(shard)
    if dist.is_available() and dist.is_initialized():
        shards: list[list[P]] = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(shards, found)
        found = [one for part in shards for one in part]
    return sorted(found, key=lambda one: one.index)
