"""A run's examples as numbers of tokens, and the micro-batches that they will be computed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recap.build import build_corpus, build_task
from recap.config import RunConfig
from recap.data.batches import Batching, MicroBatch, common_prefix
from recap.data.chat import ChatEncoder
from recap.data.encode import EncodedExample, encode_examples
from recap.data.folds import split_folds
from recap.data.plans import Room, plan_epoch, plan_scoring, require_room
from recap.models.architecture import Architecture, find_tokenizer
from recap.partition import check_fold, check_folds, check_selection
from recap.planning.estimate import CHARACTERS_PER_TOKEN, HAN_PER_TOKEN, EstimatedEncoder
from recap.planning.groups import Group

Examples = tuple[EncodedExample, ...]


@dataclass(frozen=True, kw_only=True)
class Training:
    """The examples of one training: a fold's, or all of them for the final model."""

    train: Examples
    select: Examples
    test: Examples


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What a run computes.

    Attributes:
        trainings: One for each fold that ``cv.fold`` asks for, or the final one.
        examples: All that the task selects.
        prefix: Leading tokens that all prompts share.
        counted_by: How tokens were counted, in words.
    """

    trainings: tuple[Training, ...]
    examples: Examples
    prefix: int
    counted_by: str


def read_workload(config: RunConfig, architecture: Architecture) -> Workload:
    """Return the examples of a run in tokens, without touching its folder.

    Raises:
        ConfigError: For a fold that does not exist, or missing rationales.
        DataError: For data at fault.
    """
    check_fold(config)
    task = build_task(config)
    corpus = build_corpus(config, task)
    selected = [i for i, example in enumerate(corpus.examples) if task.select(example)]
    check_selection(corpus, task, selected, needs_rationales=config.rationale)
    folds = split_folds(
        corpus.examples,
        n_folds=config.cv.folds,
        seed=config.cv.seed,
        group=config.cv.group,
        protocol=config.cv.protocol,
    )
    encoder, counted_by = _encoder(config, architecture)
    encoding = encode_examples(
        [corpus.examples[i] for i in selected],
        task,
        encoder,
        max_tokens=config.prompt.max_tokens,
    )
    encoded = dict(zip(selected, encoding.examples, strict=True))

    def part(indices: Sequence[int]) -> Examples:
        return tuple(encoded[i] for i in indices if i in encoded)

    if config.cv.fold == "final":
        trainings = [Training(train=encoding.examples, select=(), test=())]
    else:
        check_folds(folds, set(selected))
        asked = folds if config.cv.fold == "all" else [folds[config.cv.fold]]
        trainings = [
            Training(train=part(f.train), select=part(f.select), test=part(f.test)) for f in asked
        ]
    return Workload(
        trainings=tuple(trainings),
        examples=encoding.examples,
        prefix=common_prefix(encoding.examples),
        counted_by=counted_by,
    )


def shared_tokens(batching: Batching, prefix: int) -> int | None:
    """Return what :class:`recap.planning.groups.Group` calls the prefix of a batching."""
    return {"shared_prefix": prefix, "packed": 0, "padded": None}[batching]


def training_groups(
    config: RunConfig, training: Training, prefix: int | None, n_devices: int
) -> list[Group]:
    """Return the micro-batches of one epoch on all devices.

    Those of the first epoch: later ones differ in order alone.

    Raises:
        ConfigError: When an example has no room in ``trainer.max_tokens_per_device``.
    """
    room = _room(config, prefix)
    require_room(training.train, room)
    return [
        group_of(training.train, planned, prefix)
        for rank in range(n_devices)
        for planned in plan_epoch(
            training.train,
            global_batch_size=config.global_batch_size,
            room=room,
            seed=config.seed,
            epoch=0,
            world_size=n_devices,
            rank=rank,
        )
        if planned.indices
    ]


def scoring_groups(config: RunConfig, examples: Examples, prefix: int | None) -> list[Group]:
    """Return the micro-batches that a selection loss is computed in."""
    if not examples:
        return []
    planned = plan_scoring(examples, room=_room(config, prefix))
    return [group_of(examples, batch, prefix) for batch in planned]


def group_of(examples: Examples, batch: MicroBatch, prefix: int | None) -> Group:
    """Return a micro-batch in numbers."""
    chosen = [examples[i] for i in batch.indices]
    return Group(
        lengths=tuple(len(example.prompt) + len(example.answer) for example in chosen),
        answers=tuple(len(example.answer) for example in chosen),
        prefix=prefix,
    )


def _room(config: RunConfig, prefix: int | None) -> Room:
    trainer = config.trainer
    return Room(
        examples=trainer.per_device_batch_size, tokens=trainer.max_tokens_per_device, prefix=prefix
    )


def _encoder(config: RunConfig, architecture: Architecture) -> tuple[Any, str]:
    tokenizer = find_tokenizer(architecture, config.backbone.name)
    if tokenizer is not None:
        return ChatEncoder(tokenizer), f"the tokenizer of {config.backbone.name}"
    return EstimatedEncoder(), (
        f"an estimate: {CHARACTERS_PER_TOKEN} characters a token, {HAN_PER_TOKEN} Chinese ones "
        f"(the tokenizer of {config.backbone.name} is not on this machine)"
    )
