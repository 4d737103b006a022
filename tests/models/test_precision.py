"""Which precision a device gets, and what oneDNN's matrix products are taken for."""

from __future__ import annotations

from typing import Any

import lightning
import pytest
import torch
from test_shared_prefix import RATIONALES, batch_of, build, difference, gradient
from torch import nn
from torch.utils.data import DataLoader

from recap.config import TrainerConfig
from recap.errors import ConfigError
from recap.models import precision
from recap.models.engine.loss import answer_loss
from recap.models.precision import (
    LARGEST_ERROR,
    LEAST_GAIN,
    MatmulProbe,
    onednn_matmul,
    precision_warnings,
    probe_onednn,
    settled_trainer,
)
from recap.models.strategy import OneDnnPrecision

IEEE = torch.backends.mkldnn.matmul.fp32_precision


def settled(device: str, *, pretrained: bool = True, bf16: bool = True, **options: Any) -> Any:
    trainer = TrainerConfig(**options)
    found = settled_trainer(trainer, device=device, pretrained=pretrained, has_bf16=bf16)
    return found.precision, found.matmul


@pytest.mark.parametrize(
    ("device", "bf16", "expected"),
    [("cuda", True, "bf16-mixed"), ("cuda", False, "32-true"), ("cpu", True, "32-true")],
)
def test_a_gpu_that_has_bfloat16_gets_it_and_everything_else_float32(
    device: str, bf16: bool, expected: str
) -> None:
    assert settled(device, pretrained=False, bf16=bf16) == (expected, "default")


@pytest.mark.parametrize("asked", ["32-true", "16-mixed", "bf16-mixed", "bf16-true", "64-true"])
def test_a_precision_that_was_asked_for_stays(asked: str) -> None:
    assert settled("cuda", precision=asked) == (asked, "default")
    assert settled("cpu", precision=asked, matmul="default") == (asked, "default")


def test_float32_on_a_gpu_is_warned_of_where_bfloat16_can_be_had() -> None:
    (said,) = precision_warnings("32-true", device="cuda", has_bf16=True)
    assert "trainer.precision=32-true on a GPU" in said
    for other, device, bf16 in (
        ("bf16-mixed", "cuda", True),
        ("64-true", "cuda", True),
        ("32-true", "cuda", False),
        ("32-true", "cpu", True),
    ):
        assert precision_warnings(other, device=device, has_bf16=bf16) == []


@pytest.mark.parametrize(
    ("error", "speedup", "expected"),
    [(4e-7, 2.1, "onednn"), (4e-7, 1.0, "default"), (2e-3, 8.0, "default")],
    ids=["AVX-512", "neither", "AMX"],
)
def test_products_are_onednns_where_they_are_exact_and_faster(
    error: float, speedup: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What three kinds of processors measure; this one is one of them.
    monkeypatch.setattr(
        precision, "probe_onednn", lambda: MatmulProbe(error=error, speedup=speedup)
    )
    assert settled("cpu") == ("32-true", expected)
    assert settled("cpu", pretrained=False) == ("32-true", "default")
    assert settled("cpu", matmul="default") == ("32-true", "default")
    assert settled("cpu", precision="bf16-mixed") == ("bf16-mixed", "default")
    assert settled("cuda", precision="32-true") == ("32-true", "default")
    if error <= LARGEST_ERROR:
        assert settled("cpu", matmul="onednn", pretrained=False) == ("32-true", "onednn")
    else:
        with pytest.raises(ConfigError, match=r"matmul=onednn: .* off by 2e-03.*matmul=default"):
            settled("cpu", matmul="onednn")


def test_the_bound_tells_sums_in_float32_from_factors_in_16_bits() -> None:
    probe = probe_onednn()
    assert probe is probe_onednn()
    generator = torch.Generator().manual_seed(1)
    left, right = (torch.randn(64, 1024, generator=generator) for _ in range(2))
    exact = left.double() @ right.double().T

    def off(found: torch.Tensor) -> float:
        return float((found - exact).norm() / exact.norm())

    assert off(left @ right.T) < LARGEST_ERROR
    assert off(left.bfloat16().float() @ right.bfloat16().float().T) > 100 * LARGEST_ERROR
    with onednn_matmul():
        own = off(left @ right.T)
    assert (own <= LARGEST_ERROR) == (probe.error <= LARGEST_ERROR)
    assert LEAST_GAIN > 1


def test_the_switch_is_put_back_whatever_happens() -> None:
    def fail() -> None:
        with onednn_matmul():
            assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.backends.mkldnn.matmul.fp32_precision == IEEE


class _Watch(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = nn.Linear(4, 4), {}
        self.layer.weight.register_hook(lambda gradient: self.note("backward"))

    def note(self, where: str) -> None:
        self.seen[where] = torch.backends.mkldnn.matmul.fp32_precision

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.note("train")
        return self.layer(batch).pow(2).mean()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.note("select")

    def test_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.note("test")

    def on_train_batch_end(self, *_: Any) -> None:
        self.note("between")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_trainings_own_forwards_and_backwards_have_it_and_answers_have_not() -> None:
    rows, module = DataLoader(torch.ones(2, 4)), _Watch()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        enable_progress_bar=False,
        plugins=[OneDnnPrecision()],
        **quiet,
    )
    trainer.fit(module, rows, rows)
    trainer.test(module, rows, verbose=False)
    inside = dict.fromkeys(("train", "backward", "select"), "bf16")
    assert module.seen == inside | dict.fromkeys(("between", "test"), IEEE)


def test_gradients_are_those_of_torchs_own_products() -> None:
    if probe_onednn().error > LARGEST_ERROR:
        pytest.skip("oneDNN multiplies in 16 bits on this processor, and is not taken")
    model = build("llama", dtype=torch.float32)
    batch = batch_of(RATIONALES, 38)
    expected = gradient(model, answer_loss(model, batch))
    with onednn_matmul():
        assert difference(gradient(model, answer_loss(model, batch)), expected) <= 5e-6
