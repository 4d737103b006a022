"""The protocol statement: exactly what was done, stated once for all runs that it holds for.

Beside it the options by which runs differ, among those that play a part in them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from recap.config import COMPARED, flatten, result_options
from recap.output.format import DASH
from recap.output.report import Report
from recap.output.tables import ReportTable
from recap.report.manifest import Resources, duration, resources_of
from recap.report.options import ReportConfig
from recap.report.runs import ALL, ReportedRun, Statement, named, statements_of
from recap.report.statements import Statements
from recap.report.templates import notes_of, read_texts

MOST_CHARACTERS = 60
"""Longest value that is shown; a longer one is shown as its hash."""

_TRAINING = ("optimizer.", "scheduler.", "trainer.", "finetune.", "callbacks.")
_TRAINING_TOO = frozenset({"callbacks", "global_batch_size", "sampling"})
_ADAPTERS = frozenset({f"finetune.{key}" for key in ("rank", "alpha", "dropout", "target_modules")})
_HASH_CHARACTERS = 8


def differing_options(runs: Sequence[ReportedRun]) -> dict[str, dict[str, str]]:
    """Return the options that differ: name to the value of each run that it plays a part in.

    An option that only some runs have, such as the learning rate beside a prompted system, differs
    where two of those runs disagree. ``system`` says what kind of run it is. Paths, which say
    nothing of results while the hashes agree, are left out or shortened to their last part.
    """
    by_run = {run.name: run_options(run) for run in runs}
    names = dict.fromkeys(name for options in by_run.values() for name in options)
    found: dict[str, dict[str, str]] = {}
    for name in names:
        values = {run: options[name] for run, options in by_run.items() if name in options}
        if len(set(values.values())) > 1:
            found[name] = values
    return found


def run_options(run: ReportedRun) -> dict[str, str]:
    """Return the options that play a part in a run, by dotted name, as short texts."""
    options = {
        name: value
        for name, value in result_options(run.config).items()
        if _plays_a_part(run, name) and not name.startswith("task.taxonomy.")
    }
    taxonomy = run.config.task.taxonomy
    if isinstance(taxonomy, Mapping):
        options["task.taxonomy"] = _digest(taxonomy)
    prompted = flatten(run.prompted)
    options |= {name: prompted.get(name) for name in COMPARED if run.prompted}
    if run.prompted and not run.is_remote:
        for name in ("client.model", "client.base_url", "client.temperature", "client.top_p"):
            options.pop(name, None)
    shown = {name: _shown(name, value) for name, value in options.items()}
    return {"system": run.kind, **shown}


def _plays_a_part(run: ReportedRun, name: str) -> bool:
    if name in ("data.path", "prompt.file", "finetune.method") or name.startswith("baseline."):
        return name not in ("data.path", "prompt.file")
    if run.kind == "baseline":
        # What an encoder is trained with stands among the baseline's own options.
        return name.startswith(("task.", "data.", "cv.", "seed"))
    if run.is_remote and (name.startswith("backbone.") or name == "decoding.name"):
        return False
    if name.startswith(_TRAINING) or name in _TRAINING_TOO:
        adapters = run.config.finetune.method in ("lora", "qlora")
        return run.is_trained and (adapters or name not in _ADAPTERS)
    return True


def _shown(name: str, value: Any) -> str:
    if name == "backbone.path" and value is not None:
        return Path(str(value)).name
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MOST_CHARACTERS else _digest(value)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:_HASH_CHARACTERS]}…"


TITLE = "Protocol: what was done"


def protocol_section(runs: Sequence[ReportedRun], options: ReportConfig) -> Report:
    """Return what was done, by which options the runs differ, and how long they took."""
    statements = Statements(runs)
    parts = {
        part: statements_of(runs, partial(statements.about, name))
        for part, name in read_texts("statements.yaml")["protocol"].items()
    }
    differences = differing_options(runs)
    resources = {run.name: resources_of(run) for run in runs}
    sheets = [_statement_sheet(parts, runs)]
    if differences:
        sheets.append(_difference_sheet(differences, runs))
    sheets.append(_time_sheet(resources))
    return Report(
        action="protocol",
        title=TITLE,
        figures={
            "statements": [
                {"part": part, "runs": [run.name for run in found.runs], "text": found.text}
                for part, own in parts.items()
                for found in own
            ],
            "differences": differences,
            "runs": {run.name: _run_figures(run, resources[run.name]) for run in runs},
        },
        sheets=tuple(sheets),
        notes=notes_of(
            "protocol",
            n_runs=len(runs),
            epochs=any(used.selected_epochs for used in resources.values()),
            differences=differences,
            resumed={name: used.resumes for name, used in resources.items() if used.resumes},
        ),
    )


def _statement_sheet(
    parts: Mapping[str, Sequence[Statement]], runs: Sequence[ReportedRun]
) -> ReportTable:
    rows = []
    for part, statements in parts.items():
        for found in statements:
            who = named(found.runs, among=runs)
            rows.append((part, found.text if who == ALL else f"{who}: {found.text}"))
    return ReportTable(
        title="What was done", header=("", "statement"), rows=tuple(rows), text_columns=(0, 1)
    )


def _difference_sheet(
    differences: Mapping[str, Mapping[str, str]], runs: Sequence[ReportedRun]
) -> ReportTable:
    by_name = {run.name: run for run in runs}
    rows = []
    for option, values in differences.items():
        shown = option
        for value in dict.fromkeys(values.values()):
            having = [by_name[run] for run in values if values[run] == value]
            rows.append((shown, value, named(having, among=runs)))
            shown = ""
    return ReportTable(
        title="Options that differ",
        header=("option", "value", "runs"),
        rows=tuple(rows),
        text_columns=(0, 1, 2),
    )


def _time_sheet(resources: Mapping[str, Resources]) -> ReportTable:
    return ReportTable(
        title="Time of all finished folds",
        header=("run", "device", "training", "testing", "epochs"),
        rows=tuple(
            (
                name,
                used.device or DASH,
                duration(used.train_seconds),
                duration(used.test_seconds),
                " ".join(map(str, used.selected_epochs)) or DASH,
            )
            for name, used in resources.items()
        ),
        text_columns=(0, 1),
    )


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
