"""Loaders: the micro-batches of a training, epoch after epoch, and those of a set to score."""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from recap.data.batches import Batch, MicroBatch, collate
from recap.data.encode import EncodedExample
from recap.data.plans import Room, plan_epoch, plan_scoring, require_room
from recap.data.sampling import Sampling
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
        global_batch_size: Examples per optimiser step over all devices.
        room: What one device computes at once.
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
        room: Room,
        seed: int,
        world_size: int = 1,
        rank: int = 0,
        sampling: Sampling = "natural",
        workers: int = 0,
    ) -> None:
        _require_answers(examples, "train on")
        require_room(examples, room)
        self._examples = examples
        self._pad_id = pad_id
        self._global_batch_size = global_batch_size
        self._room = room
        self._seed = seed
        self._world_size = world_size
        self._rank = rank
        self._sampling: Sampling = sampling
        self._workers = workers
        self._length = len(self.plan(0))
        self._epoch = 0
        self._done = 0

    def plan(self, epoch: int) -> tuple[MicroBatch, ...]:
        """Return the micro-batches of one epoch."""
        return plan_epoch(
            self._examples,
            global_batch_size=self._global_batch_size,
            room=self._room,
            seed=self._seed,
            epoch=epoch,
            world_size=self._world_size,
            rank=self._rank,
            sampling=self._sampling,
        )

    def __len__(self) -> int:
        """Number of micro-batches per epoch."""
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        """Yield what is left of the current epoch, or all of the next one when nothing is."""
        if self._done >= self._length:
            self._epoch, self._done = self._epoch + 1, 0
        plans = self.plan(self._epoch)[self._done :]
        batches = _Batches(
            examples=self._examples, plans=plans, pad_id=self._pad_id, prefix=self._room.prefix
        )
        for batch in _in_order(batches, self._workers):
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
        room: What one device computes at once.
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
        room: Room,
        world_size: int = 1,
        rank: int = 0,
        workers: int = 0,
    ) -> None:
        _require_answers(examples, "score")
        require_room(examples, room)
        self._examples = examples
        self._pad_id = pad_id
        self._room = room
        self._workers = workers
        self._plan = plan_scoring(examples, room=room, world_size=world_size, rank=rank)

    def __len__(self) -> int:
        """Number of batches on this device."""
        return len(self._plan)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches, the longest examples first."""
        batches = _Batches(
            examples=self._examples, plans=self._plan, pad_id=self._pad_id, prefix=self._room.prefix
        )
        yield from _in_order(batches, self._workers)


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


def _in_order(batches: _Batches, workers: int) -> Iterator[Batch]:
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
    # Of a training that is killed they would keep the lock on its folder for another 5 seconds.
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
