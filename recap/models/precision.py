"""Which numbers a model computes in, and whose matrix products a training on a CPU takes.

torch (2.13) multiplies float32 matrices with MKL, which keeps to AVX2 on AMD's processors; oneDNN,
which it brings along, takes AVX-512 there and is twice as fast. torch calls it where 16 bits are
allowed inside of products. What it then does is the processor's affair: with AVX-512 it computes in
float32, with tiles (Intel's AMX) in bfloat16. So both are measured before it is taken.

Trainings alone take it, for the forwards and backwards of their steps and of the selection. Answers
and their probabilities are always computed in torch's default, so that they do not depend on where
a model was trained, and come as near to a plain forward of transformers as docs/decoding.md says.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from recap.config import TrainerConfig, autocast_dtype
from recap.errors import ConfigError

LARGEST_ERROR = 1e-6
"""Of a product of float32 matrices, Frobenius norms relative to float64. Sums of 1,024 products are
off by 2.5e-7 with MKL and by 4e-7 with oneDNN; factors in bfloat16 would be by 2e-3, in three
pieces of it by 1e-5."""

LEAST_GAIN = 1.25
"""How many times as fast oneDNN has to be: 1 where torch does not call it (no AVX-512), 2 where it
does, so that a busy machine decides as an idle one."""


@dataclass(frozen=True, kw_only=True)
class MatmulProbe:
    """oneDNN's matrix products on this processor: how far off, and how many times as fast."""

    error: float
    speedup: float


def settled_trainer(
    trainer: TrainerConfig, *, device: str, pretrained: bool, has_bf16: bool | None = None
) -> TrainerConfig:
    """Return a trainer whose precision and matrix products are named; what was asked for stays.

    Args:
        trainer: As configured.
        device: ``cpu`` or ``cuda``.
        pretrained: Whether the model's weights are loaded. Models that are made on the spot are too
            small to gain.
        has_bf16: Whether a GPU computes in bfloat16; ``None``: as that of this machine, if any.

    Raises:
        ConfigError: Where oneDNN was asked for, and multiplies in 16 bits.
    """
    precision, matmul = trainer.precision, trainer.matmul
    if precision == "auto":
        precision = "bf16-mixed" if _has_bf16(device, has_bf16) else "32-true"
    if device != "cpu" or precision != "32-true" or (matmul == "auto" and not pretrained):
        matmul = "default"
    if matmul != "default":
        probe = probe_onednn()
        if probe.error > LARGEST_ERROR and matmul == "onednn":
            raise ConfigError(
                f"trainer.matmul=onednn: on this processor oneDNN is off by {probe.error:.0e}, "
                f"relative, and {LARGEST_ERROR:.0e} is accepted; set trainer.matmul=default, or "
                "trainer.precision=bf16-mixed where 16 bits will do"
            )
        exact_and_faster = probe.error <= LARGEST_ERROR and probe.speedup >= LEAST_GAIN
        matmul = "onednn" if matmul == "onednn" or exact_and_faster else "default"
    return replace(trainer, precision=precision, matmul=matmul)


def precision_warnings(precision: str, *, device: str, has_bf16: bool | None = None) -> list[str]:
    """Return what is to be said of a precision that wastes a GPU."""
    if precision != "32-true" or not _has_bf16(device, has_bf16):
        return []
    slow = (
        "trainer.precision=32-true on a GPU: several times slower than bf16-mixed, which keeps "
        "weights in float32 too and is what a new run takes by itself"
    )
    return [slow]


def _has_bf16(device: str, known: bool | None) -> bool:
    if device == "cuda" and known is None and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # A GPU that is planned for has it.
    return device == "cuda" and known is not False


def mixed(precision: str, device: str) -> AbstractContextManager[Any]:
    """Return what computes in 16 bits under a mixed precision, and changes nothing else."""
    dtype = autocast_dtype(precision)
    return torch.autocast(device, getattr(torch, dtype)) if dtype else nullcontext()


def describe(trainer: TrainerConfig, optimizer: str | None) -> dict[str, Any]:
    """Return what a settled trainer computes with, as plans and manifests have it.

    ``matmul_error`` and ``matmul_speedup`` are oneDNN's, where it is taken; the ``optimizer`` of a
    model that is not trained is ``None``.
    """
    probe = probe_onednn() if trainer.matmul == "onednn" else None
    return {
        "used": trainer.precision,
        "matmul": trainer.matmul,
        "matmul_error": probe and probe.error,
        "matmul_speedup": probe and round(probe.speedup, 2),
        "optimizer": f"{optimizer}, fused" if optimizer == "adamw" else optimizer,
    }


def in_words(numbers: Mapping[str, Any]) -> str:
    """Return what :func:`describe` says, as it is printed."""
    if numbers["matmul"] == "default":
        return str(numbers["used"])
    return (
        f"{numbers['used']}, training with oneDNN's matrix products: "
        f"{numbers['matmul_speedup']:.1f} times as fast here, off by {numbers['matmul_error']:.0e}"
    )


@lru_cache(maxsize=1)
def probe_onednn() -> MatmulProbe:
    """Measure oneDNN against torch's default, on a layer's three products in a training step.

    Some tenths of a second; a torch without the switch (before 2.9) has no such products.
    """
    if not hasattr(torch.backends.mkldnn, "matmul"):
        return MatmulProbe(error=math.inf, speedup=1.0)
    generator = torch.Generator().manual_seed(0)
    states, weight, gradient = (torch.randn(n, 1024, generator=generator) for n in (512, 1024, 512))

    def products(states: Tensor, weight: Tensor, gradient: Tensor) -> list[Tensor]:
        return [states @ weight.T, gradient @ weight, gradient.T @ states]

    exact = products(states.double(), weight.double(), gradient.double())
    error, seconds = 0.0, {True: float("inf"), False: float("inf")}
    for _ in range(4):  # the first round warms up, and the fastest counts
        for onednn in (False, True):
            with onednn_matmul() if onednn else nullcontext():
                began = time.perf_counter()
                found = products(states, weight, gradient)
                seconds[onednn] = min(seconds[onednn], time.perf_counter() - began)
            if onednn:
                off = (
                    (one - true).norm() / true.norm()
                    for one, true in zip(found, exact, strict=True)
                )
                error = max(error, *map(float, off))
    return MatmulProbe(error=error, speedup=seconds[False] / seconds[True])


@contextmanager
def onednn_matmul() -> Iterator[None]:
    """Have torch multiply float32 matrices with oneDNN, in all threads, while the block runs."""
    backend: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = backend.fp32_precision
    backend.fp32_precision = "bf16"
    try:
        yield
    finally:
        backend.fp32_precision = before
