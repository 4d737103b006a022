"""Batches that become smaller while memory runs out."""

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


class AutomaticBatchSize:
    """Computes something of batches, and of ever smaller parts of them while memory runs out.

    What fitted once is remembered (``most``; ``None``: whole batches), and it is said once. In
    float32 the answer to an example does not depend on the others beside it; probabilities and sums
    differ in their last digits. The ``option`` is named in the error, as what could be lowered; the
    batches are made of ``what``, in the singular.
    """

    def __init__(self, *, option: str, what: str = "example", most: int | None = None) -> None:
        self.most = most
        self._option = option
        self._what = what
        self._warned = False

    def each(
        self, compute: Callable[[Batch], Found], batch: Batch, *, whole: bool = False
    ) -> Iterator[tuple[Batch, Found]]:
        """Yield the parts of a batch, in order, with what was computed of each.

        A ``whole`` one must not be cut, since other devices compute along: a ``ConfigError`` where
        memory runs out for it.
        """
        waiting = [batch]
        while waiting:
            part = waiting.pop(0)
            if self.most is not None and len(part.examples) > self.most and not whole:
                waiting[:0] = halves(part)
                continue
            try:
                found = compute(part)
            except (RuntimeError, MemoryError) as error:
                self.shrink(len(part.examples), error, whole=whole)
                waiting.insert(0, part)
                continue
            yield part, found

    def shrink(self, n: int, error: Exception, *, whole: bool = False) -> None:
        """Halve the batches when memory ran out for ``n`` at once; raise any other error again.

        A ``ConfigError`` where memory ran out for one, or for a batch that must stay ``whole``.
        """
        if not is_out_of_memory(error):
            raise error
        if n == 1 or whole:
            advice = "set prompt.max_tokens, or use a smaller model"
            if n > 1:
                advice = f"lower {self._option}: devices that share weights need batches of a size"
            many = f"{n} {self._what}s at once" if n > 1 else f"a single {self._what}"
            raise ConfigError(f"memory runs out for {many}; {advice}") from error
        if not self._warned:
            _LOG.warning(
                "memory ran out for %d %ss at once: from now on there are fewer at a time, which "
                "takes longer and changes no answer",
                n,
                self._what,
            )
        self._warned = True
        self.most = n // 2
        torch.cuda.empty_cache()
