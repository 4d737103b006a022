"""The protocol statement: exactly what was done, said once for all runs that it holds for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recap.report_sections import data_statements, system_statements
from recap.report_sections.differences import differing_options
from recap.report_sections.grouped import ALL, Said, named, said_of
from recap.report_sections.options import ReportConfig
from recap.report_sections.resources import Resources, resources_of
from recap.report_sections.runs import ReportedRun
from recap.reporting.findings import Findings
from recap.reporting.sheets import Sheet
from recap.reporting.time_left import duration_text

PARTS: Mapping[str, Callable[[ReportedRun], str | None]] = {
    "Data": data_statements.data_source,
    "Rows": data_statements.rows,
    "Left out": data_statements.left_out,
    "Turns": data_statements.turns,
    "Duplicates": data_statements.duplicates,
    "Labels and support": data_statements.support,
    "Folds": data_statements.folds,
    "Selection": data_statements.selection,
    "Shared with training": data_statements.shared,
    "Model": system_statements.model,
    "Tuning": system_statements.tuning,
    "Optimiser": system_statements.optimiser,
    "Epochs and batches": system_statements.epochs,
    "Seeds": system_statements.seeds,
    "Prompt": system_statements.prompt,
    "Prompts cut": system_statements.shortened,
    "Prompt hash": system_statements.prompt_hash,
    "Solved examples": system_statements.shots,
    "Decoding": system_statements.decoding,
    "Counted as wrong": system_statements.counted_as_wrong,
    "Figures": system_statements.scoring,
    "Not finished": system_statements.missing_folds,
}
"""The parts of the statement in their order; each says a sentence of a run, or nothing."""

TITLE = "Protocol: what was done"


def protocol_section(runs: Sequence[ReportedRun], options: ReportConfig) -> Findings:
    """Return what was done, by which options the runs differ, and how long they took."""
    parts = {part: said_of(runs, say) for part, say in PARTS.items()}
    differences = differing_options(runs)
    resources = {run.name: resources_of(run) for run in runs}
    sheets = [_statement_sheet(parts, runs)]
    if differences:
        sheets.append(_difference_sheet(differences, runs))
    sheets.append(_time_sheet(resources))
    return Findings(
        action="protocol",
        title=TITLE,
        figures={
            "statements": [
                {"part": part, "runs": [run.name for run in said.runs], "text": said.text}
                for part, statements in parts.items()
                for said in statements
            ],
            "differences": differences,
            "runs": {run.name: _run_figures(run, resources[run.name]) for run in runs},
        },
        sheets=tuple(sheets),
        notes=_notes(runs, differences, resources),
    )


def _statement_sheet(parts: Mapping[str, Sequence[Said]], runs: Sequence[ReportedRun]) -> Sheet:
    rows = []
    for part, statements in parts.items():
        for said in statements:
            who = named(said.runs, among=runs)
            rows.append((part, said.text if who == ALL else f"{who}: {said.text}"))
    return Sheet(
        title="What was done", header=("", "statement"), rows=tuple(rows), text_columns=(0, 1)
    )


def _difference_sheet(
    differences: Mapping[str, Mapping[str, str]], runs: Sequence[ReportedRun]
) -> Sheet:
    by_name = {run.name: run for run in runs}
    rows = []
    for option, values in differences.items():
        shown = option
        for value in dict.fromkeys(values.values()):
            having = [by_name[run] for run in values if values[run] == value]
            rows.append((shown, value, named(having, among=runs)))
            shown = ""
    return Sheet(
        title="Options that differ",
        header=("option", "value", "runs"),
        rows=tuple(rows),
        text_columns=(0, 1, 2),
    )


def _time_sheet(resources: Mapping[str, Resources]) -> Sheet:
    return Sheet(
        title="Time of all finished folds",
        header=("run", "device", "training", "testing", "epochs"),
        rows=tuple(
            (
                name,
                used.device or "–",
                _duration(used.train_seconds),
                _duration(used.test_seconds),
                " ".join(map(str, used.selected_epochs)) or "–",
            )
            for name, used in resources.items()
        ),
        text_columns=(0, 1),
    )


def _duration(seconds: float | None) -> str:
    return "–" if seconds is None else duration_text(seconds)


def _run_figures(run: ReportedRun, used: Resources) -> dict[str, Any]:
    return {
        "kind": run.kind,
        "folds": list(run.scores),
        "missing_folds": list(run.missing),
        "device": used.device,
        "train_seconds": used.train_seconds,
        "test_seconds": used.test_seconds,
        "selected_epochs": list(used.selected_epochs),
        "resumes": list(used.resumes),
        "support": {label: row.support for label, row in run.summary.per_label.items()},
    }


def _notes(
    runs: Sequence[ReportedRun],
    differences: Mapping[str, object],
    resources: Mapping[str, Resources],
) -> tuple[str, ...]:
    notes = []
    if any(used.selected_epochs for used in resources.values()):
        notes.append("Epochs are those that were selected, fold after fold.")
    if len(runs) > 1 and not differences:
        notes.append("The runs differ in no option that changes results.")
    if any(used.resumes for used in resources.values()):
        taken_up = "; ".join(
            f"{name}: {', '.join(used.resumes)}" for name, used in resources.items() if used.resumes
        )
        notes.append(
            f"Stopped and taken up again, to the same result ({taken_up}); the seconds are those "
            "of the last process of each fold."
        )
    if differences:
        notes.append(
            "An option is compared among the runs in which it plays a part; what no run changes "
            "is in each run's config.yaml."
        )
    return tuple(notes)
