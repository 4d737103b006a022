from __future__ import annotations

import numpy as np
import pingouin
import pytest
from scipy import stats

from recap.statistics.effect_sizes import EffectSize, d_av, d_s, d_z, noncentrality_interval

CASES = 300


def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Return paired measurements of samples of 3 to 40, correlated and not."""
    generator = np.random.default_rng(7)
    made = []
    for _ in range(CASES):
        n = int(generator.integers(3, 40))
        first = generator.normal(generator.normal(), generator.uniform(0.3, 3), size=n)
        second = generator.uniform(-0.5, 1) * first + generator.normal(size=n)
        made.append((first, second))
    return made


def test_random_differences_are_as_in_pingouin() -> None:
    effsize = pingouin.compute_effsize
    for first, second in pairs():
        others = second[: max(2, len(second) // 2)]
        between, dz, av = d_s(first, others), d_z(first, second), d_av(first, second)
        found = [between.d, between.g, dz.d, dz.g, av.d, av.g]
        expected = [
            effsize(first, others, eftype="cohen"),
            effsize(first, others, eftype="hedges"),
            effsize(first, second, paired=True, eftype="cohen_dz"),
            effsize(first - second, 0, eftype="hedges"),  # one sample: n - 1 degrees of freedom
            effsize(first, second, paired=True, eftype="cohen"),
            effsize(first, second, paired=True, eftype="hedges"),
        ]
        assert found == pytest.approx(expected, rel=1e-8, abs=1e-10)


def test_an_interval_ends_where_the_found_t_would_be_just_too_far_out() -> None:
    for first, second in pairs()[:100]:
        n = len(first)
        found = d_z(first, second)
        t = float(found.d) * np.sqrt(n)
        low, high = float(found.low) * np.sqrt(n), float(found.high) * np.sqrt(n)
        assert stats.nct.sf(t, n - 1, low) == pytest.approx(0.025, abs=1e-7)
        assert stats.nct.cdf(t, n - 1, high) == pytest.approx(0.025, abs=1e-7)


@pytest.mark.parametrize("t", [-40.0, -12.0, -0.1, 0.0, 3.0, 12.0, 40.0])
@pytest.mark.parametrize("df", [1, 8, 300])
def test_intervals_of_far_t_are_found_and_mirror_each_other(t: float, df: int) -> None:
    low, high = noncentrality_interval(t, df, 0.95)
    assert low < t < high or df == 1
    assert noncentrality_interval(-t, df, 0.95) == pytest.approx((-high, -low), abs=1e-6)


def test_an_interval_of_large_samples_is_pingouins_normal_one() -> None:
    generator = np.random.default_rng(3)
    first, second = generator.normal(0.3, 1, size=4000), generator.normal(size=4000)
    found = d_s(first, second)
    expected = pingouin.compute_esci(found.d, 4000, 4000, eftype="cohen", decimals=8)
    assert [found.low, found.high] == pytest.approx(list(expected), abs=1e-4)


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(11)
    hits = 0
    for _ in range(400):
        found = d_s(generator.normal(0.8, 1, size=10), generator.normal(size=12))
        hits += float(found.low) <= 0.8 <= float(found.high)
    assert stats.binomtest(hits, 400, 0.95).pvalue > 0.01


def test_the_interval_of_d_av_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(17)
    covariance = [[1.0, 0.6], [0.6, 1.0]]
    hits = 0
    for _ in range(400):
        first, second = generator.multivariate_normal([0.5, 0], covariance, size=20).T
        found = d_av(first, second)
        hits += float(found.low) <= 0.5 <= float(found.high)
    assert 0.92 < hits / 400 < 0.98


def test_differences_that_do_not_vary_have_no_effect_size() -> None:
    nothing = EffectSize(d=None, low=None, high=None, g=None, g_low=None, g_high=None)
    same = np.array([1.0, 2.0, 3.0])
    assert d_z(same + 1, same) == nothing
    assert d_av(same + 1, same) == nothing
    assert d_s(np.ones(3), np.zeros(3)) == nothing
    # One difference throughout, but for the last digits of the doubles.
    first, second = np.array([0.3, 0.2, 0.7]), np.array([0.2, 0.1, 0.6])
    assert (first - second).std() > 0
    assert d_z(first, second) == d_av(first, second) == nothing
