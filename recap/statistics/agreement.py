"""How far annotators agree: coefficients with intervals, for all labels, each label, each pair.

Every coefficient here is one minus observed over expected disagreement. Where no disagreement can
be expected (everybody gave one and the same label), or nothing was annotated twice, it is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from scipy import sparse

from recap.data.annotations import MISSING, AnnotationTable
from recap.metrics.scalar import Floats, Ints
from recap.statistics.clusters import Clusters, Interval, jackknife


def cohen_kappa(
    confusion: Floats, weights: Literal["none", "linear", "quadratic"] = "none"
) -> Floats:
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
    places = np.arange(confusion.shape[-1], dtype=np.float64)
    distance = np.abs(places[:, None] - places)
    weight = {"none": np.sign(distance), "linear": distance, "quadratic": distance**2}[weights]
    observed = (confusion * weight).sum(axis=(-2, -1)) * n
    expected = np.einsum("...i,...j,ij->...", rows, columns, weight)
    return one_minus_ratio(observed, expected)


def mean_weighted_kappa(confusions: Floats) -> float | None:
    """Return Cohen's kappa with squared weights, the mean over the pairs where it is defined.

    ``confusions`` has the shape (pairs, labels, labels).
    """
    kappas = cohen_kappa(confusions, "quadratic")
    defined = kappas[np.isfinite(kappas)]
    return float(defined.mean()) if len(defined) else None


def pair_confusions(codes: Ints, n_labels: int) -> Floats:
    """Return the confusion of every pair of annotators, of shape (pairs, labels, labels).

    Args:
        codes: Places of labels, of shape (examples, annotators); below zero: no label.
        n_labels: How many there are.
    """
    pairs = list(combinations(range(codes.shape[1]), 2))
    cells = _pair_cells(codes, pairs, n_labels).sum(axis=0)
    return np.asarray(cells, dtype=np.float64).reshape(len(pairs), n_labels, n_labels)


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


def fleiss_parts(counts: Ints) -> tuple[Floats, Floats, Floats]:
    """Return what Fleiss' kappa sums up, example by example.

    Returns:
        Each label's disagreeing share of the pairs of annotations, and each label's share of the
        annotations, both of shape (examples, labels); and 1 where an example has two annotations or
        more, else 0, of shape (examples,).
    """
    n = counts.sum(axis=1, keepdims=True).astype(np.float64)
    paired = n > 1
    pairs = np.where(paired, n * (n - 1), 1.0)
    disagreement = np.where(paired, counts * (n - counts) / pairs, 0.0)
    shares = np.where(paired, counts / np.where(paired, n, 1.0), 0.0)
    return disagreement, shares, paired[:, 0].astype(np.float64)


def fleiss_from(disagreement: Floats, shares: Floats, n: Floats) -> Floats:
    """Return Fleiss' kappa (Fleiss 1971) from sums of :func:`fleiss_parts` over examples.

    Examples may differ in their number of annotations: those with fewer than two are left out, and
    the others weigh alike (Gwet 2014, Handbook of Inter-Rater Reliability, section 2.4). With one
    number for all it is Fleiss' own.

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


def ordinal_alpha(counts: Ints) -> float | None:
    """Return Krippendorff's alpha of ranks (Krippendorff 2019, Content Analysis, chapter 12).

    Args:
        counts: How many annotators gave each rank to each example, of shape (examples, ranks);
            an example with fewer than two takes no part.
    """
    n = counts.sum(axis=1)
    paired = counts[n > 1].astype(np.float64)
    scaled = paired / (n[n > 1, None] - 1)
    coincidences = scaled.T @ paired - np.diag(scaled.sum(axis=0))
    totals = coincidences.sum(axis=1)
    # Ranks: the annotations from one value to the other, those at the two ends by half.
    middles = np.cumsum(totals) - totals / 2
    weight = (middles[:, None] - middles[None, :]) ** 2
    observed = (coincidences * weight).sum() * (totals.sum() - 1)
    # Distances are 0 between like values, so pairs of an annotation with itself count nothing.
    return _defined(one_minus_ratio(observed, totals @ weight @ totals))


def alpha_parts(counts: Ints) -> tuple[Floats, Floats]:
    """Return what nominal alpha sums up, example by example, each of shape (examples, labels).

    The first is each label's coincidences with other labels, the second its annotations that can be
    paired.
    """
    n = counts.sum(axis=1, keepdims=True).astype(np.float64)
    paired = n > 1
    unlike = np.where(paired, counts * (n - counts) / np.where(paired, n - 1, 1.0), 0.0)
    return unlike, np.where(paired, counts, 0.0)


def alpha_from(unlike: Floats, totals: Floats) -> Floats:
    """Return nominal alpha from sums of :func:`alpha_parts`, both of shape (..., labels).

    Krippendorff 2019, Content Analysis, chapter 12.
    """
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


OVERALL = (
    "mean_pairwise_cohen_kappa",
    "weighted_pairwise_cohen_kappa",
    "fleiss_kappa",
    "krippendorff_alpha",
    "percent_agreement",
    "unanimous_share",
)
"""The coefficients over all labels, in the order of tables.

``mean_pairwise_cohen_kappa`` weighs every pair of annotators alike, ``weighted_...`` by the
examples that both annotated. ``percent_agreement`` is the share of pairs of annotations of one
example that agree, ``unanimous_share`` that of the examples annotated twice or more on which all
agree.
"""

_OVERALL_SCALES = (*["signed"] * 4, *["share"] * 2)

PER_LABEL = ("cohen_kappa", "fleiss_kappa", "krippendorff_alpha")
"""The coefficients of one label against the rest; ``cohen_kappa`` is the mean over pairs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelAgreement:
    """How far annotators agree on one label against the rest."""

    label: str
    judgements: int
    """How often it was given."""
    coefficients: Mapping[str, Interval]
    """By the names of :data:`PER_LABEL`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairAgreement:
    """How far two annotators agree on the examples that both annotated."""

    first: str
    second: str
    examples: int
    agreement: float
    cohen_kappa: float | None
    confusion: tuple[tuple[int, ...], ...]
    """A row for each label of the first annotator, a column for each of the second."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Everything that a table of annotations says of agreement."""

    examples: int
    paired_examples: int
    """Examples with two annotations or more."""
    judgements: int
    labels: tuple[str, ...]
    annotators: Mapping[str, int]
    """Annotations of each annotator."""
    clusters: int
    """Clients, else sessions, with an example annotated twice or more."""
    cluster: str
    """What they are."""
    level: float | None
    coefficients: Mapping[str, Interval]
    """By the names of :data:`OVERALL`."""
    per_label: tuple[LabelAgreement, ...]
    pairs: tuple[PairAgreement, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Pairs of annotations of one example by their labels, each counted both ways round."""


def measure_agreement(
    table: AnnotationTable, *, level: float | None = 0.95, kind: str | None = None
) -> Agreement:
    """Return coefficients of agreement, with intervals over clients, else sessions.

    A coefficient is ``None`` where it is undefined: no example was annotated twice, or everybody
    gave one and the same label. Pairs of annotators for whom kappa is undefined are left out of
    means.

    Args:
        table: Who judged what.
        level: Coverage of the intervals; ``None``: none.
        kind: What the table's sessions are, where they are none.
    """
    sums = _Sums(table)
    sums.kind = kind or sums.kind
    n_labels = len(table.labels)
    found = jackknife(
        sums.rows,
        sums.figures,
        kind=sums.kind,
        parts=np.hstack([np.ones((len(sums.given), len(OVERALL)), bool), *[sums.given] * 3]),
        scale=[*_OVERALL_SCALES, *["signed"] * (len(PER_LABEL) * n_labels)],
    ).intervals(level)
    of_labels = found[len(OVERALL) :]
    counts, pooled = table.counts(), sums.confusions.sum(axis=0)
    return Agreement(
        examples=len(table.ids),
        paired_examples=int((counts.sum(axis=1) > 1).sum()),
        judgements=int(counts.sum()),
        labels=table.labels,
        annotators=dict(
            zip(table.annotators, (table.codes != MISSING).sum(axis=0).tolist(), strict=True)
        ),
        clusters=sums.rows.shape[0],
        cluster=sums.kind,
        level=level,
        coefficients=dict(zip(OVERALL, found, strict=False)),
        per_label=tuple(
            LabelAgreement(
                label=label,
                judgements=int(counts[:, place].sum()),
                coefficients=dict(zip(PER_LABEL, of_labels[place::n_labels], strict=True)),
            )
            for place, label in enumerate(table.labels)
        ),
        pairs=sums.pairs(),
        confusion=_whole(pooled + pooled.T),
    )


class _Sums:
    """What the coefficients add up over examples, a row a cluster."""

    def __init__(self, table: AnnotationTable) -> None:
        self._table = table
        self._pairs = [
            (first, second)
            for first, second in combinations(range(len(table.annotators)), 2)
            if ((table.codes[:, first] != MISSING) & (table.codes[:, second] != MISSING)).any()
        ]
        n_labels = len(table.labels)
        counts = table.counts()
        # The rest says nothing of agreement; drawing it would only vary the number that does.
        judged_twice = np.flatnonzero(counts.sum(axis=1) > 1)
        clusters = Clusters()
        places = [
            clusters.place(table.ids[row], table.sessions[row], *table.people[row : row + 1])
            for row in judged_twice
        ]
        self.kind = clusters.kind
        members = sparse.csr_array(
            (np.ones(len(places)), (np.array(places, dtype=np.int64), judged_twice)),
            shape=(max(places, default=-1) + 1, len(table.ids)),
        )
        disagreement, shares, paired = fleiss_parts(counts)
        unlike, totals = alpha_parts(counts)
        unanimous = paired * (counts.max(axis=1, initial=0) == counts.sum(axis=1))
        dense = np.hstack([disagreement, shares, unlike, totals, paired[:, None]])
        cells = _pair_cells(table.codes, self._pairs, n_labels)
        each = [sparse.csr_array(dense), sparse.csr_array(unanimous[:, None]), cells]
        self.given = np.asarray(members @ totals) > 0
        """Whether each label was given in each cluster."""
        self.rows = sparse.csr_array(members @ sparse.hstack(each, format="csr"))
        shape = (len(self._pairs), n_labels, n_labels)
        self.confusions = np.asarray((members @ cells).sum(axis=0)).reshape(shape)

    def figures(self, sums: Floats) -> Floats:
        """Return all coefficients for sums of :attr:`rows`, ``(n, sums)``.

        Of shape ``(n, figures)``: those of :data:`OVERALL`, then of each of :data:`PER_LABEL`
        every label's.
        """
        n_labels = len(self._table.labels)
        dense, flat = np.split(sums, [4 * n_labels + 2], axis=1)
        disagreement, shares, unlike, totals = (
            dense[:, place * n_labels : (place + 1) * n_labels] for place in range(4)
        )
        n, unanimous = dense[:, -2], dense[:, -1]
        confusions = flat.reshape(len(sums), len(self._pairs), n_labels, n_labels)
        kappas, shared = cohen_kappa(confusions), confusions.sum(axis=(-2, -1))
        agreeing = np.trace(confusions, axis1=-2, axis2=-1).sum(axis=-1)
        overall = (
            _mean(kappas, np.ones_like(shared)),
            _mean(kappas, shared),
            fleiss_from(disagreement, shares, n),
            alpha_from(unlike, totals),
            _share(agreeing, shared.sum(axis=-1)),
            _share(unanimous, n),
        )
        of_labels = np.moveaxis(cohen_kappa_per_label(confusions), 1, -1)
        return np.hstack(
            [
                np.column_stack(overall),
                _mean(of_labels, np.ones_like(of_labels)),
                fleiss_per_label_from(disagreement, shares, n),
                alpha_per_label_from(unlike, totals),
            ]
        )

    def pairs(self) -> tuple[PairAgreement, ...]:
        """Return the pairs of annotators with an example in common."""
        names = self._table.annotators
        return tuple(
            PairAgreement(
                first=names[first],
                second=names[second],
                examples=int(confusion.sum()),
                agreement=float(np.trace(confusion) / confusion.sum()),
                cohen_kappa=_defined(cohen_kappa(confusion)),
                confusion=_whole(confusion),
            )
            for (first, second), confusion in zip(self._pairs, self.confusions, strict=True)
        )


def _pair_cells(codes: Ints, pairs: Sequence[tuple[int, int]], n_labels: int) -> sparse.csr_array:
    """Return a row an example, a one in the cell of every pair's confusion that it falls in."""
    rows, cells = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for place, (first, second) in enumerate(pairs):
        a, b = codes[:, first], codes[:, second]
        both = np.flatnonzero((a >= 0) & (b >= 0))
        rows.append(both)
        cells.append((place * n_labels + a[both]) * n_labels + b[both])
    row, cell = np.concatenate(rows), np.concatenate(cells)
    shape = (len(codes), len(pairs) * n_labels**2)
    return sparse.csr_array((np.ones(len(row)), (row, cell)), shape=shape)


def _mean(values: Floats, weights: Floats) -> Floats:
    """Return the weighted mean over the last axis of what is defined."""
    known = np.isfinite(values)
    weights = np.where(known, weights, 0.0)
    return _share((np.where(known, values, 0.0) * weights).sum(axis=-1), weights.sum(axis=-1))


def _share(part: Floats, whole: Floats) -> Floats:
    return 1.0 - one_minus_ratio(part, whole)


def _whole(confusion: Floats) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(cell) for cell in row) for row in confusion)


def _defined(value: float | Floats) -> float | None:
    return float(value) if np.isfinite(value) else None
