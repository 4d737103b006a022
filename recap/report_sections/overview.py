"""What a report is of: its runs, the best system of each task, and what to be wary of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from recap.report_sections.options import ReportConfig
from recap.report_sections.runs import ReportedRun
from recap.report_sections.systems import System, group_systems
from recap.report_sections.tables import partial_notes
from recap.reporting.findings import Findings
from recap.reporting.sheets import Sheet
from recap.scoring.summary import DDOF, spread_text

_KINDS = {"trained": "fine-tuned", "prompted": "prompted", "baseline": "baseline"}


def overview_section(runs: Sequence[ReportedRun], options: ReportConfig) -> Findings:
    """Return the runs of a report and what it comes to."""
    systems = group_systems(runs)
    return Findings(
        action="overview",
        title="Overview",
        figures={"runs": [_figures(run) for run in runs]},
        sheets=(_best(systems), _runs(systems)),
        notes=tuple(_warnings(runs)),
    )


def headline(runs: Sequence[ReportedRun]) -> list[str]:
    """Return a sentence a task: its best system by mean macro-F1."""
    systems = group_systems(runs)
    sentences = []
    for task in dict.fromkeys(run.task.name for run in runs):
        best, run = _best_of(systems, task)
        spread = run.summary.metrics["macro_f1"]
        over = f"{len(run.scores)} folds" if len(run.scores) > 1 else "one fold"
        sentences.append(
            f"{task}: {best.name} has the best macro-F1, {spread_text(spread)} percent over {over}."
        )
    return sentences


def _best_of(systems: Sequence[System], task: str) -> tuple[System, ReportedRun]:
    scored = [(system, system.runs[task]) for system in systems if task in system.runs]
    return max(scored, key=lambda pair: pair[1].summary.metrics["macro_f1"].mean or 0.0)


def _best(systems: Sequence[System]) -> Sheet:
    tasks = dict.fromkeys(task for system in systems for task in system.runs)
    rows = []
    for task in tasks:
        system, run = _best_of(systems, task)
        metrics = run.summary.metrics
        cells = (spread_text(metrics["macro_f1"]), spread_text(metrics["accuracy"]))
        rows.append((task, system.name, *cells))
    return Sheet(
        title=f"Best system by task (mean ± SD over folds, ddof = {DDOF}, in percent)",
        header=("Task", "System", "Macro-F1", "Accuracy"),
        rows=tuple(rows),
        text_columns=(0, 1),
    )


def _runs(systems: Sequence[System]) -> Sheet:
    rows = [
        (
            run.name,
            _KINDS[run.kind],
            task,
            system.name,
            f"{len(run.scores)} of {run.config.cv.folds}",
            run.config.cv.protocol,
            f"{sum(scores.n for scores in run.scores.values()):,}",
        )
        for system in systems
        for task, run in system.runs.items()
    ]
    return Sheet(
        title="Runs",
        header=("Run", "Kind", "Task", "System", "Folds", "Protocol", "Predictions"),
        rows=tuple(rows),
        text_columns=(0, 1, 2, 3, 4, 5),
    )


def _figures(run: ReportedRun) -> dict[str, Any]:
    return {
        "run": run.name,
        "kind": run.kind,
        "task": run.task.name,
        "data": run.config.data.name,
        "synthetic": run.data.get("synthetic"),
        "folds": list(run.scores),
        "missing_folds": list(run.missing),
        "n_predictions": sum(scores.n for scores in run.scores.values()),
        "data_hash": run.manifest.get("data_hash"),
        "partition_hash": run.manifest.get("partition_hash"),
    }


def _warnings(runs: Sequence[ReportedRun]) -> Iterator[str]:
    if any(run.data.get("synthetic") for run in runs):
        yield (
            "The corpus is synthetic: it shows that the software works, and says nothing about "
            "real clients."
        )
    yield from partial_notes(runs)
    if any(run.config.cv.protocol == "paper" and run.kind != "prompted" for run in runs):
        yield (
            "cv.protocol=paper: the fold that is reported also selected the checkpoint, as in the "
            "paper, so that scores of trained models are optimistic; cv.protocol=nested is not."
        )
    unread = {run.name: run.summary.metrics["invalid_rate"].mean or 0.0 for run in runs}
    worst = max(unread, key=lambda name: unread[name])
    if unread[worst]:
        n_unread = sum(rate > 0 for rate in unread.values())
        yield (
            f"Answers without a readable label count as wrong; {n_unread} of {len(runs)} runs have "
            f"some, {worst} most ({100 * unread[worst]:.2f} percent)."
        )
