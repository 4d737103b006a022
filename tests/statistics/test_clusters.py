"""The jackknife over clusters, against definitions, scipy, statsmodels and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from builders import prediction
from scipy import special, stats
from sklearn.metrics import accuracy_score, f1_score

from recap.errors import DataError
from recap.metrics.scores import confusion_of
from recap.statistics.clusters import (
    FEWEST_CLUSTERS,
    Clusters,
    Interval,
    jackknife,
    reasons,
    share_of,
)
from recap.statistics.score_intervals import difference_intervals, score_intervals

LABELS = ("a", "b", "c")


def shares(sums: np.ndarray) -> np.ndarray:
    return share_of(sums[:, [0]], sums[:, [1]])


def drawn(seed: int, clusters: int = 30) -> np.ndarray:
    """Return events and utterances of clusters of uneven size."""
    rng = np.random.default_rng(seed)
    n = rng.geometric(0.05, size=clusters)
    return np.column_stack([rng.binomial(n, rng.beta(1, 4, size=clusters)), n]).astype(float)


def drawn_answers(
    seed: int, clusters: int = 40, size: int = 6
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return gold, answer and cluster of examples, answer 3 being unreadable."""
    rng = np.random.default_rng(seed)
    gold = rng.integers(3, size=clusters * size)
    answer = np.where(rng.uniform(size=len(gold)) < 0.7, gold, rng.integers(4, size=len(gold)))
    return gold, answer, np.repeat(np.arange(clusters), size)


def confusions(gold: np.ndarray, answer: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    counts = np.zeros((cluster.max() + 1, 3, 4))
    np.add.at(counts, (cluster, gold, answer), 1)
    return counts


def test_a_share_has_the_jackknife_interval_written_out() -> None:
    rows = drawn(0)
    found = jackknife(rows, shares, kind="client").interval(0, 0.95)
    without = [
        special.logit(np.delete(rows, i, 0)[:, 0].sum() / np.delete(rows, i, 0)[:, 1].sum())
        for i in range(30)
    ]
    middle = special.logit(rows[:, 0].sum() / rows[:, 1].sum())
    error = np.sqrt(29 / 30 * np.sum((without - middle) ** 2))
    off = without - np.mean(without)
    df = (1 + 30 / 110) * np.sum(off**2) ** 2 / np.sum(off**4) - 1
    half = stats.t.ppf(0.975, df) * error
    assert found.low == pytest.approx(special.expit(middle - half))
    assert found.high == pytest.approx(special.expit(middle + half))
    assert found.interval == (found.low, found.high)
    assert (found.cluster, found.clusters, found.reason) == ("client", 30, None)


def test_its_standard_error_is_that_of_a_clustered_logistic_regression() -> None:
    # With many clusters; the sandwich of statsmodels knows nothing of leaving out.
    rows = drawn(1, clusters=600)
    said = np.repeat(
        np.tile([1.0, 0.0], 600), np.c_[rows[:, 0], rows[:, 1] - rows[:, 0]].ravel().astype(int)
    )
    groups = np.repeat(np.arange(600), rows[:, 1].astype(int))
    fitted = sm.GLM(said, np.ones(len(said)), family=sm.families.Binomial()).fit(
        cov_type="cluster", cov_kwds={"groups": groups}
    )
    ours = jackknife(rows, shares, kind="client").errors[0]
    assert ours == pytest.approx(fitted.bse[0], rel=0.02)


def test_the_jackknife_of_a_mean_of_equal_clusters_is_the_textbooks_standard_error() -> None:
    values = np.random.default_rng(2).uniform(-1, 1, size=25)
    found = jackknife(np.column_stack([values, np.ones(25)]), shares, kind="session", scale="any")
    assert found.errors[0] == pytest.approx(stats.sem(values))


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([[1, 2]] * 9, "9 clients are too few: under 10 there is no interval and no p"),
        ([[1, 2]], "1 client is too few: under 10 there is no interval and no p"),
        ([[1, 2]] * 10, "the same whichever client is left out"),
        ([[0, 2]] * 10, "at an end of its range: nothing says how far it is from there"),
        ([[0, 2]] * 9 + [[1, 2]], "it rests on a single client"),
        ([[0, 0]] * 10, "undefined"),
    ],
)
def test_what_has_no_interval_says_why_and_has_no_p(rows: list[list[int]], reason: str) -> None:
    found = jackknife(np.array(rows, dtype=float), shares, kind="client")
    one = found.interval(0, 0.95)
    assert (one.interval, one.reason, found.p_of_zero(0)) == (None, reason, None)


def test_a_figure_in_which_too_few_clusters_have_a_part_has_none() -> None:
    rows = np.vstack([drawn(3, 9), np.zeros((50, 2))])
    found = jackknife(rows, shares, kind="session", parts=rows[:, [1]] > 0)
    assert found.interval(0, 0.95).reason == (
        "9 sessions are too few: under 10 there is no interval and no p"
    )


def test_one_large_cluster_leaves_few_degrees_of_freedom() -> None:
    even, uneven = np.tile([[2.0, 10.0], [3.0, 10.0]], (20, 1)), drawn(4, 40)
    uneven[0] = [900, 1000]
    assert jackknife(even, shares, kind="client").freedom[0] == pytest.approx(39, abs=0.5)
    assert jackknife(uneven, shares, kind="client").freedom[0] < 2


def test_notes_name_the_figures_without_an_interval_by_the_reason() -> None:
    few = Interval(value=0.2, reason="too few")
    named = {**{f"f{n}": few for n in range(10)}, "g": Interval(value=1.0, reason="at an end")}
    named |= {
        "h": Interval(value=None, reason="undefined"),
        "i": Interval(value=0.1, low=0, high=1),
    }
    assert reasons(named) == [
        "No interval of f0, f1, f2, f3, f4, f5, f6, f7 and 2 more: too few.",
        "No interval of g: at an end.",
    ]


def test_a_cluster_is_the_widest_thing_known_and_a_session_is_never_cut() -> None:
    clusters = Clusters({"5": (None, "dr")})
    given = [
        *(("1", "s", ("ann", "dr")), ("2", "s", (None, None)), ("3", "s", ("bo", None))),
        *(("4", "t", ("ann", None)), ("5", "u", None), ("6", "v", None), ("7", None, None)),
    ]
    assert [clusters.place(*one) for one in given] == [0, 0, 0, 0, 1, 2, 3]
    assert clusters.kind == "client, else counselor, else session, else example"
    assert clusters.add_up([0, 2, 0], [1, 5, 2]).tolist() == [3, 0, 5, 0]


PREDICTIONS = (
    prediction("1", "a", "a", session="s"),
    prediction("2", "a", None, session="t"),
    prediction("3", "b", "a", session="s"),
    prediction("s", "b", "b"),
)


def test_confusions_of_clusters_add_up_to_the_run_and_fit_those_of_other_runs() -> None:
    clusters = Clusters()
    first = clusters.confusions(PREDICTIONS, task="t", labels=LABELS)
    second = clusters.confusions([prediction("9", "a", "b", session="t")], task="t", labels=LABELS)
    assert first().shape == second().shape == (3, 3, 4)
    assert first()[:, :2, [0, 1, 3]].tolist() == [
        [[1, 0, 0], [1, 0, 0]],
        [[0, 0, 1], [0, 0, 0]],
        [[0, 0, 0], [0, 1, 0]],
    ]
    whole = confusion_of(PREDICTIONS, task="t", labels=LABELS)
    np.testing.assert_array_equal(first().sum(axis=0), whole)
    with pytest.raises(DataError, match="is not a label of task 't'"):
        clusters.confusions([prediction("1", "x", None)], task="t", labels=LABELS)


def test_pooled_scores_are_those_of_scikit_learn() -> None:
    gold, answer, cluster = drawn_answers(0)
    found = score_intervals(
        confusions(gold, answer, cluster), LABELS, kind="client", confidence=0.95
    )
    expected = f1_score(gold, answer, labels=[0, 1, 2], average=None)
    assert found.macro_f1.value == pytest.approx(expected.mean(), abs=1e-12)
    assert found.accuracy.value == pytest.approx(accuracy_score(gold, answer), abs=1e-12)
    assert [each.value for each in found.per_label.values()] == pytest.approx(list(expected))
    assert (found.n_units, found.kind) == (40, "client")


def test_the_p_of_a_difference_is_below_the_level_exactly_when_its_interval_leaves_out_0() -> None:
    for seed in range(40):
        gold, answer, cluster = drawn_answers(seed, clusters=25)
        other = np.where(np.random.default_rng(seed + 1).uniform(size=len(gold)) < 0.06, 3, answer)
        runs = [[confusions(gold, one, cluster)] for one in (answer, other)]
        found = difference_intervals(*runs, kind="session", confidence=0.95)
        low, high = found.macro_f1.interval
        assert (found.macro_f1_p > 0.05) == (low < 0 < high)


def test_a_difference_is_that_of_the_scores_and_changes_its_sign_with_the_order() -> None:
    gold, answer, cluster = drawn_answers(4)
    _, other, _ = drawn_answers(5)
    one, two = confusions(gold, answer, cluster), confusions(gold, other, cluster)
    there = difference_intervals([one], [two], kind="session", confidence=0.9)
    back = difference_intervals([two], [one], kind="session", confidence=0.9)
    expected = f1_score(gold, answer, labels=[0, 1, 2], average="macro") - f1_score(
        gold, other, labels=[0, 1, 2], average="macro"
    )
    assert there.macro_f1.value == pytest.approx(expected)
    assert there.macro_f1.interval == pytest.approx(tuple(-x for x in back.macro_f1.interval[::-1]))
    assert there.macro_f1_p == pytest.approx(back.macro_f1_p)


def test_the_same_clusters_are_left_out_of_both_systems() -> None:
    # The second system errs on one more example of every cluster: nothing varies but the scores.
    gold, answer, cluster = drawn_answers(6, clusters=60)
    worse = answer.copy()
    for first in range(0, len(gold), 6):
        right = first + np.flatnonzero(answer[first : first + 6] == gold[first : first + 6])
        worse[right[:1]] = 3
    one, two = (confusions(gold, said, cluster) for said in (answer, worse))
    paired = difference_intervals([one], [two], kind="session", confidence=0.95).accuracy
    assert paired.value == pytest.approx(1 / 6)
    assert paired.reason == "the same whichever session is left out"


def test_equal_answers_make_no_difference_and_have_no_p() -> None:
    counts = confusions(*drawn_answers(7))
    found = difference_intervals([counts], [counts], kind="session", confidence=0.95)
    assert found.macro_f1.value == pytest.approx(0, abs=1e-12)
    assert (found.macro_f1.low, found.macro_f1_p, found.accuracy_p) == (None, None, None)
    assert found.macro_f1.reason == "the same whichever session is left out"


def test_a_label_in_few_clusters_has_no_interval_of_its_own() -> None:
    gold, answer, cluster = drawn_answers(9)
    kept = (gold != 2) & (answer != 2) | (cluster < FEWEST_CLUSTERS - 1)
    counts = confusions(gold[kept], answer[kept], cluster[kept])
    found = score_intervals(counts, LABELS, kind="session", confidence=0.95)
    assert found.per_label["c"].reason.startswith("9 sessions are too few")
    assert found.per_label["a"].low is not None
    assert found.macro_f1.low is not None


def test_without_a_confidence_there_are_figures_alone() -> None:
    found = score_intervals(confusions(*drawn_answers(10)), LABELS, kind="session", confidence=None)
    assert (found.macro_f1.low, found.macro_f1.reason) == (None, "not asked for")
    assert found.macro_f1.value is not None
