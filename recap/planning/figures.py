"""Every figure of a plan as plain values."""

from __future__ import annotations

import dataclasses
from typing import Any

from recap.planning.memory import as_dict
from recap.planning.plan import Plan


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
        "memory": as_dict(plan.memory),
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
