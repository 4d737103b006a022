"""What the runs recorded beside their scores: the leakage of their folds, and the manifest.

The manifest has what they were made with and what they took, what differs first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from recap.folds.fold import read_made_with
from recap.output.format import DASH, duration_text
from recap.output.report import Report
from recap.output.tables import ReportTable, table_of
from recap.records import Prices, Usage
from recap.report.options import ReportConfig
from recap.report.runs import ReportedRun, distinct, named, statements_of
from recap.report.templates import notes_of


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
    folds = finished_entries(run)
    usage = _usage(folds.values())
    prices = _prices(run)
    epochs = (entry.get("selected_epoch") for entry in folds.values())
    return Resources(
        device=run.manifest.get("device"),
        train_seconds=_total(folds.values(), "train_seconds"),
        test_seconds=_total(folds.values(), "test_seconds"),
        selected_epochs=tuple(epoch for epoch in epochs if epoch),
        usage=usage,
        cost=prices.cost(usage) if prices is not None and usage is not None else None,
        resumes=tuple(_resume_text(entry) for entry in run.manifest.get("resumes", ())),
    )


def finished_entries(run: ReportedRun) -> dict[str, Mapping[str, Any]]:
    """Return what the manifest says of the finished folds, by name (``fold0``)."""
    entries = run.manifest.get("folds", {})
    return {name: entries[name] for name in (f"fold{k}" for k in run.scores) if name in entries}


def _total(folds: Iterable[Mapping[str, Any]], key: str) -> float | None:
    seconds = [fold[key] for fold in folds if fold.get(key) is not None]
    return float(sum(seconds)) if seconds else None


def _usage(folds: Iterable[Mapping[str, Any]]) -> Usage | None:
    used = [Usage(**fold["usage"]) for fold in folds if "usage" in fold]
    return sum(used[1:], start=used[0]) if used else None


def _prices(run: ReportedRun) -> Prices | None:
    client = run.prompted.get("client", {})
    prices = [client.get(f"price_per_million_{way}") for way in ("input", "output")]
    if None in prices or not client:
        return None
    return Prices(input=prices[0], output=prices[1])


def _resume_text(entry: Mapping[str, Any]) -> str:
    doing = "training" if entry["at"] == "train" else "decoding"
    return f"{entry['fold']} at step {entry['step']} ({doing})"


COMMIT = "git commit of recap"
NOT_INSTALLED = "not installed"
UNKNOWN = "not recorded"


def environments_of(run: ReportedRun) -> dict[str, dict[str, str]]:
    """Return what each finished fold ran in: fold (``fold0``) to entry to value.

    A fold that recorded nothing of its own counts with what the run was begun in.
    """
    entries = finished_entries(run)
    return {
        f"fold{k}": _flat(entries.get(f"fold{k}", {}).get("environment") or run.manifest)
        for k in run.scores
    }


def places_of(runs: Sequence[ReportedRun]) -> dict[str, dict[str, str]]:
    """Return every entry's values, each with the runs or folds that have it.

    A run whose folds agree is named as a whole; of others, the folds are named.
    """
    by_run = {run.name: environments_of(run) for run in runs}
    entries = dict.fromkeys(e for folds in by_run.values() for fold in folds.values() for e in fold)
    return {entry: _places(entry, by_run, runs) for entry in entries}


def uneven_folds(run: ReportedRun) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the entries in which a run's own folds differ: to value to folds."""
    folds = environments_of(run)
    entries = dict.fromkeys(entry for fold in folds.values() for entry in fold)
    found = {}
    for entry in entries:
        values = distinct({name: fold.get(entry, UNKNOWN) for name, fold in folds.items()})
        if len(values) > 1:
            found[entry] = {str(value): names for value, names in values.items()}
    return found


def _places(
    entry: str, by_run: Mapping[str, Mapping[str, Mapping[str, str]]], runs: Sequence[ReportedRun]
) -> dict[str, str]:
    whole: dict[str, list[ReportedRun]] = {}
    parts: dict[str, list[str]] = {}
    for run in runs:
        values = distinct({k: f.get(entry, UNKNOWN) for k, f in by_run[run.name].items()})
        for value, folds in values.items():
            if len(values) == 1:
                whole.setdefault(str(value), []).append(run)
            else:
                parts.setdefault(str(value), []).append(f"{run.name} ({', '.join(folds)})")
    return {
        value: ", ".join(
            [
                *([named(whole[value], among=runs)] if value in whole else []),
                *parts.get(value, []),
            ]
        )
        for value in dict.fromkeys([*whole, *parts])
    }


def _flat(environment: Mapping[str, Any]) -> dict[str, str]:
    versions = {
        package: version or NOT_INSTALLED
        for package, version in environment.get("versions", {}).items()
    }
    return {
        **versions,
        "platform": environment.get("platform") or UNKNOWN,
        COMMIT: environment.get("git_commit") or UNKNOWN,
    }


_HASHES = ("data_hash", "partition_hash", "prompt_hash", "configuration_hash")


def manifest_section(runs: Sequence[ReportedRun], options: ReportConfig) -> Report:
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
    return Report(
        action="manifest",
        title="Manifest: what the runs were made with",
        figures={
            "differing": {entry: values for entry, values in places.items() if len(values) > 1},
            "runs": {run.name: _run_figures(run, resources[run.name]) for run in runs},
        },
        sheets=tuple(sheet for sheet in sheets if sheet.rows),
        notes=notes_of(
            "manifest",
            uneven=[
                {
                    "name": run.name,
                    "entry": entry,
                    "values": "; ".join(
                        f"{v} in {', '.join(folds)}" for v, folds in values.items()
                    ),
                }
                for run in runs
                for entry, values in uneven_folds(run).items()
            ],
            between=[entry for entry, values in places.items() if len(values) > 1],
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
    found = {}
    for key in ("device", "data_hash", "partition_hash"):
        values = statements_of(runs, partial(_recorded, key))
        found[key.replace("_", " ")] = {
            value: named(own, among=runs) for value, own in values.items()
        }
    return found


def _recorded(key: str, run: ReportedRun) -> str:
    return str(run.manifest.get(key) or UNKNOWN)


def _differing_sheet(places: Mapping[str, Mapping[str, str]]) -> ReportTable:
    rows = []
    for entry, values in places.items():
        shown = entry
        for value, where in values.items() if len(values) > 1 else ():
            rows.append((shown, value, where))
            shown = ""
    return ReportTable(
        title="What differs",
        header=("entry", "value", "where"),
        rows=tuple(rows),
        text_columns=(0, 1, 2),
    )


def _common_sheet(places: Mapping[str, Mapping[str, str]]) -> ReportTable:
    return table_of(
        "What is the same everywhere",
        [(entry, *values) for entry, values in places.items() if len(values) == 1],
        {"entry": lambda row: row[0], "value": lambda row: row[1]},
        text_columns=(0, 1),
    )


def _hash_sheet(runs: Sequence[ReportedRun]) -> ReportTable:
    return table_of(
        "Hashes of each run",
        [(run.name, _hashes(run)) for run in runs],
        {
            "run": lambda row: row[0],
            "configuration": lambda row: row[1]["configuration_hash"] or DASH,
            "prompt": lambda row: row[1]["prompt_hash"] or DASH,
        },
        text_columns=(0, 1, 2),
    )


def _time_sheet(runs: Sequence[ReportedRun]) -> ReportTable:
    return table_of(
        "Time of each finished fold",
        runs,
        {
            "run": lambda run: run.name,
            "training": lambda run: _times(run, "train"),
            "testing": lambda run: _times(run, "test"),
        },
        text_columns=(0, 1, 2),
    )


def _times(run: ReportedRun, stage: str) -> str:
    entries = finished_entries(run).values()
    return ", ".join(duration(entry.get(f"{stage}_seconds")) for entry in entries)


def _use_sheet(resources: Mapping[str, Resources]) -> ReportTable:
    return table_of(
        "Tokens and cost of prompted runs",
        [(name, used.usage, used.cost) for name, used in resources.items() if used.usage],
        {
            "run": lambda row: row[0],
            "answers": lambda row: f"{row[1].answers}",
            "tokens of prompts": lambda row: f"{row[1].input_tokens}",
            "tokens of answers": lambda row: f"{row[1].output_tokens}",
            "cost": lambda row: DASH if row[2] is None else f"{row[2]:.4f}",
        },
    )


def duration(seconds: float | None) -> str:
    """Return a duration as tables have it, a dash for ``None``."""
    return DASH if seconds is None else duration_text(seconds)


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
    shots = [run for run in known if _shot_folds(run)]
    by_rows: dict[tuple[tuple[str, ...], ...], list[ReportedRun]] = {}
    for run in known:
        by_rows.setdefault(_rows(run), []).append(run)
    sheets = [_data_sheet(rows, group) for rows, group in by_rows.items()]
    return Report(
        action="leakage",
        title="Leakage",
        figures={"runs": [_figures(run) for run in known]},
        sheets=(*sheets, *([_shot_sheet(shots)] if shots else [])),
        notes=notes_of(
            "leakage",
            near=next(
                (near for run in known if (near := run.leakage.get("near_duplicates"))), None
            ),
            runs=[
                {
                    "name": run.name,
                    "shown_and_tested": sum(map(len, shots_in_test(run).values())),
                    "without_session": run.leakage.get("without_session", 0),
                    "in_folds": run.leakage.get("in_folds", 0),
                }
                for run in known
            ],
            missing=[run.name for run in runs if run not in known],
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
        shown = entries.get(f"fold{fold}", {}).get("shots", ())
        tested = {prediction.id for prediction in predictions}
        found[fold] = tuple(identifier for identifier in shown if identifier in tested)
    return found


def _rows(run: ReportedRun) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            f"fold {fold['fold']}",
            f"{fold['test']:,}",
            f"{len(run.predictions.get(fold['fold'], ())):,}",
            *_cells(fold),
        )
        for fold in run.leakage["folds"]
    )


def _data_sheet(rows: tuple[tuple[str, ...], ...], group: Sequence[ReportedRun]) -> ReportTable:
    return ReportTable(
        title="Test examples that share something with training or selection: "
        + ", ".join(run.name for run in group),
        header=("Fold", "Tested, all labels", "Tested of the task", *KINDS.values()),
        rows=rows,
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
                *_cells(fold["shots"]),
            )
            for run in runs
            for fold in _shot_folds(run)
        ),
        text_columns=(0, 1),
    )


def _n_tested(run: ReportedRun, fold: Mapping[str, Any]) -> int:
    by_ids = len(shots_in_test(run).get(fold["fold"], ()))
    return max(by_ids, int(fold["shots"]["in_test"]["count"]))


def _cells(report: Mapping[str, Any]) -> list[str]:
    return [DASH if n is None else f"{n:,}" for n in _counts(report).values()]


def _counts(report: Mapping[str, Any]) -> dict[str, int | None]:
    """Return test examples by kind, ``None`` where an earlier version did not look for it."""
    found = {kind: report.get(kind) for kind in KINDS}
    return {
        kind: None if entry is None else int(entry.get("test_examples", entry["count"]))
        for kind, entry in found.items()
    }


def _figures(run: ReportedRun) -> dict[str, Any]:
    folds = []
    for fold in run.leakage["folds"]:
        entry = {"fold": fold["fold"], **_counts(fold)}
        if fold.get("shots"):
            entry["shots"] = {
                "shown": len(fold["shots"]["ids"]),
                "tested": _n_tested(run, fold),
                **_counts(fold["shots"]),
            }
        folds.append(entry)
    return {
        "run": run.name,
        "group": run.config.cv.group,
        "repeats": run.leakage.get("repeats", {}).get("count"),
        "without_session": run.leakage.get("without_session"),
        "folds": folds,
    }
