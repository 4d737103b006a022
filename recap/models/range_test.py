"""Which learning rate to train with: a few steps at rising rates, and where the loss falls fastest.

The learning-rate range test of Smith (2017, "Cyclical Learning Rates", section 3.3). Lightning has
one too (2.6.6), but it takes the last micro-batch's share for the loss of a step, measures slopes
over the rate and not its logarithm, and leaves the schedule at the rate that was configured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lightning
import numpy as np

from recap.errors import ConfigError

LOWEST_RATE, HIGHEST_RATE, N_STEPS = 1e-7, 1.0, 100
"""What is tried, from the paper's 5e-7 for whole models to what no adapter survives."""

DIVERGED = 4.0
"""The test ends where the loss is so many times the lowest so far (Lightning's threshold)."""

_NEIGHBOURS = 4
"""Steps on either side that a loss is averaged with before slopes are taken."""


class RangeTest(lightning.Callback):
    """Raises the learning rate with every optimiser step, and keeps each step's loss.

    The trainer stops after the last rate, or when the loss diverges.

    Args:
        n_steps: Rates to try, evenly spaced in their logarithm.
    """

    def __init__(self, n_steps: int = N_STEPS) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self._planned = np.geomspace(LOWEST_RATE, HIGHEST_RATE, n_steps).tolist()

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Set this step's rate, whatever the schedule says."""
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = self._planned[len(self.losses)]

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Keep the token mean of the step that just ended."""
        if not batch.plan.ends_step:
            return
        loss = float(trainer.callback_metrics["train_loss"])
        self.rates.append(self._planned[len(self.losses)])
        self.losses.append(loss)
        diverged = not math.isfinite(loss) or loss > DIVERGED * min(self.losses)
        if diverged or len(self.losses) == len(self._planned):
            trainer.should_stop = True


def suggest_rate(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Return the rate at which the loss falls fastest over the logarithm of the rate.

    Losses are averaged over neighbouring steps first; what comes after the lowest of these averages
    is not looked at.

    Raises:
        ConfigError: When the loss never falls, or too few steps were taken to tell.
    """
    finite = [(rate, loss) for rate, loss in zip(rates, losses, strict=True) if math.isfinite(loss)]
    window = 2 * _NEIGHBOURS + 1
    if len(finite) <= window:
        raise ConfigError(
            f"optimizer.find_learning_rate: the loss diverged after {len(finite)} steps at "
            f"learning rates up to {rates[-1] if rates else LOWEST_RATE:.1e}; "
            "set optimizer.learning_rate"
        )
    smooth = np.convolve([loss for _, loss in finite], np.ones(window) / window, mode="valid")
    logarithms = np.log([rate for rate, _ in finite])[_NEIGHBOURS:-_NEIGHBOURS]
    slopes = np.gradient(smooth, logarithms)[: int(smooth.argmin()) + 1]
    steepest = int(slopes.argmin())
    if slopes[steepest] >= 0:
        raise ConfigError(
            "optimizer.find_learning_rate: the loss falls at no learning rate; "
            "set optimizer.learning_rate"
        )
    return float(f"{math.exp(logarithms[steepest]):.3g}")
