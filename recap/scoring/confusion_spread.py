"""The confusion of several folds together: mean and sample standard deviation of every cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from recap.errors import ConfigError
from recap.records import Scores, Spread
from recap.scoring.summary import spread_over_folds

INVALID = "invalid"
"""The column of answers without a readable label."""


@dataclass(frozen=True, kw_only=True)
class CellSpread:
    """One cell of the confusion matrix over folds.

    ``count`` is of examples a fold. ``share`` is the part of the fold's examples of label ``gold``
    that were answered ``predicted``; a fold without such examples has none (``None`` among its
    values), and mean and deviation are over the others. So the mean of a diagonal share differs
    from the mean recall, which counts such a fold as 0.
    """

    gold: str
    predicted: str
    """A label, or :data:`INVALID`."""
    count: Spread
    share: Spread

    @property
    def n_folds(self) -> int:
        """The folds that hold examples of label ``gold``."""
        return sum(value is not None for value in self.share.values)


def confusion_spread(scores: Sequence[Scores]) -> tuple[CellSpread, ...]:
    """Return mean and sample SD (ddof 1) of every cell, row by row, invalid answers last in a row.

    Args:
        scores: Those of the folds, in order.

    Raises:
        ConfigError: For no folds, or folds with different labels.
    """
    if len({one.labels for one in scores}) != 1:
        raise ConfigError(
            "confusion matrices of other labels, or none at all; take one run's folds"
        )
    labels = scores[0].labels
    return tuple(
        _cell(gold, predicted, [one.confusion[row] for one in scores], column)
        for row, gold in enumerate(labels)
        for column, predicted in enumerate((*labels, INVALID))
    )


def _cell(gold: str, predicted: str, rows: Sequence[Sequence[int]], column: int) -> CellSpread:
    shares = [row[column] / sum(row) if any(row) else None for row in rows]
    known = spread_over_folds([share for share in shares if share is not None])
    return CellSpread(
        gold=gold,
        predicted=predicted,
        count=spread_over_folds([row[column] for row in rows]),
        share=replace(known, values=tuple(shares)),
    )
