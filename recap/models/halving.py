"""Batches that are cut in halves when memory runs out, wherever nothing is learned from them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from recap.data.batches import Batch, halves
from recap.errors import ConfigError

_LOG = logging.getLogger(__name__)
Found = TypeVar("Found")


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory ran out, on a GPU or in the host."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        "can't allocate memory" in str(error) or "not enough memory" in str(error)
    )


def tell_of_halving(what: str, n: int) -> None:
    """Say that ``n`` of something at once were too many."""
    _LOG.warning(
        "memory ran out for %d %s at once: from now on there are fewer at a time, which takes "
        "longer and changes no answer",
        n,
        what,
    )


class Halving:
    """Computes something of batches, and of ever smaller parts of them while memory runs out.

    What fitted once is remembered, and it is said once. In float32 the answer to an example does
    not depend on the others beside it; probabilities and sums differ in their last digits.

    Args:
        option: Named in the error, as what could be lowered.
    """

    def __init__(self, *, option: str) -> None:
        self._option = option
        self._most: int | None = None

    def each(
        self, compute: Callable[[Batch], Found], batch: Batch, *, whole: bool = False
    ) -> Iterator[tuple[Batch, Found]]:
        """Yield the parts of a batch, in order, with what was computed of each.

        Args:
            compute: May run out of memory.
            batch: At least one example.
            whole: Whether it must not be cut, since other devices compute along.

        Raises:
            ConfigError: When memory runs out for a batch that cannot be cut.
        """
        waiting = [batch]
        while waiting:
            part = waiting.pop(0)
            if self._most is not None and len(part.examples) > self._most and not whole:
                waiting[:0] = halves(part)
                continue
            try:
                found = compute(part)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._shrink(len(part.examples), whole, error)
                waiting.insert(0, part)
                continue
            yield part, found

    def _shrink(self, n: int, whole: bool, error: Exception) -> None:
        if n == 1 or whole:
            advice = "set prompt.max_tokens, or use a smaller model"
            if n > 1:
                advice = f"lower {self._option}: devices that share weights need batches of a size"
            raise ConfigError(
                f"memory runs out for {n} example{'s' * (n > 1)} at once; {advice}"
            ) from error
        if self._most is None:
            tell_of_halving("examples", n)
        self._most = n // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
