from __future__ import annotations

import numpy as np
import pandas as pd
import pingouin
import pytest

from recap.statistics.hypothesis_tests import box_m, levene, shapiro


def test_random_groups_are_checked_as_in_pingouin() -> None:
    generator = np.random.default_rng(6)
    for _ in range(300):
        sizes = generator.integers(4, 20, size=2)
        groups = [generator.normal(size=(n, 2)) @ generator.normal(size=(2, 2)) for n in sizes]
        table = pd.DataFrame(np.concatenate(groups), columns=["pre", "post"])
        table["group"] = np.repeat([0, 1], sizes)
        [box] = pingouin.box_m(table, dvs=["pre", "post"], group="group").to_dict("records")
        found = box_m(groups)
        assert found.df == (box["df"],)
        assert [found.statistic, found.p] == pytest.approx([box["Chi2"], box["pval"]], rel=1e-7)


def test_levene_and_shapiro_are_as_in_pingouin() -> None:
    generator = np.random.default_rng(6)
    for _ in range(300):
        groups = [generator.gamma(2, size=n) for n in generator.integers(4, 20, size=2)]
        [equal] = pingouin.homoscedasticity(groups, method="levene").to_dict("records")
        found = levene(groups)
        assert [found.statistic, found.p] == pytest.approx([equal["W"], equal["pval"]], rel=1e-8)
        [normal] = pingouin.normality(groups[0]).to_dict("records")
        check = shapiro(groups[0])
        assert [check.statistic, check.p] == pytest.approx([normal["W"], normal["pval"]], rel=1e-8)


def test_what_does_not_vary_cannot_be_checked() -> None:
    constant = np.ones((4, 2))
    varied = np.random.default_rng(0).normal(size=(6, 2))
    assert shapiro(constant[:, 0]).p is None
    assert shapiro(varied[:2, 0]).p is None
    assert levene([constant[:, 0], constant[:, 0]]).p is None
    assert box_m([constant, varied]).p is None
    assert box_m([varied[:2], varied]).p is None
    # 0.3 and 0.1 + 0.2: a phase in which all scores are one.
    rounded = np.where(np.arange(6) % 2, 0.3, 0.1 + 0.2)
    assert box_m([np.stack([rounded, varied[:, 0]], axis=1), varied]).p is None
