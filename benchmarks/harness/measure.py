"""What a worker measures of itself: time of optimiser steps and peak memory.

Standard library only, for workers run in environments of their own.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any


def resident_bytes(field: str = "VmRSS") -> int:
    """Return the memory of this process: ``VmRSS`` now, ``VmHWM`` at its highest."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}; run the benchmark on Linux")


class Meter:
    """Times optimiser steps, by the wall and by the processor, and takes the highest memory.

    Memory counts from the loaded baseline on.

    Call :meth:`start` when model, data and trainer are ready and :meth:`step` after each optimiser
    step.
    """

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._processor_seconds: list[float] = []
        self._since = 0.0, 0.0
        self._baseline = 0
        self._facts: dict[str, Any] = {}

    def load_ends(self) -> None:
        """Take the memory held now as the baseline, and forget any higher peak before it."""
        with contextlib.suppress(OSError):  # where refused, the peak of loading counts as well
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._baseline = resident_bytes()

    def start(self) -> None:
        """Start the clock."""
        self._since = time.perf_counter(), time.process_time()

    def step(self) -> None:
        """Note that an optimiser step has ended."""
        now = time.perf_counter(), time.process_time()
        self._seconds.append(now[0] - self._since[0])
        self._processor_seconds.append(now[1] - self._since[1])
        self._since = now

    def note(self, **facts: Any) -> None:
        """Add facts to the result; of each the first note counts."""
        self._facts = {**facts, **self._facts}

    def write(self, path: str | Path) -> None:
        """Write the result as JSON."""
        result = {
            "seconds": self._seconds,
            "processor_seconds": self._processor_seconds,
            "baseline_bytes": self._baseline,
            "peak_bytes": resident_bytes("VmHWM"),
            **self._facts,
        }
        Path(path).write_text(json.dumps(result), encoding="utf-8")


def warm_up(model: Any, *, rows: int, tokens: int) -> None:
    """Run one forward and backward of so many rows, of ids that mean nothing.

    One micro-batch of the largest size, so that neither the first use of a library nor the first
    touch of the memory is timed: a training has thousands of steps that are not its first.
    """
    import torch

    ids = torch.arange(rows * tokens).view(rows, tokens) % model.config.vocab_size
    model(input_ids=ids, labels=ids).loss.backward()
    model.zero_grad(set_to_none=True)
