"""The bootstrap over whole clusters: percentile intervals, and studentized ones for sums of ratios.

Whatever is resampled is drawn by :func:`resample`, from a generator of its own seed.

Accuracy, the F1 of a label (``2 correct / (gold + answered)``) and macro-F1 are ratios of sums over
sessions, or means of such ratios. Each resample draws sessions with replacement and gives the
figure ``f*`` and its standard error ``s*``, the linearized one of a ratio of cluster sums; with
``q`` the quantiles of ``(f* - f) / s*`` the interval reaches from ``f - q_high s`` to ``f - q_low
s`` (bootstrap-t: Efron & Tibshirani 1993, An introduction to the bootstrap, chapter 12; with
clusters Cameron, Gelbach & Miller 2008, Bootstrap-based improvements for inference with clustered
errors). The plain percentile interval is too narrow with few sessions, and lies too low for
macro-F1 over many labels; ``benchmarks/significance.py`` measures both.

Intervals of macro-F1, accuracy and the F1 of each label are of the scores that all folds'
predictions have together (pooled), not of the mean over folds: what these models would score on all
the sessions that the data are a sample of. How much another training would change is no part of
them; that is what the spread over folds and the corrected t-test are about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recap.metrics.scalar import Floats

AT_ONCE = 250
"""Resamples that are in memory together."""

Draw = Callable[[np.random.Generator, int], Floats]
"""Gives the figures ``(size, figures)`` of that many resamples, NaN where a resample has none."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure with the ends of its interval; ``None`` where they are not known."""

    value: float | None
    low: float | None = None
    high: float | None = None


def resample(draw: Draw, *, resamples: int, seed: int, at_once: int = AT_ONCE) -> Floats:
    """Return the figures ``(resamples, figures)`` of at least one resample.

    Args:
        draw: Gives those of some resamples.
        resamples: How many.
        seed: Of the generator.
        at_once: How many are drawn together, so that they fit in memory.
    """
    rng = np.random.default_rng(seed)
    sizes = [min(at_once, resamples - start) for start in range(0, resamples, at_once)]
    return np.concatenate([draw(rng, size) for size in sizes])


def resampled(rng: np.random.Generator, n: int, size: int) -> Floats:
    """Return how often each of ``n`` units is drawn, for ``size`` resamples: ``(size, n)``."""
    return rng.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)


def percentile_interval(
    value: float,
    drawn: Floats,
    confidence: float,
    *,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Interval:
    """Return a figure, NaN for none, between quantiles of its resamples that are defined.

    Args:
        value: The figure itself.
        drawn: ``(resamples,)``; there are no ends where none is defined.
        confidence: Level.
        bounds: Of what the figure can be; ends beyond are cut off.
    """
    sound = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or len(sound) == 0:
        return Interval(value=float(value) if np.isfinite(value) else None)
    tail = (1 - confidence) / 2
    low, high = np.clip(np.quantile(sound, [tail, 1 - tail]), *bounds)
    return Interval(value=float(value), low=float(low), high=float(high))


def with_intervals(
    values: Floats, draw: Draw, *, resamples: int, confidence: float, seed: int
) -> list[Interval]:
    """Return figures with percentile intervals over resamples.

    A share of 0 or 1 that no resample can leave has none: what never occurred is never drawn, which
    says nothing about how rare it is.

    Args:
        values: The figures themselves; NaN where there is none.
        draw: Gives resampled figures.
        resamples: How many; 0 gives no intervals.
        confidence: Level.
        seed: Of the generator.
    """
    none = np.empty((0, len(values)))
    drawn = resample(draw, resamples=resamples, seed=seed) if resamples else none
    found = [percentile_interval(value, drawn[:, i], confidence) for i, value in enumerate(values)]
    return [
        Interval(value=one.value) if one.value in (0, 1) and one.low == one.high else one
        for one in found
    ]


def bootstrap(
    figures: Callable[[Floats], Floats],
    n_units: int,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> list[Interval]:
    """Return figures with percentile intervals that resample whole units.

    Args:
        figures: Gives ``(size, figures)`` from how often each unit counts, ``(size, n_units)``.
        n_units: Sessions, say; a single one gives no intervals.
        resamples: How many; 0 gives no intervals.
        confidence: Level.
        seed: Of the generator.
    """
    return with_intervals(
        figures(np.ones((1, n_units)))[0],
        lambda rng, size: figures(resampled(rng, n_units, size)),
        resamples=resamples if n_units > 1 else 0,
        confidence=confidence,
        seed=seed,
    )


def share_of(part: Floats, whole: Floats) -> Floats:
    """Return part over whole, NaN where the whole is 0."""
    shares: Floats = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return shares


_NO_ERROR = 1e-7
"""Standard errors below this are rounding: figures are shares, and a million examples give 1e-6."""


@dataclass(frozen=True, kw_only=True)
class ClusterBootstrap:
    """Figures, and where resamples say that the truth may lie instead."""

    values: Floats
    """``(figures,)``."""
    standard_errors: Floats
    """``(figures,)``, linearized."""
    drawn: Floats
    """``(resamples, figures)``: ``f - t* s``, NaN for a resample in which a figure never varies."""
    n_units: int
    """Clusters."""

    def interval(
        self, figure: int, confidence: float, *, bounds: tuple[float, float] = (0.0, 1.0)
    ) -> Interval:
        """Return a figure with its interval, cut off at the bounds of what it can be.

        There are no ends where nothing was resampled, or the figure does not vary over sessions.
        """
        value, drawn = float(self.values[figure]), self.drawn[:, figure]
        return percentile_interval(value, drawn, confidence, bounds=bounds)

    def p_of_zero(self, figure: int) -> float | None:
        """Return the two-sided p of the figure being 0, which goes with the interval.

        It is twice the share of resamples on the other side of 0, the figure itself counted as one
        of them, and so at least ``2 / (resamples + 1)``; ``None`` where there is no interval.
        """
        drawn = self.drawn[:, figure]
        sound = drawn[np.isfinite(drawn)]
        if len(sound) == 0:
            return None
        beyond = min(int((sound <= 0).sum()), int((sound >= 0).sum()))
        return min(1.0, 2 * (beyond + 1) / (len(sound) + 1))


def cluster_bootstrap(
    numerators: npt.ArrayLike,
    denominators: npt.ArrayLike,
    weights: npt.ArrayLike,
    *,
    resamples: int,
    seed: int,
) -> ClusterBootstrap:
    """Return weighted sums of ratios of sums over clusters, resampled by whole clusters.

    A ratio whose denominator is 0 counts as 0, as in scores.

    Args:
        numerators: ``(clusters, ratios)``.
        denominators: ``(clusters, ratios)``.
        weights: ``(figures, ratios)``: a figure is the sum of its weights times the ratios.
        resamples: How many; 0 draws none.
        seed: Of the generator.
    """
    top, bottom = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    combine = np.asarray(weights, np.float64)
    n = len(top)
    # Clusters with equal counts are one kind: examples without a session are of few kinds, and the
    # result does not depend on the order of the clusters.
    kinds, counts = np.unique(np.hstack([top, bottom]), axis=0, return_counts=True)
    top, bottom = kinds[:, : top.shape[1]], kinds[:, top.shape[1] :]
    once = counts[None].astype(np.float64)
    values, errors = (part[0] for part in _figures(once, n, top, bottom, combine))

    def draw(rng: np.random.Generator, size: int) -> Floats:
        figures, spread = _figures(_drawn(rng, counts, size), n, top, bottom, combine)
        t = np.full_like(figures, np.nan)
        sound = (spread > _NO_ERROR) & (errors > _NO_ERROR)
        np.divide(figures - values, spread, out=t, where=sound)
        return np.asarray(values - t * errors)

    none = np.empty((0, len(combine)))
    drawn = resample(draw, resamples=resamples, seed=seed) if resamples and n > 1 else none
    return ClusterBootstrap(values=values, standard_errors=errors, drawn=drawn, n_units=n)


def _drawn(rng: np.random.Generator, counts: npt.NDArray[np.intp], size: int) -> Floats:
    """Return how often each kind is drawn ``(size, kinds)``; ``counts`` are clusters of a kind."""
    n = int(counts.sum())
    if 8 * len(counts) < n:
        return rng.multinomial(n, counts / n, size=size).astype(np.float64)
    # Several times as fast where hardly two clusters are alike.
    kind_of = np.repeat(np.arange(len(counts)), counts)
    places = kind_of[rng.integers(n, size=(size, n))] + len(counts) * np.arange(size)[:, None]
    often = np.bincount(places.ravel(), minlength=size * len(counts))
    return often.reshape(size, len(counts)).astype(np.float64)


def _figures(
    often: Floats, n: int, top: Floats, bottom: Floats, combine: Floats
) -> tuple[Floats, Floats]:
    """Return figures and their standard errors ``(resamples, figures)``.

    Args:
        often: How often each kind of cluster is drawn, ``(resamples, kinds)``.
        n: Clusters of a resample.
        top: Numerators ``(kinds, ratios)``.
        bottom: Denominators ``(kinds, ratios)``.
        combine: Weights ``(figures, ratios)``.
    """
    above, below = often @ top, often @ bottom
    inverse = np.divide(1.0, below, out=np.zeros_like(below), where=below > 0)
    ratios = above * inverse
    # Of each ratio alone: what one more cluster would add to it, to first order, is
    # (top - ratio bottom) / below; its squares are summed without writing them out.
    squares = (
        often @ top**2 - 2 * ratios * (often @ (top * bottom)) + ratios**2 * (often @ bottom**2)
    )
    alone = np.maximum(squares, 0) * inverse**2
    variances = np.empty((len(often), len(combine)))
    for figure, row in enumerate(combine):
        used = np.flatnonzero(row)
        if len(used) == 1:
            variances[:, figure] = row[used] ** 2 * alone[:, used[0]]
            continue
        slope = row[used] * inverse[:, used]
        influence = slope @ top[:, used].T - (slope * ratios[:, used]) @ bottom[:, used].T
        variances[:, figure] = np.einsum("rk,rk,rk->r", often, influence, influence)
    return ratios @ combine.T, np.sqrt(variances * n / max(n - 1, 1))


FEW_SESSIONS = 50
"""With fewer sessions than this intervals may cover less than they say (docs/significance.md)."""

FEWEST_SESSIONS_OF_A_LABEL = 10
"""A label that occurs in fewer sessions than this gets no interval: too many resamples lack it."""


@dataclass(frozen=True, kw_only=True)
class ScoreIntervals:
    """Pooled scores with their intervals."""

    macro_f1: Interval
    accuracy: Interval
    per_label: Mapping[str, Interval]
    """F1 of each label; no value for one without gold examples."""
    n_units: int
    """Sessions that were resampled (examples, where no session is known)."""


@dataclass(frozen=True, kw_only=True)
class ScoreDifferences:
    """Differences of pooled scores, first minus second; the same sessions are drawn for both."""

    macro_f1: Interval
    macro_f1_p: float | None
    """Two-sided; ``None`` where no session makes a difference."""
    accuracy: Interval
    accuracy_p: float | None
    n_units: int


def score_intervals(
    confusions: npt.ArrayLike,
    labels: Sequence[str],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> ScoreIntervals:
    """Return pooled scores with studentized bootstrap intervals clustered by session.

    Args:
        confusions: Counts ``(sessions, n_labels gold, n_labels + 1 predicted)``.
        labels: Their names.
        resamples: Of the bootstrap; 0 gives no intervals.
        confidence: Level of the intervals.
        seed: Of the bootstrap.
    """
    n = len(labels)
    top, bottom = ratio_parts(confusions)
    weights = np.vstack([_macro_f1(n), _accuracy(n), np.eye(n, n + 1)])
    found = cluster_bootstrap(top, bottom, weights, resamples=resamples, seed=seed)
    sessions = (bottom[:, :n] > 0).sum(axis=0)
    gold = np.asarray(confusions).sum(axis=(0, 2))
    per_label = [
        found.interval(2 + i, confidence) if gold[i] else Interval(value=None) for i in range(n)
    ]
    return ScoreIntervals(
        macro_f1=found.interval(0, confidence),
        accuracy=found.interval(1, confidence),
        per_label={
            label: interval
            if there >= FEWEST_SESSIONS_OF_A_LABEL
            else Interval(value=interval.value)
            for label, interval, there in zip(labels, per_label, sessions, strict=True)
        },
        n_units=found.n_units,
    )


def difference_intervals(
    first: Sequence[npt.ArrayLike],
    second: Sequence[npt.ArrayLike],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> ScoreDifferences:
    """Return the differences of two systems' pooled scores, with paired bootstrap intervals.

    Args:
        first: One or several runs of the first system, each counts ``(sessions, n_labels,
            n_labels + 1)`` with the same sessions in the same order; the scores of several runs
            are averaged.
        second: Those of the second.
        resamples: Of the bootstrap; 0 gives no intervals.
        confidence: Level of the intervals.
        seed: Of the bootstrap.
    """
    parts = [ratio_parts(run) for run in (*first, *second)]
    n = parts[0][0].shape[1] - 1
    signs = [1 / len(first)] * len(first) + [-1 / len(second)] * len(second)
    weights = np.vstack(
        [np.concatenate([sign * figure(n) for sign in signs]) for figure in (_macro_f1, _accuracy)]
    )
    top, bottom = (np.hstack([part[i] for part in parts]) for i in (0, 1))
    found = cluster_bootstrap(top, bottom, weights, resamples=resamples, seed=seed)
    bounds = (-1.0, 1.0)
    return ScoreDifferences(
        macro_f1=found.interval(0, confidence, bounds=bounds),
        macro_f1_p=found.p_of_zero(0),
        accuracy=found.interval(1, confidence, bounds=bounds),
        accuracy_p=found.p_of_zero(1),
        n_units=found.n_units,
    )


def ratio_parts(confusions: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return numerators and denominators ``(sessions, n_labels + 1)``: F1 a label, then accuracy.

    The F1 of a label is twice its correct answers over its gold examples plus the answers that name
    it.
    """
    counts = np.asarray(confusions, dtype=np.float64)
    correct = np.diagonal(counts, axis1=1, axis2=2)
    mentions = counts.sum(axis=2) + counts[:, :, :-1].sum(axis=1)
    total = counts.sum(axis=(1, 2))[:, None]
    top = np.hstack([2 * correct, correct.sum(axis=1, keepdims=True)])
    return top, np.hstack([mentions, total])


def _macro_f1(n: int) -> Floats:
    return np.append(np.full(n, 1 / n), 0.0)


def _accuracy(n: int) -> Floats:
    return np.append(np.zeros(n), 1.0)
