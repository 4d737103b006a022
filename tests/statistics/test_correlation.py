from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats import multitest

from recap.statistics.correlation import (
    benjamini_hochberg,
    correlate,
    fisher_interval,
    holm,
    p_of_r,
    pearson,
    stars,
)

# Table 13 of the paper (arXiv 2601.14780): r and stars with goal, task, bond, overall; n = 793.
TABLE_13 = """
Challenging -0.1632*** -0.1717*** -0.1079** -0.1598***
Discounting -0.2521*** -0.2425*** -0.2312*** -0.2596***
Blaming 0.0337 0.0333 0.0089 0.0277
Disagreeing -0.036 -0.0129 -0.0481 -0.0339
Excusing 0.0231 0.0291 0.0046 0.0209
Minimizing -0.1157** -0.0954** -0.1032** -0.1122**
Pessimistic 0.0222 0.0228 -0.0228 0.0091
Reluctance -0.0054 0.0002 -0.032 -0.0125
Unwillingness 0.0236 0.002 0.0042 0.0107
Minimum-Talk -0.1192*** -0.1332*** -0.1357*** -0.1385***
Limit-Setting -0.1662*** -0.1685*** -0.1492*** -0.1733***
Sidetracking -0.1035** -0.1093** -0.0735* -0.1032**
Inattention -0.0487 -0.0099 -0.0542 -0.0394
Resistance -0.2222*** -0.2038*** -0.2246*** -0.2321***
"""


def test_all_stars_of_table_13_follow_from_r_at_n_793() -> None:
    cells = [cell for line in TABLE_13.split("\n") for cell in line.split()[1:]]
    assert len(cells) == 56
    for cell in cells:
        r = float(cell.rstrip("*"))
        assert stars(p_of_r(r, 793)) == cell.lstrip("-.0123456789"), cell


def test_r_p_and_interval_equal_scipys_in_random_cases() -> None:
    rng = np.random.default_rng(0)
    for case in range(300):
        n = int(rng.integers(10, 60))
        x = rng.normal(size=n) * 10.0 ** rng.integers(-6, 7)
        y = 0.3 * case / 300 * x + rng.normal(size=n) + rng.integers(0, 3)
        if case % 3 == 0:
            x, y = np.round(x), np.round(y)
        if not np.ptp(x) or not np.ptp(y):
            continue
        found = correlate(x, y, clustered=False, confidence=0.9)
        theirs = scipy_stats.pearsonr(x, y)
        ends = theirs.confidence_interval(0.9)
        ranks = scipy_stats.spearmanr(x, y)
        assert found.r == pytest.approx(theirs.statistic, abs=1e-8)
        assert found.p == pytest.approx(theirs.pvalue, abs=1e-8)
        assert (found.low, found.high) == pytest.approx((ends.low, ends.high), abs=1e-8)
        assert found.rho == pytest.approx(ranks.statistic, abs=1e-8)
        assert found.rho_p == pytest.approx(ranks.pvalue, abs=1e-8)


def test_corrections_equal_those_of_statsmodels_in_random_cases(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # It collects garbage in every call, which takes all of its time.
    monkeypatch.setattr("gc.collect", lambda *_: 0)
    rng = np.random.default_rng(1)
    for case in range(300):
        p = rng.uniform(size=int(rng.integers(1, 60))) ** (1 + case % 5)
        if case % 4 == 0:
            p = np.round(p, 1)
        for ours, name in ((holm, "holm"), (benjamini_hochberg, "fdr_bh")):
            expected = multitest.multipletests(p, method=name)[1]
            np.testing.assert_allclose(ours(list(p)), expected, rtol=0, atol=1e-8)


def test_p_values_that_do_not_exist_are_no_tests() -> None:
    # By hand: of .01 and .04, Holm gives .02 and .04; with a third test .01 would become .03.
    assert holm([0.04, None, 0.01]) == [0.04, None, 0.02]
    assert benjamini_hochberg([0.04, None, 0.01]) == [0.04, None, 0.02]
    assert holm([]) == []


def test_rows_with_a_missing_value_are_left_out_pairwise() -> None:
    found = correlate([1, 2, float("nan"), 4], [1, 3, 2, float("nan")], clustered=False)
    assert found.n == 2
    assert found.r == pytest.approx(1)
    assert (found.p, found.low) == (None, None)


def test_a_column_that_never_varies_has_no_correlation() -> None:
    found = correlate([0] * 12, range(12))
    assert found.reason == "one of the two never varies"
    assert (found.r, found.p, found.stars, found.rho, found.cluster_low) == (
        None,
        None,
        "",
        None,
        None,
    )


def test_a_perfect_correlation_has_p_zero_and_no_width() -> None:
    found = correlate(range(12), range(0, 24, 2))
    assert (found.r, found.p, found.low, found.high) == pytest.approx((1, 0, 1, 1), abs=1e-7)
    assert (p_of_r(1, 9), p_of_r(-1, 9), fisher_interval(-1, 9)) == (0, 0, (-1, -1))
    assert fisher_interval(None, 10) == (None, None)


def test_large_and_tiny_values_do_not_overflow() -> None:
    x, y = np.array([1.0, 2, 3, 5]), np.array([2.0, 1, 4, 4])
    assert pearson(x * 1e200, y * 1e-200) == pytest.approx(scipy_stats.pearsonr(x, y).statistic)


def test_the_clustered_interval_is_near_that_of_a_bootstrap_that_draws_row_by_row() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 400)) + 0.6 * np.repeat(rng.normal(size=(2, 100)), 4, axis=1)
    y += 0.5 * x
    clients = [i // 4 for i in range(400)]
    found = correlate(x, y, clusters=clients)
    assert found.n_clusters == 100
    drawn = []
    for _ in range(4000):
        rows = np.concatenate([np.arange(4 * c, 4 * c + 4) for c in rng.integers(0, 100, size=100)])
        drawn.append(np.corrcoef(x[rows], y[rows])[0, 1])
    assert (found.cluster_low, found.cluster_high) == pytest.approx(
        np.quantile(drawn, [0.025, 0.975]), abs=0.02
    )


def test_a_predictor_of_one_session_in_two_hundred_has_no_clustered_interval() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        y = rng.normal(size=200)
        found = correlate(np.eye(200)[0], y)
        assert (found.cluster_low, found.reason) == (None, "it rests on a single session")
        covered += found.low <= 0 <= found.high
    # Binomial(200, .95) lies within 180 and 199 in all but one of a thousand draws.
    assert 180 <= covered <= 199


@pytest.mark.parametrize("carriers", [2, 4, 8])
def test_of_a_rare_predictor_without_effect_clustered_intervals_hold_zero(carriers: int) -> None:
    rng = np.random.default_rng(carriers)
    held = 0
    for _ in range(200):
        x = np.where(np.arange(200) < carriers, rng.uniform(0.1, 1, size=200), 0)
        found = correlate(x, rng.exponential(size=200))
        held += found.cluster_low <= 0 <= found.cluster_high
    assert held >= 186


def test_under_ten_clusters_nothing_has_an_interval_or_a_p() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=90)
    found = correlate(
        x, x + rng.normal(size=90), clusters=[i // 10 for i in range(90)], kind="client"
    )
    assert found.r is not None
    assert {found.low, found.p, found.rho_p, found.cluster_low} == {None}
    assert (found.stars, found.reason[:21]) == ("", "9 clients are too few")


def test_copies_of_sessions_of_one_client_widen_the_clustered_interval_alone() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=40), rng.normal(size=40)
    copied = correlate(np.repeat(x, 9), np.repeat(y, 9), clusters=np.repeat(range(40), 9).tolist())
    single = correlate(x, y)
    assert width(copied.low, copied.high) < width(single.low, single.high) / 2
    clustered = width(copied.cluster_low, copied.cluster_high)
    assert clustered > width(single.low, single.high) / 1.5


def width(low: float | None, high: float | None) -> float:
    assert low is not None
    assert high is not None
    return high - low
