from __future__ import annotations

import numpy as np
import pingouin
import pytest
from scipy import stats

from recap.analysis.t_tests import independent_t_test, paired_t_test, t_of_d


def test_random_samples_are_tested_as_in_pingouin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pingouin.options, "round.column.CI95", None)
    generator = np.random.default_rng(2)
    for _ in range(300):
        n, m = generator.integers(3, 30, size=2)
        first = generator.normal(0.4, generator.uniform(0.2, 4), size=n)
        second, other = generator.normal(size=n), generator.normal(size=m)
        for found, expected in (
            (paired_t_test(first, second), pingouin.ttest(first, second, paired=True)),
            (independent_t_test(first, other), pingouin.ttest(first, other, correction=False)),
            (
                independent_t_test(first, other, welch=True),
                pingouin.ttest(first, other, correction=True),
            ),
        ):
            [row] = expected.to_dict("records")
            assert [found.t, found.df] == pytest.approx([row["T"], row["dof"]], rel=1e-8)
            assert found.p == pytest.approx(row["p_val"], abs=1e-8)


def test_intervals_are_those_of_scipy() -> None:
    generator = np.random.default_rng(4)
    for _ in range(300):
        first, second = generator.normal(size=9), generator.normal(0.5, 2, size=9)
        for found, expected in (
            (paired_t_test(first, second, 0.9), stats.ttest_rel(first, second)),
            (independent_t_test(first, second, confidence=0.9), stats.ttest_ind(first, second)),
            (
                independent_t_test(first, second, welch=True, confidence=0.9),
                stats.ttest_ind(first, second, equal_var=False),
            ),
        ):
            interval = expected.confidence_interval(0.9)
            assert [found.low, found.high] == pytest.approx([interval.low, interval.high], rel=1e-8)


def test_the_papers_post_phase_difference_is_significant() -> None:
    # Section 7: d = 0.59 between 31 and 31 counsellors.
    t = t_of_d(0.59, 31, 31)
    assert t == pytest.approx(2.32, abs=0.005)
    assert 2 * stats.t.sf(t, 60) == pytest.approx(0.024, abs=0.0005)


@pytest.mark.parametrize("welch", [False, True])
def test_scores_that_do_not_vary_have_no_t(welch: bool) -> None:
    found = independent_t_test(np.ones(3), np.zeros(4), welch=welch)
    assert (found.difference, found.t, found.p, found.low) == (1.0, None, None, None)
    assert paired_t_test(np.ones(3), np.zeros(3)).t is None
    rounded = paired_t_test(np.array([0.3, 0.2, 0.7]), np.array([0.2, 0.1, 0.6]))
    assert (rounded.t, rounded.p) == (None, None)
