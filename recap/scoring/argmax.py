"""Whether the label that was answered is the one that was held likeliest."""

from __future__ import annotations

from collections.abc import Iterable

from recap.records import Prediction


def argmax_disagreement(predictions: Iterable[Prediction]) -> float | None:
    """Return the share of predictions whose label is not the arg-max of their probabilities.

    Predictions without probabilities are left aside; ``None`` when none has any. Where several
    labels are likeliest each of them agrees. An answer without a label does not agree.

    >>> argmax_disagreement([]) is None
    True
    """
    judged = [p for p in predictions if p.probabilities]
    if not judged:
        return None
    return sum(not _agrees(prediction) for prediction in judged) / len(judged)


def _agrees(prediction: Prediction) -> bool:
    found = prediction.probabilities or {}
    return prediction.label is not None and found.get(prediction.label) == max(found.values())
