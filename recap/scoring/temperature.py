"""Temperature scaling: one number that makes probabilities as sure as they deserve to be."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from recap.errors import DataError
from recap.scoring.calibration import FLOOR, negative_log_likelihood
from recap.scoring.forecasts import Floats, Ints

LEAST, MOST = 0.01, 100.0
"""Temperatures that are looked among."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Temperature:
    """The temperature that suits a set of forecasts best.

    ``nll_before`` and ``nll_after`` are theirs, in nats an example, not those of other forecasts.
    ``at_bound``: the likelihood still rose at :data:`LEAST` or :data:`MOST`, as it does where every
    likeliest label is the true one. Forecasts that no temperature improves have the value 1.
    """

    value: float
    n: int
    nll_before: float
    nll_after: float
    at_bound: bool


def fit_temperature(probabilities: Floats, gold: Ints) -> Temperature:
    """Return the temperature under which forecasts make what is true the likeliest.

    The one scalar of Guo et al. (2017), Section 4.2, found by minimising the negative
    log-likelihood, which has a single minimum: it is convex in 1 / temperature. Logarithms of the
    labels' probabilities stand in for the logits, from which they differ by a constant an example,
    without effect on what follows.

    Args:
        probabilities: ``(example, label)``, of examples on which no figure is reported.
        gold: ``(example,)``: index of the true label.

    Raises:
        DataError: When there is no example.
    """
    from scipy.optimize import minimize_scalar

    if not len(gold):
        raise DataError("a temperature needs forecasts to be fitted to, and there are none")

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(scale(probabilities, math.exp(log_temperature)), gold)

    bounds = (math.log(LEAST), math.log(MOST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    # The search never tries its ends; where nothing is gained, forecasts stay as they are.
    best = min((0.0, *bounds, float(found.x)), key=loss)
    return Temperature(
        value=math.exp(best),
        n=len(gold),
        nll_before=negative_log_likelihood(probabilities, gold),
        nll_after=loss(best),
        at_bound=best in bounds,
    )


def scale(probabilities: Floats, temperature: float) -> Floats:
    """Return forecasts at another temperature; the order of the labels stays as it is.

    Above 1 they become less sure, below 1 surer. The softmax of the logarithms over the
    temperature; a probability below :data:`recap.scoring.calibration.FLOOR` counts as that.

    >>> scale(np.array([[0.8, 0.2]]), 2.0).round(4).tolist()
    [[0.6667, 0.3333]]
    """
    logs = np.log(np.maximum(probabilities, FLOOR)) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float64)
