"""What the runs recorded beside their scores: the leakage of their folds, and the manifest.

The manifest has what they were made with and what they took, what differs first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recap.folds.fold import read_made_with
from recap.output.format import DASH, duration_text, number
from recap.output.report import Report
from recap.output.tables import ReportTable, table_of
from recap.output.templates import render_notes
from recap.records import Prices, Usage
from recap.report.options import ReportConfig
from recap.report.runs import ReportedRun, distinct, named, statements_of


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What the finished folds of one run took; ``None`` where its manifest does not say."""

    device: str | None
    train_seconds: float | None
    """Of all finished folds together; ``None`` for a system that is not trained."""
    test_seconds: float | None
    """Of decoding and scoring."""
    selected_epochs: tuple[int, ...]
    """Of each finished fold, counted from 1; empty where nothing is trained."""
    usage: Usage | None
    """Tokens of a prompted system."""
    cost: float | None
    """In the currency of the prices."""
    resumes: tuple[str, ...]
    """Folds that a stopped process left and another took up, one entry a time."""


def resources_of(run: ReportedRun) -> Resources:
    """Return what a run took, as its manifest has it."""
    folds = finished_entries(run).values()
    used = [Usage(**fold["usage"]) for fold in folds if "usage" in fold]
    usage = sum(used[1:], start=used[0]) if used else None
    client = run.prompted.get("client", {})
    prices = [client.get(f"price_per_million_{way}") for way in ("input", "output")]
    epochs = (fold.get("selected_epoch") for fold in folds)
    cost = None
    if usage is not None and None not in prices:
        cost = Prices(input=prices[0], output=prices[1]).cost(usage)
    return Resources(
        device=run.manifest.get("device"),
        train_seconds=_total(folds, "train_seconds"),
        test_seconds=_total(folds, "test_seconds"),
        selected_epochs=tuple(epoch for epoch in epochs if epoch),
        usage=usage,
        cost=cost,
        resumes=tuple(
            f"{entry['fold']} at step {entry['step']} "
            f"({'training' if entry['at'] == 'train' else 'decoding'})"
            for entry in run.manifest.get("resumes", ())
        ),
    )


def finished_entries(run: ReportedRun) -> dict[str, Mapping[str, Any]]:
    """Return what the manifest says of the finished folds, by name (``fold0``)."""
    entries = run.manifest.get("folds", {})
    return {name: entries[name] for name in (f"fold{k}" for k in run.scores) if name in entries}


def _total(folds: Iterable[Mapping[str, Any]], key: str) -> float | None:
    seconds = [fold[key] for fold in folds if fold.get(key) is not None]
    return float(sum(seconds)) if seconds else None


COMMIT = "git commit of recap"
NOT_INSTALLED = "not installed"
UNKNOWN = "not recorded"


def environments_of(run: ReportedRun) -> dict[str, dict[str, str]]:
    """Return what each finished fold ran in: fold (``fold0``) to entry to value.

    A fold that recorded nothing of its own counts with what the run was begun in.
    """
    entries = finished_entries(run)
    found = {}
    for name in (f"fold{k}" for k in run.scores):
        own = entries.get(name, {}).get("environment") or run.manifest
        versions = {k: version or NOT_INSTALLED for k, version in own.get("versions", {}).items()}
        platform, commit = own.get("platform") or UNKNOWN, own.get("git_commit") or UNKNOWN
        found[name] = {**versions, "platform": platform, COMMIT: commit}
    return found


def values_of(run: ReportedRun) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return every entry's values in a run's folds, each with the folds that have it."""
    folds = environments_of(run)
    entries = dict.fromkeys(entry for fold in folds.values() for entry in fold)
    return {
        entry: distinct({name: fold.get(entry, UNKNOWN) for name, fold in folds.items()})
        for entry in entries
    }


def places_of(runs: Sequence[ReportedRun]) -> dict[str, dict[str, str]]:
    """Return every entry's values, each with the runs or folds that have it.

    A run whose folds agree is named as a whole; of others, the folds are named.
    """
    by_run = [(run, values_of(run)) for run in runs]
    found = {}
    for entry in dict.fromkeys(entry for _, own in by_run for entry in own):
        whole: dict[str, list[ReportedRun]] = {}
        parts: dict[str, list[str]] = {}
        for run, own in by_run:
            values = own.get(entry, {UNKNOWN: ()})
            for value, folds in values.items():
                if len(values) == 1:
                    whole.setdefault(value, []).append(run)
                else:
                    parts.setdefault(value, []).append(f"{run.name} ({', '.join(folds)})")
        all_of = {value: [named(own, among=runs)] for value, own in whole.items()}
        found[entry] = {
            value: ", ".join([*all_of.get(value, []), *parts.get(value, [])])
            for value in dict.fromkeys([*whole, *parts])
        }
    return found


_HASHES = ("data_hash", "partition_hash", "prompt_hash", "configuration_hash")


def manifest_section(runs: Sequence[ReportedRun], options: ReportConfig) -> Report:
    """Return versions, platforms, hashes, devices, times, tokens and cost of every run."""
    places = {**places_of(runs), **_run_entries(runs)}
    differing = {entry: values for entry, values in places.items() if len(values) > 1}
    resources = {run.name: resources_of(run) for run in runs}
    sheets = [
        value_sheet("What differs", ("entry", "value", "where"), differing),
        table_of(
            "What is the same everywhere",
            [(entry, *values) for entry, values in places.items() if len(values) == 1],
            {"entry": lambda row: row[0], "value": lambda row: row[1]},
            text_columns=(0, 1),
        ),
        table_of(
            "Hashes of each run",
            [(run.name, _hashes(run)) for run in runs],
            {
                "run": lambda row: row[0],
                "configuration": lambda row: row[1]["configuration_hash"] or DASH,
                "prompt": lambda row: row[1]["prompt_hash"] or DASH,
            },
            text_columns=(0, 1, 2),
        ),
        table_of(
            "Time of each finished fold",
            runs,
            {
                "run": lambda run: run.name,
                "training": lambda run: _times(run, "train"),
                "testing": lambda run: _times(run, "test"),
            },
            text_columns=(0, 1, 2),
        ),
        _use_sheet(resources),
    ]
    return Report(
        action="manifest",
        title="Manifest: what the runs were made with",
        figures={
            "differing": differing,
            "runs": {run.name: _run_figures(run, resources[run.name]) for run in runs},
        },
        sheets=tuple(sheet for sheet in sheets if sheet.rows),
        notes=render_notes(
            "report/notes.yaml",
            "manifest",
            uneven=[
                {"name": run.name, "entry": entry, "values": values}
                for run in runs
                for entry, values in values_of(run).items()
                if len(values) > 1
            ],
            between=list(differing),
            unknown_commit=UNKNOWN in places.get(COMMIT, {}),
            resumed=[
                {"name": name, "resumes": used.resumes}
                for name, used in resources.items()
                if used.resumes
            ],
        ),
    )


def _run_entries(runs: Sequence[ReportedRun]) -> dict[str, dict[str, str]]:
    """Return the entries that a run has as a whole, as :func:`places_of` returns others."""

    def places(key: str) -> dict[str, str]:
        of_value = statements_of(runs, lambda run: str(run.manifest.get(key) or UNKNOWN))
        return {value: named(own, among=runs) for value, own in of_value.items()}

    keys = ("device", "data_hash", "partition_hash")
    return {key.replace("_", " "): places(key) for key in keys}


def value_sheet(
    title: str, header: tuple[str, str, str], places: Mapping[str, Mapping[str, str]]
) -> ReportTable:
    """Return the values of entries, and where each is so; an entry is named once.

    Args:
        title: Of the table.
        header: What entries, values and places are.
        places: Entry to value to where it is so.
    """
    return ReportTable(
        title=title,
        header=header,
        rows=tuple(
            (entry if place == 0 else "", value, where)
            for entry, values in places.items()
            for place, (value, where) in enumerate(values.items())
        ),
        text_columns=(0, 1, 2),
    )


def _times(run: ReportedRun, stage: str) -> str:
    entries = finished_entries(run).values()
    return ", ".join(duration_text(entry.get(f"{stage}_seconds")) for entry in entries)


def _use_sheet(resources: Mapping[str, Resources]) -> ReportTable:
    return table_of(
        "Tokens and cost of prompted runs",
        [(name, used.usage, used.cost) for name, used in resources.items() if used.usage],
        {
            "run": lambda row: row[0],
            "answers": lambda row: f"{row[1].answers}",
            "tokens of prompts": lambda row: f"{row[1].input_tokens}",
            "tokens of answers": lambda row: f"{row[1].output_tokens}",
            "cost": lambda row: number(row[2], 4),
        },
    )


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


KINDS = {
    "duplicates": "Exact duplicates",
    "near_duplicates": "Near duplicates",
    "shared_sessions": "In shared sessions",
    "shared_clients": "Of shared clients",
    "history_overlap": "History overlap",
}
"""Headings of leakage.json, as tables call them."""


def leakage_section(runs: Sequence[ReportedRun], options: ReportConfig) -> Report | None:
    """Return how many test examples of each fold share something, of each kind.

    Runs over one partition share a table. ``None`` when no run has a leakage.json.
    """
    known = [run for run in runs if run.leakage.get("folds")]
    if not known:
        return None
    by_rows: dict[tuple[tuple[str, ...], ...], list[ReportedRun]] = {}
    for run in known:
        rows = tuple(
            (
                f"fold {fold['fold']}",
                f"{fold['test']:,}",
                f"{len(run.predictions.get(fold['fold'], ())):,}",
                *_cells(fold),
            )
            for fold in run.leakage["folds"]
        )
        by_rows.setdefault(rows, []).append(run)
    sheets = [
        ReportTable(
            title="Test examples that share something with training or selection: "
            + "; ".join(run.title for run in group),
            header=("Fold", "Tested, all labels", "Tested of the task", *KINDS.values()),
            rows=rows,
        )
        for rows, group in by_rows.items()
    ]
    shots = _shot_sheet(known)
    return Report(
        action="leakage",
        title="Leakage",
        figures={"runs": [_figures(run) for run in known]},
        sheets=(*sheets, *([shots] if shots.rows else [])),
        notes=render_notes(
            "report/notes.yaml",
            "leakage",
            near=next(
                (near for run in known if (near := run.leakage.get("near_duplicates"))), None
            ),
            runs=[
                {
                    "name": run.title,
                    "shown_and_tested": sum(map(len, shots_in_test(run).values())),
                    "without_session": run.leakage.get("without_session", 0),
                    "in_folds": run.leakage.get("in_folds", 0),
                }
                for run in known
            ],
            missing=[run.title for run in runs if run not in known],
        ),
    )


def shots_in_test(run: ReportedRun) -> dict[int, tuple[str, ...]]:
    """Return, for each finished fold, the examples shown in its prompts that it also tests.

    By the ids that the manifest keeps of the shots and those of the predictions, whatever
    leakage.json holds.
    """
    entries = run.manifest.get("folds", {})
    found = {}
    for fold, predictions in run.predictions.items():
        tested = {prediction.id for prediction in predictions}
        shown = entries.get(f"fold{fold}", {}).get("shots", ())
        found[fold] = tuple(identifier for identifier in shown if identifier in tested)
    return found


def _shot_sheet(runs: Sequence[ReportedRun]) -> ReportTable:
    return ReportTable(
        title="Test examples that share something with the solved examples in prompts",
        header=("System", "Fold", "Shown", "Shown and tested", *KINDS.values()),
        rows=tuple(
            (
                run.title,
                f"fold {fold['fold']}",
                f"{len(fold['shots']['ids'])}",
                f"{_n_tested(run, fold)}",
                *_cells(fold["shots"]),
            )
            for run in runs
            for fold in run.leakage["folds"]
            if fold.get("shots")
        ),
        text_columns=(0, 1),
    )


def _n_tested(run: ReportedRun, fold: Mapping[str, Any]) -> int:
    by_ids = len(shots_in_test(run).get(fold["fold"], ()))
    return max(by_ids, int(fold["shots"]["in_test"]["count"]))


def _cells(report: Mapping[str, Any]) -> list[str]:
    return [DASH if n is None else f"{n:,}" for n in leakage_counts(report).values()]


def leakage_counts(report: Mapping[str, Any]) -> dict[str, int | None]:
    """Return test examples by kind, ``None`` where an earlier version did not look for it."""
    found = {kind: report.get(kind) for kind in KINDS}
    return {
        kind: None if entry is None else int(entry.get("test_examples", entry["count"]))
        for kind, entry in found.items()
    }


def _figures(run: ReportedRun) -> dict[str, Any]:
    folds = []
    for fold in run.leakage["folds"]:
        entry = {"fold": fold["fold"], **leakage_counts(fold)}
        if fold.get("shots"):
            entry["shots"] = {
                "shown": len(fold["shots"]["ids"]),
                "tested": _n_tested(run, fold),
                **leakage_counts(fold["shots"]),
            }
        folds.append(entry)
    return {
        "run": run.name,
        "group": run.config.cv.group,
        "repeats": run.leakage.get("repeats", {}).get("count"),
        "without_session": run.leakage.get("without_session"),
        "folds": folds,
    }
