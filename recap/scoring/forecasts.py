"""Predictions as forecasts: the probabilities that a system gave, and what was true."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recap.errors import DataError, quote_id
from recap.records import Prediction

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SUM_TOLERANCE = 1e-3
"""How far probabilities may be from adding up to 1: files hold them to a few digits."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Forecasts:
    """What a system held likely of each example, judged by its likeliest label.

    The likeliest label is what probabilities speak of, whatever was answered: an answer that cannot
    be read, or one that greedy decoding led elsewhere, is judged here by the label that the system
    held likeliest. ``n_unreadable`` and ``n_other_answer`` say how many these are.

    Attributes:
        labels: The task's labels.
        probabilities: ``(example, label)``; every row adds up to 1.
        gold: ``(example,)``: index of the true label.
        n_left_out: Predictions without probabilities, which are not among the examples.
        n_unreadable: Examples whose answer held no readable label.
        n_other_answer: Examples whose readable answer is not the likeliest label.
    """

    labels: tuple[str, ...]
    probabilities: Floats
    gold: Ints
    n_left_out: int = 0
    n_unreadable: int = 0
    n_other_answer: int = 0

    @property
    def n(self) -> int:
        """Number of examples."""
        return len(self.gold)

    @property
    def likeliest(self) -> Ints:
        """``(example,)``: index of the likeliest label, of equal ones the first."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def confidence(self) -> Floats:
        """``(example,)``: probability of the likeliest label."""
        return np.asarray(self.probabilities.max(axis=1), dtype=np.float64)

    @property
    def correct(self) -> Bools:
        """``(example,)``: whether the likeliest label is the true one."""
        return np.asarray(self.likeliest == self.gold)


def forecasts_of(predictions: Iterable[Prediction], *, labels: Sequence[str]) -> Forecasts:
    """Return the forecasts that predictions hold; those without probabilities are counted.

    Raises:
        DataError: For probabilities that are not over these labels, are negative or do not add up
            to 1, or a true label that is none of them.
    """
    index = {label: place for place, label in enumerate(labels)}
    rows, gold = [], []
    left_out = unreadable = other = 0
    for prediction in predictions:
        if prediction.gold not in index:
            raise DataError(
                f"prediction {quote_id(prediction.id)}: its gold label is not one of the "
                f"{len(labels)} labels; judge it under the task that made it"
            )
        if prediction.probabilities is None:
            left_out += 1
            continue
        row = _row(prediction.id, prediction.probabilities, labels)
        rows.append(row)
        gold.append(index[prediction.gold])
        if prediction.label is None:
            unreadable += 1
        elif row[index[prediction.label]] < row.max():
            other += 1
    return Forecasts(
        labels=tuple(labels),
        probabilities=np.array(rows, dtype=np.float64).reshape(len(rows), len(labels)),
        gold=np.array(gold, dtype=np.int64),
        n_left_out=left_out,
        n_unreadable=unreadable,
        n_other_answer=other,
    )


def _row(identifier: str, found: Mapping[str, float], labels: Sequence[str]) -> Floats:
    if set(found) != set(labels):
        raise DataError(
            f"prediction {quote_id(identifier)}: has probabilities of {len(found)} labels, not of "
            f"the task's {len(labels)}; give one for each of them"
        )
    row = np.array([found[label] for label in labels], dtype=np.float64)
    total = float(row.sum())
    if row.min() < 0 or abs(total - 1) > SUM_TOLERANCE:
        raise DataError(
            f"prediction {quote_id(identifier)}: its probabilities add up to {total:.6g} and the "
            f"least is {row.min():.6g}; they have to lie between 0 and 1 and add up to 1"
        )
    return row / total
