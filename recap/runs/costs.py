"""Tokens and money: what was used, what more may be, and an estimate before anything is sent."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from recap.errors import ConfigError
from recap.records import Message

_TOKENS_PER_MESSAGE = 32
"""More than any chat template adds to a message."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Answers and the tokens of their prompts and texts."""

    answers: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            answers=self.answers + other.answers,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
        )

    def __sub__(self, other: Usage) -> Usage:
        return Usage(
            answers=self.answers - other.answers,
            input_tokens=self.input_tokens - other.input_tokens,
            output_tokens=self.output_tokens - other.output_tokens,
        )

    @property
    def tokens(self) -> int:
        """Of prompts and answers together."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """What a million tokens cost."""

    input: float
    output: float

    def cost(self, usage: Usage) -> float:
        """Return what a usage costs.

        >>> Prices(input=2.5, output=10.0).cost(Usage(input_tokens=400_000, output_tokens=1_000))
        1.01
        """
        return (usage.input_tokens * self.input + usage.output_tokens * self.output) / 1_000_000


def most_tokens(messages: Sequence[Message]) -> int:
    """Return a number of tokens that a prompt cannot exceed: no token is shorter than a byte."""
    size = sum(len(message.text.encode("utf-8", "surrogatepass")) for message in messages)
    return size + _TOKENS_PER_MESSAGE * len(messages)


def estimated_tokens(messages: Sequence[Message]) -> int:
    """Return about how many tokens a prompt has: a quarter of its ASCII characters, all others.

    The rule of thumb for English, and on the safe side for Chinese; tokenizers of servers are not
    known here.

    >>> estimated_tokens([Message(role="user", text="twelve chars")])
    3
    """
    text = "".join(message.text for message in messages)
    ascii_characters = sum(character.isascii() for character in text)
    return -(-ascii_characters // 4) + len(text) - ascii_characters


class Budget:
    """What a run may use; asked before every request, so that it is never exceeded.

    Each request is counted at the most it could use until the server says what it did use.

    Args:
        prices: ``None`` where cost is unknown.
        max_cost: ``None`` for no limit; needs prices.
        max_total_tokens: ``None`` for no limit.
        spent: What the run's answers have used so far.
    """

    def __init__(
        self,
        *,
        prices: Prices | None = None,
        max_cost: float | None = None,
        max_total_tokens: int | None = None,
        spent: Usage | None = None,
    ) -> None:
        self._prices = prices
        self._max_cost = max_cost
        self._max_total_tokens = max_total_tokens
        self._spent = spent or Usage()
        self._reserved = Usage()
        self._changed = threading.Condition()

    @property
    def spent(self) -> Usage:
        """What was used so far."""
        return self._spent

    def reserve(self, most: Usage) -> None:
        """Set aside what a request could use, waiting for others under way where that may help.

        Raises:
            ConfigError: When it could exceed the budget.
        """
        with self._changed:
            while (said := self._exceeded(self._spent + self._reserved + most)) is not None:
                if not self._reserved.tokens:
                    raise ConfigError(
                        f"{said} could be exceeded by the next request; raise it to go on"
                    )
                self._changed.wait()
            self._reserved += most

    def settle(self, most: Usage, used: Usage) -> None:
        """Count what a request did use in place of what was set aside for it."""
        with self._changed:
            self._reserved -= most
            self._spent += used
            self._changed.notify_all()

    def _exceeded(self, usage: Usage) -> str | None:
        if self._max_total_tokens is not None and usage.tokens > self._max_total_tokens:
            return f"client.max_total_tokens={self._max_total_tokens} ({self._spent.tokens} used)"
        if self._max_cost is None or self._prices is None:
            return None
        if self._prices.cost(usage) <= self._max_cost:
            return None
        return f"client.max_cost={self._max_cost:g} ({self._prices.cost(self._spent):.4f} spent)"
