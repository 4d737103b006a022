"""How fast training goes and how much memory it takes."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """What training gets through in a second; ``tokens`` are those of prompts and answers."""

    examples: float
    tokens: float


class SpeedMeter:
    """Counts examples, tokens and the seconds spent on them.

    Args:
        clock: Returns seconds; for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._seconds = 0.0
        self._examples = 0
        self._tokens = 0

    def start(self) -> None:
        """Let the clock run, if it does not run already."""
        if self._since is None:
            self._since = self._clock()

    def stop(self) -> None:
        """Stop the clock: what comes now (validation, saving) is not training."""
        if self._since is not None:
            self._seconds += self._clock() - self._since
            self._since = None

    def add(self, *, examples: int, tokens: int) -> None:
        """Count what was just trained on."""
        self._examples += examples
        self._tokens += tokens

    def counts(self) -> tuple[int, int]:
        """Return the examples and tokens since the last :meth:`take`."""
        return self._examples, self._tokens

    def take(self, counts: tuple[float, float] | None = None) -> Speed:
        """Return the speed since the last call, and begin again.

        Args:
            counts: Examples and tokens of all devices, where there are more than this one.
        """
        running = self._since is not None
        self.stop()
        examples, tokens = counts or self.counts()
        seconds = max(self._seconds, 1e-9)
        self._examples, self._tokens, self._seconds = 0, 0, 0.0
        if running:
            self.start()
        return Speed(examples=examples / seconds, tokens=tokens / seconds)


def peak_memory_gib(device: torch.device) -> float:
    """Return the most memory so far, in GiB: allocated on a GPU, or resident of this process.

    Both are peaks over the life of the process, not over one fold.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kibibytes on Linux (getrusage(2))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
