"""Confusion matrices session by session: what a bootstrap over whole sessions resamples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from recap.records import Prediction
from recap.scoring.confusion import confusion_of

Unit = tuple[str, str]
"""``("session", id)``, or ``("example", id)`` where the session is not known."""

Counts = npt.NDArray[np.int64]


def unit_of(prediction: Prediction) -> Unit:
    """Return what is resampled as a whole with this prediction: its session, else itself."""
    if prediction.session is None:
        return ("example", prediction.id)
    return ("session", prediction.session)


def session_confusions(
    predictions: Iterable[Prediction], *, task: str, labels: Sequence[str]
) -> dict[Unit, Counts]:
    """Return the counts ``(n_labels gold, n_labels + 1 predicted)`` of every session, by unit.

    The last column counts invalid answers. All matrices together add up to that of the run.

    Raises:
        DataError: For a prediction whose gold or label is not among ``labels``.
    """
    by_unit: dict[Unit, list[Prediction]] = {}
    for prediction in predictions:
        by_unit.setdefault(unit_of(prediction), []).append(prediction)
    return {unit: confusion_of(part, task=task, labels=labels) for unit, part in by_unit.items()}


def stacked(confusions: Mapping[Unit, Counts], units: Sequence[Unit]) -> Counts:
    """Return matrices ``(units, n_labels, n_labels + 1)`` in the order of ``units``.

    Zeros stand where a unit has none.
    """
    some = next(iter(confusions.values()))
    blank = np.zeros_like(some)
    return np.stack([confusions.get(unit, blank) for unit in units])
