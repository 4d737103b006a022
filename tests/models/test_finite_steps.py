"""Steps that are not finite numbers: skipped as if they had not been, counted, in the end fatal."""

from __future__ import annotations

import copy
import csv
from pathlib import Path
from typing import Any

import lightning
import pytest
import shrunk
import torch
from faults import record_fault

from recap.config import OptimizerConfig, SchedulerConfig
from recap.data.encode import ChatEncoder, EncodedExample
from recap.data.loaders import DataModule
from recap.errors import ConfigError
from recap.models.callbacks import FiniteSteps
from recap.models.module import ResponseModule
from recap.runs.history import History, Tracker
from recap.tasks.library import builtin_task

TOKENIZER = shrunk.qwen2_tokenizer()
EXAMPLES = [
    EncodedExample(id=f"e{i}", prompt=(5, 6, 7 + i), answer=(8, 2), gold=0) for i in range(8)
]


class Spoiled(ResponseModule):
    """Makes the loss, or one gradient alone, of some micro-batches something else."""

    losses: dict[int, float]
    gradients: dict[int, float]
    calls = 0

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        Spoiled.calls += 1
        if Spoiled.calls in self.gradients:
            weight = self.model.model.norm.weight
            # Nothing to the loss, and infinitely much to the gradient.
            return loss + (weight - weight.detach()).sum() * self.gradients[Spoiled.calls]
        return loss * self.losses.get(Spoiled.calls, 1.0)


def train(
    tmp_path: Path,
    losses: dict[int, float],
    gradients: dict[int, float] | None = None,
    *,
    most: int = 5,
    epochs: int = 2,
    **options: Any,
) -> tuple[dict[str, torch.Tensor], FiniteSteps, list[dict[str, str]]]:
    model = shrunk.model_of("qwen2", len(TOKENIZER))
    Spoiled.calls = 0
    module = Spoiled(
        model=model,
        task=builtin_task("binary", style="brief", rationale=False),
        encoder=ChatEncoder(TOKENIZER),
        optimizer=OptimizerConfig(learning_rate=1e-2, weight_decay=0.1),
        scheduler=SchedulerConfig(name="constant", warmup_fraction=0.0),
    )
    module.losses, module.gradients = losses, gradients or {}
    data = DataModule(train=EXAMPLES, pad_id=0, global_batch_size=4, per_device_batch_size=2)
    finite = FiniteSteps(most)
    history = History(tmp_path / "history.csv", Tracker(), every_steps=1, finite=finite)
    lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[history, finite],
        accumulate_grad_batches=data.accumulation(),
        gradient_clip_val=1.0,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    ).fit(module, data)
    with (tmp_path / "history.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return copy.deepcopy(model.state_dict()), finite, rows


@pytest.mark.parametrize(
    ("losses", "gradients"),
    [({4: float("nan")}, {}), ({3: float("inf")}, {}), ({}, {4: float("inf")})],
)
def test_a_step_that_is_not_finite_leaves_weights_and_moments_as_they_were(
    losses: dict[int, float],
    gradients: dict[int, float],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Micro-batches 3 and 4 are the second step's, the last one of the first epoch.
    spoiled, finite, rows = train(tmp_path, losses, gradients, epochs=1)
    first, _, _ = train(tmp_path, {}, epochs=1, limit_train_batches=2)
    # The same operations on the same shapes as far as the first step.
    assert all(torch.equal(spoiled[name], weight) for name, weight in first.items())
    assert finite.skipped == 1
    assert [row["skipped_steps"] for row in rows] == ["0", "1"]
    (line,) = [r.getMessage() for r in caplog.records if r.name.startswith("recap.")]
    assert line.startswith("optimizer step 2 skipped")
    assert "(1 in a row, 1 in all): examples 'e" in line
    record_fault("non-finite loss", tried=1, survived=1, lost=0)


def test_training_goes_on_after_a_skipped_step(tmp_path: Path) -> None:
    weights, finite, rows = train(tmp_path, {1: float("nan"), 6: float("inf")})
    assert all(bool(weight.isfinite().all()) for weight in weights.values())
    assert finite.skipped == 2
    assert [row["skipped_steps"] for row in rows] == ["1", "1", "2", "2"]
    assert float(rows[3]["loss"]) < float(rows[1]["loss"])


def test_after_several_in_a_row_training_stops_and_names_the_examples(tmp_path: Path) -> None:
    spoiled = {1: float("nan"), 5: float("nan"), 7: float("nan")}
    with pytest.raises(ConfigError, match=r"step 4: in 2 steps in a row .*learning_rate") as raised:
        train(tmp_path, spoiled, most=2)
    named = str(raised.value).partition("last with ")[2].partition(";")[0]
    assert named.startswith("examples ")
    assert named.count("'e") == 2, "those of the micro-batch whose loss it was, and no others"
    record_fault("non-finite loss", tried=3, survived=3, lost=0, note="in a row")


def test_counts_travel_in_the_checkpoint() -> None:
    finite = FiniteSteps(5)
    finite.skipped = 3
    again = FiniteSteps(5)
    again.load_state_dict(finite.state_dict())
    assert again.skipped == 3


def test_an_id_that_may_be_a_text_is_not_quoted(tmp_path: Path) -> None:
    from recap.models.callbacks import _named

    assert _named(["e1", "I do not want to say"]) == "examples 'e1', of 20 characters"
    assert _named([f"e{i}" for i in range(11)]).endswith("'e7' and 3 more")
