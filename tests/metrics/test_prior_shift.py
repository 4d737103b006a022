"""Another share of resistance: Bayes' rule where densities are known, and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import precision_recall_fscore_support

from recap.errors import DataError
from recap.metrics.calibration import correct_prior, detection, prior_weights, shifted_prior
from recap.metrics.scalar import Floats

MEANS = np.array([-1.0, 0.5, 2.0])


def posterior(x: Floats, prior: Floats) -> Floats:
    """Return the labels' probabilities given x, which is normal around each label's mean."""
    joint = norm.pdf(x[:, None], MEANS) * prior
    return np.asarray(joint / joint.sum(axis=1, keepdims=True))


def test_the_correction_is_the_posterior_under_the_other_prior() -> None:
    x = np.linspace(-4, 5, 50)
    trained, wanted = np.array([0.43, 0.27, 0.3]), np.array([0.17, 0.33, 0.5])
    found = correct_prior(posterior(x, trained), trained, wanted)
    assert found == pytest.approx(posterior(x, wanted), rel=1e-9)


@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), st.integers(0, 100))
def test_the_same_prior_changes_nothing(shares: list[float], seed: int) -> None:
    prior = np.array(shares) / sum(shares)
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(3), size=10)
    assert correct_prior(probabilities, prior, prior) == pytest.approx(probabilities, rel=1e-9)


def test_odds_change_by_the_ratio_of_the_odds() -> None:
    # 1 to 1 at a prior of 43 %: at 17 % the odds are (0.17/0.83) / (0.43/0.57).
    trained = np.array([0.43, 0.57])
    wanted = shifted_prior(trained, np.array([True, False]), 0.17)
    found = correct_prior(np.array([[0.5, 0.5]]), trained, wanted)[0]
    assert found[0] / found[1] == pytest.approx((0.17 / 0.83) / (0.43 / 0.57))


def test_a_label_that_never_occurs_in_practice_is_not_believed() -> None:
    found = correct_prior(
        np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]]),
        np.array([0.5, 0.25, 0.25]),
        np.array([0.0, 0.5, 0.5]),
    )
    assert found.tolist() == [pytest.approx([0, 0.6, 0.4]), [1.0, 0.0, 0.0]]


def test_a_label_that_training_never_showed_cannot_be_corrected() -> None:
    with pytest.raises(DataError, match="training never showed"):
        correct_prior(np.array([[0.5, 0.5]]), np.array([1.0, 0.0]), np.array([0.5, 0.5]))


def test_the_chosen_labels_keep_their_proportions() -> None:
    trained = np.array([0.1, 0.3, 0.4, 0.2])
    found = shifted_prior(trained, np.array([True, True, False, False]), 0.2)
    assert found.tolist() == pytest.approx([0.05, 0.15, 0.8 * 2 / 3, 0.8 / 3])


@pytest.mark.parametrize("chosen", [[True, True], [False, False]])
def test_where_all_or_none_are_resistant_there_is_no_share_to_change(chosen: list[bool]) -> None:
    with pytest.raises(DataError, match="cannot be changed"):
        shifted_prior(np.array([0.5, 0.5]), np.array(chosen), 0.17)
    with pytest.raises(DataError, match="both kinds"):
        prior_weights(np.array(chosen), 0.17)


def test_weights_give_the_positives_their_share_and_leave_the_number_of_examples() -> None:
    positive = np.array([True] * 43 + [False] * 57)
    weights = prior_weights(positive, 0.17)
    assert weights.sum() == pytest.approx(100)
    assert weights[positive].sum() == pytest.approx(17)
    assert len(set(weights.tolist())) == 2


def test_the_expected_precision_in_practice_counted_by_hand() -> None:
    # 90 of 100 resistant ones are found, 10 of 100 others flagged: at 17 % that is
    # 0.17 x 0.9 = 0.153 of all against 0.83 x 0.1 = 0.083.
    positive = np.array([True] * 100 + [False] * 100)
    predicted = np.array([True] * 90 + [False] * 10 + [True] * 10 + [False] * 90)
    found = detection(predicted, positive, prior_weights(positive, 0.17))
    assert found.precision == pytest.approx(0.153 / (0.153 + 0.083))
    assert found.recall == pytest.approx(0.9)


@pytest.mark.parametrize("seed", range(3))
def test_precision_recall_and_f1_are_those_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    positive, predicted = rng.random(80) < 0.4, rng.random(80) < 0.5
    weights = prior_weights(positive, 0.17)
    expected = precision_recall_fscore_support(
        positive, predicted, sample_weight=weights, average="binary"
    )
    found = detection(predicted, positive, weights)
    assert (found.precision, found.recall, found.f1) == pytest.approx(expected[:3])


def test_nothing_predicted_scores_0() -> None:
    found = detection(np.zeros(3, dtype=bool), np.array([True, False, False]))
    assert (found.precision, found.recall, found.f1) == (0, 0, 0)
