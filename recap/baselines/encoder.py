"""The LightningModule of the encoder baseline: one label a dialogue, learned as a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from recap.data.batches import Batch
from recap.errors import RecapError
from recap.models.halving import Halving
from recap.models.judgements import Judgement, gathered
from recap.models.optimizers import (
    OptimizerSettings,
    SchedulerSettings,
    build_optimizer,
    build_scheduler,
)
from recap.records import Scores
from recap.scoring.metrics import CategoryScores, TokenMean


class EncoderModule(lightning.LightningModule):
    """Trains an encoder with a classification head, and labels held-out examples.

    Works with :class:`recap.data.module.DataModule` (``batching="padded"``) over examples that
    :class:`recap.baselines.encoder_input.EncoderInput` has encoded. Logs ``train_loss``,
    ``val_loss``: cross-entropy in nats, the mean over the examples of a step or set.

    Args:
        model: A ``transformers`` model for sequence classification.
        labels: The task's labels; their order is the class index.
        task_name: As scores record it.
        close_id: The token that closes every turn; the response stands between the last two.
        optimizer: Which optimiser, and its numbers.
        scheduler: Which learning-rate schedule.
        total_steps: Optimiser steps of the whole training.
        seed: Of dropout.

    Attributes:
        judgements: After a test or a prediction, one per example, in the set's order.
    """

    def __init__(
        self,
        *,
        model: Any,
        labels: Sequence[str],
        task_name: str,
        close_id: int,
        optimizer: OptimizerSettings,
        scheduler: SchedulerSettings,
        total_steps: int,
        seed: int = 0,
    ) -> None:
        super().__init__()
        # Pretrained models come in evaluation mode, and Lightning keeps whatever mode it finds.
        self.model = model.train()
        self._task_name = task_name
        self._close_id = close_id
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._total_steps = total_steps
        self._seed = seed
        self._halving = Halving(option="trainer.per_device_batch_size")
        self._step_loss = 0.0
        self._val_loss = TokenMean()
        self._category_scores = CategoryScores(labels=labels)
        self.judgements: list[Judgement] = []

    def forward(self, batch: Batch) -> Tensor:
        """Return logits ``(batch, label)``."""
        logits: Tensor = self.model(**model_inputs(self.model, batch, self._close_id)).logits
        return logits

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout from the micro-batch's number: a resumed run draws what it would have."""
        entropy = [self._seed, batch.plan.number]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return this micro-batch's share of the step's mean, before Lightning divides it."""
        share = self._loss(batch) / batch.plan.step_tokens
        self._step_loss += float(share.detach())
        if batch.plan.ends_step:
            self.log("train_loss", self._step_loss, prog_bar=True, batch_size=1)
            self._step_loss = 0.0
        scaled: Tensor = share * self.trainer.accumulate_grad_batches
        return scaled

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch of selection examples to ``val_loss``."""
        for part, loss in self._halving.each(self._loss, batch):
            self._val_loss.update(loss, len(part.examples))

    def on_validation_epoch_end(self) -> None:
        """Log the loss of the selection set."""
        self.log("val_loss", self._val_loss.compute(), prog_bar=True)
        self._val_loss.reset()

    def on_test_start(self) -> None:
        """Forget an earlier test."""
        self.judgements = []
        self._category_scores.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Label a batch, and count its labels."""
        for part, logits in self._halving.each(self, batch):
            gold = torch.tensor([example.gold for example in part.examples], device=self.device)
            self._category_scores.update(logits.argmax(-1), gold)
            self._judge(part, logits)

    def on_test_epoch_end(self) -> None:
        """Put the judgements into the test set's order."""
        self.judgements = gathered(self.judgements)

    def on_predict_start(self) -> None:
        """Forget earlier judgements; the scores of a test stay."""
        self.judgements = []

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return logits ``(batch, label)`` of examples that are not scored."""
        found = []
        for part, logits in self._halving.each(self, batch):
            self._judge(part, logits)
            found.append(logits)
        return torch.cat(found)

    def on_predict_epoch_end(self) -> None:
        """Put the judgements into the set's order."""
        self.judgements = gathered(self.judgements)

    def scores(self) -> Scores:
        """Return the scores of the last test.

        Raises:
            RecapError: When nothing was tested.
        """
        if not self.judgements:
            raise RecapError(
                "there are no scores before trainer.test(module, datamodule=data) has run"
            )
        return self._category_scores.scores(task=self._task_name)

    def configure_optimizers(self) -> Any:
        """Return the optimiser, and the schedule over all optimiser steps of the training."""
        optimizer = build_optimizer(self.model, self._optimizer)
        scheduler = build_scheduler(optimizer, self._scheduler, n_steps=self._total_steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def _judge(self, batch: Batch, logits: Tensor) -> None:
        rows = torch.softmax(logits.double(), dim=-1).tolist()
        for index, example, row in zip(batch.plan.indices, batch.examples, rows, strict=True):
            self.judgements.append(Judgement(index=index, id=example.id, probabilities=tuple(row)))

    def _loss(self, batch: Batch) -> Tensor:
        gold = torch.tensor([example.gold for example in batch.examples], device=self.device)
        return torch.nn.functional.cross_entropy(self(batch).float(), gold, reduction="sum")


def model_inputs(model: Any, batch: Batch, close_id: int) -> dict[str, Tensor]:
    """Return what an encoder is called with: ids, mask, and segments where it knows two.

    The second segment is the response, so that the model can tell it from the turns before.

    Args:
        model: A ``transformers`` model for sequence classification.
        batch: Padded rows; the one answer token of each closes its response.
        close_id: The token that closes every turn.
    """
    ids, last = batch.input_ids, batch.answer_mask
    # From the row's end up to each place: 0 behind the closing mark, 1 from there on.
    mask = last.flip(1).cumsum(1).flip(1).clamp(max=1)
    inputs = {"input_ids": ids, "attention_mask": mask}
    if getattr(model.config, "type_vocab_size", 0) >= 2:
        closed = ((ids == close_id) & mask.bool()).flip(1).cumsum(1).flip(1)
        inputs["token_type_ids"] = ((closed == 1) & mask.bool()).long()
    return inputs
