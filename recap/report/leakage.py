"""What the test part of each fold shares with what a system has seen, run by run.

Options by which runs differ, among those that play a part in them.

The protocol statement: exactly what was done, said once for all runs that it holds for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recap.config import COMPARED, flatten, result_options
from recap.folds.console import duration_text
from recap.output.report import Report
from recap.output.tables import ReportTable
from recap.report import data_card as data_statements
from recap.report import system_card as system_statements
from recap.report.manifest import Resources, resources_of
from recap.report.options import ReportConfig
from recap.report.runs import ALL, ReportedRun, Statement, named, said_of
from recap.report.system_card import is_remote, is_trained

KINDS = {
    "duplicates": "Exact duplicates",
    "near_duplicates": "Near duplicates",
    "shared_sessions": "In shared sessions",
    "shared_clients": "Of shared clients",
    "history_overlap": "History overlap",
}
"""Headings of leakage.json, as tables call them."""

_NO_FIGURE = "–"


def leakage_section(runs: Sequence[ReportedRun], options: ReportConfig) -> Report | None:
    """Return how many test examples of each fold share something, of each kind.

    Runs over one partition share a table. ``None`` when no run has a leakage.json.
    """
    known = [run for run in runs if run.leakage.get("folds")]
    if not known:
        return None
    shots = [run for run in known if _shot_folds(run)]
    sheets = [_data_sheet(group) for group in _groups(known)]
    return Report(
        action="leakage",
        title="Leakage",
        figures={"runs": [_figures(run) for run in known]},
        sheets=(*sheets, *([_shot_sheet(shots)] if shots else [])),
        notes=tuple(_notes(runs, known)),
    )


def shots_in_test(run: ReportedRun) -> dict[int, tuple[str, ...]]:
    """Return, for each finished fold, the examples shown in its prompts that it also tests.

    By the ids that the manifest keeps of the shots and those of the predictions, whatever
    leakage.json says.
    """
    entries = run.manifest.get("folds", {})
    found = {}
    for fold, predictions in run.predictions.items():
        shown = entries.get(f"fold{fold}", {}).get("shots", ())
        tested = {prediction.id for prediction in predictions}
        found[fold] = tuple(identifier for identifier in shown if identifier in tested)
    return found


def _groups(runs: Sequence[ReportedRun]) -> list[list[ReportedRun]]:
    groups: list[list[ReportedRun]] = []
    for run in runs:
        same = next((group for group in groups if _rows(group[0]) == _rows(run)), None)
        if same is None:
            groups.append([run])
        else:
            same.append(run)
    return groups


def _rows(run: ReportedRun) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            f"fold {fold['fold']}",
            f"{fold['test']:,}",
            f"{len(run.predictions.get(fold['fold'], ())):,}",
            *(_cell(fold, kind) for kind in KINDS),
        )
        for fold in run.leakage["folds"]
    )


def _data_sheet(group: Sequence[ReportedRun]) -> ReportTable:
    return ReportTable(
        title="Test examples that share something with training or selection: "
        + ", ".join(run.name for run in group),
        header=("Fold", "Tested, all labels", "Tested of the task", *KINDS.values()),
        rows=_rows(group[0]),
    )


def _shot_folds(run: ReportedRun) -> list[Mapping[str, Any]]:
    return [fold for fold in run.leakage["folds"] if fold.get("shots")]


def _shot_sheet(runs: Sequence[ReportedRun]) -> ReportTable:
    return ReportTable(
        title="Test examples that share something with the solved examples in prompts",
        header=("Run", "Fold", "Shown", "Shown and tested", *KINDS.values()),
        rows=tuple(
            (
                run.name,
                f"fold {fold['fold']}",
                f"{len(fold['shots']['ids'])}",
                f"{_n_tested(run, fold)}",
                *(_cell(fold["shots"], kind) for kind in KINDS),
            )
            for run in runs
            for fold in _shot_folds(run)
        ),
        text_columns=(0, 1),
    )


def _n_tested(run: ReportedRun, fold: Mapping[str, Any]) -> int:
    by_ids = len(shots_in_test(run).get(fold["fold"], ()))
    return max(by_ids, int(fold["shots"]["in_test"]["count"]))


def _cell(report: Mapping[str, Any], kind: str) -> str:
    found = _count(report, kind)
    return _NO_FIGURE if found is None else f"{found:,}"


def _count(report: Mapping[str, Any], kind: str) -> int | None:
    """Return test examples, ``None`` where an earlier version did not look for this kind."""
    entry = report.get(kind)
    return None if entry is None else int(entry.get("test_examples", entry["count"]))


def _figures(run: ReportedRun) -> dict[str, Any]:
    folds = []
    for fold in run.leakage["folds"]:
        entry = {"fold": fold["fold"], **{kind: _count(fold, kind) for kind in KINDS}}
        if fold.get("shots"):
            entry["shots"] = {
                "shown": len(fold["shots"]["ids"]),
                "tested": _n_tested(run, fold),
                **{kind: _count(fold["shots"], kind) for kind in KINDS},
            }
        folds.append(entry)
    return {
        "run": run.name,
        "group": run.config.cv.group,
        "repeats": run.leakage.get("repeats", {}).get("count"),
        "without_session": run.leakage.get("without_session"),
        "folds": folds,
    }


def _notes(runs: Sequence[ReportedRun], known: Sequence[ReportedRun]) -> Iterator[str]:
    definition = next((r.leakage["near_duplicates"] for r in known if _has_definition(r)), None)
    if definition:
        yield (
            "Near duplicates: the counsellor's words and the response together have a Jaccard "
            f"similarity of character trigrams of at least {definition['similarity']:g}, the "
            f"responses alone of {definition['response_similarity']:g}, from "
            f"{definition['shortest_characters']} characters on; exact duplicates apart."
        )
    yield (
        "History overlap: a response stands in the history of an example on the other side. "
        "Sessions that lie on both sides are kept together by cv.group=session."
    )
    for run in known:
        tested = [identifier for ids in shots_in_test(run).values() for identifier in ids]
        if tested:
            yield f"{run.name}: {len(tested)} examples in prompts are tested themselves."
        unknown, inside = run.leakage.get("without_session", 0), run.leakage.get("in_folds", 0)
        if unknown:
            yield (
                f"{run.name}: {unknown:,} of {inside:,} examples have no session, so that shared "
                "sessions and history overlap cannot be judged for them."
            )
    missing = [run.name for run in runs if run not in known]
    if missing:
        yield f"No leakage.json: {', '.join(missing)}."


def _has_definition(run: ReportedRun) -> bool:
    return "near_duplicates" in run.leakage


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
    told = flatten(run.prompted)
    options |= {name: told.get(name) for name in COMPARED if run.prompted}
    if run.prompted and not is_remote(run):
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
    if is_remote(run) and (name.startswith("backbone.") or name == "decoding.name"):
        return False
    if name.startswith(_TRAINING) or name in _TRAINING_TOO:
        adapters = run.config.finetune.method in ("lora", "qlora")
        return is_trained(run) and (adapters or name not in _ADAPTERS)
    return True


def _shown(name: str, value: Any) -> str:
    if name == "backbone.path" and value is not None:
        return Path(str(value)).name
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MOST_CHARACTERS else _digest(value)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:_HASH_CHARACTERS]}…"


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


def protocol_section(runs: Sequence[ReportedRun], options: ReportConfig) -> Report:
    """Return what was done, by which options the runs differ, and how long they took."""
    parts = {part: said_of(runs, say) for part, say in PARTS.items()}
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
                {"part": part, "runs": [run.name for run in said.runs], "text": said.text}
                for part, statements in parts.items()
                for said in statements
            ],
            "differences": differences,
            "runs": {run.name: _run_figures(run, resources[run.name]) for run in runs},
        },
        sheets=tuple(sheets),
        notes=_protocol_notes(runs, differences, resources),
    )


def _statement_sheet(
    parts: Mapping[str, Sequence[Statement]], runs: Sequence[ReportedRun]
) -> ReportTable:
    rows = []
    for part, statements in parts.items():
        for said in statements:
            who = named(said.runs, among=runs)
            rows.append((part, said.text if who == ALL else f"{who}: {said.text}"))
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


def _protocol_notes(
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
