"""Whether a run's predictions can be what its system answered: the rules that each must keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recap.config import RunConfig
from recap.errors import VerificationError, quote_id
from recap.records import Prediction
from recap.run_folder import RunFolder
from recap.tasks.task import Task

SUM_TOLERANCE = 1e-5
"""How far probabilities may be from adding up to 1: they are kept to 6 significant digits."""


def check_predictions(
    file: Path,
    predictions: Sequence[Prediction],
    fold: int,
    config: RunConfig,
    task: Task,
    manifest: Mapping[str, Any],
) -> None:
    """Check each prediction of a fold by itself, and that none was shown solved in the prompts.

    Raises:
        VerificationError: At the first fault, naming file, line and field.
    """
    remote = manifest.get("system", {}).get("client", "local") != "local"
    shots = set(manifest.get("folds", {}).get(f"fold{fold}", {}).get("shots", ()))
    for line, prediction in enumerate(predictions, start=1):
        where = f"{file}:{line}: id {quote_id(prediction.id)}"
        fault = (
            _fault(prediction, fold, task)
            or _fault_of_probabilities(prediction, task)
            or _fault_of_answer(prediction, config, task, remote=remote)
        )
        if fault is not None:
            raise VerificationError(f"{where}: {fault}")
        if prediction.id in shots:
            raise VerificationError(
                f"{where}: is tested, and stands solved in the prompts of this fold "
                f"(manifest.json: folds.fold{fold}.shots)"
            )


def check_partition(
    folder: RunFolder,
    predictions: Mapping[int, Sequence[Prediction]],
    config: RunConfig,
    data: Mapping[str, Any],
) -> None:
    """Check that every example is tested once, and every group in one fold.

    Raises:
        VerificationError: At the first fault.
    """
    folds: dict[str, int] = {}
    sessions: dict[str, int] = {}
    for fold, rows in predictions.items():
        for line, row in enumerate(rows, start=1):
            where = f"{folder.fold(fold).predictions}:{line}: id {quote_id(row.id)}"
            if row.id in folds:
                raise VerificationError(f"{where}: id: stands in fold {folds[row.id]} already")
            folds[row.id] = fold
            if (
                config.cv.group == "session"
                and sessions.setdefault(row.session or "", fold) != fold
            ):
                raise VerificationError(
                    f"{where}: session: lies in two folds, in spite of cv.group=session"
                )
    expected = data.get("selected_by_task")
    if len(predictions) == config.cv.folds and expected != len(folds):
        raise VerificationError(
            f"{folder.data}: selected_by_task: recorded {expected}, but the folds hold "
            f"{len(folds)} predictions; some are missing, or too many"
        )


def _fault(prediction: Prediction, fold: int, task: Task) -> str | None:
    if prediction.fold != fold:
        return f"fold: {prediction.fold} in the folder of fold {fold}"
    if prediction.task != task.name:
        return f"task: another one than the run's, {task.name!r}"
    if prediction.gold not in task.labels:
        return f"gold: no label of task {task.name!r}"
    if prediction.label is not None and prediction.label not in task.labels:
        return f"label: no label of task {task.name!r}"
    if prediction.parsed != (prediction.label is not None):
        return "parsed: true just where there is a label, and here it is not so"
    return None


def _fault_of_probabilities(prediction: Prediction, task: Task) -> str | None:
    found = prediction.probabilities
    if found is None:
        return None
    if set(found) != set(task.labels):
        return "probabilities: not those of the task's labels"
    if any(not 0 <= p <= 1 for p in found.values()):
        return "probabilities: not all between 0 and 1"
    total = sum(found.values())
    if abs(total - 1) > SUM_TOLERANCE:
        return f"probabilities: add up to {total:.8g}"
    return None


def _fault_of_answer(
    prediction: Prediction, config: RunConfig, task: Task, *, remote: bool
) -> str | None:
    """Return what contradicts the way in which the answer was come to."""
    read = task.parse(prediction.text)
    if prediction.rationale not in (None, read.rationale):
        return "rationale: another one than in its text"
    decoding = config.decoding
    if remote or config.baseline is not None or decoding.name == "free":
        # A server's refusal may name a label, and gives none.
        agrees = prediction.label == read.label or (remote and prediction.label is None)
        return None if agrees else "label: another one than its text gives"
    if prediction.label is None:
        return f"label: none, though decoding={decoding.name} always gives one"
    # What follows the label may be cut by decoding.max_new_tokens, and so may the label itself.
    begins = task.answer_format.lines(task.written(prediction.label), None)
    shared = min(len(begins), len(prediction.text))
    if prediction.text[:shared] != begins[:shared]:
        return "label: another one than its text begins with"
    if decoding.name == "scored" and not _decided(prediction, task, decoding.threshold):
        return "label: another one than its probabilities decide for"
    return None


def _decided(prediction: Prediction, task: Task, threshold: float | None) -> bool:
    found = prediction.probabilities
    if found is None:
        return True
    if threshold is None:
        return found.get(prediction.label or "") == max(found.values())
    first = found[task.labels[0]]
    if abs(first - threshold) <= SUM_TOLERANCE:
        return True
    return (prediction.label == task.labels[0]) == (first > threshold)
