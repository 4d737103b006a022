"""Intervals over clusters: what is resampled, the jackknife that does it, one rule for too few.

Utterances of a session resemble each other, and so do sessions of a client. A cluster is the widest
of these that is known: the client, else the counselor, else the session, else the example alone.

Each figure ``f`` is a function of sums over clusters. The jackknife computes it again without each
of the ``G`` clusters in turn, on a scale on which it is not squeezed by the ends of its range
(logit, Fisher's z). With ``d`` the deviations of those from their mean, the variance is
``(G - 1) / G`` times the sum of squares around ``f`` (Quenouille 1956; CV3 of MacKinnon, Nielsen &
Webb 2023, Cluster-robust inference: a guide to empirical practice), and the interval that of
Student's t with ``w (sum d^2)^2 / sum d^4 - 1`` degrees of freedom, at most G - 1: small where a
behavior occurs in few clusters or one is far larger than the others (Satterthwaite 1946, whose w is
2; here it rises to that from 1, since fourth powers of few deviations come out too small).
Percentile bootstraps of a few clusters hold the truth far less often than they say;
``benchmarks/coverage.py`` measures what these hold (docs/coverage.md).

Intervals of scores are of what all folds' predictions have together (pooled), not of the mean over
folds: what these models would score on all the clusters that the data are a sample of. How much
another training would change is no part of them; that is what the corrected t-test is about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy import sparse, special, stats

from recap.metrics.scalar import Floats, Ints
from recap.metrics.scores import confusion_of
from recap.records import Prediction

FEWEST_CLUSTERS = 10
"""With fewer clusters than this there is no interval and no p."""

_CELLS_AT_ONCE = 2_000_000
"""Numbers that are in memory together."""

_MANY_CLUSTERS = 80
"""Half of the step from one to two in the degrees of freedom is made with so many; by the grid."""

_LISTED = 8
"""Figures without an interval that a note names."""

_ROUNDING = 1e-9
"""Spreads, and distances from an end of the range, below this are rounding."""

Unit = tuple[str, str]
"""A cluster: ``client``, ``counselor``, ``session`` or ``example``, and its id."""

People = tuple[str | None, str | None]
"""The client and the counselor of an example; ``None`` where not known."""

_Change = Callable[[Floats], Floats]
_SCALES: Mapping[str, tuple[float, float, _Change, _Change]] = {
    "share": (0.0, 1.0, special.logit, special.expit),
    "signed": (-1.0, 1.0, np.arctanh, np.tanh),
    "any": (-np.inf, np.inf, np.positive, np.positive),
}
"""Where a figure can lie, and the scale on which it is not squeezed there, forth and back: logit,
Fisher's z, none."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure with the ends of its interval, or why it has none; ``None`` where not known."""

    value: float | None
    low: float | None = None
    high: float | None = None
    interval: tuple[float, float] | None = field(init=False)
    """Both ends again, as files have them."""
    cluster: str | None = None
    """What was left out in turn; ``None``: single examples, or no interval was asked for."""
    clusters: int = 0
    """How many there are of it."""
    reason: str | None = None
    """Why there is no interval."""

    def __post_init__(self) -> None:
        """Put both ends together."""
        ends = None if self.low is None or self.high is None else (self.low, self.high)
        object.__setattr__(self, "interval", ends)

    def times(self, factor: float) -> Interval:
        """Return the figure and its ends, each so many times as large."""
        ends = (None if end is None else factor * end for end in (self.value, self.low, self.high))
        value, low, high = ends
        return replace(self, value=value, low=low, high=high)


def too_few(n: int, kind: str) -> str | None:
    """Return the reason why ``n`` clusters give no interval and no p; ``None`` for enough.

    >>> too_few(1, "session")
    '1 session is too few: under 10 there is no interval and no p'
    """
    if n >= FEWEST_CLUSTERS:
        return None
    are = f"{n} {kind} is" if n == 1 else f"{n} {kind}s are"
    return f"{are} too few: under {FEWEST_CLUSTERS} there is no interval and no p"


def clustered(kind: str | None, n: int) -> str:
    """Return what intervals rest on; nothing where there can be none.

    >>> clustered("client", 463)
    'over clients, each with all that is of it (n = 463; jackknife, docs/coverage.md)'
    """
    each = (kind or "example").replace(",", "s,") + "s"
    over = f"over {each}, each with all that is of it (n = {n:,}; jackknife, docs/coverage.md)"
    return "" if n < FEWEST_CLUSTERS else over


def reasons(named: Mapping[str, Interval]) -> list[str]:
    """Return a sentence for each reason why figures have no interval, with their names."""
    without: dict[str, list[str]] = {}
    for name, one in named.items():
        if one.reason is not None and one.value is not None:
            without.setdefault(one.reason, []).append(name)
    listed = {reason: ", ".join(names[:_LISTED]) for reason, names in without.items()}
    more = {reason: len(names) - _LISTED for reason, names in without.items()}
    return [
        f"No interval of {names}{f' and {more[why]} more' if more[why] > 0 else ''}: {why}."
        for why, names in listed.items()
    ]


class Clusters:
    """Which cluster everything belongs to that was annotated or answered, by number.

    A session belongs to the client (counselor) of what is met of it first, wholly.

    Args:
        people: Client and counselor of examples by id, where their records do not have them.
    """

    def __init__(self, people: Mapping[str, People] | None = None) -> None:
        self._people = people or {}
        self._of_session: dict[str, Unit] = {}
        self._places: dict[Unit, int] = {}

    def place(self, key: str, session: str | None, people: People | None = None) -> int:
        """Return the number of the cluster of an example.

        Args:
            key: Its id.
            session: Its session.
            people: Its client and its counselor, where they are known.
        """
        client, counselor = people or self._people.get(key, (None, None))
        given = (("client", client), ("counselor", counselor), ("session", session))
        unit = next(((kind, name) for kind, name in given if name), ("example", key))
        if session is not None:
            unit = self._of_session.setdefault(session, unit)
        return self._places.setdefault(unit, len(self._places))

    @property
    def kind(self) -> str:
        """What they are: ``client``, or several as ``client, else session``."""
        kinds = {kind for kind, _ in self._places}
        order = ("client", "counselor", "session", "example")
        return ", else ".join(kind for kind in order if kind in kinds) or "session"

    def add_up(self, places: Sequence[int], rows: npt.ArrayLike) -> Floats:
        """Return the sums of rows over each cluster, by its number."""
        given = np.asarray(rows, dtype=np.float64)
        sums = np.zeros((len(self._places), *given.shape[1:]))
        np.add.at(sums, np.asarray(places, dtype=np.intp), given)
        return sums

    def count(self, places: Sequence[int], *codes: Sequence[int], shape: tuple[int, ...]) -> Floats:
        """Return how often each combination of codes occurs in each cluster.

        Of shape ``(clusters, *shape)``.
        """
        counts = np.zeros((len(self._places), *shape))
        np.add.at(counts, tuple(np.asarray(c, dtype=np.intp) for c in (places, *codes)), 1)
        return counts

    def confusions(
        self, predictions: Sequence[Prediction], *, task: str, labels: Sequence[str]
    ) -> Callable[[], Floats]:
        """Return what gives the counts ``(clusters, n_labels gold, n_labels + 1 predicted)``.

        It is called once all runs that are set side by side have been given.

        Raises:
            DataError: For a prediction whose gold or label is not among ``labels``.
        """
        confusion_of(predictions, task=task, labels=labels)
        index: dict[str | None, int] = {label: place for place, label in enumerate(labels)}
        places = [self.place(p.id, p.session) for p in predictions]
        gold = [index[p.gold] for p in predictions]
        said = [index.get(p.label, len(labels)) for p in predictions]

        return lambda: self.count(places, gold, said, shape=(len(labels), len(labels) + 1))


@dataclass(frozen=True, kw_only=True)
class Jackknife:
    """Figures, and what they are without each cluster in turn."""

    values: Floats
    """``(figures,)``; NaN where there is none."""
    kind: str
    """What the clusters are."""
    clusters: Ints
    """``(figures,)``: those that have a part in the figure."""
    scales: tuple[str, ...]
    errors: Floats
    """``(figures,)``: standard errors, each on its scale; not finite where there are none."""
    freedom: Floats
    """``(figures,)``: degrees of freedom."""

    def reason(self, figure: int) -> str | None:
        """Return why a figure has no interval and no p; ``None`` where it has both."""
        value, kind, n = self.values[figure], self.kind, int(self.clusters[figure])
        low, high, _, _ = _SCALES[self.scales[figure]]
        if not np.isfinite(value):
            return "undefined"
        if few := too_few(n, kind):
            return few
        if min(value - low, high - value) < _ROUNDING:
            return "at an end of its range: nothing says how far it is from there"
        if not np.isfinite(self.errors[figure]):
            return f"it rests on a single {kind}"
        if self.errors[figure] < _ROUNDING:
            return f"the same whichever {kind} is left out"
        return None

    def interval(self, figure: int, confidence: float | None) -> Interval:
        """Return a figure with its interval; without one for a confidence of ``None``."""
        value, n = float(self.values[figure]), int(self.clusters[figure])
        known = value if np.isfinite(value) else None
        if confidence is None:
            return Interval(value=known, reason="not asked for")
        cluster = None if self.kind == "example" else self.kind
        if reason := self.reason(figure):
            return Interval(value=known, cluster=cluster, clusters=n, reason=reason)
        _, _, forth, back = _SCALES[self.scales[figure]]
        half = stats.t.ppf((1 + confidence) / 2, self.freedom[figure]) * self.errors[figure]
        low, high = back(forth(np.array(value)) + half * np.array([-1, 1]))
        return Interval(value=known, low=float(low), high=float(high), cluster=cluster, clusters=n)

    def intervals(self, confidence: float | None) -> list[Interval]:
        """Return all figures with their intervals."""
        return [self.interval(figure, confidence) for figure in range(len(self.values))]

    def p_of_zero(self, figure: int) -> float | None:
        """Return the two-sided p of the figure being 0, which goes with its interval."""
        if self.reason(figure) is not None:
            return None
        _, _, forth, _ = _SCALES[self.scales[figure]]
        t = abs(forth(self.values[figure])) / self.errors[figure]
        return float(2 * stats.t.sf(t, self.freedom[figure]))


def jackknife(
    sums: Floats | sparse.csr_array,
    figures: Callable[[Floats], Floats],
    *,
    kind: str,
    scale: str | Sequence[str] = "share",
    parts: npt.NDArray[np.bool_] | None = None,
) -> Jackknife:
    """Return figures of sums over clusters, and how they vary when each cluster is left out.

    Args:
        sums: ``(clusters, sums)``: what figures are made of, added up over each cluster.
        figures: Gives ``(n, figures)`` from ``(n, sums)``, NaN where there is none.
        kind: What the clusters are.
        scale: Of all figures, or of each.
        parts: ``(clusters, figures)``: whether a cluster has a part in a figure, where not all do.
    """
    n, width = sums.shape
    total = np.asarray(sums.sum(axis=0), dtype=np.float64).reshape(1, width)
    values = figures(total)[0]
    without, at_once = [], max(1, _CELLS_AT_ONCE // max(width, 1))
    for start in range(0, n if n >= FEWEST_CLUSTERS else 0, at_once):
        rows = sums[start : start + at_once]
        left = total - (rows.toarray() if sparse.issparse(rows) else rows)
        without.append(figures(np.where(np.abs(left) < _ROUNDING * np.abs(total), 0.0, left)))
    counted = np.full(len(values), n) if parts is None else parts.sum(axis=0)
    rows = np.concatenate(without) if without else np.full((0, len(values)), np.nan)
    return from_left_out(values, [(rows, np.ones(len(rows)))], kind, counted, scale)


def from_left_out(
    values: Floats,
    samples: Sequence[tuple[Floats, Floats]],
    kind: str,
    clusters: Ints,
    scale: str | Sequence[str] = "share",
) -> Jackknife:
    """Return the jackknife of figures that rest on one sample, or on several independent ones.

    Args:
        values: ``(figures,)``.
        samples: Of each sample, the figures ``(n, figures)`` without each of its members in turn,
            and how many are alike ``(n,)``.
        kind: What the members of the first sample are.
        clusters: ``(figures,)``: how many of these have a part in each figure.
        scale: Of all figures, or of each.
    """
    scales = (scale,) * len(values) if isinstance(scale, str) else tuple(scale)
    errors, freedom = np.full(len(values), np.nan), np.full(len(values), np.nan)
    for place, (value, name) in enumerate(zip(values, scales, strict=True)):
        if clusters[place] < FEWEST_CLUSTERS or not np.isfinite(value):
            continue
        squares, second, fourth = 0.0, 0.0, 0.0
        for number, (without, often) in enumerate(samples):
            n = clusters[place] if number == 0 else often.sum()
            moved = _on_scale(without[:, place], name)
            with np.errstate(invalid="ignore"):
                off = moved - (often @ moved) / often.sum()
                squares += (n - 1) / n * (often @ (moved - _on_scale(value, name)) ** 2)
            second, fourth = second + often @ off**2, fourth + often @ off**4
        errors[place] = np.sqrt(squares)
        most = sum(often.sum() for _, often in samples) - 1
        weight = 1 + clusters[place] / (clusters[place] + _MANY_CLUSTERS)
        freedom[place] = np.clip(weight * second**2 / fourth - 1, 1, most) if fourth > 0 else 1.0
    return Jackknife(
        values=values,
        kind=kind,
        clusters=clusters,
        scales=scales,
        errors=errors,
        freedom=freedom,
    )


def _on_scale(values: npt.ArrayLike, scale: str) -> Floats:
    """Return values on their scale, NaN at the ends of the range and beyond."""
    low, high, forth, _ = _SCALES[scale]
    given = np.asarray(values, dtype=np.float64)
    inside = (given > low + _ROUNDING) & (given < high - _ROUNDING)
    moved: Floats = forth(np.where(inside, given, np.nan))
    return moved


def share_of(part: Floats, whole: Floats) -> Floats:
    """Return part over whole, NaN where the whole is 0."""
    shares: Floats = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return shares
