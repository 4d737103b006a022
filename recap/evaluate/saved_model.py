"""A saved model scored on a labeled set, and what an evaluation says and writes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recap.config import RunConfig
from recap.data.folds import content_key
from recap.errors import ConfigError, RecapError
from recap.evaluate.options import EvaluateConfig
from recap.folds.console import print_answers
from recap.folds.fold import N_SHOWN
from recap.folds.run import check_fold, read_labeled, read_own_data
from recap.metrics.files import json_text, predictions_to_jsonl, scores_to_dict, summary_to_dict
from recap.metrics.scalar import metric_of, without_loss
from recap.metrics.scores import (
    answer_counts,
    score,
    spread_text,
    summarize,
    summary_markdown,
    support_warning,
)
from recap.output.format import console_for, percent, unparsed_notes
from recap.output.tables import ReportTable
from recap.records import Example, Prediction, Scores, Summary
from recap.runs.saved import SavedModel, answer_examples, find_model
from recap.system.files import write_atomic
from recap.system.plain_text import markdown


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The predictions of one system on one labeled set, scored."""

    subject: str
    """What was scored, as output calls it."""
    predictions: tuple[Prediction, ...]
    """In the order of the data."""
    scores: Scores
    """Over all predictions."""
    notes: tuple[str, ...]
    """Lines that must be read with the scores."""
    summary: Summary | None = None
    """Over folds, where the predictions belong to several."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """What else scores.json holds, as plain values."""


def evaluate_predictions(
    predictions: Sequence[Prediction],
    *,
    subject: str,
    task: str,
    labels: Sequence[str],
    notes: Sequence[str] = (),
    protocol: str | None = None,
    figures: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Return predictions with their scores: over all, and over folds where there are several.

    ``notes`` must be read with the scores, ``figures`` is what else scores.json holds. Without a
    ``protocol``, which says how checkpoints were selected, folds are pooled.
    """
    folds = sorted({p.fold for p in predictions if p.fold is not None})
    summary = None
    if protocol is not None and len(folds) > 1:
        scores = {
            fold: score([p for p in predictions if p.fold == fold], task=task, labels=labels)
            for fold in folds
        }
        summary = summarize(scores, protocol=protocol)
    of_all = score(predictions, task=task, labels=labels)
    lacking = support_warning(summary or summarize({0: of_all}, protocol=""))
    return Evaluation(
        subject=subject,
        predictions=tuple(predictions),
        scores=of_all,
        notes=(*notes, *([lacking] if lacking else [])),
        summary=summary,
        figures=dict(figures or {}),
    )


def evaluate_model(config: EvaluateConfig) -> Evaluation:
    """Return the scores of a saved model on the labeled data.

    Task, prompt and decoding are those of the run that the model comes from; outside of one, task
    and lengths are those of the model's ``recap.json``. ``cv.fold=k`` scores fold ``k``'s model on
    its own held-out part of the run's data. A ``ConfigError`` for one that was trained on all of
    the data.
    """
    given = config.training
    saved = find_model(Path(str(config.model)), given, task_given=config.task_given)
    examples, notes = (
        _held_out(saved, given) if isinstance(given.cv.fold, int) else _new_data(saved, given)
    )
    predictions, lost = answer_examples(
        saved,
        examples,
        golds=[saved.task.gold(example) for example in examples],
        fold=saved.fold if isinstance(given.cv.fold, int) else None,
        batch_size=given.decoding.batch_size,
        accelerator=given.trainer.accelerator,
    )
    return evaluate_predictions(
        predictions,
        subject=str(saved.folder),
        task=saved.task.name,
        labels=saved.task.labels,
        notes=[*notes, *lost],
    )


def _held_out(saved: SavedModel, given: RunConfig) -> tuple[tuple[Example, ...], list[str]]:
    own = saved.config.data
    if given.data.path is not None and given.data.path != own.path:
        raise ConfigError(
            f"cv.fold={given.cv.fold} scores a fold's model on its own held-out part, and "
            f"data.path={given.data.path} is not the data of the run; leave data and data.path "
            "out, or set cv.fold=all"
        )
    check_fold(replace(saved.config.cv, fold=given.cv.fold))
    data = read_own_data(saved)
    assert isinstance(given.cv.fold, int)
    fold = data.folds[given.cv.fold]
    examples = data.examples(fold.test)
    notes = [f"data {own.name!r} of the run: the {len(examples)} held-out of fold {fold.index}"]
    if set(fold.select) & set(fold.test):
        notes.append("these examples also chose the epoch (cv.protocol=paper)")
    return examples, notes


def _new_data(saved: SavedModel, given: RunConfig) -> tuple[tuple[Example, ...], list[str]]:
    data = read_labeled(given, saved.task)
    corpus, examples = data.corpus, data.examples()
    notes = [f"data {corpus.name!r}: {len(examples)} of {len(corpus.examples)} examples"]
    notes += [*corpus.notes(), *_trained_on(saved, examples)]
    return examples, notes


def _trained_on(saved: SavedModel, examples: Sequence[Example]) -> list[str]:
    """Return a warning where the model knows some examples; a ``ConfigError`` for all of them."""
    try:
        data = read_own_data(saved)
    except RecapError as error:
        return [f"WARNING: it cannot be checked what the model was trained on: {error}"]
    known = set(data.selected)
    if saved.fold is not None:
        fold = data.folds[saved.fold]
        known &= {*fold.train, *fold.select}
    keys = {content_key(data.corpus.examples[i]) for i in known}
    count = sum(content_key(example) in keys for example in examples)
    if count == len(examples):
        raise ConfigError(
            f"{saved.folder}: was trained on all {count} examples of this data, or its epoch was "
            "chosen by them, so that scores would mean nothing; give data that are new to it, or "
            "set cv.fold=0, 1, … for a fold's model on its held-out part"
        )
    of_them = f"WARNING: {count} of {len(examples)} examples were in the data that this model was"
    return [f"{of_them} trained on or chosen by"] if count else []


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


def show_evaluation(evaluation: Evaluation, config: EvaluateConfig) -> None:
    """Print what was scored, what has to be known of it, and the tables; write the files."""
    console = console_for()
    if config.training.privacy.log_text:
        print_answers(console, evaluation.predictions[:N_SHOWN])
    console.print(f"scored   {evaluation.subject}")
    for note in evaluation.notes:
        console.print(f"         {note}")
    for sheet in evaluation_sheets(evaluation):
        console.print(sheet.table())
    console.print("in percent; an answer without a readable label counts as wrong")
    answers = evaluation.predictions
    unparsed = sum(p.label is None for p in answers)
    cut = int(answer_counts(answers).get("cut_in_thought") or 0)
    where = "predictions.jsonl (out=FOLDER)"
    for line in unparsed_notes(unparsed, len(answers), cut=cut, where=where):
        console.print(line)
    if config.out is not None:
        write_evaluation(evaluation, Path(config.out))


def check_out(config: EvaluateConfig) -> None:
    """Check, before anything is computed, that an evaluation's files replace no others."""
    if config.out is None:
        return
    folder = Path(config.out)
    whole = folder.resolve()
    if _is_run(whole) or (_PART.fullmatch(whole.name) and _is_run(whole.parent)):
        raise ConfigError(
            f"out={folder}: is the folder of a run or of its fold, whose own scores and "
            "predictions would be overwritten; give another folder"
        )
    written = {(whole / name).resolve() for name in _FILES}
    for file in (config.predictions, config.training.data.path):
        if file is not None and Path(file).resolve() in written:
            raise ConfigError(
                f"out={folder}: {Path(file)} is read and would be overwritten; give another folder"
            )


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.yaml", "manifest.json"))


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write scores.json, scores.md and predictions.jsonl, and the summary over folds if any."""
    figures = {
        **scores_to_dict(evaluation.scores),
        **answer_counts(evaluation.predictions),
        **evaluation.figures,
    }
    notes = "".join(markdown("- {}\n", note) for note in evaluation.notes)
    tables = "\n".join(sheet.markdown() for sheet in evaluation_sheets(evaluation))
    title = markdown("# {}", evaluation.scores.task)
    page = f"{title}\n\n{notes}\nIn percent.\n\n{tables}"
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
    errors = evaluation.figures.get("errors")
    of_stages = [] if errors is None else [_error_sheet(errors)]
    return [_metric_sheet(evaluation), *of_stages, _label_sheet(evaluation.scores)]


def _metric_sheet(evaluation: Evaluation) -> ReportTable:
    scores, summary = evaluation.scores, evaluation.summary
    stages: Mapping[str, Any] = evaluation.figures.get("stages", {})
    header = ["metric", "end to end" if stages else f"all {scores.n}"]
    header += [] if summary is None else ["mean ± SD of folds"]
    rows = []
    for name, value in without_loss(scores.metrics).items():
        row = [metric_of(name).short, percent(value)]
        row += [] if summary is None else [spread_text(summary.metrics[name])]
        row += [percent(stage["metrics"][name]) for stage in stages.values()]
        rows.append(tuple(row))
    return ReportTable(title=scores.task, header=(*header, *stages), rows=tuple(rows))


def _error_sheet(errors: Mapping[str, Any]) -> ReportTable:
    counts = {**errors["counts"], **{k: errors[k] for k in ("first_stage", "second_stage")}}
    shown = {k: v for k, v in _ERRORS.items() if counts[k] or k in ("first_stage", "second_stage")}
    return ReportTable(
        title=f"where {errors['total']} errors arise",
        header=("error", "examples", "share"),
        rows=tuple((v, str(counts[k]), percent(errors["shares"][k])) for k, v in shown.items()),
    )


def _label_sheet(scores: Scores) -> ReportTable:
    rows = [
        (
            label,
            *(percent(value) for value in (row.precision, row.recall, row.f1)),
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
