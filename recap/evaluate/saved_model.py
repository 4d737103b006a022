"""A saved model on a labeled set: its predictions and scores, and how much of the set it knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recap.config import RunConfig
from recap.data.folds import content_key
from recap.errors import ConfigError, RecapError
from recap.evaluate.options import EvaluateConfig
from recap.folds.run import check_fold, read_labeled, read_own_data
from recap.metrics.scores import score, summarize
from recap.records import Example, Prediction, Scores, Summary
from recap.runs.saved import SavedModel, answer_examples, find_model


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

    Args:
        predictions: At least one.
        subject: What was scored.
        task: Name of the task.
        labels: The task's labels in canonical order.
        notes: Lines that must be read with the scores.
        protocol: How checkpoints were selected; ``None`` when the folds are to be pooled.
        figures: What else scores.json is to hold.
    """
    folds = sorted({p.fold for p in predictions if p.fold is not None})
    summary = None
    if protocol is not None and len(folds) > 1:
        scores = {
            fold: score([p for p in predictions if p.fold == fold], task=task, labels=labels)
            for fold in folds
        }
        summary = summarize(scores, protocol=protocol)
    return Evaluation(
        subject=subject,
        predictions=tuple(predictions),
        scores=score(predictions, task=task, labels=labels),
        notes=tuple(notes),
        summary=summary,
        figures=dict(figures or {}),
    )


def evaluate_model(config: EvaluateConfig) -> Evaluation:
    """Return the scores of a saved model on the labeled data.

    Task, prompt and decoding are those of the run that the model comes from; outside of one, task
    and lengths are those of the model's ``recap.json``. ``cv.fold=k`` scores
    fold ``k``'s model on its own held-out part of the run's data.

    Raises:
        ConfigError: When there is no such model, or it was trained on all of the data.
        DataError: For data at fault, or data of the run that have changed since.
    """
    given = config.training
    saved = find_model(Path(str(config.model)), given, task_given=config.task_given)
    examples, notes = (
        _held_out(saved, given) if isinstance(given.cv.fold, int) else _new_data(saved, given)
    )
    answered = answer_examples(
        saved,
        examples,
        golds=[saved.task.gold(example) for example in examples],
        fold=saved.fold if isinstance(given.cv.fold, int) else None,
        batch_size=given.decoding.batch_size,
        accelerator=given.trainer.accelerator,
    )
    notes += answered.notes()
    return evaluate_predictions(
        answered.predictions,
        subject=str(saved.folder),
        task=saved.task.name,
        labels=saved.task.labels,
        notes=notes,
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
    if corpus.synthetic:
        notes.append("this corpus is synthetic and says nothing about real clients")
    return examples, notes


def _trained_on(saved: SavedModel, examples: Sequence[Example]) -> list[str]:
    """Return a warning where the model knows some of the examples.

    Raises:
        ConfigError: When it knows them all.
    """
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
    if not count:
        return []
    return [
        (
            f"WARNING: {count} of {len(examples)} examples were in the data that this model was "
            "trained on or chosen by"
        )
    ]
