"""The data module of a fold, apart from its batches: predicting needs those, and no Lightning."""

from __future__ import annotations

import math
from collections.abc import Sequence

import lightning

from recap.config import Sampling, StepOrder
from recap.data.batches import (
    Batching,
    BatchLimits,
    ScoringLoader,
    TrainingLoader,
    common_prefix,
    count_rounds,
)
from recap.data.encode import EncodedExample
from recap.errors import ConfigError


class DataModule(lightning.LightningDataModule):
    """Loaders for the training, selection and test examples of one fold.

    The loaders shard over devices themselves, so the trainer needs
    ``use_distributed_sampler=False`` and ``accumulate_grad_batches=data.accumulation(world_size)``.

    Args:
        train: Examples to learn from.
        select: Examples whose loss selects the epoch (under the paper's protocol the test
            examples).
        test: Examples to decode and score.
        pad_id: Fills short rows; the encoder's ``pad_id``.
        global_batch_size: Examples per optimizer step, over all devices and accumulation (paper:
            128).
        per_device_batch_size: Most examples in memory together while training (paper: 4).
        scoring_batch_size: The same for the selection loss; ``None`` takes the training value.
        decoding_batch_size: Most examples decoded together.
        max_tokens_per_device: Most tokens in memory together while training and selecting, padding
            included and a shared prefix counted once; ``None`` for no limit.
        batching: How examples are laid out; ``padded`` suits any model, and
            :func:`recap.models.engine.loss.choose_batching` says what is fastest for one.
        seed: Of the order of training examples.
        sampling: ``natural`` takes each training example once an epoch, ``balanced`` every class
            equally often in epochs of the same length.
        order: ``random``, or ``dialogue``: a step takes a few neighbors each of several dialogues,
            whose turns are then computed once.
        workers: Processes that lay out batches ahead; 0: none.

    Attributes:
        prefix: Leading tokens that all examples share and that are computed once a batch; ``None``
            for padded rows.
    """

    def __init__(
        self,
        *,
        train: Sequence[EncodedExample] = (),
        select: Sequence[EncodedExample] = (),
        test: Sequence[EncodedExample] = (),
        pad_id: int,
        global_batch_size: int = 16,
        per_device_batch_size: int = 4,
        scoring_batch_size: int | None = None,
        decoding_batch_size: int = 32,
        max_tokens_per_device: int | None = None,
        batching: Batching = "padded",
        seed: int = 0,
        sampling: Sampling = "natural",
        order: StepOrder = "random",
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.train = tuple(train)
        self.select = tuple(select)
        self.test = tuple(test)
        self._pad_id = pad_id
        self._global_batch_size = global_batch_size
        self._decoding_batch_size = decoding_batch_size
        self._seed = seed
        self._sampling: Sampling = sampling
        self._order: StepOrder = order
        self._workers = workers
        self.prefix = None if batching == "padded" else 0
        if batching == "trunk":
            self.prefix = common_prefix((*self.train, *self.select, *self.test))
        self._training_limits, self._scoring_limits = (
            BatchLimits(examples=n_examples, tokens=max_tokens_per_device, prefix=self.prefix)
            for n_examples in (per_device_batch_size, scoring_batch_size or per_device_batch_size)
        )

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch."""
        return math.ceil(len(self.train) / self._global_batch_size)

    def accumulation(self, world_size: int = 1) -> int:
        """Return the batches per step and device, for ``Trainer(accumulate_grad_batches=)``."""
        return count_rounds(
            self.train,
            self._training_limits,
            self._global_batch_size,
            world_size,
            self._sampling,
            self._order,
        )

    def train_dataloader(self) -> TrainingLoader:
        """Return the micro-batches of this device, epoch after epoch.

        Raises:
            ConfigError: When the trainer accumulates another number of batches than the plan has.
        """
        world_size, rank = self._place()
        planned = self.accumulation(world_size)
        if self.trainer is not None and self.trainer.accumulate_grad_batches != planned:
            raise ConfigError(
                f"the trainer accumulates {self.trainer.accumulate_grad_batches} batches, but "
                f"optimizer steps of {self._global_batch_size} examples need {planned}; build it "
                f"with accumulate_grad_batches={planned}"
            )
        return TrainingLoader(
            self.train,
            pad_id=self._pad_id,
            global_batch_size=self._global_batch_size,
            limits=self._training_limits,
            seed=self._seed,
            world_size=world_size,
            rank=rank,
            sampling=self._sampling,
            order=self._order,
            workers=self._workers,
        )

    def val_dataloader(self) -> ScoringLoader | list[ScoringLoader]:
        """Return this device's share of the selection examples; no loader when there are none."""
        if not self.select:
            return []
        return self._scoring_loader(self.select, self._scoring_limits)

    def test_dataloader(self) -> ScoringLoader:
        """Return this device's share of the test examples."""
        limits = BatchLimits(examples=self._decoding_batch_size, prefix=self.prefix)
        return self._scoring_loader(self.test, limits)

    def predict_dataloader(self) -> ScoringLoader:
        """Return this device's share of the selection examples, to be judged."""
        limits = BatchLimits(examples=self._decoding_batch_size, prefix=self.prefix)
        return self._scoring_loader(self.select, limits)

    def _scoring_loader(
        self, examples: Sequence[EncodedExample], limits: BatchLimits
    ) -> ScoringLoader:
        world_size, rank = self._place()
        return ScoringLoader(
            examples,
            pad_id=self._pad_id,
            limits=limits,
            world_size=world_size,
            rank=rank,
            workers=self._workers,
        )

    def _place(self) -> tuple[int, int]:
        if self.trainer is None:
            return 1, 0
        return self.trainer.world_size, self.trainer.global_rank
