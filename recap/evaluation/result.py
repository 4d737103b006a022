"""What an evaluation comes to: predictions, scores, and what there is to be said of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recap.records import Prediction, Scores, Summary
from recap.scoring.confusion import score
from recap.scoring.summary import summarize


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The predictions of one system on one labelled set, scored."""

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
