"""Which runs repeat each other under other seeds, and which differ in their protocol alone."""

from __future__ import annotations

import json
from collections.abc import Sequence

from recap.analysis.comparison import ComparedRun, ComparedSystem
from recap.report_sections.runs import ReportedRun
from recap.report_sections.systems import system_options

SEEDS = ("seed", "cv.seed")
"""Options that repetitions may differ in."""

Repeats = tuple[ReportedRun, ...]
"""Runs that differ in seeds alone; mostly a single one."""


def group_repeats(runs: Sequence[ReportedRun], free: Sequence[str] = SEEDS) -> tuple[Repeats, ...]:
    """Return runs of one task and the same options together, but for those that are free."""
    groups: dict[str, list[ReportedRun]] = {}
    for run in runs:
        options = {key: value for key, value in system_options(run).items() if key not in free}
        key = json.dumps([run.task.name, run.kind, options], sort_keys=True, default=str)
        groups.setdefault(key, []).append(run)
    return tuple(tuple(group) for group in groups.values())


def protocol_twins(runs: Sequence[ReportedRun]) -> tuple[tuple[Repeats, Repeats], ...]:
    """Return systems that were run under both protocols, as pairs ``(paper, nested)``.

    They have every option in common but ``cv.protocol`` and seeds, and so the same test folds
    wherever the partition seed is the same: only what is trained on and selected on differs.
    Prompted systems train nothing and are left out.
    """
    trained = [run for run in runs if run.kind != "prompted"]
    pairs = []
    for group in group_repeats(trained, free=(*SEEDS, "cv.protocol")):
        paper, nested = (
            tuple(run for run in group if run.config.cv.protocol == protocol)
            for protocol in ("paper", "nested")
        )
        if partitions(paper) & partitions(nested):
            pairs.append((paper, nested))
    return tuple(pairs)


def partitions(group: Repeats) -> set[str]:
    """Return the hashes of which example is tested in which fold."""
    return {str(run.manifest.get("partition_hash")) for run in group}


def as_compared(group: Repeats) -> ComparedSystem:
    """Return runs of one system as a comparison takes them."""
    runs = tuple(
        ComparedRun(
            name=run.name,
            task=run.task.name,
            labels=run.task.labels,
            partition=str(run.manifest.get("partition_hash")),
            n_folds=run.config.cv.folds,
            folds=run.predictions,
        )
        for run in group
    )
    return ComparedSystem(name=group_name(group), runs=runs)


def group_name(group: Repeats) -> str:
    """Return the name of the first run, with the number of repetitions."""
    return group[0].name if len(group) == 1 else f"{group[0].name} (× {len(group)} seeds)"
