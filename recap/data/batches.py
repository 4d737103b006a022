"""Which examples are computed together: optimiser steps, micro-batches and shards.

An epoch is a sequence of optimiser steps of exactly ``global_batch_size`` examples (the last may be
smaller). A step is cut into micro-batches that fit one device; each carries the number of answer
tokens of its whole step, so that the loss is the token mean over the step however it was cut.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from recap.data.encode import EncodedExample
from recap.errors import ConfigError, quote_id


@dataclass(frozen=True, kw_only=True, slots=True)
class MicroBatch:
    """The examples that one device computes at once, as indices into their data set.

    Attributes:
        indices: Never empty. A ``filler`` repeats an example for a device that would have none, so
            that all devices compute equally often; it must be neither learned from nor scored.
        step_tokens: Answer tokens of the whole optimiser step, over all its micro-batches and
            devices.
        number: Position of this micro-batch in the whole training, the same on every device.
        ends_step: Whether the optimiser steps after it.
    """

    indices: tuple[int, ...]
    step_tokens: int
    number: int
    ends_step: bool
    filler: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """A micro-batch as tensors, padded on the right.

    Attributes:
        plan: Where it belongs.
        examples: One per row.
        input_ids: ``(batch, time)``, prompt, answer, padding.
        answer_mask: ``(batch, time)``, true where ``input_ids`` is a token of the answer; nowhere
            in a filler.
    """

    plan: MicroBatch
    examples: tuple[EncodedExample, ...]
    input_ids: torch.Tensor
    answer_mask: torch.Tensor

    def to(self, device: torch.device | str, **options: Any) -> Batch:
        """Return the batch with its tensors on a device (Lightning moves batches through this)."""
        return Batch(
            plan=self.plan,
            examples=self.examples,
            input_ids=self.input_ids.to(device, **options),
            answer_mask=self.answer_mask.to(device, **options),
        )


def accumulation_steps(global_batch_size: int, per_device: int, world_size: int = 1) -> int:
    """Return the micro-batches per device and step, for ``Trainer(accumulate_grad_batches=)``."""
    return math.ceil(global_batch_size / (per_device * world_size))


def plan_epoch(
    examples: Sequence[EncodedExample],
    *,
    global_batch_size: int,
    per_device: int,
    seed: int,
    epoch: int,
    world_size: int = 1,
    rank: int = 0,
) -> tuple[MicroBatch, ...]:
    """Return one device's micro-batches of one epoch.

    The order depends on ``seed`` and ``epoch`` alone, and which examples form a step not on
    ``per_device`` or ``world_size``. Within a step examples are grouped by length; devices get
    groups of similar length.
    """
    generator = torch.Generator().manual_seed(_mix(seed, epoch))
    order = torch.randperm(len(examples), generator=generator).tolist()
    steps = [order[i : i + global_batch_size] for i in range(0, len(order), global_batch_size)]
    plan: list[MicroBatch] = []
    per_epoch = sum(accumulation_steps(len(step), per_device, world_size) for step in steps)
    for step in steps:
        n_rounds = accumulation_steps(len(step), per_device, world_size)
        tokens = sum(len(examples[i].answer) for i in step)
        groups = _groups_by_length(step, examples, n_rounds * world_size)
        for round_, group in enumerate(groups[rank::world_size]):
            plan.append(
                MicroBatch(
                    indices=tuple(group) or (step[0],),
                    step_tokens=tokens,
                    number=epoch * per_epoch + len(plan),
                    ends_step=round_ == n_rounds - 1,
                    filler=not group,
                )
            )
    return tuple(plan)


def plan_scoring(
    examples: Sequence[EncodedExample], *, batch_size: int, world_size: int = 1, rank: int = 0
) -> tuple[MicroBatch, ...]:
    """Return one device's batches for scoring: every example once over all devices.

    The longest come first, so that a batch that does not fit fails at the start.
    """
    n_batches = math.ceil(len(examples) / (batch_size * world_size)) * world_size
    groups = _groups_by_length(range(len(examples)), examples, n_batches)[::-1]
    tokens = sum(len(example.answer) for example in examples)
    return tuple(
        MicroBatch(
            indices=tuple(group) or (0,),
            step_tokens=tokens,
            number=number,
            ends_step=False,
            filler=not group,
        )
        for number, group in enumerate(groups[rank::world_size])
    )


def collate(examples: Sequence[EncodedExample], plan: MicroBatch, pad_id: int) -> Batch:
    """Return the tensors of a micro-batch of ``examples``."""
    rows = tuple(examples[i] for i in plan.indices)
    time = max(len(row.prompt) + len(row.answer) for row in rows)
    input_ids = torch.full((len(rows), time), pad_id, dtype=torch.long)
    answer_mask = torch.zeros((len(rows), time), dtype=torch.bool)
    for i, row in enumerate(rows):
        end = len(row.prompt) + len(row.answer)
        input_ids[i, :end] = torch.tensor(row.prompt + row.answer)
        answer_mask[i, len(row.prompt) : end] = not plan.filler
    return Batch(plan=plan, examples=rows, input_ids=input_ids, answer_mask=answer_mask)


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
        per_device: Most examples in memory together.
        seed: Of the order.
        world_size: Number of devices.
        rank: This device's place among them.

    Raises:
        ConfigError: When there is no example, or one without an answer.
    """

    def __init__(
        self,
        examples: Sequence[EncodedExample],
        *,
        pad_id: int,
        global_batch_size: int,
        per_device: int,
        seed: int,
        world_size: int = 1,
        rank: int = 0,
    ) -> None:
        _require_answers(examples, "train on")
        self._examples = examples
        self._pad_id = pad_id
        self._options = {
            "global_batch_size": global_batch_size,
            "per_device": per_device,
            "seed": seed,
            "world_size": world_size,
            "rank": rank,
        }
        self._length = len(self.plan(0))
        self._epoch = 0
        self._done = 0

    def plan(self, epoch: int) -> tuple[MicroBatch, ...]:
        """Return the micro-batches of one epoch."""
        return plan_epoch(self._examples, epoch=epoch, **self._options)

    def __len__(self) -> int:
        """Number of micro-batches per epoch."""
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        """Yield what is left of the current epoch, or all of the next one when nothing is."""
        if self._done >= self._length:
            self._epoch, self._done = self._epoch + 1, 0
        for plan in self.plan(self._epoch)[self._done :]:
            self._done += 1
            yield collate(self._examples, plan, self._pad_id)

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
        batch_size: Most examples in memory together.
        world_size: Number of devices.
        rank: This device's place among them.
    """

    def __init__(
        self,
        examples: Sequence[EncodedExample],
        *,
        pad_id: int,
        batch_size: int,
        world_size: int = 1,
        rank: int = 0,
    ) -> None:
        _require_answers(examples, "score")
        self._examples = examples
        self._pad_id = pad_id
        self._plan = plan_scoring(examples, batch_size=batch_size, world_size=world_size, rank=rank)

    def __len__(self) -> int:
        """Number of batches on this device."""
        return len(self._plan)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches, the longest examples first."""
        for plan in self._plan:
            yield collate(self._examples, plan, self._pad_id)


def _groups_by_length(
    indices: Sequence[int], examples: Sequence[EncodedExample], n_groups: int
) -> list[list[int]]:
    """Return groups of neighbours in length, sizes at most one apart; the last may be empty."""

    def length(i: int) -> tuple[int, int]:
        return len(examples[i].prompt) + len(examples[i].answer), i

    ordered = sorted(indices, key=length)
    size, larger = divmod(len(ordered), n_groups)
    ends = [size * n + min(n, larger) for n in range(n_groups + 1)]
    return [ordered[start:end] for start, end in itertools.pairwise(ends)]


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


def _mix(seed: int, epoch: int) -> int:
    """Return one seed for both numbers, without seeds of neighbouring runs meeting."""
    return (seed * 1_000_003 + epoch) % 2**63
