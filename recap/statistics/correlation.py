"""Correlations of session shares with outcomes: Table 13 of the paper, and what it leaves out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import stats

from recap.metrics.scalar import Floats
from recap.statistics.clusters import FEWEST_CLUSTERS, Interval, jackknife, too_few
from recap.statistics.hypothesis_tests import vanishes

STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
"""Below which p a correlation gets which stars (caption of Table 13)."""


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """How a predictor and an outcome go together; figures that do not exist are ``None``."""

    predictor: str
    outcome: str
    n: int
    """Sessions where both are known."""
    n_clusters: int
    r: float | None
    """Pearson's, ``None`` where one of the two never varies."""
    low: float | None
    high: float | None
    p: float | None
    stars: str
    rho: float | None
    """Spearman's."""
    rho_p: float | None
    cluster_low: float | None
    """Ends of the interval of ``r`` that takes clusters as wholes, at least as wide as the other
    one."""
    cluster_high: float | None
    reason: str | None
    """Why these two are missing; with too few clusters all intervals and p are."""
    p_holm: float | None = None
    p_bh: float | None = None


def correlate(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    predictor: str = "x",
    outcome: str = "y",
    clusters: Sequence[Hashable] | None = None,
    kind: str = "session",
    confidence: float = 0.95,
    clustered: bool = True,
) -> Correlation:
    """Return all there is to say of two columns; rows where either is NaN are left out.

    Args:
        x: The predictor.
        y: The outcome.
        predictor: Its name.
        outcome: Its name.
        clusters: Of every row, what is taken as a whole (the client); ``None``: the row.
        kind: What that is.
        confidence: Level of both intervals.
        clustered: Whether there is to be one over clusters.
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    kept = ~(np.isnan(a) | np.isnan(b))
    a, b = a[kept], b[kept]
    groups = list(range(len(kept))) if clusters is None else list(clusters)
    codes = _codes([group for group, keep in zip(groups, kept, strict=True) if keep])
    n, n_clusters = len(a), len(set(codes.tolist()))
    r = pearson(a, b)
    # Ranks of what varies by rounding alone would be ranks of nothing.
    rho = None if r is None else pearson(stats.rankdata(a), stats.rankdata(b))
    enough = n_clusters >= FEWEST_CLUSTERS
    low, high = fisher_interval(r, n, confidence) if enough else (None, None)
    p = p_of_r(r, n) if enough else None
    reason = too_few(n_clusters, kind) if r is not None else "one of the two never varies"
    wide = Interval(value=r)
    if reason is None and clustered:
        found = jackknife(_sums(a, b, codes), _r_of_sums, kind=kind, scale="signed")
        wide, reason = found.interval(0, confidence), found.reason(0)
    if wide.interval is not None and low is not None and high is not None:
        # Of a rare behavior and a skewed outcome the few sessions that count may be alike.
        wide = replace(wide, low=min(wide.interval[0], low), high=max(wide.interval[1], high))
    return Correlation(
        predictor=predictor,
        outcome=outcome,
        n=n,
        n_clusters=n_clusters,
        r=r,
        low=low,
        high=high,
        p=p,
        stars=stars(p),
        rho=rho,
        rho_p=p_of_r(rho, n) if enough else None,
        cluster_low=wide.low,
        cluster_high=wide.high,
        reason=reason,
    )


def pearson(a: Floats, b: Floats) -> float | None:
    """Return Pearson's r, ``None`` for fewer than two rows or a column that never varies.

    A column that varies by rounding alone (0.3 and 0.1 + 0.2) does not.
    """
    if len(a) < 2 or any(vanishes(float(np.ptp(column)), column) for column in (a, b)):
        return None
    # Scaled first, as in scipy 1.18: otherwise large or tiny values overflow.
    a, b = a - a.mean(), b - b.mean()
    a, b = a / np.abs(a).max(), b / np.abs(b).max()
    return float(np.clip(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), -1, 1))


def p_of_r(r: float | None, n: int) -> float | None:
    """Return the two-sided p of a correlation over ``n`` pairs, from Student's t with n - 2 df.

    ``None`` for fewer than three pairs.
    """
    if r is None or n < 3:
        return None
    if abs(r) == 1:
        return 0.0
    t = r * np.sqrt((n - 2) / ((1 - r) * (1 + r)))
    return float(2 * stats.t.sf(abs(t), n - 2))


def stars(p: float | None) -> str:
    """Return the stars of a p value as in Table 13."""
    return next((mark for limit, mark in STARS if p is not None and p < limit), "")


def fisher_interval(
    r: float | None, n: int, confidence: float = 0.95
) -> tuple[float | None, float | None]:
    """Return the interval of Fisher's z: ``tanh(atanh(r) ± z / sqrt(n - 3))``.

    ``(None, None)`` for fewer than four pairs.
    """
    if r is None or n < 4:
        return None, None
    if abs(r) == 1:
        return r, r
    half = float(stats.norm.ppf((1 + confidence) / 2)) / np.sqrt(n - 3)
    return float(np.tanh(np.arctanh(r) - half)), float(np.tanh(np.arctanh(r) + half))


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Return p values adjusted by Holm's step-down rule (1979); ``None`` stays and is no test."""

    def raised(values: Floats) -> Floats:
        return np.minimum(np.maximum.accumulate(values * np.arange(len(values), 0, -1)), 1)

    return _adjusted(p, raised)


def benjamini_hochberg(p: Sequence[float | None]) -> list[float | None]:
    """Return p values adjusted to the false discovery rate (Benjamini & Hochberg 1995)."""

    def raised(values: Floats) -> Floats:
        # Not scipy's false_discovery_control, which multiplies in another order (1.18): the last
        # digit of published figures would change.
        scaled = values * len(values) / np.arange(1, len(values) + 1)
        return np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1)

    return _adjusted(p, raised)


def _adjusted(p: Sequence[float | None], raised: Callable[[Floats], Floats]) -> list[float | None]:
    """Return p values, those that are known adjusted by a rule for values in rising order."""
    values = np.array([value for value in p if value is not None], dtype=np.float64)
    order = np.argsort(values, kind="stable")
    values[order] = raised(values[order])
    known = iter(values.tolist())
    return [None if value is None else next(known) for value in p]


def _codes(groups: Sequence[Hashable]) -> npt.NDArray[np.intp]:
    first: dict[Hashable, int] = {}
    return np.array([first.setdefault(group, len(first)) for group in groups], dtype=np.intp)


def _sums(a: Floats, b: Floats, codes: npt.NDArray[np.intp]) -> Floats:
    """Return the sums ``(clusters, 6)`` that r is made of, of columns that vary."""
    a, b = (a - a.mean()) / a.std(), (b - b.mean()) / b.std()
    sums = np.zeros((int(codes.max()) + 1, 6))
    np.add.at(sums, codes, np.column_stack([np.ones(len(a)), a, b, a * a, b * b, a * b]))
    return sums


def _r_of_sums(sums: Floats) -> Floats:
    """Return Pearson's r of each row of sums; NaN where a column never varies."""
    n, sa, sb, saa, sbb, sab = sums.T
    spread = (saa - sa * sa / n) * (sbb - sb * sb / n)
    root = np.sqrt(np.where(spread > 1e-12 * n * n, spread, np.nan))
    return np.asarray(np.clip((sab - sa * sb / n) / root, -1, 1))[:, None]
