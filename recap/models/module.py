"""The LightningModule: learn answers, select by their loss, decode and score."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import lightning
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor

from recap.config import Decoding, Engine, OptimizerConfig, SchedulerConfig
from recap.data.batches import Batch
from recap.data.encode import ChatEncoder
from recap.errors import ConfigError, RecapError
from recap.metrics.category_scores import CategoryScores, TokenMean
from recap.models.backbone import LazyWeights
from recap.models.batch_size import AutomaticBatchSize
from recap.models.engine.label_scoring import LabelScorer, ModelAnswer
from recap.models.engine.training import training_loss
from recap.models.finetune import configured_optimizers
from recap.models.strategy import is_sharded, shard

if TYPE_CHECKING:
    from recap.records import Scores
    from recap.tasks.task import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelProbabilities:
    """How likely a model holds each label of one example.

    ``index`` is the example's place in its set; ``probabilities`` has one value a label, in the
    task's order, and adds up to 1.
    """

    index: int
    id: str
    probabilities: tuple[float, ...]


def label_probabilities(batch: Batch, rows: Iterable[Iterable[float]]) -> list[LabelProbabilities]:
    """Return what a model holds of a batch's examples, a row of probabilities each."""
    return [
        LabelProbabilities(index=index, id=example.id, probabilities=tuple(row))
        for index, example, row in zip(batch.plan.indices, batch.examples, rows, strict=True)
    ]


T = TypeVar("T")


def gather_over_devices(share: Sequence[T]) -> list[T]:
    """Return what all devices have found, one device after another, on every device."""
    shares = [list(share)]
    if dist.is_available() and dist.is_initialized():
        shares = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(shares, list(share))
    return list(itertools.chain.from_iterable(shares))


def in_order(share: Sequence[T]) -> list[T]:
    """Return what all devices have found of a set's examples, in the order of the set."""
    return sorted(gather_over_devices(share), key=attrgetter("index"))


def seed_dropout(*numbers: int) -> None:
    """Seed the global random state, which dropout draws from, with one seed of some numbers."""
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))


Wanted = Literal["loss", "answers", "probabilities"]
"""What is computed of a batch: the loss of its gold answers, answers, or the labels' alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """What the model answered to one test example; ``index`` is its place in the test set."""

    index: int
    id: str
    answer: ModelAnswer


class ResponseModule(lightning.LightningModule):
    """Trains a language model to answer, and decodes and scores held-out examples.

    Works with :class:`recap.data.batches.DataModule` under any ``lightning.Trainer``. Logs
    ``train_loss`` every optimizer step, ``val_loss`` every validation and ``test_loss`` at the end
    of a test: each the mean over the answers' tokens, in nats, of the whole step or set, however it
    was cut into batches and devices.

    Args:
        model: A ``transformers`` causal language model or a PEFT model; its trainable weights are
            tuned.
        task: Reads answers; its labels are the classes.
        encoder: The model's tokenizer as a :class:`ChatEncoder`.
        optimizer: Which optimizer, and its numbers.
        scheduler: Which learning-rate schedule.
        max_new_tokens: Longest answer when decoding.
        decoding: How a label is decided (:data:`recap.config.Decoding`).
        threshold: As for :class:`recap.models.engine.label_scoring.LabelScorer`.
        engine: As there.
        total_steps: Optimizer steps of the whole training, for the schedule; ``None`` asks the data
            module.
        seed: Of dropout.
        weights: Where the values of a model on the meta device come from, which a strategy that
            spreads weights over devices reads layer by layer; ``None`` for a model that has them.

    Attributes:
        generations: After a test, one per test example and in the test set's order, on every
            device.
        label_probabilities: After a prediction, one per example, likewise.
    """

    def __init__(
        self,
        *,
        model: Any,
        task: Task,
        encoder: ChatEncoder,
        optimizer: OptimizerConfig | None = None,
        scheduler: SchedulerConfig | None = None,
        max_new_tokens: int = 128,
        decoding: Decoding = "free",
        threshold: float | None = None,
        engine: Engine = "auto",
        total_steps: int | None = None,
        seed: int = 0,
        weights: LazyWeights | None = None,
    ) -> None:
        super().__init__()
        # Pretrained models come in evaluation mode, and Lightning keeps whatever mode it finds.
        self.model = model.train()
        self._task = task
        self._encoder = encoder
        self._optimizer = optimizer or OptimizerConfig(learning_rate=5e-7)
        self._scheduler = scheduler or SchedulerConfig()
        self._max_new_tokens = max_new_tokens
        self._decoding: Decoding = decoding
        self._threshold = threshold
        self._engine: Engine = engine
        self._scorer: LabelScorer | None = None
        self._batch_size = AutomaticBatchSize(
            option="trainer.per_device_batch_size and decoding.batch_size"
        )
        self._total_steps = total_steps
        self._seed = seed
        self._weights = weights
        self._step_loss: Tensor | None = None
        self._val_loss = TokenMean()
        self._test_loss = TokenMean()
        self._category_scores = CategoryScores(labels=task.labels)
        self.generations: list[Generation] = []
        self.label_probabilities: list[LabelProbabilities] = []
        self.strict_loading = not self._frozen_names()

    def configure_model(self) -> None:
        """Spread the weights over the devices under ``ModelParallelStrategy``; else do nothing."""
        strategy = self.trainer.strategy
        if isinstance(strategy, ModelParallelStrategy) and not is_sharded(self):
            shard(
                self,
                self.model,
                strategy.device_mesh["data_parallel"],
                cpu_offload=getattr(strategy, "cpu_offload", False),
                weights=self._weights,
            )

    def forward(self, batch: Batch, *, wanted: Wanted = "loss") -> Any:
        """Return the summed loss of a batch's answers, or what the model makes of its prompts.

        Weights that are spread over devices are whole only in here, so that whatever is computed
        with them comes this way.
        """
        if wanted == "loss":
            return training_loss(self.model, batch)
        if self._scorer is None:
            self._scorer = LabelScorer(
                self.model,
                self._task,
                self._encoder,
                decoding=self._decoding,
                max_new_tokens=self._max_new_tokens,
                batch_size=None,
                threshold=self._threshold,
                engine=self._engine,
                in_step=is_sharded(self),
            )
        prompts = [example.prompt for example in batch.examples]
        if wanted == "probabilities":
            return self._scorer.label_probabilities(prompts)
        return self._scorer.answer(prompts)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout from the micro-batch's number: a resumed run draws what it would have."""
        seed_dropout(self._seed, batch.plan.number, self.global_rank)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return this micro-batch's share of the step's token mean, before Lightning divides it."""
        if not batch.examples:
            # Nothing to compute here, on any device: a loss that no weight has a part in.
            return torch.zeros((), device=self.device, requires_grad=True)
        share = self(batch) / batch.plan.step_tokens
        self._log_train_loss(share.detach(), batch)
        # Lightning divides by the accumulation, and data-parallel strategies average over devices;
        # the share is already divided by the tokens of the whole step.
        scaled: Tensor = share * self.trainer.accumulate_grad_batches * self.trainer.world_size
        return scaled

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch of selection examples to ``val_loss``."""
        self._add_loss(self._val_loss, batch)

    def on_validation_epoch_end(self) -> None:
        """Log the loss of the selection set."""
        # Already the same on every device; sync_dist only tells Lightning so.
        self.log("val_loss", self._val_loss.compute(), prog_bar=True, sync_dist=True)
        self._val_loss.reset()

    def on_test_start(self) -> None:
        """Forget an earlier test."""
        self._scorer = None
        self.generations = []
        self._category_scores.reset()
        self._test_loss.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Decode a batch, and add its answers and the gold answers' loss to the scores."""
        self._add_loss(self._test_loss, batch)
        answers = self(batch, wanted="answers")
        if not batch.plan.filler:
            self._add_answers(batch, answers)

    def on_test_epoch_end(self) -> None:
        """Gather the answers of all devices and log the scores."""
        self.generations = in_order(self.generations)
        metrics = self.scores().metrics
        logged = {f"test_{name}": value for name, value in metrics.items() if value is not None}
        self.log_dict(logged, sync_dist=True)

    def on_predict_start(self) -> None:
        """Forget an earlier prediction."""
        self._scorer = None
        self.label_probabilities = []

    def predict_step(self, batch: Batch, batch_idx: int) -> list[dict[str, float]]:
        """Return the probabilities of the labels for each example of a batch; nothing is generated.

        ``trainer.predict(module, datamodule=data, return_predictions=False)`` puts them together in
        :attr:`label_probabilities`.
        """
        rows: list[dict[str, float]] = self(batch, wanted="probabilities")
        if not batch.plan.filler:
            self.label_probabilities += label_probabilities(batch, [row.values() for row in rows])
        return rows

    def on_predict_epoch_end(self) -> None:
        """Gather the label probabilities of all devices."""
        self.label_probabilities = in_order(self.label_probabilities)

    def scores(self) -> Scores:
        """Return the scores of the last test, over all devices; a ``RecapError`` without one."""
        if not self.generations:
            raise RecapError(
                "there are no scores before trainer.test(module, datamodule=data) has run"
            )
        return self._category_scores.scores(
            task=self._task.name, loss=float(self._test_loss.compute())
        )

    def configure_optimizers(self) -> Any:
        """Return the optimizer, and the schedule over all optimizer steps of the training."""
        return configured_optimizers(
            self.model, self._optimizer, self._scheduler, n_steps=self._n_steps()
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave frozen weights out: they do not change, and an adapter's checkpoint stays small."""
        frozen = set(self._frozen_names())
        for key in list(checkpoint["state_dict"]):
            # A quantized weight brings its scales along, under names that begin with its own.
            parents = (key[:place] for place, character in enumerate(key) if character == ".")
            if key in frozen or not frozen.isdisjoint(parents):
                del checkpoint["state_dict"][key]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that every weight that is tuned comes back.

        Raises:
            ConfigError: When the checkpoint was made with another kind of tuning.
        """
        tuned = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        missing = len(tuned - checkpoint["state_dict"].keys())
        if missing:
            raise ConfigError(
                f"the checkpoint lacks {missing} of {len(tuned)} tuned weights; it comes from "
                "another finetune method or backbone, resume with that one or start again "
                "with resume=never"
            )

    def _n_steps(self) -> int:
        # trainer.estimated_stepping_batches would set the loaders up here, before a resumed run has
        # restored their place in the epoch, and data would repeat (Lightning 2.6.6).
        if self._total_steps is not None:
            return self._total_steps
        steps_per_epoch = getattr(
            getattr(self.trainer, "datamodule", None), "steps_per_epoch", None
        )
        if steps_per_epoch is None:
            raise ConfigError(
                "the number of optimizer steps is not known without recap's DataModule; "
                "give total_steps="
            )
        epochs, limit = self.trainer.max_epochs, self.trainer.max_steps
        planned = [limit] if limit >= 0 else []
        if epochs is not None and epochs >= 0:
            planned.append(epochs * steps_per_epoch)
        if not planned:
            raise ConfigError(
                "a training without an end has no schedule; "
                "give the trainer max_epochs or max_steps"
            )
        return min(planned)

    def _log_train_loss(self, share: Tensor, batch: Batch) -> None:
        self._step_loss = share if self._step_loss is None else self._step_loss + share
        if batch.plan.ends_step:
            # The shares of all devices add up to the step's mean.
            self.log(
                "train_loss",
                self._step_loss,
                on_step=True,
                on_epoch=False,
                prog_bar=True,
                sync_dist=True,
                reduce_fx="sum",
                batch_size=len(batch.examples),
            )
            self._step_loss = None

    def _add_loss(self, metric: TokenMean, batch: Batch) -> None:
        # A filler has no answer tokens, but every device has to compute equally often.
        for part, loss in self._batch_size.each(self, batch, whole=is_sharded(self)):
            metric.update(loss, int(part.answer_mask.sum()))

    def _add_answers(self, batch: Batch, answers: Sequence[ModelAnswer]) -> None:
        predicted, gold = [], []
        for index, example, answer in zip(batch.plan.indices, batch.examples, answers, strict=True):
            self.generations.append(Generation(index=index, id=example.id, answer=answer))
            label = answer.label
            predicted.append(len(self._task.labels) if label is None else self._task.index(label))
            gold.append(example.gold)
        self._category_scores.update(
            torch.tensor(predicted, device=self.device), torch.tensor(gold, device=self.device)
        )

    def _frozen_names(self) -> list[str]:
        return [name for name, parameter in self.named_parameters() if not parameter.requires_grad]
