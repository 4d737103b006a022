"""The spread of repeated cross-validation, against scipy's analysis of variance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from recap.report.comparison import repeat_spread


def test_the_spread_within_is_the_error_of_a_one_way_analysis_of_variance() -> None:
    values = np.random.default_rng(0).normal(size=(6, 5))
    found = repeat_spread(values.tolist())
    means = values.mean(axis=1)
    # F = n_folds * variance between / variance within.
    f = 5 * means.var(ddof=1) / (found.std_within or 0) ** 2
    assert f == pytest.approx(stats.f_oneway(*values).statistic)
    assert found.std_between == pytest.approx(means.std(ddof=1))
    assert found.mean == pytest.approx(values.mean())


def test_one_repeat_has_no_spread_between_and_single_folds_none_within() -> None:
    assert repeat_spread([[0.5, 0.7]]).std_between is None
    assert repeat_spread([[0.5], [0.7]]).std_within is None
