"""Temperature scaling against torch's optimiser, and what it must never change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recap.errors import DataError
from recap.metrics.calibration import LEAST, calibration_of, fit_temperature, scale
from recap.metrics.scalar import Floats, Ints


def softmax(logits: Floats) -> Floats:
    return np.asarray(torch.softmax(torch.tensor(logits), dim=1).numpy())


def drawn(n: int, *, seed: int = 0) -> tuple[Floats, Ints]:
    """Return logits, and labels drawn from their softmax."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 6)) * 1.5
    gold = (softmax(logits).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return logits, gold


@pytest.mark.parametrize("factor", [0.4, 1.0, 2.5])
def test_the_temperature_undoes_what_made_honest_forecasts_too_sure(factor: float) -> None:
    logits, gold = drawn(40_000)
    found = fit_temperature(softmax(factor * logits), gold)
    assert found.value == pytest.approx(factor, rel=0.03)
    assert not found.at_bound
    assert found.nll_after <= found.nll_before
    scaled = scale(softmax(factor * logits), found.value)
    assert calibration_of(scaled, gold).ece < 0.01


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_one_that_torch_finds_on_logits(seed: int) -> None:
    logits, gold = drawn(300, seed=seed)
    logits *= 3
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=200, tolerance_grad=1e-12)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        scaled = torch.tensor(logits) / log_temperature.exp()
        value = torch.nn.functional.cross_entropy(scaled, torch.tensor(gold))
        value.backward()
        return value

    optimizer.step(loss)
    found = fit_temperature(softmax(logits), gold)
    assert found.value == pytest.approx(float(log_temperature.exp().detach()), rel=1e-4)
    assert found.nll_after == pytest.approx(float(loss().detach()), rel=1e-9)


@given(
    st.lists(
        st.lists(st.integers(0, 10**6), min_size=3, max_size=3).filter(any),
        min_size=1,
        max_size=8,
    ),
    st.floats(0.05, 20),
)
def test_no_temperature_changes_which_label_is_likeliest(
    counts: list[list[int]], temperature: float
) -> None:
    # Six digits, as files hold them, zeros included.
    given_ = np.array(counts, dtype=np.float64)
    given_ /= given_.sum(axis=1, keepdims=True)
    scaled = scale(given_, temperature)
    assert scaled.sum(axis=1) == pytest.approx(np.ones(len(counts)))
    assert (scaled[np.arange(len(counts)), given_.argmax(axis=1)] == scaled.max(axis=1)).all()


def test_a_temperature_of_1_changes_nothing() -> None:
    probabilities = softmax(drawn(50)[0])
    assert scale(probabilities, 1.0) == pytest.approx(probabilities, rel=1e-12)


def test_twice_the_temperature_takes_the_root_of_the_odds() -> None:
    # Odds of 9 to 1 become 3 to 1.
    assert scale(np.array([[0.9, 0.1]]), 2.0).tolist() == [pytest.approx([0.75, 0.25])]


def test_where_every_likeliest_label_is_right_the_temperature_is_at_its_bound() -> None:
    found = fit_temperature(np.array([[0.7, 0.3], [0.4, 0.6]]), np.array([0, 1]))
    assert found.at_bound
    assert found.value == pytest.approx(LEAST)


def test_a_label_that_was_held_impossible_and_is_true_leaves_the_figures_finite() -> None:
    found = fit_temperature(np.array([[1.0, 0.0], [1.0, 0.0], [0.8, 0.2]]), np.array([0, 1, 0]))
    assert np.isfinite([found.value, found.nll_before, found.nll_after]).all()
    assert found.value > 1


def test_forecasts_that_no_temperature_improves_stay_as_they_are() -> None:
    found = fit_temperature(np.full((4, 2), 0.5), np.array([0, 1, 1, 1]))
    assert (found.value, found.at_bound) == (1.0, False)
    assert found.nll_after == pytest.approx(np.log(2))


def test_nothing_can_be_fitted_to_no_examples() -> None:
    with pytest.raises(DataError, match="there are none"):
        fit_temperature(np.empty((0, 2)), np.empty(0, dtype=np.int64))
