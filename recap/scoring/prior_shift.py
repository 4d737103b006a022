"""Resistance is rarer in practice than in training: what that does, and its correction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recap.errors import DataError
from recap.scoring.forecasts import Bools, Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Detection:
    """Precision, recall and F1 of one class as fractions; 0 where there is nothing to divide by."""

    precision: float
    recall: float
    f1: float


def correct_prior(probabilities: Floats, trained: Floats, wanted: Floats) -> Floats:
    """Return forecasts for a population in which labels are otherwise frequent.

    Each probability is multiplied by how much more frequent its label is there, and rows are made
    to add up to 1 again: Bayes' rule, where the examples of each label are alike in both (Saerens,
    Latinne and Decaestecker 2002, equation 4).

    Args:
        probabilities: ``(example, label)``.
        trained: ``(label,)``: shares of the labels among what the system learned from.
        wanted: ``(label,)``: shares in the population that is to be judged.

    Raises:
        DataError: For a label that is to occur and never did in training.

    >>> correct_prior(np.array([[0.6, 0.4]]), np.array([0.5, 0.5]), np.array([0.2, 0.8])).round(4)
    array([[0.2727, 0.7273]])
    """
    if np.any((trained <= 0) & (wanted > 0)):
        raise DataError(
            "a label that training never showed is to occur: its probabilities cannot be corrected"
        )
    ratio = np.divide(wanted, trained, out=np.zeros(len(trained)), where=trained > 0)
    product = probabilities * ratio
    total = product.sum(axis=1, keepdims=True)
    # Nothing is left of a row that was sure of labels that do not occur.
    return np.asarray(np.where(total > 0, product / np.where(total > 0, total, 1), probabilities))


def shifted_prior(trained: Floats, chosen: Bools, share: float) -> Floats:
    """Return shares of the labels of which ``chosen`` ones make up ``share`` together.

    Among the chosen, and among the others, labels keep their proportions.

    Args:
        trained: ``(label,)``: shares now, adding up to 1.
        chosen: ``(label,)``.
        share: What the chosen are to add up to.

    Raises:
        DataError: When the chosen, or the others, never occur now.

    >>> shifted_prior(np.array([0.2, 0.2, 0.6]), np.array([True, True, False]), 0.1).round(4)
    array([0.05, 0.05, 0.9 ])
    """
    now = float(trained[chosen].sum())
    if not 0 < now < float(trained.sum()):
        raise DataError(
            "a share of some labels cannot be changed where all examples, or none, have them"
        )
    rest = float(trained.sum()) - now
    return np.where(chosen, trained * share / now, trained * (1 - share) / rest)


def prior_weights(positive: Bools, share: float) -> Floats:
    """Return what each example has to count for positives to make up ``share``; the mean is 1.

    Args:
        positive: ``(example,)``.
        share: Of the positives, among all.

    Raises:
        DataError: When all examples are positive, or none is.
    """
    n, n_positive = len(positive), int(positive.sum())
    if not 0 < n_positive < n:
        raise DataError("examples of both kinds are needed to weigh one against the other")
    return np.where(positive, share * n / n_positive, (1 - share) * n / (n - n_positive))


def detection(predicted: Bools, positive: Bools, weights: Floats | None = None) -> Detection:
    """Return precision, recall and F1 of the positives, examples counted by their weights."""
    weight = np.ones(len(positive)) if weights is None else weights
    found = float(weight[predicted & positive].sum())
    n_predicted, n_positive = float(weight[predicted].sum()), float(weight[positive].sum())
    return Detection(
        precision=found / n_predicted if n_predicted else 0.0,
        recall=found / n_positive if n_positive else 0.0,
        f1=2 * found / (n_predicted + n_positive) if n_predicted + n_positive else 0.0,
    )
