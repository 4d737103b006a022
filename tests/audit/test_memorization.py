"""Exposure and extraction: by hand, by simulation, and against statsmodels and Fisher himself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from recap.audit.run import CHANCE, exposure, exposure_p, more_than, share_of


def test_exposure_is_the_bits_by_which_a_secret_is_found_sooner() -> None:
    others = [float(i) for i in range(1, 8)]  # eight candidates with the canary
    assert [exposure(own, others) for own in (0.5, 1.5, 3.5, 7.5)] == [3.0, 2.0, 1.0, 0.0]


def test_equal_log_perplexities_show_nothing() -> None:
    assert exposure(1.0, [1.0, 1.0, 1.0]) == 0.0
    assert exposure(1.0, [1.0] * 1023) == 0.0


def test_chance_is_the_mean_over_uniform_ranks() -> None:
    n = 4096
    mean = np.log2(n / np.arange(1, n + 1)).mean()
    assert pytest.approx(mean, abs=2e-3) == CHANCE


def test_the_p_of_a_mean_exposure_holds_its_level() -> None:
    rng = np.random.default_rng(0)
    ranks = rng.integers(1, 1025, size=(4000, 5))
    p = np.array([exposure_p([math.log2(1024 / rank) for rank in row]) for row in ranks])
    for level in (0.01, 0.05, 0.2):
        share = (p <= level).mean()
        assert share <= level + 3 * math.sqrt(level * (1 - level) / len(p))
        assert share >= level / 2
    assert exposure_p([10.0] * 5) == pytest.approx(0.0, abs=1e-9)
    assert exposure_p([]) is None


def test_shares_have_wilsons_interval() -> None:
    found = share_of([True] * 3 + [False] * 37)
    low, high = proportion_confint(3, 40, method="wilson")
    assert (found.count, found.n, found.share) == (3, 40, 0.075)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert share_of([]).share is None


def test_more_is_fishers_lady_tasting_tea() -> None:
    right, wrong = share_of([True] * 3 + [False]), share_of([True] + [False] * 3)
    assert more_than(right, wrong) == pytest.approx(17 / 70)  # 1/70 + 16/70
    assert more_than(right, share_of([])) is None
