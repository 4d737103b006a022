"""The plan of a run: everything that can be said of it before it begins."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Literal, get_args

from recap.config import KeepModels, RunConfig, check_combinations
from recap.data.batches import Batching
from recap.data.layout import shared_in_order
from recap.folds.run import Run
from recap.models.backbone import build_skeleton, positions_of
from recap.models.engine.loss import BatchingChoice, choose_batching
from recap.models.finetune import projections
from recap.models.precision import describe, in_words, precision_warnings, settled_trainer
from recap.output.format import DASH
from recap.output.report import Report
from recap.output.tables import ReportTable
from recap.plan.architecture import (
    Architecture,
    ParameterCounts,
    count_parameters,
    find_architecture,
)
from recap.plan.memory import KINDS, DecodedBatch, Memory, device_memory
from recap.plan.options import PlanOptions
from recap.plan.workload import (
    OPTIMIZER_BYTES,
    PlannedBatch,
    RunWorkload,
    Setting,
    Strategy,
    backbone_encoder,
    decoding_operations,
    encode_prompts,
    forward_operations,
    largest_group,
    read_workload,
    scoring_groups,
    shared_tokens,
    sizes,
    training_groups,
    training_operations,
)
from recap.system.processes import device_count, host_memory

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

    @cached_property
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

    @property
    def counts(self) -> ParameterCounts:
        """The numbers of parameters under the tuning method."""
        setting = self.setting
        return _counted(
            self.architecture, setting.method, setting.rank, tuple(setting.target_modules)
        )

    @cached_property
    def memory(self) -> Memory:
        """What one device holds."""
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
            self.counts,
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
    overrides, edits = given, _edits(demand)
    while not overrides or demand.memory.peak > limit_bytes:
        override, edit = next(edits, (None, None))
        if override is None or edit is None:
            return None
        overrides, demand = (*overrides, override), edit(demand)
    return Change(overrides=overrides, peak_bytes=demand.memory.peak)


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


def _edits(demand: Demand) -> Iterator[tuple[str, Callable[[Demand], Demand]]]:
    """Yield what saves memory, what changes results last."""
    setting = demand.setting
    if demand.decoding_batch_size > 4 and demand.memory.peak_moment == "decoding":
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
    """Return what a run of so many trainings leaves on the disk under ``keep_models=keep``.

    ``whole`` says that an adapter's folder carries the backbone too: ``merge=true``, or a backbone
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
    demand: Demand
    workload: RunWorkload
    batching: BatchingChoice

    @property
    def limit_bytes(self) -> float:
        """Memory of one device."""
        if self.options.device_memory_gib is not None:
            return self.options.device_memory_gib * 2**30
        if self.demand.setting.on_gpu:
            return USUAL_MEMORY_GIB * 2**30
        return float(host_memory())

    @property
    def fits(self) -> bool:
        """Whether the peak is within a device's memory."""
        return self.demand.memory.peak <= self.limit_bytes

    @cached_property
    def changes(self) -> Sequence[Change]:
        """What would make it fit; empty when it does."""
        limit = (1 - FREE_SHARE) * self.limit_bytes
        return [] if self.fits else changes_that_fit(self.demand, limit)

    @property
    def epochs(self) -> int:
        """Of each training, if none stops early."""
        return 0 if self.config.finetune.method == "none" else self.config.trainer.max_epochs

    @property
    def steps(self) -> tuple[int, ...]:
        """Optimizer steps of each training, if none stops early."""
        size = self.config.global_batch_size
        return tuple(
            self.epochs * math.ceil(len(each.train) / size) for each in self.workload.trainings
        )

    @cached_property
    def operations(self) -> Mapping[Batching, Operations]:
        """Floating-point operations of the whole run, by batching."""
        return {batching: self._operations(batching) for batching in get_args(Batching)}

    def _operations(self, batching: Batching) -> Operations:
        demand = self.demand
        architecture, counts, setting = demand.architecture, demand.counts, demand.setting
        training = selection = decoding = 0.0
        for part in self.workload.trainings:
            prefix = shared_tokens(batching, part.prefix)
            if self.epochs:
                groups = training_groups(self.config, part, prefix, setting.n_devices)
                training += self.epochs * training_operations(architecture, counts, setting, groups)
                selecting = scoring_groups(self.config, part.select, prefix)
                # Under the nested protocol the best epoch judges them once more.
                passes = self.epochs + (self.config.cv.protocol == "nested")
                selection += passes * forward_operations(architecture, counts, selecting)
                # What is prompted as it is has no loss.
                testing = scoring_groups(self.config, part.test, prefix)
                decoding += forward_operations(architecture, counts, testing)
            seen = shared_in_order([example.prompt for example in part.test])
            answered = [
                (len(one.prompt), before if batching == "trunk" else 0, len(one.answer))
                for one, before in zip(part.test, seen, strict=True)
            ]
            decoding += decoding_operations(architecture, counts, answered)
        return Operations(training=training, selection=selection, decoding=decoding)

    @property
    def tflops(self) -> float | None:
        """Assumed peak of one device; ``None`` when none is known."""
        setting = self.demand.setting
        if self.options.tflops is not None or not setting.on_gpu:
            return self.options.tflops
        return A100_TFLOPS[2 if setting.autocast else setting.compute_bytes]

    def hours(self, batching: Batching | None = None) -> float | None:
        """Return the hours of all trainings under a batching, by default the run's own."""
        if self.tflops is None:
            return None
        n_devices = self.demand.setting.n_devices
        a_second = 1e12 * self.tflops * self.options.utilization * n_devices
        operations = self.operations[batching or self.batching.batching]
        return operations.total / a_second / SECONDS_AN_HOUR

    @property
    def disk(self) -> Disk:
        """What the run leaves on the disk."""
        config, backbone = self.config, self.config.backbone
        return disk_bytes(
            self.demand.counts,
            self.demand.setting,
            n_models=len(self.workload.trainings),
            keep="all" if config.cv.fold == "final" else config.keep_models,
            whole=config.merge or (backbone.path is None and backbone.hub_id is None),
        )


def make_plan(
    config: RunConfig,
    options: PlanOptions,
    *,
    workload: RunWorkload | None = None,
    run: Run | None = None,
) -> Plan:
    """Return the plan of a run, without loading weights or touching its folder.

    ``workload`` holds its examples, where another plan has read them already: data, task, prompt,
    folds and tokenizer are the same. ``run`` is one whose backbone is prompted as it is.

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
    skeleton = build_skeleton(architecture.config)
    choice = choose_batching(skeleton, config.batching)
    if run is not None:
        positions = positions_of(architecture.config)
        workload = encode_prompts(run, *backbone_encoder(config, architecture), positions=positions)
    workload = workload or read_workload(config, architecture)
    finetune, on_gpu = config.finetune, config.trainer.accelerator != "cpu"
    trainer = settled_trainer(
        config.trainer,
        device="cuda" if on_gpu else "cpu",
        has_bf16=True,
        pretrained=finetune.method != "none" and bool(backbone.path or backbone.hub_id),
    )
    config = replace(config, trainer=trainer)
    n_devices = device_count(trainer) * trainer.nodes
    strategy: Strategy = "one" if n_devices == 1 else "ddp"
    setting = Setting(
        method=finetune.method,
        rank=finetune.rank,
        target_modules=finetune.target_modules or projections(skeleton),
        dtype=backbone.dtype,
        precision=trainer.precision,
        optimizer=config.optimizer.name,
        gradient_checkpointing=trainer.gradient_checkpointing,
        strategy="fsdp" if trainer.strategy == "fsdp" else strategy,
        n_devices=n_devices,
        cpu_offload=trainer.cpu_offload,
        on_gpu=on_gpu,
    )
    decodes = any(training.test for training in workload.trainings)
    demand = Demand(
        architecture=architecture,
        setting=setting,
        examples=sizes(workload.examples),
        prefix=shared_tokens(choice.batching, workload.prefix),
        global_batch_size=config.global_batch_size,
        per_device_batch_size=trainer.per_device_batch_size,
        max_tokens=trainer.max_tokens_per_device,
        decoding_batch_size=config.decoding.batch_size if decodes else 0,
        max_new_tokens=config.decoding.max_new_tokens,
    )
    return Plan(config=config, options=options, demand=demand, workload=workload, batching=choice)


def plan_dict(plan: Plan) -> dict[str, Any]:
    """Return every figure of a plan at full precision, as plain values."""
    config, demand = plan.config, plan.demand
    setting, memory = demand.setting, demand.memory
    lengths = [len(e.prompt) for e in plan.workload.examples]
    answers = [len(e.answer) for e in plan.workload.examples]
    return {
        "run": config.run,
        "backbone": config.backbone.name,
        "finetune": setting.method,
        "architecture_from": demand.architecture.source,
        "parameters": {**dataclasses.asdict(demand.counts), "total": demand.counts.total},
        "strategy": setting.strategy,
        "n_devices": setting.n_devices,
        "precision": setting.precision,
        "matmul": config.trainer.matmul,
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
            "examples": len(demand.largest.lengths),
            "tokens": demand.largest.tokens,
            "accumulated": demand.accumulates,
        },
        "memory": {
            "moments": {
                moment: {**held, "total": memory.total(moment)}
                for moment, held in memory.table.items()
            },
            "peak_moment": memory.peak_moment,
            "peak_bytes": memory.peak,
        },
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


_KIND_TITLES = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "activations": "activations",
    "logits": "logits and loss",
    "cache": "cache of decoding",
    "runtime": "runtime (allowance)",
}


def plan_report(plan: Plan) -> Report:
    """Return the plan as it is printed and written: the run, memory, operations, disk, verdict."""
    wasted = precision_warnings(plan.config.trainer.precision, device="cuda", has_bf16=True)
    return Report(
        action="plan",
        title=f"Plan of {plan.config.run}",
        figures=plan_dict(plan),
        sheets=(_overview(plan), _memory(plan), _operations(plan), _disk(plan)),
        notes=(*verdict(plan), *(wasted if plan.demand.setting.on_gpu else ())),
    )


def verdict(plan: Plan) -> tuple[str, ...]:
    """Return whether the run fits, and where it does not, what would make it, a line each."""
    peak, limit = _gb(plan.demand.memory.peak), _gb(plan.limit_bytes)
    at = f"{peak} GB at the peak ({plan.demand.memory.peak_moment}), {limit} GB on the device"
    if plan.fits:
        return (f"fits: {at}",)
    changes = [
        f"would fit with {' '.join(change.overrides)} ({_gb(change.peak_bytes)} GB)"
        for change in plan.changes
    ]
    unknown = "no change that recap knows of makes it fit: take a smaller backbone"
    return (f"does not fit: {at}", *(changes or [unknown]))


def _overview(plan: Plan) -> ReportTable:
    config, demand, tokens = plan.config, plan.demand, plan_dict(plan)["tokens"]
    setting, counts, group = demand.setting, demand.counts, demand.largest
    numbers = describe(config.trainer, setting.optimizer)
    devices = str(setting.n_devices)
    if setting.strategy != "one":
        devices += f", {setting.strategy}"
    total = counts.total + counts.adapters
    reason = f" ({plan.batching.reason})" if plan.batching.reason else ""
    prompts = (
        f"{tokens['mean_prompt']:.0f} on average, {tokens['longest_prompt']} at most, "
        f"{tokens['shared']} shared by all"
    )
    rows = [
        ("backbone", f"{config.backbone.name}, sizes from {demand.architecture.source}"),
        ("tuning", f"{setting.method}, {numbers['optimizer']}"),
        ("precision", in_words(numbers)),
        ("parameters", f"{counts.total:,}"),
        ("tuned", f"{counts.trainable:,} ({100 * counts.trainable / total:.2f} %)"),
        ("devices", devices),
        ("tokens counted by", tokens["counted_by"]),
        ("examples", f"{tokens['examples']:,}"),
        ("tokens a prompt", prompts),
        ("tokens an answer", f"{tokens['mean_answer']:.0f} on average"),
        ("batching", f"{plan.batching.batching}{reason}"),
        ("largest micro-batch", f"{len(group.lengths)} examples, {group.tokens} tokens"),
        ("optimizer steps", f"{sum(plan.steps):,} in {len(plan.steps)} trainings"),
    ]
    return ReportTable(title="The run", header=("what", "figure"), rows=tuple(rows))


def _memory(plan: Plan) -> ReportTable:
    table = plan.demand.memory.table
    rows = [(_KIND_TITLES[kind], *(_gb(table[m][kind]) for m in table)) for kind in KINDS]
    rows.append(("together", *(_gb(plan.demand.memory.total(moment)) for moment in table)))
    return ReportTable(
        title="Memory of one device in GB (10^9 bytes), by moment",
        header=("kind", *table),
        rows=tuple(rows),
    )


def _operations(plan: Plan) -> ReportTable:
    rows = []
    for batching, operations in plan.operations.items():
        hours = plan.hours(batching)
        parts = (operations.training, operations.selection, operations.decoding, operations.total)
        chosen = " (this run)" if batching == plan.batching.batching else ""
        rows.append(
            (
                f"{batching}{chosen}",
                *map(_peta, parts),
                DASH if hours is None else f"{hours:,.2f}",
            )
        )
    assumed = "hours need plan.tflops on a CPU"
    if plan.tflops is not None:
        assumed = (
            f"hours at {100 * plan.options.utilization:.0f} % of {plan.tflops:g} TFLOPS "
            f"on {plan.demand.setting.n_devices} device(s)"
        )
    return ReportTable(
        title=f"Operations in 10^15 of {len(plan.steps)} trainings, every epoch; {assumed}",
        header=("batching", "training", "selection", "decoding", "together", "hours"),
        rows=tuple(rows),
    )


def _disk(plan: Plan) -> ReportTable:
    disk = plan.disk
    kept = f"models that stay (keep_models={plan.config.keep_models})"
    rows = (
        ("one model", _gb(disk.model)),
        (kept, _gb(disk.models)),
        ("one checkpoint", _gb(disk.checkpoint)),
        ("at most, while the last fold is trained", _gb(disk.most)),
    )
    return ReportTable(title="Disk in GB", header=("what", "GB"), rows=rows)


def _peta(operations: float) -> str:
    n = operations / 1e15
    return f"{n:,.0f}" if n >= 100 else f"{n:.3g}"


def _gb(n_bytes: float) -> str:
    if n_bytes == 0:
        return "0"
    return f"{n_bytes / 1e9:,.1f}" if n_bytes >= 1e8 else f"{n_bytes / 1e9:.3f}"
