"""Choices that cannot go together are refused before anything is loaded, naming the mend."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import recap
from recap.config import check_combinations, vanishing_update
from recap.errors import ConfigError
from recap.train import __main__ as train

WEIGHTS = ["backbone=qwen7b", "backbone.path=nowhere"]


@pytest.mark.parametrize(
    ("overrides", "fault", "hint"),
    [
        (["finetune=qlora"], "made on the spot", "finetune=lora"),
        (
            [*WEIGHTS, "finetune=qlora", "trainer.precision=64-true"],
            "never in trainer.precision=64-true",
            "trainer.precision=32-true",
        ),
        (
            ["optimizer=adamw8bit", "trainer.precision=64-true"],
            "optimizer.name=adamw8bit",
            "optimizer=adamw",
        ),
        (
            [*WEIGHTS, "backbone.dtype=bfloat16", "optimizer.learning_rate=5e-7"],
            r"learning_rate=5e-07 .* 8 bits of mantissa a weight of 0.02 has a step of 1.2e-04",
            "trainer.precision=bf16-mixed",
        ),
        (
            [*WEIGHTS, "trainer.precision=bf16-true", "optimizer.learning_rate=5e-7"],
            "too small for weights in bfloat16",
            "backbone.dtype=float32",
        ),
        (
            [*WEIGHTS, "backbone.dtype=float16", "trainer.precision=16-mixed"],
            "gradients of float32 weights",
            "backbone.dtype=float32",
        ),
        (
            [*WEIGHTS, "backbone.dtype=float16", "optimizer.learning_rate=1e-3"],
            "eps=1e-08 is zero in weights of float16",
            "trainer.precision=16-mixed",
        ),
        (["finetune=none", "cv.fold=final"], "trains nothing", "cv.fold=all"),
        ([*WEIGHTS, "trainer=fsdp", "finetune=qlora"], "4 bits cannot be spread", "trainer=ddp"),
        (["trainer=fsdp", "optimizer=adamw8bit"], "cannot be spread", "optimizer=adamw"),
        (["trainer=fsdp", "trainer.precision=16-mixed"], "scale of its gradients", "bf16-mixed"),
        (["trainer=fsdp", "trainer.precision=64-true"], "held in 32 or 16 bits", "trainer=ddp"),
        (["trainer=ddp", "trainer.cpu_offload=true"], "belongs to", "trainer.strategy=fsdp"),
    ],
)
def test_what_cannot_work_is_refused_with_what_would(
    overrides: list[str], fault: str, hint: str
) -> None:
    with pytest.raises(ConfigError, match=fault) as refused:
        check_combinations(recap.load_config(["run=r", *overrides]))
    assert hint in str(refused.value)


@pytest.mark.parametrize(
    "overrides",
    [
        [*WEIGHTS, "finetune=qlora", "trainer.precision=bf16-mixed", "optimizer=paged_adamw8bit"],
        [*WEIGHTS, "optimizer.learning_rate=5e-7", "trainer.precision=bf16-mixed"],
        # Adapters stay in float32, and a rate above the step moves weights of any type.
        [*WEIGHTS, "backbone.dtype=bfloat16", "finetune=lora", "optimizer.learning_rate=5e-7"],
        ["backbone.dtype=bfloat16"],
        ["optimizer=adamw8bit", "trainer.precision=64-true", "trainer=cpu"],
        ["finetune=none", "backbone.dtype=bfloat16", "optimizer.learning_rate=5e-7"],
    ],
)
def test_what_works_is_let_pass(overrides: list[str]) -> None:
    check_combinations(recap.load_config(["run=r", *overrides]))


def test_several_faults_are_told_at_once() -> None:
    config = recap.load_config(
        ["finetune=qlora", "optimizer=adamw8bit", "trainer.precision=64-true"]
    )
    with pytest.raises(ConfigError) as refused:
        check_combinations(config)
    assert len(str(refused.value).splitlines()) == 3


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("weight", [0.02, 0.019, 0.3, 1.0])
def test_updates_vanish_below_the_bound_and_not_above_it(dtype: str, weight: float) -> None:
    stored = torch.tensor(weight, dtype=getattr(torch, dtype))
    bound = vanishing_update(dtype, weight)
    for change, moves in ((0.99 * bound, False), (1.01 * bound, True)):
        assert bool((stored.double() + change).to(stored.dtype) != stored) is moves


def test_a_refused_run_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["finetune=qlora", f"runs_dir={tmp_path}/runs", "run=r"]) == 2
    assert "finetune=lora" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
