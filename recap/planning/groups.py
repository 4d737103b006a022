"""The examples that one device computes together, as lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Group:
    """One micro-batch in numbers.

    Attributes:
        lengths: Tokens of each example, prompt and answer.
        answers: Tokens of each answer.
        prefix: Tokens that all share and that are computed once; 0 for a row without sharing,
            ``None`` for padded rows.
    """

    lengths: tuple[int, ...]
    answers: tuple[int, ...]
    prefix: int | None

    @property
    def rests(self) -> tuple[int, ...]:
        """Tokens of each example after the shared ones."""
        return tuple(length - (self.prefix or 0) for length in self.lengths)

    @property
    def tokens(self) -> int:
        """Tokens that are computed, padding included.

        >>> [Group(lengths=(10, 14), answers=(2, 2), prefix=p).tokens for p in (None, 0, 8)]
        [28, 24, 16]
        """
        if self.prefix is None:
            return len(self.lengths) * max(self.lengths, default=0)
        return self.prefix + sum(self.rests)

    @property
    def seen(self) -> int:
        """Keys that all rests see together, the shared ones once for each."""
        return sum(self.lengths)

    @property
    def pairs(self) -> int:
        """Pairs of a query and a key before or at its place.

        >>> [Group(lengths=(2, 3), answers=(1, 1), prefix=p).pairs for p in (None, 0, 1)]
        [12, 9, 8]
        """
        if self.prefix is None:
            longest = max(self.lengths, default=0)
            return len(self.lengths) * _causal(longest)
        own = sum(self.prefix * rest + _causal(rest) for rest in self.rests)
        return _causal(self.prefix) + own

    @property
    def fed(self) -> int:
        """Tokens that reach the last layer's feed-forward block: in one row those with a loss."""
        return self.tokens if self.prefix is None else self.predicted

    @property
    def last_pairs(self) -> int:
        """Pairs of a query and a key in the last layer.

        >>> Group(lengths=(5,), answers=(2,), prefix=0).last_pairs
        7
        """
        if self.prefix is None:
            return self.pairs
        # Queries stand on the last prompt token and on all of the answer but its last.
        ends = zip(self.lengths, self.answers, strict=True)
        return sum(answer * (2 * length - answer - 1) // 2 for length, answer in ends)

    @property
    def predicted(self) -> int:
        """Tokens with a loss."""
        return sum(self.answers)


def _causal(length: int) -> int:
    return length * (length + 1) // 2


def largest_group(
    examples: Sequence[tuple[int, int]],
    *,
    n_examples: int,
    n_tokens: int | None,
    prefix: int | None,
) -> Group:
    """Return the most that a device ever computes at once.

    The longest examples together, as many as the limits allow.

    Args:
        examples: Tokens of each example and of its answer.
        n_examples: Most examples at once.
        n_tokens: Most computed tokens at once; ``None`` for no limit.
        prefix: As in :class:`Group`.
    """
    longest = sorted(examples, reverse=True)[:n_examples]
    count = len(longest)
    while count > 1 and n_tokens is not None and _group(longest[:count], prefix).tokens > n_tokens:
        count -= 1
    return _group(longest[:count], prefix)


def _group(examples: Sequence[tuple[int, int]], prefix: int | None) -> Group:
    return Group(
        lengths=tuple(length for length, _ in examples),
        answers=tuple(answer for _, answer in examples),
        prefix=prefix,
    )
