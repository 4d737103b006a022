"""The work that every system gets: the same token ids, in lengths like those of real dialogues.

Standard library only, for the workers of other trainers import it in environments of their own.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

DIALOGUE_QUANTILES = (
    *(46, 88, 105, 127, 146, 164, 184, 203, 223, 242, 262),
    *(282, 303, 323, 344, 367, 391, 420, 456, 511, 1023),
)
"""Tokens of history and response, at 0, 5, …, 100 %.

From the 21,815 client turns of CPsyCounD (3,082 dialogues) that a counsellor's turn precedes, each
with all turns before it, written as the full Chinese prompt writes them (headings and speakers
included), in tokens of Qwen's vocabulary of 151,643 (1.7 characters a token; mean 276)."""

AFTER_DIALOGUE = 40
"""Tokens of the output format and of the chat template between the dialogue and the answer."""

ANSWER = 48
"""Tokens of an answer: the label's line and a reason of about 60 Chinese characters."""

PREFIXES = {"zero_shot": 850, "few_shot": 4000}
"""Tokens that all prompts of a shape begin with: role, task and taxonomy; with examples as well."""

FIRST_ORDINARY_ID = 3000
"""Ids below may be control tokens of the tokenizer that lies beside the model."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Examples by their sizes; the ids follow from the seed.

    Attributes:
        prefix: Tokens that all prompts begin with.
        n_examples: How many.
        vocabulary: Ids are below it.
        scale: Factor on the lengths after the prefix, for trials at toy size.
        seed: Of the ids; the lengths do not depend on it.
    """

    prefix: int
    n_examples: int = 16
    vocabulary: int = 8192
    scale: float = 1.0
    seed: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return what :func:`workload_of` reads."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class TokenExample:
    """Ids of one prompt and of its answer."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def ids(self) -> list[int]:
        """The whole sequence."""
        return [*self.prompt, *self.answer]

    @property
    def labels(self) -> list[int]:
        """The whole sequence with -100 where nothing is learned."""
        return [-100] * len(self.prompt) + list(self.answer)


def workload_of(fields: Mapping[str, Any]) -> Workload:
    """Return the workload that :meth:`Workload.as_json` described."""
    return Workload(**fields)


def quantile(quantiles: Sequence[float], share: float) -> float:
    """Return the value below which a share of the values lies, between the given ones in a line.

    >>> quantile((0, 10, 40), 0.75)
    25.0
    """
    place = share * (len(quantiles) - 1)
    below = min(int(place), len(quantiles) - 2)
    low, high = quantiles[below : below + 2]
    return low + (place - below) * (high - low)


def lengths(work: Workload) -> tuple[int, ...]:
    """Return the tokens of each example after the prefix, answer included, in random order.

    The lengths stand in the middle of equal shares of the distribution, so that any number of
    examples has its shape: no luck of the draw.
    """
    shares = ((i + 0.5) / work.n_examples for i in range(work.n_examples))
    found = [
        round(work.scale * (quantile(DIALOGUE_QUANTILES, share) + AFTER_DIALOGUE + ANSWER))
        for share in shares
    ]
    random.Random(0).shuffle(found)
    return tuple(found)


def examples(work: Workload) -> list[TokenExample]:
    """Return the examples; no two begin alike after the prefix."""
    draw = random.Random(work.seed)
    ids = range(FIRST_ORDINARY_ID, work.vocabulary)
    prefix = tuple(draw.choices(ids, k=work.prefix))
    found = []
    n_answer = max(2, round(work.scale * ANSWER))
    for i, length in enumerate(lengths(work)):
        rest = draw.choices(ids, k=length)
        rest[0] = ids[i % len(ids)]
        cut = length - n_answer
        found.append(TokenExample(prompt=(*prefix, *rest[:cut]), answer=tuple(rest[cut:])))
    return found
