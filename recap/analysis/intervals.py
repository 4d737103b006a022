"""Figures with percentile intervals of a bootstrap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure with the ends of its interval; ``None`` where they are not known."""

    value: float | None
    low: float | None = None
    high: float | None = None


def with_intervals(
    values: Floats,
    draw: Callable[[np.random.Generator, int], Floats],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> list[Interval]:
    """Return figures with percentile intervals over resamples.

    A share of 0 or 1 that no resample can leave has none: what never occurred is never drawn, which
    says nothing about how rare it is.

    Args:
        values: The figures themselves; NaN where there is none.
        draw: Gives ``(size, figures)`` resampled figures; NaN where a resample has none.
        resamples: How many; 0 gives no intervals.
        confidence: Level.
        seed: Of the generator.
    """
    found = [None if np.isnan(value) else float(value) for value in values]
    if resamples == 0:
        return [Interval(value=value) for value in found]
    rng = np.random.default_rng(seed)
    sizes = [min(_AT_ONCE, resamples - start) for start in range(0, resamples, _AT_ONCE)]
    drawn = np.concatenate([draw(rng, size) for size in sizes])
    return [_interval(value, drawn[:, i], confidence) for i, value in enumerate(found)]


def _interval(value: float | None, drawn: Floats, confidence: float) -> Interval:
    sound = drawn[~np.isnan(drawn)]
    if value is None or len(sound) == 0:
        return Interval(value=value)
    tail = (1 - confidence) / 2
    low, high = (float(end) for end in np.quantile(sound, [tail, 1 - tail]))
    if value in (0, 1) and low == high:
        return Interval(value=value)
    return Interval(value=value, low=low, high=high)


_AT_ONCE = 250
"""Resamples that are in memory together."""


def resampled(rng: np.random.Generator, n: int, size: int) -> Floats:
    """Return how often each of ``n`` units is drawn, for ``size`` resamples: ``(size, n)``."""
    return rng.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)
