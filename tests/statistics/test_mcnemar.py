"""McNemar's exact test, against statsmodels and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar as reference

from recap.statistics.hypothesis_tests import mcnemar


def test_random_tables_have_the_p_of_statsmodels() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = int(rng.integers(1, 120))
        first, second = rng.uniform(size=n) < 0.7, rng.uniform(size=n) < rng.uniform(0.3, 0.9)
        table = [
            [int((first & second).sum()), int((first & ~second).sum())],
            [int((~first & second).sum()), int((~first & ~second).sum())],
        ]
        found = mcnemar(first, second)
        assert [
            [found.both_right, found.first_only],
            [found.second_only, found.both_wrong],
        ] == table
        assert found.p == pytest.approx(min(1.0, reference(table, exact=True).pvalue), abs=1e-12)


def test_a_table_by_hand() -> None:
    # 1 against 5 of 6: 2 (C(6,0) + C(6,1)) / 2^6 = 14 / 64.
    first = [True, False, False, False, False, False, True]
    second = [False, True, True, True, True, True, True]
    assert mcnemar(first, second).p == pytest.approx(14 / 64)


def test_without_a_discordant_example_p_is_one() -> None:
    found = mcnemar([True, False], [True, False])
    assert (found.first_only, found.second_only, found.p) == (0, 0, 1.0)
