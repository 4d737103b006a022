"""What the test part of each fold shares with what a system has seen, run by run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recap.output.format import DASH
from recap.output.report import Report
from recap.output.tables import ReportTable
from recap.report.options import ReportConfig
from recap.report.runs import ReportedRun
from recap.report.templates import notes_of

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
    sheets = [_data_sheet(group) for group in _groups(known)]
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
    return DASH if found is None else f"{found:,}"


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
