"""What a tracker is told of a run: steps, scores of folds, the summary over them.

Texts only where ``privacy.log_text`` allows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from recap.records import Example, Prediction, Scores, Summary


@dataclass(frozen=True, kw_only=True)
class HistoryRow:
    """One row of history.csv.

    ``loss`` is the token mean in nats: of the last optimiser step's examples for ``train``, of the
    whole split for ``select``. ``tokens_per_second`` counts prompt and answer tokens, over all
    devices; it and ``examples_per_second`` are ``None`` for ``select``. ``memory_gib`` is the
    process's peak so far: allocated on the first device if it is a GPU, else resident memory.
    ``skipped_steps`` counts the optimiser steps so far that were not finite.
    """

    step: int
    epoch: int
    split: Literal["train", "select"]
    loss: float
    learning_rate: float
    tokens_per_second: float | None
    examples_per_second: float | None
    memory_gib: float
    skipped_steps: int = 0


@dataclass(frozen=True, kw_only=True)
class FinishedFolds:
    """What the finished folds of a run come to."""

    summary: Summary
    scores: Mapping[int, Scores]
    """By index of the fold."""
    histories: Mapping[int, tuple[HistoryRow, ...]]
    """By index of the fold; empty for folds whose system was not trained step by step."""


class Tracker(Protocol):
    """Something that is told of a run as it goes."""

    def start_fold(self, name: str) -> None:
        """Begin to record one fold (``"fold0"``) or the final model (``"final"``)."""

    def log_step(self, row: HistoryRow) -> None:
        """Record one row of the history of the fold that was begun."""

    def log_fold(self, scores: Scores | None) -> None:
        """Record the scores of the fold that was begun, if it was scored, and close it."""

    def log_texts(self, pairs: Sequence[tuple[Example, Prediction]]) -> None:
        """Record dialogues and answers of the fold that was begun, which the user asked for."""

    def abandon(self, *, preempted: bool = False) -> None:
        """Close the fold that was begun, since it failed or a signal asked for its end."""

    def log_summary(self, folds: FinishedFolds) -> None:
        """Record how figures spread over folds, unless just this is recorded already."""


class NoTracker:
    """A tracker that keeps nothing: the run folder's own files are all there is."""

    def start_fold(self, name: str) -> None:
        """Do nothing."""

    def log_step(self, row: HistoryRow) -> None:
        """Do nothing."""

    def log_fold(self, scores: Scores | None) -> None:
        """Do nothing."""

    def log_texts(self, pairs: Sequence[tuple[Example, Prediction]]) -> None:
        """Do nothing."""

    def abandon(self, *, preempted: bool = False) -> None:
        """Do nothing."""

    def log_summary(self, folds: FinishedFolds) -> None:
        """Do nothing."""
