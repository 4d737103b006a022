"""What a language model has kept of texts that it was trained on: exposure and extraction.

Exposure is that of Carlini et al. 2019 (The Secret Sharer, section 4.2): a canary holds a secret
drawn from a known space, and is ranked by log-perplexity among the same text with other secrets.
Extraction follows Carlini et al. 2023 (Quantifying Memorization, section 3): given the tokens
before, greedy decoding goes on with the very text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Share:
    """How many of some texts, with the ends of Wilson's 95 % interval; ``None`` for none."""

    count: int
    n: int
    share: float | None
    low: float | None
    high: float | None


def rank_among(own: float, others: Sequence[float]) -> int:
    """Return the place of a log-perplexity among others, from 1 for the lowest.

    Equal ones count as lower, so that a model that tells nothing apart shows no exposure.
    """
    return 1 + sum(other <= own for other in others)


def exposure(own: float, others: Sequence[float]) -> float:
    """Return log2 of the candidates, itself among them, less log2 of the rank, in bits.

    With a sample of the space in place of all of it (section 4.3 there) the most that can be seen
    is log2 of the sample's size.

    >>> exposure(1.0, [2.0, 3.0, 4.0]), exposure(5.0, [2.0, 3.0, 4.0])
    (2.0, 0.0)
    """
    return math.log2(1 + len(others)) - math.log2(rank_among(own, others))


CHANCE = 1 / math.log(2)
"""Mean exposure of a secret that the model has never met, in bits: its rank is uniform."""


def exposure_p(exposures: Sequence[float]) -> float | None:
    """Return the probability of a mean exposure as high without memorisation, ``None`` for none.

    The rank is uniform then, and ln(2) times the exposure exponential with mean 1, or less for a
    finite sample: their sum follows at most a gamma distribution.
    """
    if not exposures:
        return None
    from scipy.stats import gamma

    return float(gamma.sf(math.log(2) * sum(exposures), a=len(exposures)))


def share_of(found: Sequence[bool]) -> Share:
    """Return the share of texts that were reproduced."""
    n, count = len(found), sum(found)
    if n == 0:
        return Share(count=0, n=0, share=None, low=None, high=None)
    from scipy.stats import binomtest

    ends = binomtest(count, n).proportion_ci(0.95, method="wilson")
    return Share(count=count, n=n, share=count / n, low=float(ends.low), high=float(ends.high))


def more_than(trained: Share, held_out: Share) -> float | None:
    """Return Fisher's exact one-sided p for a larger share of trained texts; ``None`` for none."""
    if trained.n == 0 or held_out.n == 0:
        return None
    from scipy.stats import fisher_exact

    table = np.array([[each.count, each.n - each.count] for each in (trained, held_out)])
    return float(fisher_exact(table, alternative="greater").pvalue)
