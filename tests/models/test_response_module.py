"""Training, resuming, selecting and scoring with the LightningModule under a plain Trainer."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import lightning
import pytest
import shrunk
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from same_answers import assert_same_answer

from recap.config import OptimizerConfig, SchedulerConfig
from recap.data.batches import (
    Batching,
)
from recap.data.encode import ChatEncoder, EncodedExample, encode_examples
from recap.data.loaders import DataModule
from recap.errors import ConfigError, RecapError
from recap.models.engine.loss import answer_loss
from recap.models.finetune import apply_finetune
from recap.models.module import ResponseModule
from recap.records import Example, Turn
from recap.tasks.library import builtin_task

TASK = builtin_task("binary", style="brief", rationale=False)
TOKENIZER = shrunk.qwen2_tokenizer()
ENCODER = ChatEncoder(TOKENIZER)


def encoded(n: int = 22) -> tuple[EncodedExample, ...]:
    words = {"Resistance": "no never", "Collaboration": "yes sure"}
    examples = [
        Example(
            id=f"e{i}",
            history=(Turn(speaker="counselor", text="And then? " * (1 + i % 4)),),
            response=words[label] + " well" * (i * 5 % 7),
            label=label,
        )
        for i, label in enumerate(TASK.labels * (n // 2))
    ]
    task = builtin_task("binary", style="brief", rationale=False)
    return encode_examples(examples, task, ENCODER).examples


EXAMPLES = encoded()


def module(
    *, method: str = "full", dropout: float = 0.0, rate: float = 1e-2, **options: Any
) -> ResponseModule:
    model = shrunk.model_of("qwen2", len(TOKENIZER))
    model.config.attention_dropout = dropout
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = dropout
    model = apply_finetune(model, method=method, dropout=dropout)
    optimizer = OptimizerConfig(learning_rate=rate, weight_decay=0.01)
    return ResponseModule(
        model=model, task=TASK, encoder=ENCODER, optimizer=optimizer, max_new_tokens=12, **options
    )


def data(*, global_batch_size: int = 8, per_device: int = 3, **options: Any) -> DataModule:
    chosen = {"train": EXAMPLES, "select": EXAMPLES[:9], "test": EXAMPLES} | options
    return DataModule(
        **chosen,
        pad_id=ENCODER.pad_id,
        global_batch_size=global_batch_size,
        per_device_batch_size=per_device,
        decoding_batch_size=5,
    )


def trainer(source: DataModule, **options: Any) -> lightning.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    defaults = {
        "max_epochs": 2,
        "enable_checkpointing": False,
        "accelerator": "cpu",
        "gradient_clip_val": 1.0,
    }
    return lightning.Trainer(
        **quiet | defaults | options,
        accumulate_grad_batches=source.accumulation(),
        use_distributed_sampler=False,
        log_every_n_steps=1,
    )


class StepLosses(Callback):
    """Keeps the training loss of every optimizer step, and stops hard after some micro-batches."""

    def __init__(self, die_after: int | None = None) -> None:
        self.losses: list[float] = []
        self.batches = 0
        self.die_after = die_after

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch.plan.ends_step:
            self.losses.append(float(trainer.callback_metrics["train_loss"]))

    def on_train_batch_start(self, *args: Any) -> None:
        if self.batches == self.die_after:
            raise RuntimeError("killed")
        self.batches += 1


def weights(trained: ResponseModule) -> dict[str, torch.Tensor]:
    return {
        name: weight.detach() for name, weight in trained.named_parameters() if weight.requires_grad
    }


@pytest.mark.parametrize("per_device", [1, 3, 5])
def test_training_does_not_depend_on_how_a_step_is_cut(per_device: int) -> None:
    def train(per_device: int) -> tuple[list[float], dict[str, torch.Tensor]]:
        source, trained, losses = data(per_device=per_device), module(rate=1e-3), StepLosses()
        trainer(source, callbacks=[losses]).fit(trained, source)
        return losses.losses, weights(trained)

    whole, cut = train(8), train(per_device)
    assert len(whole[0]) == 2 * 3, "22 examples are three steps of 8, 8 and 6"
    assert cut[0] == pytest.approx(whole[0], rel=1e-4)
    for name, weight in whole[1].items():
        torch.testing.assert_close(cut[1][name], weight, rtol=0, atol=2e-4)


BUDGETS = {"padded": 545, "packed": 375, "trunk": 275}
"""Tokens for two to four of the examples, so that steps of eight need more or fewer rounds."""


@pytest.mark.parametrize("batching", BUDGETS)
def test_training_does_not_depend_on_layout_or_budget(batching: Batching) -> None:
    def train(**options: Any) -> tuple[list[float], dict[str, torch.Tensor]]:
        source, trained, losses = data(per_device=8, **options), module(rate=1e-3), StepLosses()
        trainer(source, callbacks=[losses]).fit(trained, source)
        return losses.losses, weights(trained)

    whole = train()
    budget = BUDGETS[batching]
    cut = train(batching=batching, max_tokens_per_device=budget)
    plan = (
        data(per_device=8, batching=batching, max_tokens_per_device=budget)
        .train_dataloader()
        .plan(0)
    )
    assert any(not micro.indices for micro in plan), "a step that needs fewer rounds than others"
    assert cut[0] == pytest.approx(whole[0], rel=1e-4)
    for name, weight in whole[1].items():
        torch.testing.assert_close(cut[1][name], weight, rtol=0, atol=2e-4)


def test_the_loss_of_a_step_is_the_mean_over_its_answer_tokens() -> None:
    source, trained, losses = (
        data(),
        module(scheduler=SchedulerConfig(warmup_fraction=0.9)),
        StepLosses(),
    )
    loader = source.train_dataloader()
    batches = [batch for batch in loader if batch.plan.number < source.accumulation()]
    with torch.no_grad():
        total = sum(float(answer_loss(trained.model, batch)) for batch in batches)
    tokens = sum(len(example.answer) for batch in batches for example in batch.examples)
    trainer(source, max_steps=1, callbacks=[losses]).fit(trained, source)
    # Other kernels may serve where no gradient is wanted.
    assert losses.losses == pytest.approx([total / tokens], rel=1e-5)


@cache
def unbroken(method: str) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Return losses and final weights of a training with dropout that nothing interrupts."""
    source, trained, losses = data(), module(method=method, dropout=0.2), StepLosses()
    trainer(source, max_epochs=3, callbacks=[losses]).fit(trained, source)
    return losses.losses, weights(trained)


@pytest.mark.parametrize(
    ("method", "killed_after"), [("full", 3), ("full", 12), ("lora", 8), ("lora", 14)]
)
def test_a_resumed_run_repeats_the_unbroken_one_bit_for_bit(
    tmp_path: Path, method: str, killed_after: int
) -> None:
    def run(losses: StepLosses, resume: Path | None = None) -> ResponseModule:
        source, trained = data(), module(method=method, dropout=0.2)
        last = ModelCheckpoint(
            tmp_path, every_n_train_steps=1, save_top_k=1, save_last=True, filename="step"
        )
        running = trainer(source, max_epochs=3, enable_checkpointing=True, callbacks=[losses, last])
        running.fit(trained, source, ckpt_path=resume)
        return trained

    expected_losses, expected_weights = unbroken(method)
    killed, resumed = StepLosses(die_after=killed_after), StepLosses()
    with pytest.raises(RuntimeError, match="killed"):
        run(killed)
    # An epoch's three steps, of 8, 8 and 6 examples, are 3, 3 and 2 micro-batches of at most 3.
    steps_done = 3 * (killed_after // 8) + killed_after % 8 // 3
    torch.rand(killed_after)  # whatever the new process has drawn before
    actual = weights(run(resumed, resume=tmp_path / "last.ckpt"))
    # Bit for bit on any one machine: the same operations on the same shapes, in the same order.
    assert killed.losses == expected_losses[:steps_done]
    assert resumed.losses == expected_losses[steps_done:]
    assert len(expected_losses) == 9
    assert all(torch.equal(actual[name], weight) for name, weight in expected_weights.items())


@pytest.mark.parametrize("killed_after", [5, 11])
def test_a_resumed_run_of_uneven_rounds_repeats_the_unbroken_one_bit_for_bit(
    tmp_path: Path, killed_after: int
) -> None:
    def run(
        losses: StepLosses, resume: Path | None = None, folder: Path = tmp_path
    ) -> ResponseModule:
        source = data(batching="trunk", max_tokens_per_device=BUDGETS["trunk"])
        trained = module()
        last = ModelCheckpoint(folder, every_n_train_steps=1, save_last=True, filename="step")
        running = trainer(source, enable_checkpointing=True, callbacks=[losses, last])
        running.fit(trained, source, ckpt_path=resume)
        return trained

    unbroken, killed, resumed = StepLosses(), StepLosses(die_after=killed_after), StepLosses()
    expected = weights(run(unbroken, folder=tmp_path / "unbroken"))
    with pytest.raises(RuntimeError, match="killed"):
        run(killed)
    actual = weights(run(resumed, resume=tmp_path / "last.ckpt"))
    # Bit for bit on any one machine: the same operations on the same shapes, in the same order.
    assert killed.losses + resumed.losses == unbroken.losses
    assert 0 < len(killed.losses) < len(unbroken.losses) == 6
    assert all(torch.equal(actual[name], weight) for name, weight in expected.items())


@pytest.mark.parametrize("batching", BUDGETS)
def test_the_selection_loss_does_not_depend_on_layout_or_budget(batching: Batching) -> None:
    trained = module()
    source = data()
    (expected,) = trainer(source).validate(trained, source, verbose=False)
    other = data(batching=batching, max_tokens_per_device=BUDGETS[batching])
    (logged,) = trainer(other).validate(trained, other, verbose=False)
    assert logged["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-5)


def test_the_selection_loss_is_the_token_mean_of_the_set_in_any_batching() -> None:
    trained = module()
    source = data()
    batches = list(data(per_device=9).val_dataloader())
    with torch.no_grad():
        total = sum(float(answer_loss(trained.model.eval(), batch)) for batch in batches)
    expected = total / sum(len(example.answer) for example in EXAMPLES[:9])
    for size in (1, 2, 9):
        (logged,) = trainer(source).validate(trained, data(per_device=size), verbose=False)
        assert logged["val_loss"] == pytest.approx(expected, rel=1e-5)


@cache
def learned() -> ResponseModule:
    """Return a module that has learned to tell the labels apart."""
    source, trained = data(), module()
    trainer(source, max_epochs=25).fit(trained, source)
    return trained


def test_a_trained_model_is_decoded_and_scored_in_the_test_sets_order() -> None:
    source, trained = data(), learned()
    (logged,) = trainer(source).test(trained, source, verbose=False)
    assert [generation.id for generation in trained.generations] == [
        example.id for example in EXAMPLES
    ]
    labels = [TASK.parse(generation.answer.text).label for generation in trained.generations]
    right = [
        label == TASK.labels[example.gold or 0]
        for label, example in zip(labels, EXAMPLES, strict=True)
    ]
    assert logged["test_accuracy"] == pytest.approx(sum(right) / len(right))
    assert logged["test_accuracy"] > 0.9, "two words decide it"
    scores = trained.scores()
    assert scores.n == len(EXAMPLES)
    assert scores.metrics["loss"] == pytest.approx(logged["test_loss"])


def test_answers_that_cannot_be_read_are_wrong_and_counted() -> None:
    source, untrained = data(), module()
    (logged,) = trainer(source).test(untrained, source, verbose=False)
    assert logged["test_invalid_rate"] == 1.0
    assert logged["test_macro_f1"] == 0.0
    assert logged["test_loss"] > 0


def test_scores_do_not_depend_on_the_decoding_batch() -> None:
    trained = learned()
    seen = []
    for size in (1, 22):
        other = DataModule(test=EXAMPLES, pad_id=ENCODER.pad_id, decoding_batch_size=size)
        trainer(other).test(trained, other, verbose=False)
        seen.append((trained.generations, trained.scores()))
    (one, its_scores), (all_at_once, scores) = seen
    assert len({generation.answer.label for generation in one}) > 1
    assert scores.confusion == its_scores.confusion
    assert scores.metrics == pytest.approx(its_scores.metrics, rel=1e-5)
    for alone, among in zip(one, all_at_once, strict=True):
        assert among.id == alone.id
        assert_same_answer(among.answer, alone.answer)


def test_a_checkpoint_of_adapters_holds_them_alone_and_comes_back(tmp_path: Path) -> None:
    source, trained = data(), module(method="lora")
    runner = trainer(source)
    runner.fit(trained, source)
    runner.save_checkpoint(tmp_path / "adapters.ckpt")
    names = torch.load(tmp_path / "adapters.ckpt", weights_only=False)["state_dict"].keys()
    assert names == weights(trained).keys()
    fresh = module(method="lora")
    trainer(source).validate(fresh, source, ckpt_path=tmp_path / "adapters.ckpt", verbose=False)
    assert all(
        torch.equal(weight, weights(trained)[name]) for name, weight in weights(fresh).items()
    )
    with pytest.raises(ConfigError, match=r"lacks .* tuned weights"):
        trainer(source).validate(
            module(), source, ckpt_path=tmp_path / "adapters.ckpt", verbose=False
        )


def test_no_text_of_an_example_is_in_a_checkpoint(tmp_path: Path) -> None:
    source, trained = data(), module(method="lora")
    runner = trainer(source, max_steps=1)
    runner.fit(trained, source)
    runner.save_checkpoint(tmp_path / "any.ckpt")
    content = (tmp_path / "any.ckpt").read_bytes()
    assert b"And then?" not in content
    assert b"never" not in content


def test_the_schedule_ends_with_the_last_planned_step() -> None:
    source, trained = data(), module()
    runner = trainer(source, max_epochs=2)
    runner.fit(trained, source)
    assert runner.global_step == 6
    assert runner.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-12)


def test_without_a_known_number_of_steps_there_is_no_schedule() -> None:
    source = data()
    loader = source.train_dataloader()
    with pytest.raises(ConfigError, match="total_steps"):
        trainer(source).fit(module(), loader)
    trainer(source, max_epochs=1).fit(module(total_steps=3), loader)


def test_scores_before_a_test_are_refused() -> None:
    with pytest.raises(RecapError, match=r"before trainer\.test"):
        module().scores()
