"""What is measured, in which order: batch sizes, interleaved rounds, memory, scaling."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from harness.ledger import Ledger
from harness.systems import System
from harness.workload import PREFIXES, Workload

Measure = Callable[[System, dict[str, Any], dict[str, Any]], dict[str, Any]]
"""Takes a system, the key of a measurement and what its worker needs beside; returns the row."""

MICRO_BATCHES = (1, 2, 4, 8, 16)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One measurement to make: its system, its key in the ledger, and the rest of its spec."""

    system: System
    key: dict[str, Any]
    more: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is held equal.

    Attributes:
        memory_bytes: Most memory above the loaded baseline that a batch size may take.
        clock: Field of a row that is compared: ``seconds`` or ``processor_seconds``.
        rounds: How often every system is measured.
    """

    memory_bytes: int
    clock: str
    rounds: int


def step_seconds(row: dict[str, Any], clock: str) -> float:
    """Return the seconds of one optimiser step of a row: the middle one, were there several."""
    return median(row[clock])


def above_baseline(row: dict[str, Any]) -> int:
    """Return the bytes a row's process held at its highest beyond what was loaded."""
    return int(row["peak_bytes"] - row["baseline_bytes"])


def search(
    ledger: Ledger, system: System, shape: str, limits: Limits, candidates: Sequence[int]
) -> Iterator[Step]:
    """Yield the batch sizes to try, until one is slower than the best or takes too much memory."""
    best = None
    for micro_batch in candidates:
        key = {"part": "search", "shape": shape, "system": system.name, "micro_batch": micro_batch}
        yield Step(system=system, key=key, more={})
        row = ledger.find(key)
        if row is None or above_baseline(row) > limits.memory_bytes:
            return
        seconds = step_seconds(row, limits.clock)
        if best is not None and seconds > best:
            return
        best = seconds


def fastest_micro_batch(ledger: Ledger, system: System, shape: str, limits: Limits) -> int | None:
    """Return the batch size of the fastest row of the search within the memory; ``None`` if none.

    What packs rows of its own has one row a micro-batch.
    """
    if not system.searches:
        return 1
    rows = ledger.select(part="search", shape=shape, system=system.name)
    rows = [row for row in rows if above_baseline(row) <= limits.memory_bytes]
    if not rows:
        return None
    return int(min(rows, key=lambda row: step_seconds(row, limits.clock))["micro_batch"])


def rounds(
    ledger: Ledger,
    systems: Sequence[System],
    shape: str,
    limits: Limits,
    micro_batches: dict[str, int] | None = None,
) -> Iterator[Step]:
    """Yield every system once a round, so that a slow hour of the machine meets all alike.

    Systems about which nothing is claimed are measured in the first round alone.
    """
    for number in range(limits.rounds):
        for system in systems:
            if number and not system.claims:
                continue
            micro_batch = (micro_batches or {}).get(system.name) or fastest_micro_batch(
                ledger, system, shape, limits
            )
            if micro_batch is None:
                continue
            key = {"part": "step", "shape": shape, "system": system.name}
            yield Step(
                system=system, key={**key, "micro_batch": micro_batch, "round": number}, more={}
            )


def fastest_peer(ledger: Ledger, peers: Sequence[System], limits: Limits) -> System | None:
    """Return the peer with the lowest median in the zero-shot rounds, among those that count."""
    medians = {}
    for peer in peers:
        rows = ledger.select(part="step", shape="zero_shot", system=peer.name)
        if rows and peer.claims:
            medians[peer.name] = median(step_seconds(row, limits.clock) for row in rows)
    if not medians:
        return None
    return next(peer for peer in peers if peer.name == min(medians, key=lambda n: medians[n]))


def equal_groups(systems: Sequence[System], micro_batch: int) -> Iterator[Step]:
    """Yield one step of every system that counts with as many examples computed together."""
    for system in systems:
        if system.claims:
            key = {"part": "memory", "shape": "zero_shot", "system": system.name}
            yield Step(system=system, key={**key, "micro_batch": micro_batch}, more={})


LOSS_VOCABULARY = 151_936
"""Rows of the output layer of Qwen2.5."""


def loss_memory(micro_batches: Sequence[int], scale: float) -> Iterator[Step]:
    """Yield the loss of a large vocabulary, by whole logits and by chunks."""
    for micro_batch in micro_batches:
        work = Workload(
            prefix=round(scale * PREFIXES["zero_shot"]),
            n_examples=micro_batch,
            vocabulary=LOSS_VOCABULARY,
            scale=scale,
        )
        for variant in ("full_logits", "chunked"):
            system = System(name=variant, worker="recap_loss.py", spec={"variant": variant})
            key = {"part": "loss", "shape": "zero_shot", "system": variant}
            yield Step(
                system=system,
                key={**key, "micro_batch": micro_batch},
                more={"workload": work.as_json()},
            )


def scaling(
    system: System,
    *,
    groups: Sequence[int],
    corpora: Sequence[int],
    micro_batch: int,
    scale: float,
) -> Iterator[Step]:
    """Yield steps of 32 examples in rows of 1, 2, …, and steps out of small and large corpora."""
    key = {"shape": "zero_shot", "system": system.name}
    prefix = round(scale * PREFIXES["zero_shot"])
    for group in groups:
        work = Workload(prefix=prefix, n_examples=32, scale=scale)
        yield Step(
            system=system,
            key={"part": "group", **key, "micro_batch": group},
            more={"workload": work.as_json()},
        )
    for n_examples in corpora:
        work = Workload(prefix=prefix, n_examples=n_examples, scale=scale)
        yield Step(
            system=system,
            key={"part": "corpus", **key, "micro_batch": micro_batch, "n_examples": n_examples},
            more={"workload": work.as_json(), "global_batch_size": 16, "steps": 4},
        )


class Progress:
    """Says of each measurement what came out, and when all might be done.

    Args:
        expected: How many measurements there will be, about.
        say: Where lines go.
    """

    def __init__(self, expected: int, say: Callable[[str], None]) -> None:
        self._expected = expected
        self._done = 0
        self._seconds: list[float] = []
        self._say = say
        self._since = time.monotonic()

    def skipped(self) -> None:
        """Count a measurement that an earlier run made."""
        self._done += 1

    def done(self, row: dict[str, Any], clock: str) -> None:
        """Report one that was made now."""
        self._done += 1
        self._seconds.append(time.monotonic() - self._since)
        self._since = time.monotonic()
        left = max(0, self._expected - self._done) * sum(self._seconds) / len(self._seconds)
        what = " ".join(
            str(row[name])
            for name in ("part", "shape", "system", "micro_batch", "n_examples", "round")
            if row.get(name) is not None
        )
        if "error" in row:
            outcome = f"failed: {row['error']}"
        else:
            outcome = (
                f"{step_seconds(row, clock):.2f} s a step, {above_baseline(row) / 2**20:.0f} MiB"
            )
        count = f"[{self._done}/about {self._expected}]"
        self._say(f"{count} {what}: {outcome}; about {left / 60:.0f} min left")
