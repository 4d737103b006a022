"""Which names a file has used already, and where, in a few bytes a name."""

from __future__ import annotations

from array import array
from hashlib import blake2b

_MOST_FULL = 0.6
_SMALLEST = 1 << 10


class FirstLines:
    """The line at which each name was first met; 20 to 40 bytes a name, however long it is.

    Names are told apart by 64 bits of a hash. That two of ten million names share these has a
    probability of 3e-6.
    """

    def __init__(self) -> None:
        self._n = 0
        self._hashes = array("Q", [0]) * _SMALLEST
        self._lines = array("I", [0]) * _SMALLEST

    def __len__(self) -> int:
        """Return how many names were met."""
        return self._n

    def find(self, name: str) -> int | None:
        """Return the line that ``name`` was first met at, ``None`` where it was not."""
        place = self._place(_hash(name))
        return self._lines[place] if self._hashes[place] else None

    def add(self, name: str, line: int) -> int:
        """Return the line that ``name`` was first met at: ``line`` when it is new."""
        value = _hash(name)
        place = self._place(value)
        if self._hashes[place]:
            return self._lines[place]
        self._hashes[place], self._lines[place] = value, line
        self._n += 1
        if self._n > _MOST_FULL * len(self._hashes):
            self._grow()
        return line

    def _place(self, value: int) -> int:
        """Return where a hash stands, or the free place where it would."""
        size = len(self._hashes)
        place = value % size
        while self._hashes[place] not in (0, value):
            place = (place + 1) % size
        return place

    def _grow(self) -> None:
        old = zip(self._hashes, self._lines, strict=True)
        size = 2 * len(self._hashes)
        self._hashes, self._lines = array("Q", [0]) * size, array("I", [0]) * size
        for value, line in old:
            if value:
                place = self._place(value)
                self._hashes[place], self._lines[place] = value, line


def _hash(name: str) -> int:
    """Return 64 bits of a hash, never 0, which marks a free place."""
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1
