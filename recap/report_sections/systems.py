"""Which runs are one system: repetitions under other seeds, and twins under another protocol."""

from __future__ import annotations

import json
from collections.abc import Sequence

from recap.analysis.comparison import ComparedRun, System
from recap.prompting.options import COMPARED
from recap.report_sections.runs import ReportedRun
from recap.result_options import flatten, result_options

SEEDS = ("seed", "cv.seed")
"""Options that repetitions of one system may differ in."""


def options_key(run: ReportedRun, free: Sequence[str]) -> str:
    """Return a text that runs share exactly when their result-changing options are equal.

    Args:
        run: The run.
        free: Options that may differ, with dotted keys.
    """
    asked = flatten(run.prompted)
    options = {**result_options(run.config), **{key: asked.get(key) for key in COMPARED}}
    kept = {key: value for key, value in options.items() if key not in free}
    return json.dumps([run.kind, kept], sort_keys=True, default=str)


def systems_of(runs: Sequence[ReportedRun]) -> tuple[tuple[ReportedRun, ...], ...]:
    """Return runs grouped into systems: those of a group differ in seeds alone."""
    groups: dict[str, list[ReportedRun]] = {}
    for run in runs:
        groups.setdefault(options_key(run, SEEDS), []).append(run)
    return tuple(tuple(group) for group in groups.values())


def protocol_twins(
    runs: Sequence[ReportedRun],
) -> tuple[tuple[tuple[ReportedRun, ...], tuple[ReportedRun, ...]], ...]:
    """Return systems that were run under both protocols, as pairs ``(paper, nested)``.

    They have every option in common but ``cv.protocol``, and so the same test folds: only what is
    trained on and selected on differs. Prompted systems train nothing and are left out.
    """
    groups: dict[str, dict[str, tuple[ReportedRun, ...]]] = {}
    for group in systems_of([run for run in runs if run.kind != "prompted"]):
        key = options_key(group[0], (*SEEDS, "cv.protocol"))
        groups.setdefault(key, {})[group[0].config.cv.protocol] = group
    return tuple((both["paper"], both["nested"]) for both in groups.values() if len(both) == 2)


def as_system(group: Sequence[ReportedRun]) -> System:
    """Return a group of runs as a comparison takes it, under the name of its first run."""
    return System(name=system_name(group), runs=tuple(_compared(run) for run in group))


def system_name(group: Sequence[ReportedRun]) -> str:
    """Return the name of a group's first run, with the number of repetitions."""
    return group[0].name if len(group) == 1 else f"{group[0].name} (× {len(group)} seeds)"


def _compared(run: ReportedRun) -> ComparedRun:
    return ComparedRun(
        name=run.name,
        task=run.task.name,
        labels=run.task.labels,
        partition=str(run.manifest.get("partition_hash")),
        n_folds=run.config.cv.folds,
        folds=run.predictions,
    )
