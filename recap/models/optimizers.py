"""Optimisers and learning-rate schedules by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from recap.registry import Registry

ParameterGroups = list[dict[str, Any]]
OPTIMIZERS: Registry[Callable[..., Optimizer]] = Registry("optimizer")
SCHEDULERS: Registry[Callable[..., LRScheduler]] = Registry("scheduler")


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """Which optimiser, and its numbers."""

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
    """Share of all optimiser steps during which the rate rises linearly from zero (paper, Table
    7).
    """


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> Optimizer:
    """Return the optimiser over a model's trainable weights.

    Raises:
        UnknownNameError: When no optimiser has that name.
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
    """Return the schedule over ``n_steps`` optimiser steps, to be advanced after each.

    Raises:
        UnknownNameError: When no schedule has that name.
    """
    n_warmup_steps = math.ceil(settings.warmup_fraction * n_steps)
    return SCHEDULERS.get(settings.name)(optimizer, n_steps=n_steps, n_warmup_steps=n_warmup_steps)


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
