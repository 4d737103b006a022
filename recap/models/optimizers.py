"""Optimizers and learning-rate schedules by name, and a test that suggests the learning rate.

The learning-rate range test of Smith (2017, "Cyclical Learning Rates", section 3.3) takes a few
steps at rising rates. Lightning has one too (2.6.6), but it takes the last micro-batch's share for
the loss of a step, measures slopes over the rate and not its logarithm, and leaves the schedule at
the rate that was configured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import lightning
import numpy as np
import torch
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from recap.errors import ConfigError
from recap.registry import Registry

ParameterGroups = list[dict[str, Any]]
OPTIMIZERS: Registry[Callable[..., Optimizer]] = Registry("optimizer")
SCHEDULERS: Registry[Callable[..., LRScheduler]] = Registry("scheduler")


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """Which optimizer, and its numbers."""

    name: str = "adamw"
    """Registered name, or ``package.module:function`` that is called as :func:`adamw` is."""
    learning_rate: float = 5e-7
    """Peak learning rate (paper, Table 7)."""
    weight_decay: float = 0.0
    """Decay of matrices; never of biases and norms."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the moments."""
    eps: float = 1e-8
    """Floor of the denominator."""


@dataclass(frozen=True, kw_only=True)
class SchedulerSettings:
    """Which learning-rate schedule, and its warm-up."""

    name: str = "cosine"
    """Registered name, or ``package.module:function`` that is called as :func:`cosine` is."""
    warmup_fraction: float = 0.1
    """Share of all optimizer steps during which the rate rises linearly from zero (paper, Table
    7).
    """


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> Optimizer:
    """Return the optimizer over a model's trainable weights.

    Raises:
        UnknownNameError: When no optimizer has that name.
    """
    return OPTIMIZERS.get(settings.name)(
        parameter_groups(model.named_parameters(), settings.weight_decay),
        learning_rate=settings.learning_rate,
        betas=settings.betas,
        eps=settings.eps,
    )


def build_scheduler(
    optimizer: Optimizer, settings: SchedulerSettings, *, n_steps: int
) -> LRScheduler:
    """Return the schedule over ``n_steps`` optimizer steps, to be advanced after each.

    Raises:
        UnknownNameError: When no schedule has that name.
    """
    n_warmup_steps = math.ceil(settings.warmup_fraction * n_steps)
    return SCHEDULERS.get(settings.name)(optimizer, n_steps=n_steps, n_warmup_steps=n_warmup_steps)


def configured_optimizers(
    model: nn.Module, optimizer: OptimizerSettings, scheduler: SchedulerSettings, *, n_steps: int
) -> dict[str, Any]:
    """Return what Lightning's ``configure_optimizers`` returns: one schedule, moved every step."""
    built = build_optimizer(model, optimizer)
    schedule = build_scheduler(built, scheduler, n_steps=n_steps)
    return {"optimizer": built, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], weight_decay: float
) -> ParameterGroups:
    """Return trainable weights in two groups: matrices, which decay, and vectors, which do not.

    Vectors are biases and norms. A group without weights is left out.
    """
    trainable = [parameter for _, parameter in named if parameter.requires_grad]
    matrices = [parameter for parameter in trainable if parameter.ndim >= 2]
    vectors = [parameter for parameter in trainable if parameter.ndim < 2]
    groups: ParameterGroups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


@OPTIMIZERS.register("adamw")
def adamw(
    groups: ParameterGroups, *, learning_rate: float, betas: tuple[float, float], eps: float
) -> Optimizer:
    """Return torch's AdamW over parameter groups that carry their own weight decay."""
    on_gpu = any(parameter.is_cuda for group in groups for parameter in group["params"])
    return AdamW(groups, lr=learning_rate, betas=betas, eps=eps, fused=True if on_gpu else None)


@OPTIMIZERS.register("adamw8bit")
def adamw8bit(
    groups: ParameterGroups, *, learning_rate: float, betas: tuple[float, float], eps: float
) -> Optimizer:
    """Return bitsandbytes' AdamW with moments in 8 bits, by blocks of 256.

    Tensors of fewer than 4,096 weights keep moments in 32 bits (bitsandbytes 0.50).
    """
    from bitsandbytes.optim.adamw import AdamW8bit

    build: Callable[..., Optimizer] = AdamW8bit
    return build(groups, lr=learning_rate, betas=betas, eps=eps)


@OPTIMIZERS.register("paged_adamw8bit")
def paged_adamw8bit(
    groups: ParameterGroups, *, learning_rate: float, betas: tuple[float, float], eps: float
) -> Optimizer:
    """Return :func:`adamw8bit` with moments that a GPU moves to the host when memory runs out."""
    from bitsandbytes.optim.adamw import PagedAdamW8bit

    build: Callable[..., Optimizer] = PagedAdamW8bit
    return build(groups, lr=learning_rate, betas=betas, eps=eps)


@OPTIMIZERS.register("paged_adamw32bit")
def paged_adamw32bit(
    groups: ParameterGroups, *, learning_rate: float, betas: tuple[float, float], eps: float
) -> Optimizer:
    """Return AdamW with moments in 32 bits that a GPU moves to the host when memory runs out."""
    from bitsandbytes.optim.adamw import PagedAdamW32bit

    build: Callable[..., Optimizer] = PagedAdamW32bit
    return build(groups, lr=learning_rate, betas=betas, eps=eps)


def _warmed_up(
    optimizer: Optimizer, n_warmup_steps: int, after: Callable[[int], float]
) -> LRScheduler:
    def factor(step: int) -> float:
        return step / n_warmup_steps if step < n_warmup_steps else after(step)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _progress(step: int, n_steps: int, n_warmup_steps: int) -> float:
    return min(1.0, (step - n_warmup_steps) / max(1, n_steps - n_warmup_steps))


@SCHEDULERS.register("cosine")
def cosine(optimizer: Optimizer, *, n_steps: int, n_warmup_steps: int) -> LRScheduler:
    """Return a linear warm-up followed by half a cosine down to zero."""
    return _warmed_up(
        optimizer,
        n_warmup_steps,
        lambda step: 0.5 * (1.0 + math.cos(math.pi * _progress(step, n_steps, n_warmup_steps))),
    )


@SCHEDULERS.register("linear")
def linear(optimizer: Optimizer, *, n_steps: int, n_warmup_steps: int) -> LRScheduler:
    """Return a linear warm-up followed by a straight line down to zero."""
    return _warmed_up(
        optimizer, n_warmup_steps, lambda step: 1.0 - _progress(step, n_steps, n_warmup_steps)
    )


@SCHEDULERS.register("constant")
def constant(optimizer: Optimizer, *, n_steps: int, n_warmup_steps: int) -> LRScheduler:
    """Return a linear warm-up to a rate that then stays."""
    return _warmed_up(optimizer, n_warmup_steps, lambda step: 1.0)


LOWEST_RATE, HIGHEST_RATE, N_STEPS = 1e-7, 1.0, 100
"""What is tried, from the paper's 5e-7 for whole models to what no adapter survives."""

DIVERGED = 4.0
"""The test ends where the loss is so many times the lowest so far (Lightning's threshold)."""

_NEIGHBORS = 4
"""Steps on either side that a loss is averaged with before slopes are taken."""


class RangeTest(lightning.Callback):
    """Raises the learning rate with every optimizer step, and keeps each step's loss.

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

    Losses are averaged over neighboring steps first; what comes after the lowest of these averages
    is not looked at.

    Raises:
        ConfigError: When the loss never falls, or too few steps were taken to tell.
    """
    finite = [(rate, loss) for rate, loss in zip(rates, losses, strict=True) if math.isfinite(loss)]
    window = 2 * _NEIGHBORS + 1
    if len(finite) <= window:
        raise ConfigError(
            f"optimizer.find_learning_rate: the loss diverged after {len(finite)} steps at "
            f"learning rates up to {rates[-1] if rates else LOWEST_RATE:.1e}; "
            "set optimizer.learning_rate"
        )
    smooth = np.convolve([loss for _, loss in finite], np.ones(window) / window, mode="valid")
    logarithms = np.log([rate for rate, _ in finite])[_NEIGHBORS:-_NEIGHBORS]
    slopes = np.gradient(smooth, logarithms)[: int(smooth.argmin()) + 1]
    steepest = int(slopes.argmin())
    if slopes[steepest] >= 0:
        raise ConfigError(
            "optimizer.find_learning_rate: the loss falls at no learning rate; "
            "set optimizer.learning_rate"
        )
    return float(f"{math.exp(logarithms[steepest]):.3g}")
