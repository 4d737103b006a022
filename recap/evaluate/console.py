"""What an evaluation says on the console and in its files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from recap.errors import ConfigError
from recap.evaluate.saved_model import Evaluation
from recap.folds.console import console_for
from recap.metrics.files import json_text, predictions_to_jsonl, scores_to_dict, summary_to_dict
from recap.metrics.scalar import metric_of, without_loss
from recap.metrics.scores import argmax_disagreement, spread_text, summary_markdown
from recap.output.tables import ReportTable
from recap.records import Scores
from recap.system.files import write_atomic

_FILES = ("predictions.jsonl", "scores.md", "scores.json", "summary.json", "summary.md")
_PART = re.compile(r"fold\d+|final")
_ERRORS = {
    "first_stage": "first stage",
    "missed": "  resistance missed",
    "false_alarms": "  false alarm",
    "confused": "  other confusion",
    "unreadable_first": "  unparsed",
    "second_stage": "second stage",
    "wrong_pattern": "  wrong pattern",
    "wrong_behavior": "  right pattern, wrong behavior",
    "unreadable_second": "  unparsed",
}


def print_evaluation(evaluation: Evaluation, console: Console | None = None) -> None:
    """Print what was scored, what has to be known of it, and the tables."""
    console = console or console_for()
    console.print(f"scored   {evaluation.subject}", soft_wrap=True, markup=False)
    for note in evaluation.notes:
        console.print(f"         {note}", soft_wrap=True, markup=False)
    for sheet in evaluation_sheets(evaluation):
        console.print(sheet.table())
    console.print("in percent; an answer without a readable label counts as wrong")


def check_out(folder: Path, *, inputs: Iterable[Path]) -> None:
    """Check, before anything is computed, that an evaluation's files replace no others.

    Args:
        folder: Where they would be written.
        inputs: Files that are read.

    Raises:
        ConfigError: When the folder is a run's or a fold's, or an input would be overwritten.
    """
    whole = folder.resolve()
    if _is_run(whole) or (_PART.fullmatch(whole.name) and _is_run(whole.parent)):
        raise ConfigError(
            f"out={folder}: is the folder of a run or of its fold, whose own scores and "
            "predictions would be overwritten; give another folder"
        )
    written = {(whole / name).resolve() for name in _FILES}
    for file in inputs:
        if file.resolve() in written:
            raise ConfigError(
                f"out={folder}: {file} is read and would be overwritten; give another folder"
            )


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.yaml", "manifest.json"))


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write scores.json, scores.md and predictions.jsonl, and the summary over folds if any.

    Raises:
        ConfigError: When the folder cannot be written.
    """
    figures = {
        **scores_to_dict(evaluation.scores),
        "argmax_disagreement": argmax_disagreement(evaluation.predictions),
        **evaluation.figures,
    }
    notes = "".join(f"- {note}\n" for note in evaluation.notes)
    tables = "\n".join(sheet.markdown() for sheet in evaluation_sheets(evaluation))
    page = f"# {evaluation.scores.task}\n\n{notes}\nIn percent.\n\n{tables}"
    rows = predictions_to_jsonl(evaluation.predictions)
    write_atomic(folder / "predictions.jsonl", rows, private=True)
    write_atomic(folder / "scores.md", page)
    write_atomic(folder / "scores.json", json_text(figures))
    if evaluation.summary is not None:
        summary = evaluation.summary
        write_atomic(folder / "summary.json", json_text(summary_to_dict(summary)))
        write_atomic(folder / "summary.md", summary_markdown(summary))


def evaluation_sheets(evaluation: Evaluation) -> list[ReportTable]:
    """Return the tables: metrics, for a cascade its stages and errors, and categories."""
    sheets = [_metric_sheet(evaluation)]
    figures = evaluation.figures
    if "errors" in figures:
        sheets.append(_error_sheet(figures["errors"]))
    return [*sheets, _label_sheet(evaluation.scores)]


def _metric_sheet(evaluation: Evaluation) -> ReportTable:
    scores, summary = evaluation.scores, evaluation.summary
    stages: Mapping[str, Any] = evaluation.figures.get("stages", {})
    header = ["metric", "end to end" if stages else f"all {scores.n}"]
    header += [] if summary is None else ["mean ± SD of folds"]
    rows = []
    for name, value in without_loss(scores.metrics).items():
        row = [metric_of(name).short, _percent(value)]
        row += [] if summary is None else [spread_text(summary.metrics[name])]
        row += [_percent(stage["metrics"][name]) for stage in stages.values()]
        rows.append(tuple(row))
    return ReportTable(title=scores.task, header=(*header, *stages), rows=tuple(rows))


def _error_sheet(errors: Mapping[str, Any]) -> ReportTable:
    counts = {**errors["counts"], **{k: errors[k] for k in ("first_stage", "second_stage")}}
    rows = [
        (title, str(counts[name]), _percent(errors["shares"][name]))
        for name, title in _ERRORS.items()
        if counts[name] or name in ("first_stage", "second_stage")
    ]
    return ReportTable(
        title=f"where {errors['total']} errors arise",
        header=("error", "examples", "share"),
        rows=tuple(rows),
    )


def _label_sheet(scores: Scores) -> ReportTable:
    rows = [
        (
            label,
            *(_percent(value) for value in (row.precision, row.recall, row.f1)),
            str(row.support),
            str(sum(gold[index] for gold in scores.confusion)),
        )
        for index, (label, row) in enumerate(scores.per_label.items())
    ]
    return ReportTable(
        title="categories",
        header=("category", "precision", "recall", "F1", "support", "predicted"),
        rows=tuple(rows),
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"
