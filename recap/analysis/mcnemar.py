"""McNemar's test of two systems' answers to the same examples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """The examples on which two systems differ in being right, and the exact test."""

    both_right: int
    first_only: int
    """Examples that the first answers rightly and the second wrongly."""
    second_only: int
    both_wrong: int
    p: float
    """Two-sided; 1 where there is no discordant example."""


def mcnemar(first_right: npt.ArrayLike, second_right: npt.ArrayLike) -> McNemar:
    """Return the exact test that both systems are right equally often.

    Under the null hypothesis either of the two is the right one of a discordant pair with
    probability one half: a binomial test (McNemar 1947, Note on the sampling error of the
    difference between correlated proportions). It takes examples for independent.

    Args:
        first_right: Booleans ``(examples,)``.
        second_right: Booleans of the same examples.
    """
    first, second = np.asarray(first_right, dtype=bool), np.asarray(second_right, dtype=bool)
    first_only, second_only = int((first & ~second).sum()), int((~first & second).sum())
    discordant = first_only + second_only
    return McNemar(
        both_right=int((first & second).sum()),
        first_only=first_only,
        second_only=second_only,
        both_wrong=int((~first & ~second).sum()),
        p=float(stats.binomtest(first_only, discordant).pvalue) if discordant else 1.0,
    )
