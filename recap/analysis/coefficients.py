"""Coefficients of agreement from counts, many at once; not a number where they are undefined.

Every coefficient here is one minus observed over expected disagreement. Where no disagreement can
be expected (everybody gave one and the same label), or nothing was judged twice, it is undefined.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Weights = Literal["none", "linear", "quadratic"]
Level = Literal["nominal", "ordinal", "interval"]


def cohen_kappa(confusion: Floats, weights: Weights = "none") -> Floats:
    """Return Cohen's kappa of two annotators (Cohen 1960; weighted: Cohen 1968).

    Args:
        confusion: Counts of shape (..., labels, labels): rows one annotator, columns the other.
        weights: How much a disagreement weighs: all the same, by the distance of the labels, or by
            its square.

    Returns:
        Kappa, of shape (...).
    """
    n = confusion.sum(axis=(-2, -1))
    rows, columns = confusion.sum(axis=-1), confusion.sum(axis=-2)
    weight = disagreement_weights(confusion.shape[-1], weights)
    observed = (confusion * weight).sum(axis=(-2, -1)) * n
    expected = np.einsum("...i,...j,ij->...", rows, columns, weight)
    return one_minus_ratio(observed, expected)


def cohen_kappa_per_label(confusion: Floats) -> Floats:
    """Return Cohen's kappa of every label against the rest, of shape (..., labels).

    ``confusion`` has the shape (..., labels, labels).
    """
    n = confusion.sum(axis=(-2, -1))[..., None]
    rows, columns = confusion.sum(axis=-1), confusion.sum(axis=-2)
    both = np.diagonal(confusion, axis1=-2, axis2=-1)
    observed = (rows + columns - 2 * both) * n
    expected = rows * (n - columns) + columns * (n - rows)
    return one_minus_ratio(observed, expected)


def fleiss_kappa(counts: NDArray[np.int64]) -> float:
    """Return Fleiss' kappa (Fleiss 1971) of counts of shape (examples, labels).

    Examples may differ in their number of judgements: those with fewer than two are left out, and
    the others weigh alike (Gwet 2014, Handbook of Inter-Rater Reliability, section 2.4). With one
    number for all it is Fleiss' own.
    """
    parts = fleiss_parts(counts)
    return float(fleiss_from(*(part.sum(axis=0) for part in parts)))


def fleiss_parts(counts: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    """Return what Fleiss' kappa sums up, example by example.

    Returns:
        Each label's disagreeing share of the pairs of judgements, and each label's share of the
        judgements, both of shape (examples, labels); and 1 where an example has two judgements or
        more, else 0, of shape (examples,).
    """
    n = counts.sum(axis=1, keepdims=True).astype(np.float64)
    paired = n > 1
    pairs = np.where(paired, n * (n - 1), 1.0)
    disagreement = np.where(paired, counts * (n - counts) / pairs, 0.0)
    shares = np.where(paired, counts / np.where(paired, n, 1.0), 0.0)
    return disagreement, shares, paired[:, 0].astype(np.float64)


def fleiss_from(disagreement: Floats, shares: Floats, n: Floats) -> Floats:
    """Return Fleiss' kappa from sums of :func:`fleiss_parts` over examples.

    Args:
        disagreement: Of shape (..., labels).
        shares: Of shape (..., labels).
        n: Of shape (...).
    """
    return one_minus_ratio(disagreement.sum(axis=-1) * n, n**2 - (shares**2).sum(axis=-1))


def fleiss_per_label_from(disagreement: Floats, shares: Floats, n: Floats) -> Floats:
    """Return Fleiss' kappa of every label against the rest, arguments as in :func:`fleiss_from`."""
    n = n[..., None]
    return one_minus_ratio(disagreement * n, shares * (n - shares))


def krippendorff_alpha(counts: NDArray[np.int64], level: Level = "nominal") -> float:
    """Return Krippendorff's alpha (Krippendorff 2019, Content Analysis, chapter 12).

    Args:
        counts: How many annotators gave each value to each example, of shape (examples, values);
            an example with fewer than two takes no part.
        level: What the values are: names, ranks (in the order of the columns), or whole numbers one
            apart.
    """
    coincidences = _coincidences(counts)
    totals = coincidences.sum(axis=1)
    weight = _squared_distances(totals, level)
    observed = (coincidences * weight).sum() * (totals.sum() - 1)
    # Distances are 0 between like values, so pairs of a judgement with itself count nothing.
    return float(one_minus_ratio(observed, totals @ weight @ totals))


def alpha_parts(counts: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return what nominal alpha sums up, example by example, each of shape (examples, labels).

    The first is each label's coincidences with other labels, the second its judgements that can be
    paired.
    """
    n = counts.sum(axis=1, keepdims=True).astype(np.float64)
    paired = n > 1
    unlike = np.where(paired, counts * (n - counts) / np.where(paired, n - 1, 1.0), 0.0)
    return unlike, np.where(paired, counts, 0.0)


def alpha_from(unlike: Floats, totals: Floats) -> Floats:
    """Return nominal alpha from sums of :func:`alpha_parts`, both of shape (..., labels)."""
    n = totals.sum(axis=-1)
    return one_minus_ratio(unlike.sum(axis=-1) * (n - 1), n**2 - (totals**2).sum(axis=-1))


def alpha_per_label_from(unlike: Floats, totals: Floats) -> Floats:
    """Return nominal alpha of every label against the rest, arguments as in :func:`alpha_from`."""
    n = totals.sum(axis=-1, keepdims=True)
    return one_minus_ratio(unlike * (n - 1), totals * (n - totals))


def one_minus_ratio(observed: Floats, expected: Floats) -> Floats:
    """Return one minus observed over expected disagreement, not a number where none is expected."""
    observed, expected = np.broadcast_arrays(
        np.asarray(observed, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    )
    ratio = np.full(observed.shape, np.nan)
    # What is expected is a sum of products of counts or shares: zero exactly, or far from it.
    np.divide(observed, expected, out=ratio, where=expected > 1e-9)
    return np.asarray(1.0 - ratio)


def disagreement_weights(n_labels: int, weights: Weights) -> Floats:
    """Return how much each disagreement weighs, of shape (labels, labels), 0 on the diagonal."""
    places = np.arange(n_labels, dtype=np.float64)
    distance = np.abs(places[:, None] - places[None, :])
    if weights == "none":
        return (distance > 0).astype(np.float64)
    return distance if weights == "linear" else distance**2


def _coincidences(counts: NDArray[np.int64]) -> Floats:
    n = counts.sum(axis=1)
    paired = counts[n > 1].astype(np.float64)
    scaled = paired / (n[n > 1, None] - 1)
    return np.asarray(scaled.T @ paired - np.diag(scaled.sum(axis=0)))


def _squared_distances(totals: Floats, level: Level) -> Floats:
    if level == "nominal":
        return disagreement_weights(len(totals), "none")
    if level == "interval":
        return disagreement_weights(len(totals), "quadratic")
    # Ranks: the judgements from one value to the other, those at the two ends by half.
    middles = np.cumsum(totals) - totals / 2
    return np.asarray((middles[:, None] - middles[None, :]) ** 2)
