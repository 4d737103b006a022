"""The manifest: what the runs were made with and what they took, what differs first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recap.report_sections.environments import (
    COMMIT,
    UNKNOWN,
    environments_of,
    places_of,
    uneven_folds,
)
from recap.report_sections.grouped import named, said_of
from recap.report_sections.options import ReportConfig
from recap.report_sections.resources import Resources, finished_entries, resources_of
from recap.report_sections.runs import ReportedRun
from recap.reporting.findings import Findings
from recap.reporting.sheets import Sheet
from recap.reporting.time_left import duration_text
from recap.results import read_made_with

TITLE = "Manifest: what the runs were made with"
_HASHES = ("data_hash", "partition_hash", "prompt_hash", "configuration_hash")


def manifest_section(runs: Sequence[ReportedRun], options: ReportConfig) -> Findings:
    """Return versions, platforms, hashes, devices, times, tokens and cost of every run."""
    places = {**places_of(runs), **_run_entries(runs)}
    resources = {run.name: resources_of(run) for run in runs}
    sheets = [
        _differing_sheet(places),
        _common_sheet(places),
        _hash_sheet(runs),
        _time_sheet(runs),
        _use_sheet(resources),
    ]
    return Findings(
        action="manifest",
        title=TITLE,
        figures={
            "differing": {entry: values for entry, values in places.items() if len(values) > 1},
            "runs": {run.name: _run_figures(run, resources[run.name]) for run in runs},
        },
        sheets=tuple(sheet for sheet in sheets if sheet.rows),
        notes=_notes(runs, places, resources),
    )


def _run_entries(runs: Sequence[ReportedRun]) -> dict[str, dict[str, str]]:
    """Return the entries that a run has as a whole, as :func:`places_of` returns others."""
    return {
        key.replace("_", " "): {
            said.text: named(said.runs, among=runs) for said in said_of(runs, _entry_of(key))
        }
        for key in ("device", "data_hash", "partition_hash")
    }


def _entry_of(key: str) -> Callable[[ReportedRun], str]:
    return lambda run: str(run.manifest.get(key) or UNKNOWN)


def _differing_sheet(places: Mapping[str, Mapping[str, str]]) -> Sheet:
    rows = []
    for entry, values in places.items():
        shown = entry
        for value, where in values.items() if len(values) > 1 else ():
            rows.append((shown, value, where))
            shown = ""
    return Sheet(
        title="What differs",
        header=("entry", "value", "where"),
        rows=tuple(rows),
        text_columns=(0, 1, 2),
    )


def _common_sheet(places: Mapping[str, Mapping[str, str]]) -> Sheet:
    return Sheet(
        title="What is the same everywhere",
        header=("entry", "value"),
        rows=tuple((e, next(iter(values))) for e, values in places.items() if len(values) == 1),
        text_columns=(0, 1),
    )


def _hash_sheet(runs: Sequence[ReportedRun]) -> Sheet:
    hashes = {run.name: _hashes(run) for run in runs}
    return Sheet(
        title="Hashes of each run",
        header=("run", "configuration", "prompt"),
        rows=tuple(
            (name, found["configuration_hash"] or "–", found["prompt_hash"] or "–")
            for name, found in hashes.items()
        ),
        text_columns=(0, 1, 2),
    )


def _time_sheet(runs: Sequence[ReportedRun]) -> Sheet:
    return Sheet(
        title="Time of each finished fold",
        header=("run", "training", "testing"),
        rows=tuple((run.name, _times(run, "train"), _times(run, "test")) for run in runs),
        text_columns=(0, 1, 2),
    )


def _times(run: ReportedRun, stage: str) -> str:
    entries = finished_entries(run).values()
    return ", ".join(_duration(entry.get(f"{stage}_seconds")) for entry in entries)


def _use_sheet(resources: Mapping[str, Resources]) -> Sheet:
    return Sheet(
        title="Tokens and cost of prompted runs",
        header=("run", "answers", "tokens of prompts", "tokens of answers", "cost"),
        rows=tuple(
            (
                name,
                str(used.usage.answers),
                str(used.usage.input_tokens),
                str(used.usage.output_tokens),
                "–" if used.cost is None else f"{used.cost:.4f}",
            )
            for name, used in resources.items()
            if used.usage is not None
        ),
    )


def _duration(seconds: float | None) -> str:
    return "–" if seconds is None else duration_text(seconds)


def _hashes(run: ReportedRun) -> dict[str, str | None]:
    """Return a run's hashes; that of its configuration is the finished folds' own."""
    made_with: dict[str, str] = {}
    for fold in run.scores:
        made_with |= read_made_with(run.folder.fold(fold))
    return {name: run.manifest.get(name, made_with.get(name)) for name in _HASHES}


def _run_figures(run: ReportedRun, used: Resources) -> dict[str, Any]:
    usage = used.usage
    entries = finished_entries(run)
    return {
        **_hashes(run),
        "seed": run.manifest.get("seed"),
        "device": used.device,
        "environments": environments_of(run),
        "train_seconds": {name: entry.get("train_seconds") for name, entry in entries.items()},
        "test_seconds": {name: entry.get("test_seconds") for name, entry in entries.items()},
        "answers": usage.answers if usage else None,
        "input_tokens": usage.input_tokens if usage else None,
        "output_tokens": usage.output_tokens if usage else None,
        "cost": used.cost,
        "resumes": list(run.manifest.get("resumes", ())),
        "merges": dict(run.manifest.get("merges", {})),
    }


def _notes(
    runs: Sequence[ReportedRun],
    places: Mapping[str, Mapping[str, str]],
    resources: Mapping[str, Resources],
) -> tuple[str, ...]:
    notes = []
    for run in runs:
        for entry, values in uneven_folds(run).items():
            told = "; ".join(f"{value} in {', '.join(folds)}" for value, folds in values.items())
            notes.append(f"The folds of {run.name} were not run alike: {entry}: {told}.")
    between = [entry for entry, values in places.items() if len(values) > 1]
    if between:
        notes.append(
            f"Not the same in all runs and folds: {', '.join(between)}. Where it may have changed "
            "results, run the older folds again."
        )
    if UNKNOWN in places.get(COMMIT, {}):
        notes.append(
            "The commit of recap is not recorded where it is installed without its checkout."
        )
    for name, used in resources.items():
        if used.resumes:
            notes.append(f"{name} was stopped and taken up again: {', '.join(used.resumes)}.")
    return tuple(notes)
