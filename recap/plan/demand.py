"""What a training demands of a device, and what to change when that is too much."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from recap.plan.architecture import Architecture, ParameterCounts, count_parameters
from recap.plan.memory import DecodedBatch, Memory, device_memory
from recap.plan.workload import PlannedBatch, Setting, largest_group

SPREAD_OVER = (2, 4, 8, 16, 32, 64, 128)
"""Numbers of devices that are tried for ``fsdp``."""

DEVICES_A_NODE = 8
"""How many devices machines usually have."""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """All that a device's memory follows from."""

    architecture: Architecture
    setting: Setting
    examples: tuple[tuple[int, int], ...]
    """Tokens of each example and of its answer."""
    prefix: int | None
    """Tokens that a micro-batch computes once; ``None`` for padded rows."""
    global_batch_size: int
    """Examples per optimizer step."""
    per_device_batch_size: int
    """Examples computed at once."""
    max_tokens: int | None
    """Tokens computed at once; ``None`` for no limit."""
    decoding_batch_size: int
    """Examples decoded at once; 0 where nothing is decoded."""
    max_new_tokens: int
    """Longest answer."""

    @property
    def largest(self) -> PlannedBatch:
        """The largest micro-batch: a device's share of a step, where that is less than fits."""
        share = math.ceil(self.global_batch_size / self.setting.n_devices)
        rounds = math.ceil(share / self.per_device_batch_size)
        return largest_group(
            self.examples,
            n_examples=math.ceil(share / rounds),
            n_tokens=self.max_tokens,
            prefix=self.prefix,
        )

    @property
    def accumulates(self) -> bool:
        """Whether gradients of earlier micro-batches wait when the largest one is computed."""
        at_once = self.setting.n_devices * len(self.largest.lengths)
        return min(self.global_batch_size, len(self.examples)) > at_once

    def counts(self) -> ParameterCounts:
        """Return the numbers of parameters under the tuning method."""
        setting = self.setting
        return _counted(
            self.architecture, setting.method, setting.rank, tuple(setting.target_modules)
        )

    def memory(self) -> Memory:
        """Return what one device holds."""
        decoding = None
        if self.decoding_batch_size:
            decoding = DecodedBatch(
                n_examples=min(self.decoding_batch_size, len(self.examples)),
                prompt=max(length - answer for length, answer in self.examples),
                answer=self.max_new_tokens,
                prefix=self.prefix or 0,
            )
        return device_memory(
            self.architecture,
            self.counts(),
            replace(self.setting, accumulates=self.accumulates),
            group=self.largest,
            decoding=decoding,
        )


@dataclass(frozen=True, kw_only=True)
class Change:
    """Overrides that make a run fit, and what one device then holds at most."""

    overrides: tuple[str, ...]
    peak_bytes: float


def changes_that_fit(demand: Demand, limit_bytes: float) -> list[Change]:
    """Return the least changes that bring a run under the limit, one for each way out.

    The ways: the same tuning on the same devices, the same tuning spread over more (``fsdp``),
    ``lora``, ``qlora``. A way that no change opens is left out.
    """
    found = [_least(demand, (), limit_bytes), _spread(demand, limit_bytes)]
    if demand.setting.method == "full":
        found.append(_least(_with_method(demand, "lora"), ("finetune=lora",), limit_bytes))
    if demand.setting.method in ("full", "lora"):
        found.append(_least(_with_method(demand, "qlora"), ("finetune=qlora",), limit_bytes))
    return [change for change in found if change is not None]


def _least(demand: Demand, given: tuple[str, ...], limit_bytes: float) -> Change | None:
    """Return the first of ever larger changes, beside the ``given`` ones, that fits."""
    for overrides, changed in _ladder(demand):
        peak = changed.memory().peak
        if peak <= limit_bytes and (given or overrides):
            return Change(overrides=(*given, *overrides), peak_bytes=peak)
    return None


def _spread(demand: Demand, limit_bytes: float) -> Change | None:
    setting = demand.setting
    if setting.method == "qlora" or setting.optimizer != "adamw":
        return None
    for n_devices in SPREAD_OVER:
        if n_devices < setting.n_devices or (
            n_devices == setting.n_devices and setting.strategy == "fsdp"
        ):
            continue
        nodes = max(1, n_devices // DEVICES_A_NODE)
        given: tuple[str, ...] = ("trainer.strategy=fsdp", f"trainer.devices={n_devices // nodes}")
        given += (f"trainer.nodes={nodes}",) if nodes > 1 else ()
        spread = replace(demand, setting=replace(setting, strategy="fsdp", n_devices=n_devices))
        change = _least(spread, given, limit_bytes)
        if change is not None:
            return change
    return None


def _ladder(demand: Demand) -> Iterator[tuple[tuple[str, ...], Demand]]:
    """Yield the demand as it is, then with more and more of what saves memory."""
    overrides: tuple[str, ...] = ()
    yield overrides, demand
    for edit in _edits(demand):
        overrides, demand = (*overrides, edit[0]), edit[1](demand)
        yield overrides, demand


def _edits(demand: Demand) -> Iterator[tuple[str, Callable[[Demand], Demand]]]:
    """Yield what saves memory, what changes results last."""
    setting = demand.setting
    if demand.decoding_batch_size > 4 and demand.memory().peak_moment == "decoding":
        yield "decoding.batch_size=4", lambda d: replace(d, decoding_batch_size=4)
    if not setting.gradient_checkpointing:
        yield "trainer.gradient_checkpointing=true", _edited(gradient_checkpointing=True)
    if len(demand.largest.lengths) > 1:
        yield "trainer.per_device_batch_size=1", lambda d: replace(d, per_device_batch_size=1)
    if setting.adapted and setting.weight_bytes == 4:
        yield "backbone.dtype=bfloat16", _edited(dtype="bfloat16")
    if setting.method == "full" and setting.strategy != "fsdp" and setting.optimizer == "adamw":
        yield "optimizer=adamw8bit", _edited(optimizer="adamw8bit")


def _edited(**fields: object) -> Callable[[Demand], Demand]:
    return lambda demand: replace(demand, setting=replace(demand.setting, **fields))  # type: ignore[arg-type]


def _with_method(demand: Demand, method: Literal["lora", "qlora"]) -> Demand:
    strategy = demand.setting.strategy
    if method == "qlora" and strategy == "fsdp":
        strategy = "ddp"
    return replace(demand, setting=replace(demand.setting, method=method, strategy=strategy))


@lru_cache(maxsize=64)
def _counted(
    architecture: Architecture, method: str, rank: int, target_modules: tuple[str, ...]
) -> ParameterCounts:
    return count_parameters(architecture, method=method, rank=rank, target_modules=target_modules)
