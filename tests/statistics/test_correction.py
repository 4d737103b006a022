from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import optimize

from recap.errors import DataError
from recap.statistics.sessions import CorrectedShares, correct_shares, most_likely_shares


def column(found: CorrectedShares, name: str) -> list[Any]:
    return [getattr(share, name) for share in found.labels.values()]


def test_two_labels_by_hand_as_rogan_and_gladen() -> None:
    # Sensitivity .8, specificity .9, observed 45 %: (.45 + .9 - 1) / (.8 + .9 - 1) = .5.
    found = correct_shares(
        [[45, 55, 0]], [[80, 20, 0], [10, 90, 0]], ["yes", "no"], confidence=None
    )
    assert column(found, "observed") == pytest.approx([0.45, 0.55])
    assert column(found, "inverse") == pytest.approx([0.5, 0.5])
    assert [i.value for i in column(found, "em")] == pytest.approx([0.5, 0.5], abs=1e-6)


def test_an_inverse_outside_the_range_is_shown_and_em_stays_inside() -> None:
    # Observed 5 % is below the false-positive rate of 10 %: (.05 - .1) / .7 < 0.
    found = correct_shares([[5, 95, 0]], [[80, 20, 0], [10, 90, 0]], ["yes", "no"], confidence=None)
    assert column(found, "inverse")[0] == pytest.approx(-0.05 / 0.7)
    assert [i.value for i in column(found, "em")] == pytest.approx([0, 1], abs=1e-6)


def test_a_perfect_classifier_changes_nothing() -> None:
    found = correct_shares(
        [[3, 1, 0], [1, 5, 0]], [[9, 0, 0], [0, 4, 0]], ["a", "b"], confidence=None
    )
    assert [i.value for i in column(found, "em")] == pytest.approx([0.4, 0.6])
    assert column(found, "inverse") == pytest.approx([0.4, 0.6])


def test_em_finds_the_shares_of_largest_likelihood_in_random_cases() -> None:
    rng = np.random.default_rng(0)
    n = 4
    rates = rng.dirichlet(np.full(n + 1, 0.5), size=(300, n))
    rates[:, :, :n] += 2 * np.eye(n)
    rates /= rates.sum(axis=2, keepdims=True)
    truth = rng.dirichlet(np.full(n, 0.7), size=300)
    exact = np.einsum("cl,cla->ca", truth, rates)
    # Where the answers are exactly what the shares give, those shares are found again; EM is slow
    # towards shares of zero, hence the tolerance.
    assert most_likely_shares(exact, rates) == pytest.approx(truth, abs=1e-4)


def test_em_is_no_less_likely_than_what_a_general_optimiser_finds() -> None:
    rng = np.random.default_rng(1)
    for _ in range(30):
        rates = rng.dirichlet(np.ones(4), size=3) + np.pad(np.eye(3), ((0, 0), (0, 1)))
        rates /= rates.sum(axis=1, keepdims=True)
        observed = rng.dirichlet(np.ones(4))

        def loss(p: np.ndarray, rates: np.ndarray = rates, q: np.ndarray = observed) -> float:
            return float(-(q * np.log(np.maximum(p @ rates, 1e-300))).sum())

        theirs = optimize.minimize(
            loss,
            np.full(3, 1 / 3),
            bounds=[(0, 1)] * 3,
            constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
            options={"ftol": 1e-14},
        )
        ours = most_likely_shares(observed[None], rates[None])[0]
        assert loss(ours) <= theirs.fun + 1e-7


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    rates, truth = np.array([[0.75, 0.2, 0.05], [0.1, 0.88, 0.02]]), np.array([0.3, 0.7])
    covered = 0
    for _ in range(200):
        confusion = [rng.multinomial(200, row) for row in rates]
        answers = rng.multinomial(12, truth @ rates, size=50)
        found = correct_shares(answers, confusion, ["a", "b"]).labels["a"].em
        covered += (found.low or 0) <= truth[0] <= (found.high or 0)
    # Binomial(200, .95) lies within 180 and 199 in all but one of a thousand draws.
    assert 178 <= covered <= 200


def test_shapes_that_do_not_fit_and_labels_without_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes"):
        correct_shares([[1, 1]], [[1, 0, 0], [0, 1, 0]], ["a", "b"])
    with pytest.raises(DataError, match="counts no example of b;"):
        correct_shares([[1, 1, 0]], [[1, 0, 0], [0, 0, 0]], ["a", "b"])


def test_labels_that_are_never_told_apart_have_no_inverse() -> None:
    found = correct_shares([[5, 5, 0]], [[4, 4, 0], [6, 6, 0]], ["a", "b"], confidence=None)
    assert (column(found, "inverse"), found.condition) == ([None, None], None)


def test_answers_that_the_confusion_never_saw_are_refused() -> None:
    with pytest.raises(DataError, match="never saw the model answer no readable label,"):
        correct_shares([[5, 0, 2]], [[4, 4, 0], [1, 6, 0]], ["a", "b"])


def test_a_rare_answer_that_the_confusion_saw_once_does_no_harm() -> None:
    confusion = [[1, 9, 0], [0, 10, 0]]
    found = correct_shares([[10, 0, 0], [9, 0, 0]], confusion, ["a", "b"])
    assert found.labels["a"].em.value == pytest.approx(1)
    assert found.labels["b"].em.value == pytest.approx(0, abs=1e-6)


def test_few_clusters_give_no_interval_and_the_ends_of_others_lie_in_the_range() -> None:
    confusion = [[80, 20, 0], [10, 90, 0]]
    few = correct_shares([[1, 9, 0]] * 9, confusion, ["yes", "no"], kind="client")
    assert few.labels["yes"].em.reason.startswith("9 clients are too few")
    # Fewer positives than a classifier finds where there are none: the share may be 0.
    rare = correct_shares([[0, 9, 0], [2, 9, 0]] * 9, confusion, ["yes", "no"]).labels["yes"].em
    assert (rare.value, rare.low) == pytest.approx((0, 0), abs=1e-4)
    assert 0 < rare.high < 0.2
