from __future__ import annotations

import numpy as np
import pingouin
import pytest
from scipy import stats
from sklearn.datasets import make_moons
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
from sklearn.svm import SVC

from recap.statistics.hypothesis_tests import (
    corrected_t_test,
    independent_t_test,
    paired_t_test,
)


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
    control = stats.zscore(np.arange(31.0), ddof=1)
    found = independent_t_test(control + 0.59, control)
    assert found.t == pytest.approx(2.32, abs=0.005)
    assert found.p == pytest.approx(0.024, abs=0.0005)


@pytest.mark.parametrize("welch", [False, True])
def test_scores_that_do_not_vary_have_no_t(welch: bool) -> None:
    found = independent_t_test(np.ones(3), np.zeros(4), welch=welch)
    assert (found.difference, found.t, found.p, found.low) == (1.0, None, None, None)
    assert paired_t_test(np.ones(3), np.zeros(3)).t is None
    rounded = paired_t_test(np.array([0.3, 0.2, 0.7]), np.array([0.2, 0.1, 0.6]))
    assert (rounded.t, rounded.p) == (None, None)


def test_the_corrected_test_is_that_of_scikit_learns_example() -> None:
    # scikit-learn 1.9, "Statistical comparison of models using grid search", prints for RBF against
    # linear over 10 x 10 folds of 100 examples: corrected t 0.750, p 0.227 one-sided; uncorrected
    # 2.611 and 0.005.
    x, y = make_moons(noise=0.352, random_state=1, n_samples=100)
    folds = RepeatedStratifiedKFold(n_splits=10, n_repeats=10, random_state=0)
    rbf, linear = (
        cross_val_score(SVC(kernel=kernel, random_state=0), x, y, scoring="roc_auc", cv=folds)
        for kernel in ("rbf", "linear")
    )
    found = corrected_t_test(rbf, linear, test_to_train=1 / 9)
    assert found.t == pytest.approx(0.750, abs=0.0005)
    assert found.p == pytest.approx(2 * 0.227, abs=0.001)
    assert paired_t_test(rbf, linear).t == pytest.approx(2.611, abs=0.0005)


def test_the_corrected_test_is_the_paired_one_with_a_longer_standard_error() -> None:
    generator = np.random.default_rng(5)
    for k, repeats in ((5, 1), (10, 1), (5, 10)):
        first, second = generator.normal(size=(2, k * repeats))
        theirs = stats.ttest_rel(first, second)
        found = corrected_t_test(first, second, test_to_train=1 / (k - 1))
        shrunk = theirs.statistic / np.sqrt(1 + k * repeats / (k - 1))
        assert found.t == pytest.approx(shrunk)
        assert found.p == pytest.approx(2 * stats.t.sf(abs(shrunk), k * repeats - 1))
        reach = stats.t.ppf(0.975, k * repeats - 1) * (found.difference / shrunk)
        assert found.high == pytest.approx(found.difference + abs(reach))


def test_folds_that_all_differ_alike_have_no_corrected_p() -> None:
    found = corrected_t_test(
        np.array([0.3, 0.2, 0.7]), np.array([0.2, 0.1, 0.6]), test_to_train=0.5
    )
    assert found.difference == pytest.approx(0.1)
    assert (found.t, found.p, found.low) == (None, None, None)
