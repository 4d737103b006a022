"""The loaders of a training and of a set to score, and the LightningDataModule of one fold."""

from __future__ import annotations

import ctypes
import math
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import lightning
import torch
from torch.utils.data import DataLoader, Dataset

from recap.config import Sampling
from recap.data.batches import (
    Batch,
    Batching,
    BatchLimits,
    MicroBatch,
    collate,
    common_prefix,
    count_rounds,
    plan_epoch,
    plan_scoring,
    require_fit,
)
from recap.data.encode import EncodedExample
from recap.errors import ConfigError, quote_id

_PR_SET_PDEATHSIG = 1
"""Of Linux's ``prctl``: which signal a process gets when its parent dies."""


class TrainingLoader:
    """Yields the micro-batches of one epoch after another, and remembers how far it came.

    Lightning stores ``state_dict()`` in its checkpoints and gives it back before iterating, so a
    resumed run goes on with the very next micro-batch. The epoch is counted here and turns at the
    next ``__iter__``: Lightning never exhausts a loader whose length it knows, so nothing after the
    last batch would run.

    Args:
        examples: The training set; every one needs an answer.
        pad_id: Fills short rows.
        global_batch_size: Examples per optimizer step over all devices.
        limits: What one device computes at once.
        seed: Of the order.
        world_size: Number of devices.
        rank: This device's place among them.
        sampling: Whether an epoch holds each example once, or every class equally often.
        workers: Processes that lay out batches ahead; 0: none. They change nothing of any batch.

    Raises:
        ConfigError: When there is no example, or one without an answer, without room, or without
            the class that balanced sampling needs.
    """

    def __init__(
        self,
        examples: Sequence[EncodedExample],
        *,
        pad_id: int,
        global_batch_size: int,
        limits: BatchLimits,
        seed: int,
        world_size: int = 1,
        rank: int = 0,
        sampling: Sampling = "natural",
        workers: int = 0,
    ) -> None:
        _require_answers(examples, "train on")
        require_fit(examples, limits)
        self._plan_epoch = partial(
            plan_epoch,
            examples,
            global_batch_size=global_batch_size,
            limits=limits,
            seed=seed,
            world_size=world_size,
            rank=rank,
            sampling=sampling,
        )
        self._batches = partial(
            _batches, examples, pad_id=pad_id, prefix=limits.prefix, workers=workers
        )
        self._length = len(self.plan(0))
        self._epoch = 0
        self._done = 0

    def plan(self, epoch: int) -> tuple[MicroBatch, ...]:
        """Return the micro-batches of one epoch."""
        return self._plan_epoch(epoch=epoch)

    def __len__(self) -> int:
        """Number of micro-batches per epoch."""
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        """Yield what is left of the current epoch, or all of the next one when nothing is."""
        if self._done >= self._length:
            self._epoch, self._done = self._epoch + 1, 0
        for batch in self._batches(self.plan(self._epoch)[self._done :]):
            self._done += 1
            yield batch

    @property
    def sampler(self) -> TrainingLoader:
        """This loader itself: where Lightning looks for ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, unless it is the current one.

        Lightning gives ``state_dict()`` back only within an epoch; after a stop between two it says
        the epoch instead.
        """
        if epoch != self._epoch:
            self._epoch, self._done = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and how many of its micro-batches were handed out."""
        return {"epoch": self._epoch, "done": self._done}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from where ``state_dict`` was taken."""
        self._epoch, self._done = state["epoch"], state["done"]


class ScoringLoader:
    """Yields every example once, sharded over devices.

    A batch's plan says where in the data set each example stands.

    Args:
        examples: The set to score; every one needs an answer.
        pad_id: Fills short rows.
        limits: What one device computes at once.
        world_size: Number of devices.
        rank: This device's place among them.
        workers: As for :class:`TrainingLoader`.

    Raises:
        ConfigError: When there is no example, or one without an answer or without room.
    """

    def __init__(
        self,
        examples: Sequence[EncodedExample],
        *,
        pad_id: int,
        limits: BatchLimits,
        world_size: int = 1,
        rank: int = 0,
        workers: int = 0,
    ) -> None:
        _require_answers(examples, "score")
        require_fit(examples, limits)
        self._batches = partial(
            _batches, examples, pad_id=pad_id, prefix=limits.prefix, workers=workers
        )
        self._plan = plan_scoring(examples, limits=limits, world_size=world_size, rank=rank)

    def __len__(self) -> int:
        """Number of batches on this device."""
        return len(self._plan)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches, the longest examples first."""
        return self._batches(self._plan)


@dataclass(frozen=True, kw_only=True)
class _Batches(Dataset[Batch]):
    """The batches of some plans, laid out when they are asked for."""

    examples: Sequence[EncodedExample]
    plans: Sequence[MicroBatch]
    pad_id: int
    prefix: int | None

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, place: int) -> Batch:
        return collate(self.examples, self.plans[place], self.pad_id, self.prefix)


def _batches(
    examples: Sequence[EncodedExample],
    plans: Sequence[MicroBatch],
    *,
    pad_id: int,
    prefix: int | None,
    workers: int,
) -> Iterator[Batch]:
    """Return the batches of some plans, in order."""
    batches = _Batches(examples=examples, plans=plans, pad_id=pad_id, prefix=prefix)
    if workers == 0:
        return (batches[place] for place in range(len(batches)))
    # With a generator of its own: torch would draw a seed for the workers from the one of dropout.
    # Forked in any case: one of several processes of a training would start anew and import all.
    return iter(
        DataLoader(
            batches,
            batch_size=None,
            num_workers=workers,
            worker_init_fn=_attend_to_the_training_alone,
            generator=torch.Generator(),
            multiprocessing_context="fork",
        )
    )


def _attend_to_the_training_alone(worker: int) -> None:
    """Have a worker process end with the training, and with nothing else."""
    # A signal to all processes of a job must not take the workers away from the step that the
    # training still finishes.
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    # They would outlive a training that is killed by 5 seconds.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _require_answers(examples: Sequence[EncodedExample], purpose: str) -> None:
    if not examples:
        raise ConfigError(
            f"there is no example to {purpose}; check that the task selects any of the data"
        )
    without = next((quote_id(example.id) for example in examples if not example.answer), None)
    if without is not None:
        raise ConfigError(
            f"example {without} has no label, so there is nothing to {purpose}; "
            "label it or leave it out"
        )


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
            :func:`recap.models.engine.shared_prefix.choose_batching` says what is fastest for one.
        seed: Of the order of training examples.
        sampling: ``natural`` takes each training example once an epoch, ``balanced`` every class
            equally often in epochs of the same length.
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
        self._workers = workers
        self.prefix = None if batching == "padded" else 0
        if batching == "shared_prefix":
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
            self.train, self._training_limits, self._global_batch_size, world_size, self._sampling
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
