"""Which examples are computed together, micro-batches as tensors, and the loaders of a fold.

An epoch is a sequence of optimizer steps of exactly ``global_batch_size`` examples (the last may be
smaller). A step is cut into micro-batches that fit one device; each carries the number of answer
tokens of its whole step, so that the loss is the token mean over the step however it was cut.
Lightning accumulates the same number of micro-batches for every step. Where a budget in tokens
decides how many a step needs, every step has as many rounds as the longest examples could ever
need; the rounds that it does not need come first, are empty and cost nothing.

Balanced sampling goes round each class's examples in one fixed order, drawn from the seed, and
takes up in every epoch where the one before left off. So an epoch's length stays the number of
examples, examples of a small class are repeated evenly, and none of a large class is left out for
good. Where the classes do not divide an epoch, the places that are left over go to one class after
another, over epochs too.

A micro-batch is padded rows, or one row (:mod:`recap.data.layout`) in which tokens that prompts
begin with stand once; positions go on from them, so that the loss and its gradients are those of
separate rows.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import signal
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader, Dataset

from recap.config import Sampling, StepOrder
from recap.data.encode import EncodedExample
from recap.data.layout import Layout, lay_out, side_by_side
from recap.errors import ConfigError, quote_id

NEIGHBORS = 4
"""Examples of one dialogue in a step of dialogues."""

Batching = Literal["trunk", "packed", "padded"]
"""One row with the shared prefix once, one row without sharing, or one padded row an example."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MicroBatch:
    """The examples that one device computes at once, as indices into their data set.

    Attributes:
        indices: Empty in a round of a step in which no device has anything to compute. A
            ``filler`` repeats an example for a device that alone would have none, so that all
            devices compute equally often; it must be neither learned from nor scored.
        step_tokens: Answer tokens of the whole optimizer step, over all its micro-batches and
            devices.
        number: Position of this micro-batch in the whole training, the same on every device.
        ends_step: Whether the optimizer steps after it; such a micro-batch is never empty.
    """

    indices: tuple[int, ...]
    step_tokens: int
    number: int
    ends_step: bool
    filler: bool = False


class Batch:
    """A micro-batch as tensors.

    No dataclass: under ``bf16-true`` and ``64-true`` Lightning takes those apart to their last id
    to convert them, and refuses frozen ones. There is nothing here to convert.

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

    def __init__(
        self,
        *,
        plan: MicroBatch,
        examples: tuple[EncodedExample, ...],
        input_ids: torch.Tensor,
        answer_mask: torch.Tensor,
        position_ids: torch.Tensor | None = None,
        layout: Layout | None = None,
    ) -> None:
        self.plan = plan
        self.examples = examples
        self.input_ids = input_ids
        self.answer_mask = answer_mask
        self.position_ids = position_ids
        self.layout = layout

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
        prefix: For one row the leading tokens that all examples share (:func:`common_prefix`), 0
            for one in which nothing is shared; ``None`` for padded rows.
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
    texts = [example.prompt + example.answer for example in chosen]
    layout = side_by_side(list(map(len, texts)))
    if prefix:
        layout = lay_out([e.prompt for e in chosen], [len(e.answer) for e in chosen])
    ids: list[int] = []
    positions: list[int] = []
    for span in layout.spans:
        end = span.seen + span.length
        ids += texts[span.owner][span.seen : end]
        positions += range(span.seen, end)
    answered = [False] * sum(trunk.length for trunk in layout.trunks)
    for example, tooth in zip(chosen, layout.teeth, strict=True):
        answered += [False] * (tooth.length - len(example.answer))
        answered += [not plan.filler] * len(example.answer)
    return Batch(
        plan=plan,
        examples=chosen,
        input_ids=torch.tensor([ids], dtype=torch.long),
        answer_mask=torch.tensor([answered], dtype=torch.bool),
        position_ids=torch.tensor([positions], dtype=torch.long),
        layout=layout,
    )


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """Return the two halves of a batch of several examples, laid out as it is."""
    middle = len(batch.examples) // 2
    first, second = slice(None, middle), slice(middle, None)
    return _part(batch, first), _part(batch, second)


def _part(batch: Batch, rows: slice) -> Batch:
    plan = replace(batch.plan, indices=batch.plan.indices[rows])
    if batch.layout is not None:
        laid_out = _in_one_row(batch.examples[rows], plan, len(batch.layout.trunks))
        return laid_out.to(batch.input_ids.device)
    return Batch(
        plan=plan,
        examples=batch.examples[rows],
        input_ids=batch.input_ids[rows],
        answer_mask=batch.answer_mask[rows],
    )


def epoch_order(
    examples: Sequence[EncodedExample],
    *,
    sampling: Sampling,
    seed: int,
    epoch: int,
    neighbors: int = 1,
) -> list[int]:
    """Return an epoch as indices into the examples, as many as there are examples.

    It depends on the examples, ``seed`` and ``epoch`` alone; the global random state is left alone.
    So many ``neighbors`` whose prompts begin alike stay together, others in every epoch.

    Raises:
        ConfigError: When classes are to be balanced and an example has none.
    """
    drawn = list(range(len(examples)))
    if sampling == "balanced":
        drawn = _balanced(examples, seed, epoch)
    generator = torch.Generator().manual_seed(_mix(seed, epoch))
    if neighbors == 1:
        return [drawn[place] for place in torch.randperm(len(drawn), generator=generator).tolist()]
    times: Counter[int] = Counter()
    copies = []
    for i in drawn:
        times[i] += 1
        copies.append((times[i], i))  # an example that is repeated is not its own neighbor
    alike = [i for n, i in sorted(copies, key=lambda copy: (copy[0], examples[copy[1]].prompt))]
    first = int(torch.randint(neighbors, (1,), generator=generator))
    bounds = [0, *range(first or neighbors, len(alike), neighbors), len(alike)]
    runs = [alike[start:end] for start, end in itertools.pairwise(bounds)]
    shuffled = torch.randperm(len(runs), generator=generator).tolist()
    return list(itertools.chain.from_iterable(runs[place] for place in shuffled))


def neighbors_of(order: StepOrder, global_batch_size: int) -> int:
    """Return how many neighbors of a dialogue a step takes, never a step of one dialogue alone."""
    return 1 if order == "random" else max(1, min(NEIGHBORS, global_batch_size // 2))


def most_of_an_epoch(examples: Sequence[EncodedExample], sampling: Sampling) -> list[int]:
    """Return indices among which those of every epoch are, each as often as it can ever occur."""
    if sampling == "natural":
        return list(range(len(examples)))
    classes = _classes(examples)
    places = math.ceil(len(examples) / len(classes))
    return [i for members in classes for i in members * math.ceil(places / len(members))]


def _balanced(examples: Sequence[EncodedExample], seed: int, epoch: int) -> list[int]:
    classes = _classes(examples)
    each, left_over = divmod(len(examples), len(classes))
    drawn: list[int] = []
    for rank, members in enumerate(classes):
        first, end = (
            n * each + _dealt(n * left_over, rank, len(classes)) for n in (epoch, epoch + 1)
        )
        generator = torch.Generator().manual_seed(_mix(seed, -1 - rank))  # of no epoch
        order = torch.randperm(len(members), generator=generator).tolist()
        drawn += [members[order[place % len(members)]] for place in range(first, end)]
    return drawn


def _dealt(n: int, rank: int, n_ranks: int) -> int:
    """Return how many of ``n`` places a rank has, when they are dealt out one after another."""
    return max(0, math.ceil((n - rank) / n_ranks))


def _classes(examples: Sequence[EncodedExample]) -> list[list[int]]:
    """Return the examples of each class that occurs, in the order of classes."""
    members: dict[int, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        if example.gold is None:
            raise ConfigError(
                f"sampling=balanced: example {quote_id(example.id)} has no class; "
                "label it, or set sampling=natural"
            )
        members[example.gold].append(index)
    return [members[gold] for gold in sorted(members)]


def _mix(seed: int, number: int) -> int:
    """Return one seed for both numbers, without seeds of neighboring runs meeting."""
    return (seed * 1_000_003 + number) % 2**63


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchLimits:
    """What one device computes at once, at most.

    Attributes:
        examples: Most examples of a micro-batch.
        tokens: Most tokens of a micro-batch as it is computed, padding included and a shared prefix
            counted once; ``None`` for no limit.
        prefix: Tokens that all examples share; ``None`` for padded rows.
    """

    examples: int
    tokens: int | None = None
    prefix: int | None = None

    def tokens_of(self, lengths: Sequence[int]) -> int:
        """Return how many tokens are computed for examples of these lengths together.

        >>> [BatchLimits(examples=2, prefix=p).tokens_of([10, 14]) for p in (None, 0, 8)]
        [28, 24, 16]
        """
        if self.prefix is None:
            return len(lengths) * max(lengths)
        return self.prefix + sum(length - self.prefix for length in lengths)


def count_rounds(
    examples: Sequence[EncodedExample],
    limits: BatchLimits,
    n: int,
    world_size: int,
    sampling: Sampling = "natural",
    order: StepOrder = "random",
) -> int:
    """Return the micro-batches per device that any ``n`` examples of an epoch can need.

    This is what ``Trainer(accumulate_grad_batches=)`` has to be for steps of ``n`` examples.
    """
    if limits.tokens is None:
        return math.ceil(n / (limits.examples * world_size))
    # No n examples need more micro-batches than the n longest: each of those is at least as long.
    drawn = most_of_an_epoch(examples, sampling)
    longest = sorted(_length(examples[i]) for i in drawn)[-n:]
    most = len(_filled(longest, limits, limits.tokens))
    if order == "dialogue":
        # In an order that is not by length two groups in a row hold more than one has room for.
        most = min(n, 2 * most + math.ceil(n / limits.examples))
    return max(1, math.ceil(most / world_size))


def plan_epoch(
    examples: Sequence[EncodedExample],
    *,
    global_batch_size: int,
    limits: BatchLimits,
    seed: int,
    epoch: int,
    world_size: int = 1,
    rank: int = 0,
    sampling: Sampling = "natural",
    order: StepOrder = "random",
) -> tuple[MicroBatch, ...]:
    """Return one device's micro-batches of one epoch.

    What stands where depends on ``seed``, ``epoch``, ``sampling`` and ``order`` alone, and which
    examples form a step not on ``limits`` or ``world_size``. Within a step examples are grouped by
    length, and devices get groups of similar length; or, of dialogues, by how prompts begin.
    """
    neighbors = neighbors_of(order, global_batch_size)
    drawn = epoch_order(examples, sampling=sampling, seed=seed, epoch=epoch, neighbors=neighbors)
    steps = [drawn[i : i + global_batch_size] for i in range(0, len(drawn), global_batch_size)]
    sizes = set(map(len, steps))
    rounds = {n: count_rounds(examples, limits, n, world_size, sampling, order) for n in sizes}
    first = epoch * sum(rounds[len(step)] for step in steps)
    plan: list[MicroBatch] = []
    for step in steps:
        tokens = sum(len(examples[i].answer) for i in step)
        grouped = _groups_by_length if neighbors == 1 else _groups_alike
        groups = grouped(step, examples, limits, world_size)[rank::world_size]
        empty: list[list[int]] = [[]] * (rounds[len(step)] - len(groups))
        for round_, group in enumerate(empty + groups, start=1):
            filler = round_ > len(empty) and not group
            plan.append(
                MicroBatch(
                    indices=(step[0],) if filler else tuple(group),
                    step_tokens=tokens,
                    number=first + len(plan),
                    ends_step=round_ == rounds[len(step)],
                    filler=filler,
                )
            )
    return tuple(plan)


def plan_scoring(
    examples: Sequence[EncodedExample], *, limits: BatchLimits, world_size: int = 1, rank: int = 0
) -> tuple[MicroBatch, ...]:
    """Return one device's batches for scoring: every example once over all devices.

    Prompts that begin alike, as those of a dialogue do, stand together. Where nothing is shared the
    longest come first, so that a batch that does not fit fails at the start.
    """
    everything = range(len(examples))
    if limits.prefix:
        groups = _groups_alike(everything, examples, limits, world_size)
        share = len(groups) // world_size
        own = groups[rank * share : (rank + 1) * share]
    else:
        own = _groups_by_length(everything, examples, limits, world_size)[::-1][rank::world_size]
    tokens = sum(len(example.answer) for example in examples)
    return tuple(
        MicroBatch(
            indices=tuple(group) or (0,),
            step_tokens=tokens,
            number=number,
            ends_step=False,
            filler=not group,
        )
        for number, group in enumerate(own)
    )


def require_fit(examples: Sequence[EncodedExample], limits: BatchLimits) -> None:
    """Check that every example can be computed at least on its own.

    Raises:
        ConfigError: When the longest is longer than the budget.
    """
    longest = max(examples, key=_length)
    if limits.tokens is not None and _length(longest) > limits.tokens:
        raise ConfigError(
            f"trainer.max_tokens_per_device={limits.tokens} has no room for example {longest.id!r} "
            f"of {_length(longest)} tokens; raise it to at least that, or set prompt.max_tokens"
        )


def _groups_by_length(
    indices: Sequence[int], examples: Sequence[EncodedExample], limits: BatchLimits, world_size: int
) -> list[list[int]]:
    """Return groups of neighbors in length, a multiple of the devices; the last may be empty."""
    ordered = sorted(indices, key=lambda i: (_length(examples[i]), i))
    return _groups(ordered, examples, limits, world_size)


def _groups_alike(
    indices: Sequence[int], examples: Sequence[EncodedExample], limits: BatchLimits, world_size: int
) -> list[list[int]]:
    """Return groups of neighbors in the order of prompts, as :func:`_groups_by_length` does."""
    alike = sorted(indices, key=lambda i: (examples[i].prompt, i))
    return _groups(alike, examples, limits, world_size)


def _groups(
    ordered: Sequence[int], examples: Sequence[EncodedExample], limits: BatchLimits, world_size: int
) -> list[list[int]]:
    """Return groups of neighbors, a multiple of the devices; the last may be empty."""
    lengths = [_length(examples[i]) for i in ordered]
    if limits.tokens is None:
        n_groups = math.ceil(len(ordered) / (limits.examples * world_size)) * world_size
        size, larger = divmod(len(ordered), n_groups)
        sizes = [size + (n < larger) for n in range(n_groups)]
    else:
        n_groups = math.ceil(len(_filled(lengths, limits, limits.tokens)) / world_size) * world_size
        sizes = _evenly_filled(lengths, limits, n_groups)
        sizes += [0] * (n_groups - len(sizes))
    ends = itertools.accumulate(sizes)
    return [list(ordered[end - size : end]) for size, end in zip(sizes, ends, strict=True)]


def _evenly_filled(lengths: Sequence[int], limits: BatchLimits, n_groups: int) -> list[int]:
    """Return the sizes of at most ``n_groups`` groups whose largest is as small as can be."""
    assert limits.tokens is not None
    too_small, enough = max(lengths) - 1, limits.tokens
    while enough - too_small > 1:
        tried = (too_small + enough) // 2
        if len(_filled(lengths, limits, tried)) <= n_groups:
            enough = tried
        else:
            too_small = tried
    return _filled(lengths, limits, enough)


def _filled(lengths: Sequence[int], limits: BatchLimits, tokens: int) -> list[int]:
    """Return the sizes of the fewest groups of neighbors of at most so many tokens.

    Filling one after the other is optimal: a group that could take one more gains nothing by
    leaving it to the next.
    """
    sizes: list[int] = []
    group: list[int] = []
    for length in lengths:
        if group and (len(group) == limits.examples or limits.tokens_of([*group, length]) > tokens):
            sizes.append(len(group))
            group = []
        group.append(length)
    return [*sizes, len(group)] if group else sizes


def _length(example: EncodedExample) -> int:
    return len(example.prompt) + len(example.answer)


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
        order: Whether a step holds what chance brings, or a few neighbors of several dialogues.
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
        order: StepOrder = "random",
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
            order=order,
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
        """Yield the batches."""
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
