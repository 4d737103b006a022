"""The learning-rate range test: what it suggests, where it stops, and what it measures."""

from __future__ import annotations

import math

import lightning
import numpy as np
import pytest
import shrunk

from recap.config import OptimizerConfig
from recap.data.encode import ChatEncoder, EncodedExample
from recap.data.loaders import DataModule
from recap.errors import ConfigError
from recap.models.callbacks import HIGHEST_RATE, LOWEST_RATE, N_STEPS, RangeTest, suggest_rate
from recap.models.module import ResponseModule
from recap.tasks.library import builtin_task

RATES = np.geomspace(LOWEST_RATE, HIGHEST_RATE, N_STEPS).tolist()


@pytest.mark.parametrize("center", [1e-5, 3e-4, 1e-2])
def test_the_rate_where_the_loss_falls_fastest_is_suggested(center: float) -> None:
    # A logistic fall over the logarithm of the rate is steepest at its center.
    losses = [1 + 2 / (1 + math.exp(4 * math.log10(rate / center))) for rate in RATES]
    noise = np.random.default_rng(0).normal(0, 0.02, N_STEPS)
    step = math.log(RATES[1] / RATES[0])
    for observed in (losses, [*np.add(losses, noise)]):
        assert abs(math.log(suggest_rate(RATES, observed) / center)) <= 4 * step


def test_what_comes_after_the_lowest_loss_is_not_looked_at() -> None:
    falls = [3 - 0.02 * i for i in range(50)]
    # Up to a divergence and down again, steeper than before.
    wild = [*falls, *(10.0 for _ in range(25)), *(9.0 - 0.3 * i for i in range(15))]
    assert suggest_rate(RATES[: len(wild)], wild) <= RATES[50]
    ends = [*falls, *(math.nan for _ in range(10))]
    assert suggest_rate(RATES[: len(ends)], ends) <= RATES[50]


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([1.0, 2.0, math.inf], "diverged after 2 steps"),
        ([1 + 0.1 * i for i in range(60)], "falls at no learning rate"),
    ],
)
def test_a_loss_that_never_falls_suggests_nothing(losses: list[float], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        suggest_rate(RATES[: len(losses)], losses)
    assert "set optimizer.learning_rate" in str(refused.value)


def tried(per_device_batch_size: int, n_steps: int) -> RangeTest:
    tokenizer = shrunk.qwen2_tokenizer()
    module = ResponseModule(
        model=shrunk.model_of("qwen2", len(tokenizer)),
        task=builtin_task("binary"),
        encoder=ChatEncoder(tokenizer),
        optimizer=OptimizerConfig(learning_rate=0.5),
    )
    data = DataModule(
        train=[
            EncodedExample(id=str(i), prompt=(5, 6, 7 + i), answer=(8,) * (i % 3) + (2,), gold=0)
            for i in range(10)
        ],
        pad_id=0,
        global_batch_size=4,
        per_device_batch_size=per_device_batch_size,
    )
    test = RangeTest(n_steps)
    lightning.Trainer(
        accelerator="cpu",
        max_epochs=20,
        accumulate_grad_batches=data.accumulation(),
        use_distributed_sampler=False,
        callbacks=[test],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, data)
    return test


def test_every_step_has_its_rate_and_the_token_mean_of_all_its_examples() -> None:
    whole, cut = tried(4, 12), tried(1, 12)
    assert whole.rates == cut.rates
    assert whole.rates == pytest.approx(np.geomspace(LOWEST_RATE, HIGHEST_RATE, 12))
    # Steps cut into four micro-batches measure what uncut steps do.
    assert cut.losses == pytest.approx(whole.losses, rel=1e-4)
    # The configured rate of 0.5 would have moved the first steps' losses, and the schedule's not.
    assert len(set(whole.losses)) == 12


def test_the_test_ends_once_the_loss_diverges() -> None:
    test = tried(4, 60)
    assert len(test.rates) == len(test.losses) < 60
    assert test.losses[-1] > 4 * min(test.losses)
    assert all(loss <= 4 * min(test.losses[: i + 1]) for i, loss in enumerate(test.losses[:-1]))
