"""Who annotates what: examples dealt out to annotators at random, and evenly."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from recap.errors import ConfigError

_NOBODY: Mapping[str, Set[str]] = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """An example and those who are to judge it."""

    id: str
    annotators: tuple[str, ...]


def assign(
    ids: Sequence[str],
    annotators: Sequence[str],
    *,
    per_example: int = 2,
    seed: int = 0,
    taken: Mapping[str, Set[str]] = _NOBODY,
) -> tuple[Assignment, ...]:
    """Return who judges which example (Section 4.2: two annotators each, at random).

    Examples are dealt in random order, each to those with the least to do, and among these to those
    who share the fewest examples with one another. Where nobody is left out, no annotator has more
    than one example more than another.

    Args:
        ids: The examples; the assignments come in their order.
        annotators: Who can be asked.
        per_example: Annotators of one example; where fewer are left, an example gets those.
        seed: Another seed, another assignment.
        taken: Annotators who are not asked about an example, since they judged it before.

    Raises:
        ConfigError: When there are too few annotators, or two of one name.
    """
    repeated = [name for name, n in Counter(annotators).items() if n > 1]
    if repeated:
        raise ConfigError(f"annotators: {repeated[0]!r} is named twice; name each once")
    if len(annotators) < per_example:
        raise ConfigError(
            f"annotators: {len(annotators)} named, {per_example} are asked about each example; "
            f"name {per_example} or more"
        )
    rng = random.Random(f"assignment {seed}")
    order = list(range(len(ids)))
    rng.shuffle(order)
    load: Counter[str] = Counter()
    together: Counter[frozenset[str]] = Counter()
    chosen: dict[int, tuple[str, ...]] = {}
    for place in order:
        free = [name for name in annotators if name not in taken.get(ids[place], ())]
        team: list[str] = []
        while free and len(team) < per_example:
            rng.shuffle(free)
            mates = tuple(team)
            free.sort(key=lambda name: (load[name], _shared(together, name, mates)))
            team.append(free.pop(0))
        for name in team:
            load[name] += 1
            together.update(frozenset((name, mate)) for mate in team if mate < name)
        chosen[place] = tuple(sorted(team, key=annotators.index))
    return tuple(Assignment(id=ids[place], annotators=chosen[place]) for place in range(len(ids)))


def _shared(together: Counter[frozenset[str]], name: str, mates: tuple[str, ...]) -> int:
    return sum(together[frozenset((name, mate))] for mate in mates)
