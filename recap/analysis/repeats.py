"""The spread of cross-validation that was repeated under other seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt


@dataclass(frozen=True, kw_only=True)
class RepeatSpread:
    """Mean and sample standard deviations (ddof 1) of one figure over repeats and folds."""

    n_repeats: int
    mean: float
    """Of all repeats' means."""
    means: tuple[float, ...]
    """Of each repeat over its folds."""
    std_within: float | None
    """Over the folds of a repeat, pooled over repeats; ``None`` where each has one fold."""
    std_between: float | None
    """Of the repeats' means; ``None`` for one repeat."""


def repeat_spread(values: Sequence[Sequence[float]]) -> RepeatSpread:
    """Return how a figure varies from fold to fold and from repeat to repeat.

    Args:
        values: Of every repeat its folds' values, at least one of each.

    >>> found = repeat_spread([[0.5, 0.7], [0.7, 0.9]])
    >>> round(found.mean, 6), round(found.std_within or 0, 6), round(found.std_between or 0, 6)
    (0.7, 0.141421, 0.141421)
    """
    means = tuple(statistics.fmean(folds) for folds in values)
    freedom = sum(len(folds) - 1 for folds in values)
    squares = sum(
        (value - mean) ** 2 for folds, mean in zip(values, means, strict=True) for value in folds
    )
    return RepeatSpread(
        n_repeats=len(values),
        mean=statistics.fmean(means),
        means=means,
        std_within=sqrt(squares / freedom) if freedom else None,
        std_between=statistics.stdev(means) if len(means) > 1 else None,
    )
