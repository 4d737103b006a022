"""The plan of a run: everything that can be said of it before it begins."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, get_args

from recap.config import KeepModels, RunConfig, check_combinations
from recap.data.batches import Batching
from recap.models.backbone import build_skeleton
from recap.models.engine.shared_prefix import BatchingChoice, choose_batching
from recap.models.finetune import TARGET_MODULES
from recap.plan.architecture import (
    Architecture,
    ParameterCounts,
    count_parameters,
    find_architecture,
)
from recap.plan.memory import DecodedBatch, Memory, device_memory
from recap.plan.options import PlanOptions
from recap.plan.workload import (
    OPTIMIZER_BYTES,
    PlannedBatch,
    RunWorkload,
    Setting,
    Strategy,
    add_up,
    decoding_operations,
    forward_operations,
    largest_group,
    read_workload,
    scoring_groups,
    shared_tokens,
    training_groups,
    training_operations,
)
from recap.system.processes import device_count

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


CHECKPOINTS_AT_ONCE = 5
"""The two newest, the two best, and one that is being written."""


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Bytes of one run folder."""

    model: float
    """Of one fold's model."""
    models: float
    """Of all models that stay."""
    checkpoint: float
    """Of one checkpoint: tuned weights and the optimizer's state."""

    @property
    def most(self) -> float:
        """While the last fold is trained."""
        return self.models + CHECKPOINTS_AT_ONCE * self.checkpoint


def disk_bytes(
    counts: ParameterCounts,
    setting: Setting,
    *,
    n_models: int,
    keep: KeepModels,
    whole: bool = False,
) -> Disk:
    """Return what a run leaves on the disk.

    Args:
        counts: Parameters under the tuning method.
        setting: How they are trained.
        n_models: Trainings of the run.
        keep: As ``keep_models``.
        whole: Whether an adapter's folder carries the backbone too: ``merge=true``, or a backbone
            that exists nowhere else.
    """
    if setting.method == "none":
        return Disk(model=0.0, models=0.0, checkpoint=0.0)
    model: float = setting.weight_bytes * counts.total
    if setting.adapted:
        model = setting.adapter_bytes * counts.adapters + (model if whole else 0)
    state = OPTIMIZER_BYTES.get(setting.optimizer, OPTIMIZER_BYTES["adamw"])
    kept = {"all": n_models, "best": min(1, n_models), "none": 0}[keep]
    return Disk(
        model=model,
        models=kept * model,
        checkpoint=(setting.tuned_bytes + state) * counts.trainable,
    )


A100_TFLOPS = {2: 312.0, 4: 19.5, 8: 19.5}
"""Peak of an NVIDIA A100 by bytes of a number, in 10^12 a second (its data sheet: 16-bit tensor
cores; 32 and 64 bits without TF32)."""

USUAL_MEMORY_GIB = 80.0
"""Memory of the usual A100 and H100."""

FREE_SHARE = 0.05
"""Share of a device that the changes which are proposed leave free: plans are off by a few percent.
"""

SECONDS_AN_HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class Operations:
    """Floating-point operations of all trainings of a run, under one batching."""

    training: float
    selection: float
    """Of the loss that selects the epoch, once an epoch."""
    decoding: float
    """Of the test examples' loss and answers."""

    @property
    def total(self) -> float:
        """All of them."""
        return self.training + self.selection + self.decoding


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run needs."""

    config: RunConfig
    options: PlanOptions
    architecture: Architecture
    counts: ParameterCounts
    setting: Setting
    workload: RunWorkload
    batching: BatchingChoice
    group: PlannedBatch
    """The largest micro-batch."""
    accumulates: bool
    """Whether a step takes more than one micro-batch a device."""
    memory: Memory
    limit_bytes: float
    """Memory of one device."""
    changes: tuple[Change, ...]
    """What would make it fit; empty when it does."""
    epochs: int
    """Of each training, if none stops early."""
    steps: tuple[int, ...]
    """Optimizer steps of each training, if none stops early."""
    operations: Mapping[str, Operations]
    """By batching."""
    tflops: float | None
    """Assumed peak of one device; ``None`` when none is known."""
    disk: Disk

    @property
    def fits(self) -> bool:
        """Whether the peak is within a device's memory."""
        return self.memory.peak <= self.limit_bytes

    def hours(self, batching: str | None = None) -> float | None:
        """Return the hours of all trainings under a batching, by default the run's own."""
        if self.tflops is None:
            return None
        a_second = 1e12 * self.tflops * self.options.utilization * self.setting.n_devices
        return (
            self.operations[batching or self.batching.batching].total / a_second / SECONDS_AN_HOUR
        )


def make_plan(
    config: RunConfig, options: PlanOptions, *, workload: RunWorkload | None = None
) -> Plan:
    """Return the plan of a run, without loading weights or touching its folder.

    Args:
        config: The run.
        options: What is assumed of the devices.
        workload: Its examples, where another plan has read them already: data, task, prompt, folds
            and tokenizer are the same.

    Raises:
        ConfigError: For choices that cannot go together, or a backbone of unknown size.
        DataError: For data at fault.
    """
    check_combinations(config)
    backbone = config.backbone
    architecture = find_architecture(
        name=backbone.name,
        family=backbone.family,
        hub_id=backbone.hub_id,
        path=backbone.path,
        declared=backbone.architecture,
    )
    choice = choose_batching(build_skeleton(architecture.config), config.batching)
    workload = workload or read_workload(config, architecture)
    setting = _setting(config)
    demand = _demand(config, architecture, setting, workload, choice.batching)
    counts, memory = demand.counts(), demand.memory()
    limit = _limit_bytes(options, on_gpu=setting.on_gpu)
    per_epoch = [-(-len(t.train) // config.global_batch_size) for t in workload.trainings]
    return Plan(
        config=config,
        options=options,
        architecture=architecture,
        counts=counts,
        setting=setting,
        workload=workload,
        batching=choice,
        group=demand.largest,
        accumulates=demand.accumulates,
        memory=memory,
        limit_bytes=limit,
        changes=()
        if memory.peak <= limit
        else tuple(changes_that_fit(demand, (1 - FREE_SHARE) * limit)),
        epochs=_epochs(config),
        steps=tuple(_epochs(config) * steps for steps in per_epoch),
        operations={
            batching: _operations(config, architecture, counts, setting, workload, batching)
            for batching in get_args(Batching)
        },
        tflops=_tflops(options, setting),
        disk=disk_bytes(
            counts,
            setting,
            n_models=len(workload.trainings),
            keep="all" if config.cv.fold == "final" else config.keep_models,
            whole=config.merge or (backbone.path is None and backbone.hub_id is None),
        ),
    )


def _setting(config: RunConfig) -> Setting:
    trainer, finetune = config.trainer, config.finetune
    n_devices = device_count(trainer) * trainer.nodes
    strategy: Strategy = "one" if n_devices == 1 else "ddp"
    if trainer.strategy == "fsdp":
        strategy = "fsdp"
    return Setting(
        method=finetune.method,
        rank=finetune.rank,
        target_modules=finetune.target_modules or TARGET_MODULES[config.backbone.family],
        dtype=config.backbone.dtype,
        precision=trainer.precision,
        optimizer=config.optimizer.name,
        gradient_checkpointing=trainer.gradient_checkpointing,
        strategy=strategy,
        n_devices=n_devices,
        cpu_offload=trainer.cpu_offload,
        on_gpu=trainer.accelerator != "cpu",
    )


def _demand(
    config: RunConfig,
    architecture: Architecture,
    setting: Setting,
    workload: RunWorkload,
    batching: Batching,
) -> Demand:
    decodes = any(training.test for training in workload.trainings)
    return Demand(
        architecture=architecture,
        setting=setting,
        examples=tuple((len(e.prompt) + len(e.answer), len(e.answer)) for e in workload.examples),
        prefix=shared_tokens(batching, workload.prefix),
        global_batch_size=config.global_batch_size,
        per_device_batch_size=config.trainer.per_device_batch_size,
        max_tokens=config.trainer.max_tokens_per_device,
        decoding_batch_size=config.decoding.batch_size if decodes else 0,
        max_new_tokens=config.decoding.max_new_tokens,
    )


def _operations(
    config: RunConfig,
    architecture: Architecture,
    counts: ParameterCounts,
    setting: Setting,
    workload: RunWorkload,
    batching: Batching,
) -> Operations:
    epochs, prefix = _epochs(config), shared_tokens(batching, workload.prefix)
    training = selection = decoding = 0.0
    for part in workload.trainings:
        if epochs:
            groups = training_groups(config, part, prefix, setting.n_devices)
            training += epochs * training_operations(architecture, counts, setting, add_up(groups))
            selecting = add_up(scoring_groups(config, part.select, prefix))
            # Under the nested protocol the best epoch judges them once more.
            passes = epochs + (config.cv.protocol == "nested")
            selection += passes * forward_operations(architecture, counts, selecting)
        testing = add_up(scoring_groups(config, part.test, prefix))
        answered = [(len(example.prompt), len(example.answer)) for example in part.test]
        decoding += forward_operations(architecture, counts, testing)
        decoding += decoding_operations(architecture, counts, answered, prefix=prefix or 0)
    return Operations(training=training, selection=selection, decoding=decoding)


def _epochs(config: RunConfig) -> int:
    return 0 if config.finetune.method == "none" else config.trainer.max_epochs


def _tflops(options: PlanOptions, setting: Setting) -> float | None:
    if options.tflops is not None or not setting.on_gpu:
        return options.tflops
    in_16_bits = setting.autocast or setting.compute_bytes == 2
    return A100_TFLOPS[2 if in_16_bits else setting.compute_bytes]


def _limit_bytes(options: PlanOptions, *, on_gpu: bool) -> float:
    if options.device_memory_gib is not None:
        return options.device_memory_gib * 2**30
    if on_gpu:
        return USUAL_MEMORY_GIB * 2**30
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def plan_dict(plan: Plan) -> dict[str, Any]:
    """Return every figure of a plan at full precision, as plain values."""
    config, setting = plan.config, plan.setting
    lengths = [len(e.prompt) for e in plan.workload.examples]
    answers = [len(e.answer) for e in plan.workload.examples]
    return {
        "run": config.run,
        "backbone": config.backbone.name,
        "finetune": setting.method,
        "architecture_from": plan.architecture.source,
        "parameters": {**dataclasses.asdict(plan.counts), "total": plan.counts.total},
        "strategy": setting.strategy,
        "n_devices": setting.n_devices,
        "precision": setting.precision,
        "optimizer": setting.optimizer,
        "gradient_checkpointing": setting.gradient_checkpointing,
        "tokens": {
            "counted_by": plan.workload.counted_by,
            "examples": len(lengths),
            "shared": plan.workload.prefix,
            "mean_prompt": sum(lengths) / len(lengths),
            "longest_prompt": max(lengths),
            "mean_answer": sum(answers) / len(answers),
        },
        "batching": plan.batching.batching,
        "largest_micro_batch": {
            "examples": len(plan.group.lengths),
            "tokens": plan.group.tokens,
            "accumulated": plan.accumulates,
        },
        "memory": plan.memory.as_dict(),
        "device_memory_bytes": plan.limit_bytes,
        "fits": plan.fits,
        "changes_that_fit": [
            {"overrides": list(change.overrides), "peak_bytes": change.peak_bytes}
            for change in plan.changes
        ],
        "trainings": len(plan.steps),
        "epochs": plan.epochs,
        "steps": list(plan.steps),
        "operations": {
            batching: {**dataclasses.asdict(operations), "total": operations.total}
            for batching, operations in plan.operations.items()
        },
        "utilization": plan.options.utilization,
        "tflops": plan.tflops,
        "hours": {batching: plan.hours(batching) for batching in plan.operations},
        "disk": {**dataclasses.asdict(plan.disk), "most": plan.disk.most},
    }
