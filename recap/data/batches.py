"""A micro-batch as tensors: padded rows, or one row in which shared leading tokens stand once.

Every prompt of a task begins with the same hundreds of tokens. In a row
``[prefix | rest 1 | rest 2 | …]`` they are computed once; each rest sees the prefix and itself, and
its positions go on from the prefix, so that the loss and its gradients are those of separate rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from recap.data.encode import EncodedExample

Batching = Literal["shared_prefix", "packed", "padded"]
"""One row with the shared prefix once, one row without sharing, or one padded row an example."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MicroBatch:
    """The examples that one device computes at once, as indices into their data set.

    Attributes:
        indices: Empty in a round of a step in which no device has anything to compute. A
            ``filler`` repeats an example for a device that alone would have none, so that all
            devices compute equally often; it must be neither learned from nor scored.
        step_tokens: Answer tokens of the whole optimiser step, over all its micro-batches and
            devices.
        number: Position of this micro-batch in the whole training, the same on every device.
        ends_step: Whether the optimiser steps after it; such a micro-batch is never empty.
    """

    indices: tuple[int, ...]
    step_tokens: int
    number: int
    ends_step: bool
    filler: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """What stands where in a row: ``prefix`` shared tokens, then rests of these ``lengths``."""

    prefix: int
    lengths: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """A micro-batch as tensors.

    Attributes:
        plan: Where it belongs.
        examples: In the order of the plan; none in a round without anything to compute.
        input_ids: ``(batch, time)``: prompt, answer, padding on the right; with a layout
            ``(1, time)``.
        answer_mask: ``(batch, time)``, true where ``input_ids`` is a token of the answer; nowhere
            in a filler.
        position_ids: ``(1, time)``, each token's place in its own example; ``None`` for padded
            rows, where that is its place in the row.
        layout: Of the one row; ``None`` for padded rows.
    """

    plan: MicroBatch
    examples: tuple[EncodedExample, ...]
    input_ids: torch.Tensor
    answer_mask: torch.Tensor
    position_ids: torch.Tensor | None = None
    layout: Layout | None = None

    def to(self, device: torch.device | str, **options: Any) -> Batch:
        """Return the batch with its tensors on a device (Lightning moves batches through this)."""
        positions = self.position_ids
        return Batch(
            plan=self.plan,
            examples=self.examples,
            input_ids=self.input_ids.to(device, **options),
            answer_mask=self.answer_mask.to(device, **options),
            position_ids=None if positions is None else positions.to(device, **options),
            layout=self.layout,
        )


def common_prefix(examples: Sequence[EncodedExample]) -> int:
    """Return how many leading prompt tokens all examples share, less than any whole prompt.

    Compared as ids: text that two prompts share may be cut into tokens differently where they part.
    Every example keeps a last prompt token of its own, whose state predicts its first answer token.
    """
    prompts = [example.prompt for example in examples]
    if not prompts:
        return 0
    first, last = min(prompts), max(prompts)  # in the order of ids; all others lie between the two
    pairs = enumerate(zip(first, last, strict=False))
    shared = next((i for i, (one, other) in pairs if one != other), min(len(first), len(last)))
    return max(0, min(shared, min(map(len, prompts)) - 1))


def collate(
    examples: Sequence[EncodedExample], plan: MicroBatch, pad_id: int, prefix: int | None = None
) -> Batch:
    """Return the tensors of a micro-batch of ``examples``.

    Args:
        examples: The data set of the plan's indices.
        plan: Which of them.
        pad_id: Fills padded rows.
        prefix: Leading tokens that all examples share (:func:`common_prefix` or fewer), for one
            row; ``None`` for padded rows.
    """
    chosen = tuple(examples[i] for i in plan.indices)
    if prefix is None:
        return _padded(chosen, plan, pad_id)
    return _in_one_row(chosen, plan, prefix)


def _padded(chosen: tuple[EncodedExample, ...], plan: MicroBatch, pad_id: int) -> Batch:
    time = max((len(example.prompt) + len(example.answer) for example in chosen), default=0)
    input_ids = torch.full((len(chosen), time), pad_id, dtype=torch.long)
    answer_mask = torch.zeros((len(chosen), time), dtype=torch.bool)
    for i, example in enumerate(chosen):
        end = len(example.prompt) + len(example.answer)
        input_ids[i, :end] = torch.tensor(example.prompt + example.answer)
        answer_mask[i, len(example.prompt) : end] = not plan.filler
    return Batch(plan=plan, examples=chosen, input_ids=input_ids, answer_mask=answer_mask)


def _in_one_row(chosen: tuple[EncodedExample, ...], plan: MicroBatch, prefix: int) -> Batch:
    ids = list(chosen[0].prompt[:prefix]) if chosen else []
    positions = list(range(len(ids)))
    answered = [False] * len(ids)
    lengths = []
    for example in chosen:
        rest = example.prompt[prefix:] + example.answer
        ids += rest
        positions += range(prefix, prefix + len(rest))
        answered += [False] * (len(rest) - len(example.answer))
        answered += [not plan.filler] * len(example.answer)
        lengths.append(len(rest))
    return Batch(
        plan=plan,
        examples=chosen,
        input_ids=torch.tensor([ids], dtype=torch.long),
        answer_mask=torch.tensor([answered], dtype=torch.bool),
        position_ids=torch.tensor([positions], dtype=torch.long),
        layout=Layout(prefix=prefix, lengths=tuple(lengths)),
    )


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """Return the two halves of a batch of several examples, laid out as it is."""
    middle = len(batch.examples) // 2
    first, second = slice(None, middle), slice(middle, None)
    return _part(batch, first), _part(batch, second)


def _part(batch: Batch, rows: slice) -> Batch:
    plan = replace(batch.plan, indices=batch.plan.indices[rows])
    if batch.layout is not None:
        local = replace(plan, indices=tuple(range(len(plan.indices))))
        laid_out = _in_one_row(batch.examples[rows], local, batch.layout.prefix)
        return replace(laid_out.to(batch.input_ids.device), plan=plan)
    return replace(
        batch,
        plan=plan,
        examples=batch.examples[rows],
        input_ids=batch.input_ids[rows],
        answer_mask=batch.answer_mask[rows],
    )
