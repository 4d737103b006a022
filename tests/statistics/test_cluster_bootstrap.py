"""The studentised cluster bootstrap, against definitions, scipy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score

from recap.statistics.bootstrap import (
    FEWEST_SESSIONS_OF_A_LABEL,
    cluster_bootstrap,
    difference_intervals,
    ratio_parts,
    score_intervals,
)

LABELS = ("a", "b", "c")


def drawn_answers(
    seed: int, sessions: int = 40, size: int = 6
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return gold, answer and session of examples, answer 3 being unreadable."""
    rng = np.random.default_rng(seed)
    gold = rng.integers(3, size=sessions * size)
    answer = np.where(rng.uniform(size=len(gold)) < 0.7, gold, rng.integers(4, size=len(gold)))
    return gold, answer, np.repeat(np.arange(sessions), size)


def confusions(gold: np.ndarray, answer: np.ndarray, session: np.ndarray) -> np.ndarray:
    counts = np.zeros((session.max() + 1, 3, 4))
    np.add.at(counts, (session, gold, answer), 1)
    return counts


def test_pooled_scores_are_those_of_scikit_learn() -> None:
    gold, answer, session = drawn_answers(0)
    found = score_intervals(
        confusions(gold, answer, session), LABELS, resamples=50, confidence=0.95, seed=0
    )
    labels = [0, 1, 2]
    assert found.macro_f1.value == pytest.approx(
        f1_score(gold, answer, labels=labels, average="macro"), abs=1e-12
    )
    assert found.accuracy.value == pytest.approx(accuracy_score(gold, answer), abs=1e-12)
    expected = f1_score(gold, answer, labels=labels, average=None)
    assert [each.value for each in found.per_label.values()] == pytest.approx(list(expected))
    assert found.n_units == 40


def test_the_standard_error_of_a_mean_is_the_textbooks() -> None:
    # One example a session: a share is a mean, and its linearised error the sample's s / sqrt(n).
    right = np.random.default_rng(1).integers(2, size=50).astype(float)
    found = cluster_bootstrap(
        right[:, None], np.ones((50, 1)), np.ones((1, 1)), resamples=0, seed=0
    )
    assert found.values[0] == pytest.approx(right.mean())
    assert found.standard_errors[0] == pytest.approx(stats.sem(right))


def test_the_standard_error_of_macro_f1_is_that_of_its_numerical_derivative() -> None:
    gold, answer, session = drawn_answers(2)
    top, bottom = (part[:, :3] for part in ratio_parts(confusions(gold, answer, session)))
    found = cluster_bootstrap(top, bottom, np.full((1, 3), 1 / 3), resamples=0, seed=0)
    step = 1e-6
    influence = []
    for i in range(len(top)):
        more, less = np.ones(len(top)), np.ones(len(top))
        more[i] += step
        less[i] -= step
        up, down = ((w @ top / (w @ bottom)).mean() for w in (more, less))
        influence.append((up - down) / (2 * step))
    n = len(top)
    expected = np.sqrt(n / (n - 1) * np.square(influence).sum())
    assert found.standard_errors[0] == pytest.approx(expected, rel=1e-6)


def test_a_mean_has_the_bootstrap_t_interval_written_out() -> None:
    # Efron & Tibshirani 1993, 12.5, from scratch: quantiles of (x* - x) / s*.
    values = np.random.default_rng(3).exponential(size=(30, 1))
    found = cluster_bootstrap(values, np.ones((30, 1)), np.ones((1, 1)), resamples=20_000, seed=0)
    again = np.random.default_rng(99).choice(values[:, 0], size=(20_000, 30))
    t = (again.mean(axis=1) - values.mean()) / stats.sem(again, axis=1)
    low, high = np.quantile(t, [0.025, 0.975])
    error = stats.sem(values[:, 0])
    interval = found.interval(0, 0.95, bounds=(-np.inf, np.inf))
    assert interval.low == pytest.approx(values.mean() - high * error, abs=0.1 * error)
    assert interval.high == pytest.approx(values.mean() - low * error, abs=0.1 * error)


def test_the_p_of_zero_is_beyond_the_level_exactly_when_the_interval_holds_zero() -> None:
    for seed in range(40):
        gold, answer, session = drawn_answers(seed, sessions=25)
        other = np.where(np.random.default_rng(seed + 1).uniform(size=len(gold)) < 0.06, 3, answer)
        found = difference_intervals(
            [confusions(gold, answer, session)],
            [confusions(gold, other, session)],
            resamples=1999,
            confidence=0.95,
            seed=seed,
        )
        interval, p = found.macro_f1, found.macro_f1_p
        assert interval.low is not None
        assert interval.high is not None
        assert p is not None
        if abs(p - 0.05) > 0.002:
            assert (p > 0.05) == (interval.low < 0 < interval.high)


def test_a_difference_is_that_of_the_scores_and_changes_its_sign_with_the_order() -> None:
    gold, answer, session = drawn_answers(4)
    _, other, _ = drawn_answers(5)
    one, two = confusions(gold, answer, session), confusions(gold, other, session)
    kwargs = {"resamples": 500, "confidence": 0.9, "seed": 0}
    there = difference_intervals([one], [two], **kwargs)
    back = difference_intervals([two], [one], **kwargs)
    expected = f1_score(gold, answer, labels=[0, 1, 2], average="macro") - f1_score(
        gold, other, labels=[0, 1, 2], average="macro"
    )
    assert there.macro_f1.value == pytest.approx(expected)
    assert back.macro_f1.value == pytest.approx(-expected)
    assert there.macro_f1.low == pytest.approx(-(back.macro_f1.high or 0), abs=0.02)


def test_the_same_sessions_are_drawn_for_both_systems() -> None:
    # The second system errs on one more example of every session: nothing varies but the scores.
    gold, answer, session = drawn_answers(6, sessions=60)
    worse = answer.copy()
    for first in range(0, len(gold), 6):
        right = first + np.flatnonzero(answer[first : first + 6] == gold[first : first + 6])
        worse[right[:1]] = 3
    paired = difference_intervals(
        [confusions(gold, answer, session)],
        [confusions(gold, worse, session)],
        resamples=500,
        confidence=0.95,
        seed=0,
    )
    alone = score_intervals(
        confusions(gold, answer, session), LABELS, resamples=500, confidence=0.95, seed=0
    )
    width = (paired.accuracy.high or 0) - (paired.accuracy.low or 0)
    assert width < 0.3 * ((alone.accuracy.high or 0) - (alone.accuracy.low or 0))


def test_equal_answers_make_no_difference_and_have_no_p() -> None:
    counts = confusions(*drawn_answers(7))
    found = difference_intervals([counts], [counts], resamples=100, confidence=0.95, seed=0)
    assert found.macro_f1.value == pytest.approx(0, abs=1e-12)
    assert (found.macro_f1.low, found.macro_f1_p, found.accuracy_p) == (None, None, None)


def test_perfect_answers_have_no_interval() -> None:
    gold, _, session = drawn_answers(8)
    found = score_intervals(
        confusions(gold, gold, session), LABELS, resamples=100, confidence=0.95, seed=0
    )
    assert (found.macro_f1.value, found.macro_f1.low, found.macro_f1.high) == (1.0, None, None)


def test_a_label_in_few_sessions_has_no_interval_of_its_own() -> None:
    gold, answer, session = drawn_answers(9)
    kept = (gold != 2) & (answer != 2) | (session < FEWEST_SESSIONS_OF_A_LABEL - 1)
    counts = confusions(gold[kept], answer[kept], session[kept])
    found = score_intervals(counts, LABELS, resamples=200, confidence=0.95, seed=0)
    assert found.per_label["c"].low is None
    assert found.per_label["a"].low is not None
    assert found.macro_f1.low is not None


def test_one_session_has_no_interval() -> None:
    found = score_intervals(
        confusions(*drawn_answers(10))[:1], LABELS, resamples=100, confidence=0.95, seed=0
    )
    assert (found.macro_f1.low, found.n_units) == (None, 1)


def test_intervals_do_not_depend_on_the_order_of_sessions_and_lie_within_bounds() -> None:
    counts = confusions(*drawn_answers(11, sessions=6, size=3))
    there = score_intervals(counts, LABELS, resamples=400, confidence=0.99, seed=3)
    back = score_intervals(counts[::-1], LABELS, resamples=400, confidence=0.99, seed=3)
    assert there == back
    assert 0 <= (there.macro_f1.low or 0) <= (there.macro_f1.high or 2) <= 1


def test_examples_as_units_are_resampled_alike_whichever_way_they_are_drawn() -> None:
    # Many equal clusters are drawn as a few kinds, all different ones each by itself; a standard
    # error and an interval of a mean must come out the same.
    right = np.repeat([1.0, 0.0], [350, 150])
    ones = np.ones((500, 1))
    few_kinds = cluster_bootstrap(right[:, None], ones, np.ones((1, 1)), resamples=4000, seed=0)
    jitter = 1 + 1e-7 * np.arange(500)
    many_kinds = cluster_bootstrap(
        (right * jitter)[:, None], jitter[:, None], np.ones((1, 1)), resamples=4000, seed=0
    )
    one, other = few_kinds.interval(0, 0.95), many_kinds.interval(0, 0.95)
    assert one.low == pytest.approx(other.low, abs=0.004)
    assert one.high == pytest.approx(other.high, abs=0.004)
    # Wald's interval of a share, which this is close to at n = 500.
    half = 1.96 * np.sqrt(0.7 * 0.3 / 500)
    assert (one.low, one.high) == pytest.approx((0.7 - half, 0.7 + half), abs=0.006)
