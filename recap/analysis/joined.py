"""Two tables of sessions joined by their keys."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Key = tuple[str, ...]

_WHOLE = re.compile(r"(-?\d+)\.0+")


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Rows of both tables with equal keys, in the order of the first."""

    keys: tuple[Key, ...]
    first: tuple[int, ...]
    """Index of each one's row in the first table."""
    second: tuple[int, ...]
    only_first: int
    """Rows of the first table that the second has no key for."""
    only_second: int


def join_key(values: Sequence[str]) -> Key:
    """Return the form in which keys are compared: no outer blanks, ``7.0`` as ``7``.

    >>> join_key([" 7.0", "S1"])
    ('7', 'S1')
    """
    return tuple(
        _WHOLE.sub(r"\1", v) if _WHOLE.fullmatch(v := value.strip()) else v for value in values
    )


def join(first: Sequence[Key], second: Sequence[Key]) -> Joined:
    """Return which rows belong together; keys are unique in each table."""
    place: Mapping[Key, int] = {key: index for index, key in enumerate(second)}
    both = [(index, place[key]) for index, key in enumerate(first) if key in place]
    return Joined(
        keys=tuple(first[index] for index, _ in both),
        first=tuple(index for index, _ in both),
        second=tuple(index for _, index in both),
        only_first=len(first) - len(both),
        only_second=len(second) - len(both),
    )
