"""How long a fold and a whole run still take, estimated from what they have taken so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from recap.partition import FoldedRun


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedFold:
    """What a finished fold took, in seconds."""

    train_seconds: float
    test_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeLeft:
    """Seconds until the fold that trains now, and all folds that were asked for, are done."""

    fold: float
    run: float


def estimate_time_left(
    *,
    epoch_seconds: Sequence[float],
    epochs_left: int,
    max_epochs: int,
    folds_left: int,
    finished: Sequence[FinishedFold],
) -> TimeLeft:
    """Return an estimate, on the safe side while no fold is finished.

    Folds that stop early and what decoding takes are known from the finished folds; until there is
    one, every fold counts with all of its epochs and without decoding.

    Args:
        epoch_seconds: What the epochs of this fold took in this process; at least one.
        epochs_left: Of this fold, if it does not stop early.
        max_epochs: Of each fold.
        folds_left: Folds that were asked for, without this one and the finished ones.
        finished: Finished folds of this run.
    """
    epoch = fmean(epoch_seconds)
    decoding = fmean(fold.test_seconds for fold in finished) if finished else 0.0
    a_fold = epoch * max_epochs
    if finished:
        a_fold = fmean(fold.train_seconds for fold in finished) + decoding
    this_fold = epoch * epochs_left + decoding
    return TimeLeft(fold=this_fold, run=this_fold + folds_left * a_fold)


def duration_text(seconds: float) -> str:
    """Return a duration to two digits or so.

    >>> [duration_text(seconds) for seconds in (0.4, 89, 90, 5000, 7500)]
    ['0 s', '89 s', '2 min', '83 min', '2 h 05 min']
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def finished_folds(setup: FoldedRun) -> dict[str, FinishedFold]:
    """Return what the finished folds of a run took, by name, as its manifest has it."""
    entries = setup.folder.read_manifest().get("folds", {})
    return {
        f"fold{fold.index}": FinishedFold(
            train_seconds=entries[f"fold{fold.index}"]["train_seconds"],
            test_seconds=entries[f"fold{fold.index}"]["test_seconds"],
        )
        for fold in setup.folds
        if setup.folder.fold(fold.index).finished and f"fold{fold.index}" in entries
    }


def folds_asked_for(setup: FoldedRun) -> tuple[str, ...]:
    """Return the names of the folds that ``cv.fold`` asks for, ``final`` for the final model."""
    fold = setup.config.cv.fold
    if fold == "all":
        return tuple(f"fold{fold.index}" for fold in setup.folds)
    return ("final",) if fold == "final" else (f"fold{fold}",)
