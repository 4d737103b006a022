"""What a training asks of a device, and what to change when it asks too much.

Floating-point operations of a training, multiplications and additions counted apart.

A matrix product costs two for each weight and token; attention four for each pair of a query and a
key it may see and each unit of their width. The backward of a layer whose weights are tuned costs
twice its forward, that of a frozen one once (Kaplan et al. 2020, section 2.1; Hu et al. 2022).
Softmax, norms, rotations and the optimizer's step, under a percent together, are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from recap.models.architecture import Architecture, ParameterCounts, count_parameters
from recap.plan.memory import Decoding, Memory, device_memory
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
        """The largest micro-batch: a device's share of a step, where that is less than its room."""
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
        room = self.setting.n_devices * len(self.largest.lengths)
        return min(self.global_batch_size, len(self.examples)) > room

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
            decoding = Decoding(
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


Edit = tuple[tuple[str, ...], Callable[[Demand], Demand]]
Route = Literal["full", "lora", "qlora"]


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
    if setting.method == "qlora" or setting.optimizer not in ("adamw",):
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


def _with_method(demand: Demand, method: Route) -> Demand:
    strategy = demand.setting.strategy
    if method == "qlora" and strategy == "fsdp":
        strategy = "ddp"
    return replace(demand, setting=replace(demand.setting, method=method, strategy=strategy))


@lru_cache(maxsize=64)
def _counted(
    architecture: Architecture, method: str, rank: int, target_modules: tuple[str, ...]
) -> ParameterCounts:
    return count_parameters(architecture, method=method, rank=rank, target_modules=target_modules)


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What groups amount to together."""

    tokens: int
    """Computed tokens."""
    pairs: int
    """Pairs of a query and a key that it sees."""
    predicted: int
    """Tokens with a loss."""
    fed: int
    """Tokens that reach the last layer's feed-forward block."""
    last_pairs: int
    """Pairs of a query and a key in the last layer."""


def add_up(groups: Iterable[PlannedBatch]) -> Totals:
    """Return the totals of micro-batches."""
    listed = list(groups)
    return Totals(
        tokens=sum(group.tokens for group in listed),
        pairs=sum(group.pairs for group in listed),
        predicted=sum(group.predicted for group in listed),
        fed=sum(group.fed for group in listed),
        last_pairs=sum(group.last_pairs for group in listed),
    )


def forward_operations(
    architecture: Architecture, counts: ParameterCounts, totals: Totals
) -> float:
    """Return the operations of one forward with the loss over tokens and pairs."""
    adapters = 2.0 * counts.adapters * totals.tokens
    head = 2.0 * architecture.hidden * architecture.vocabulary * totals.predicted
    matrices = _matrices(architecture, counts, totals)
    return matrices + adapters + head + _attention(architecture, totals)


def training_operations(
    architecture: Architecture, counts: ParameterCounts, setting: Setting, totals: Totals
) -> float:
    """Return the operations of a forward and backward over tokens and pairs."""
    frozen = setting.adapted
    matrices = _matrices(architecture, counts, totals)
    adapters = 2.0 * counts.adapters * totals.tokens
    attention = _attention(architecture, totals)
    head = 2.0 * architecture.hidden * architecture.vocabulary * totals.predicted
    again = matrices + adapters + attention if setting.gradient_checkpointing else 0.0
    weights = (2 if frozen else 3) * (matrices + head)
    return weights + 3 * (adapters + attention) + again


def decoding_operations(
    architecture: Architecture,
    counts: ParameterCounts,
    examples: Iterable[tuple[int, int]],
    *,
    prefix: int = 0,
) -> float:
    """Return the operations of answering prompts one token at a time, with a cache.

    The tokens of labels that are tried behind each prompt are not counted.

    Args:
        architecture: The backbone's sizes.
        counts: Its parameters.
        examples: Tokens of each prompt and of its answer.
        prefix: Tokens that all prompts begin with and that are computed once.
    """
    shared = prefix * (prefix + 1) // 2
    once = Totals(tokens=prefix, pairs=shared, predicted=0, fed=prefix, last_pairs=shared)
    total = forward_operations(architecture, counts, once)
    for prompt, answer in examples:
        length = prompt + answer
        own, pairs = length - prefix, length * (length + 1) // 2 - shared
        totals = Totals(tokens=own, pairs=pairs, predicted=answer, fed=own, last_pairs=pairs)
        total += forward_operations(architecture, counts, totals)
    return total


def _matrices(architecture: Architecture, counts: ParameterCounts, totals: Totals) -> float:
    """Products with the layers' matrices; the last layer feeds on fewer tokens in one row."""
    block = 3 * architecture.hidden * architecture.intermediate
    spared = block * (totals.tokens - totals.fed)
    return 2.0 * (counts.layer_matrices * totals.tokens - spared)


def _attention(architecture: Architecture, totals: Totals) -> float:
    pairs = (architecture.layers - 1) * totals.pairs + totals.last_pairs
    return 4.0 * architecture.query * pairs
