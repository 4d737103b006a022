"""A plan on the console and in its files."""

from __future__ import annotations

from recap.output.format import DASH
from recap.output.report import Report
from recap.output.tables import ReportTable
from recap.plan.memory import KINDS
from recap.plan.plan import Plan, plan_dict

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
    return Report(
        action="plan",
        title=f"Plan of {plan.config.run}",
        figures=plan_dict(plan),
        sheets=(_overview(plan), _memory(plan), _operations(plan), _disk(plan)),
        notes=verdict(plan),
    )


def verdict(plan: Plan) -> tuple[str, ...]:
    """Return whether the run fits, and where it does not, what would make it, a line each."""
    peak, limit = _gb(plan.memory.peak), _gb(plan.limit_bytes)
    at = f"{peak} GB at the peak ({plan.memory.peak_moment}), {limit} GB on the device"
    if plan.fits:
        return (f"fits: {at}",)
    changes = [
        f"would fit with {' '.join(change.overrides)} ({_gb(change.peak_bytes)} GB)"
        for change in plan.changes
    ]
    unknown = "no change that recap knows of makes it fit: take a smaller backbone"
    return (f"does not fit: {at}", *(changes or [unknown]))


def _overview(plan: Plan) -> ReportTable:
    config, counts, tokens = plan.config, plan.counts, plan_dict(plan)["tokens"]
    devices = str(plan.setting.n_devices)
    if plan.setting.strategy != "one":
        devices += f", {plan.setting.strategy}"
    total, group = counts.total + counts.adapters, plan.group
    reason = f" ({plan.batching.reason})" if plan.batching.reason else ""
    prompts = (
        f"{tokens['mean_prompt']:.0f} on average, {tokens['longest_prompt']} at most, "
        f"{tokens['shared']} shared by all"
    )
    rows = [
        ("backbone", f"{config.backbone.name}, sizes from {plan.architecture.source}"),
        ("tuning", f"{plan.setting.method}, {plan.setting.optimizer}, {plan.setting.precision}"),
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
    table = plan.memory.table
    rows = [(_KIND_TITLES[kind], *(_gb(table[m][kind]) for m in table)) for kind in KINDS]
    rows.append(("together", *(_gb(plan.memory.total(moment)) for moment in table)))
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
            f"on {plan.setting.n_devices} device(s)"
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
