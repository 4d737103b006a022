"""The arithmetic of scores: from predictions to a confusion matrix to scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from recap.errors import DataError, quote_id, quote_label
from recap.records import LabelScores, Prediction, Scores


def score(
    predictions: Iterable[Prediction],
    *,
    task: str,
    labels: Sequence[str],
    loss: float | None = None,
) -> Scores:
    """Return the scores of predictions over a task's labels; an answer without a label is wrong.

    Args:
        predictions: One for each evaluated example, in any order.
        task: The task's name, as ``scores.json`` records it.
        labels: The task's labels in canonical order, whether or not they occur.
        loss: Mean loss over answer tokens in nats, ``None`` for systems that have none.

    Raises:
        DataError: For no predictions at all, or one whose gold or label is not among ``labels``.
    """
    return scores_from_confusion(
        task, labels, confusion_of(predictions, task=task, labels=labels), loss
    )


def confusion_of(
    predictions: Iterable[Prediction], *, task: str, labels: Sequence[str]
) -> npt.NDArray[np.int64]:
    """Return the counts ``(n_labels gold, n_labels + 1 predicted)``; last come invalid answers.

    Raises:
        DataError: For a prediction whose gold or label is not among ``labels``.
    """
    index: dict[str | None, int] = {label: i for i, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels) + 1), dtype=np.int64)
    invalid = len(labels)
    for prediction in predictions:
        for name, value in (("gold", prediction.gold), ("label", prediction.label)):
            if value is not None and value not in index:
                raise DataError(
                    f"prediction {quote_id(prediction.id)}: {name} {quote_label(value, labels)} "
                    f"is not a label of task {task!r}; score it under the task that made it "
                    f"({prediction.task!r})"
                )
        counts[index[prediction.gold], index.get(prediction.label, invalid)] += 1
    return counts


def scores_from_confusion(
    task: str, labels: Sequence[str], confusion: npt.ArrayLike, loss: float | None = None
) -> Scores:
    """Return the scores that follow from a confusion matrix.

    A precision, recall or F1 whose denominator is 0 counts as 0, and a label that never occurs
    stays in the macro means with 0, as in scikit-learn 1.9's
    ``precision_recall_fscore_support(labels=…, average="macro", zero_division=0)``. ``macro_f1`` is
    the mean of the classes' F1, as the paper's binary row has it (Table 4). The invalid column is
    no class: it lowers recall and accuracy, and ``invalid_rate`` reports it.

    Args:
        task: The task's name.
        labels: The task's labels, in the order of rows and columns.
        confusion: Counts ``(n_labels gold, n_labels + 1 predicted)``, invalid answers in the last
            column.
        loss: Mean loss over answer tokens in nats. A value that is not finite is stored as
            ``None``, since ``scores.json`` is strict JSON.

    Raises:
        DataError: When the matrix counts no example.
        ValueError: When its shape does not fit the labels.
    """
    counts = np.asarray(confusion, dtype=np.int64)
    if counts.shape != (len(labels), len(labels) + 1):
        raise ValueError(
            f"the confusion of {len(labels)} labels has the shape "
            f"{(len(labels), len(labels) + 1)}, got {counts.shape}"
        )
    n = int(counts.sum())
    if n == 0:
        raise DataError(
            f"task {task!r}: there is no prediction to score; give examples that the task selects, "
            "or use fewer folds"
        )
    correct = np.diagonal(counts)
    support = counts.sum(axis=1)
    predicted = counts[:, :-1].sum(axis=0)
    precision = _ratio(correct, predicted)
    recall = _ratio(correct, support)
    f1 = _ratio(2 * correct, support + predicted)
    metrics = {
        "macro_f1": float(f1.mean()),
        "macro_precision": float(precision.mean()),
        "macro_recall": float(recall.mean()),
        "accuracy": float(correct.sum() / n),
        "invalid_rate": float(counts[:, -1].sum() / n),
        "loss": loss if loss is not None and math.isfinite(loss) else None,
    }
    per_label = {
        label: LabelScores(
            precision=float(precision[i]),
            recall=float(recall[i]),
            f1=float(f1[i]),
            support=int(support[i]),
        )
        for i, label in enumerate(labels)
    }
    return Scores(
        task=task,
        labels=tuple(labels),
        n=n,
        metrics=metrics,
        per_label=per_label,
        confusion=tuple(tuple(int(count) for count in row) for row in counts),
    )


def _ratio(
    numerator: npt.NDArray[np.int64], denominator: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    # Integers divide exactly as scikit-learn's do, so the figures agree to the last bit or nearly
    # so.
    return np.divide(
        numerator,
        denominator,
        out=np.zeros(len(numerator), dtype=np.float64),
        where=denominator > 0,
    )
