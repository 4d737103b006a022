"""A data set dealt into folds, the same ones for every system, and what a run folder says of it.

What all folds of a run share: task, examples, partition, token ids, run folder.

A labelled data set as it is scored: read, with the examples that a task selects.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from recap.config import RunConfig
from recap.config_checks import check_combinations
from recap.data.corpus import Corpus
from recap.data.encode import ChatEncoder, EncodedExample, Encoding, encode_examples
from recap.data.folds import HASH_CHARACTERS, data_hash, partition_hash, split_folds
from recap.data.issues import IssueLog
from recap.data.leakage import leakage_report
from recap.data.utterances import read_utterances
from recap.errors import ConfigError, DataError, quote_id
from recap.models.backbone import load_skeleton, load_tokenizer
from recap.models.engine.label_scoring import check_threshold
from recap.models.engine.shared_prefix import choose_batching
from recap.records import Example, Fold
from recap.runs.build import build_corpus, build_task, reader_options
from recap.runs.folder import RunFolder, open_run_folder, refuse_other_data, write_json
from recap.runs.saved import SavedModel
from recap.system.processes import environment, is_first_process, world_size
from recap.tasks.task import Task


class Run(Protocol):
    """What a summary is made of, whatever system was scored."""

    @property
    def task(self) -> Task:
        """What is told apart."""

    @property
    def leakage(self) -> Mapping[str, Any]:
        """What folds share."""

    @property
    def config(self) -> RunConfig:
        """What was asked for."""

    @property
    def corpus(self) -> Corpus:
        """The examples, before the task selects."""

    @property
    def folds(self) -> Sequence[Fold]:
        """The partition."""

    @property
    def folder(self) -> RunFolder:
        """Where its files are."""


class FoldedRun(Run, Protocol):
    """What is told of a run as it goes, whatever system it scores."""

    @property
    def selected(self) -> tuple[int, ...]:
        """Examples that the task takes, as indices into the corpus."""

    @property
    def lost_turns(self) -> Mapping[str, int]:
        """What the limit on inputs cost, as :class:`recap.data.encode.Encoding` counts it."""

    @property
    def token_limit(self) -> str:
        """The option that limits inputs, and its value."""


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A data set dealt into folds; ``selected`` are indices into the corpus that the task takes."""

    task: Task
    corpus: Corpus
    selected: tuple[int, ...]
    folds: tuple[Fold, ...]
    leakage: Mapping[str, Any]
    hashes: Mapping[str, str]
    """Of data, partition and prompt."""

    def examples(self, indices: Sequence[int]) -> tuple[Example, ...]:
        """Return the examples at these indices of the corpus, without those not selected."""
        wanted = set(indices)
        return tuple(self.corpus.examples[i] for i in self.selected if i in wanted)


def draw_partition(config: RunConfig, *, needs_rationales: bool | None = None) -> Partition:
    """Return the examples in their folds: the same ones for every system on the same data.

    Args:
        config: Names task, data and protocol.
        needs_rationales: Whether every example has to have one; by default ``config.rationale``.

    Raises:
        ConfigError: For missing rationales, or a threshold that the task has no use for.
        DataError: For data at fault, or a fold with nothing to train or test.
    """
    task = build_task(config)
    check_threshold(config.decoding.threshold, task, config.decoding.name)
    corpus = build_corpus(config, task)
    selected = tuple(i for i, example in enumerate(corpus.examples) if task.select(example))
    needed = config.rationale if needs_rationales is None else needs_rationales
    check_selection(corpus, task, selected, needs_rationales=needed)
    folds = split_folds(
        corpus.examples,
        n_folds=config.cv.folds,
        seed=config.cv.seed,
        group=config.cv.group,
        protocol=config.cv.protocol,
    )
    if config.cv.fold != "final":
        check_folds(folds, set(selected))
    return Partition(
        task=task,
        corpus=corpus,
        selected=selected,
        folds=folds,
        leakage=leakage_report(corpus.examples, folds),
        hashes={
            "data_hash": data_hash(corpus.examples),
            "partition_hash": partition_hash(corpus.examples, folds),
            "prompt_hash": _prompt_hash(task),
        },
    )


def record_partition(folder: RunFolder, partition: Partition, *, seed: int) -> None:
    """Write a run folder's first files: what was read, and how it was dealt into folds.

    Raises:
        DataError: When the data changed since the run was begun.
    """
    refuse_other_data(folder, **partition.hashes)
    if is_first_process():
        if not folder.manifest.is_file():
            folder.update_manifest(seed=seed, **partition.hashes, **environment())
        write_json(folder.leakage, dict(partition.leakage), private=True)
        write_json(folder.data, _account(partition.corpus, len(partition.selected)))


def _prompt_hash(task: Task) -> str:
    """Return a hash of all that a prompt says beside the dialogue."""
    blank = Example(id="", history=(), response="")
    shown = "\0".join(message.text for message in task.messages(blank))
    return hashlib.sha256(shown.encode()).hexdigest()[:HASH_CHARACTERS]


def _account(corpus: Corpus, n_selected: int) -> dict[str, Any]:
    """Return what became of the rows that were read."""
    return {
        "name": corpus.name,
        "synthetic": corpus.synthetic,
        "rows_read": corpus.rows_read,
        "rows_accepted": corpus.rows_accepted,
        "examples": len(corpus.examples),
        "selected_by_task": n_selected,
        "counts": dict(corpus.counts),
        "notes": corpus.notes(),
        "faults": [str(fault) for fault in corpus.issues],
    }


def check_folds(folds: Sequence[Fold], selected: set[int]) -> None:
    """Find a fold that has nothing to train, select or test before the first one is trained.

    Raises:
        DataError: When there is one.
    """
    for fold in folds:
        for part, indices in (("train", fold.train), ("select", fold.select), ("test", fold.test)):
            if selected.isdisjoint(indices):
                raise DataError(
                    f"fold {fold.index} has no example of this task to {part}: its labels lie in "
                    "too few groups or rows; use fewer folds (cv.folds) or another cv.group"
                )


def check_fold(config: RunConfig) -> None:
    """Check that ``cv.fold`` is one of the folds.

    Raises:
        ConfigError: When it is not.
    """
    fold, n_folds = config.cv.fold, config.cv.folds
    if isinstance(fold, int) and not 0 <= fold < n_folds:
        raise ConfigError(
            f"cv.fold: there is no fold {fold} among {n_folds}; "
            f"use 0 to {n_folds - 1}, all or final"
        )


def check_selection(
    corpus: Corpus, task: Task, selected: Sequence[int], *, needs_rationales: bool
) -> None:
    """Check that the task takes any example, and that each has the reason it is to give.

    Raises:
        ConfigError: When one lacks a reason under ``rationale=true``.
        DataError: When the task takes none.
    """
    if not selected:
        raise DataError(
            f"none of the {len(corpus.examples)} examples of {corpus.name!r} has a label of task "
            f"{task.name!r} ({', '.join(task.labels)}); choose another task"
        )
    if needs_rationales:
        without = [corpus.examples[i].id for i in selected if not corpus.examples[i].rationale]
        if without:
            raise ConfigError(
                f"rationale=true needs a rationale in every example, and {len(without)} of "
                f"{len(selected)} have none (the first: {quote_id(without[0])}); "
                "set rationale=false to train on labels alone"
            )


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A run ready for training; ``selected`` are indices into the corpus that the task takes."""

    config: RunConfig
    task: Task
    corpus: Corpus
    selected: tuple[int, ...]
    folds: tuple[Fold, ...]
    leakage: Mapping[str, Any]
    encoder: ChatEncoder
    folder: RunFolder

    @cached_property
    def encoding(self) -> Encoding:
        """The token ids of the selected examples, in their order."""
        examples = [self.corpus.examples[i] for i in self.selected]
        return encode_examples(
            examples, self.task, self.encoder, max_tokens=self.config.prompt.max_tokens
        )

    @property
    def lost_turns(self) -> Mapping[str, int]:
        """What the limit on prompts cost."""
        return self.encoding.counts

    @property
    def token_limit(self) -> str:
        """The option that limits prompts, and its value."""
        return f"prompt.max_tokens={self.config.prompt.max_tokens}"

    def encoded(self, indices: Sequence[int]) -> tuple[EncodedExample, ...]:
        """Return the encoded examples at these indices of the corpus, less those not selected."""
        wanted = set(indices)
        pairs = zip(self.selected, self.encoding.examples, strict=True)
        return tuple(example for index, example in pairs if index in wanted)

    def examples(self, indices: Sequence[int]) -> tuple[Example, ...]:
        """Return the examples at these indices of the corpus, without those not selected."""
        wanted = set(indices)
        return tuple(self.corpus.examples[i] for i in self.selected if i in wanted)


def prepare(config: RunConfig) -> Setup:
    """Return what all folds of a run share, with the run folder's first files written.

    Raises:
        ConfigError: For a fold that does not exist, choices that cannot go together, another number
            of processes than of devices, a threshold that decides nothing, missing rationales, or
            a folder that holds another run.
        DataError: For data at fault, or data that changed since the run was begun.
    """
    check_fold(config)
    check_combinations(config)
    world_size(config.trainer)
    partition = draw_partition(config)
    # Before the folder: a backbone without weights should leave nothing behind.
    backbone = config.backbone
    tokenizer = load_tokenizer(
        name=backbone.name, family=backbone.family, path=backbone.path, hub_id=backbone.hub_id
    )
    if config.batching in ("packed", "shared_prefix"):
        # What is forced and cannot be is told now, and not after minutes of loading.
        skeleton = load_skeleton(
            name=backbone.name, family=backbone.family, path=backbone.path, hub_id=backbone.hub_id
        )
        choose_batching(skeleton, config.batching)
    folder = open_run_folder(config, write=is_first_process())
    record_partition(folder, partition, seed=config.seed)
    return Setup(
        config=config,
        task=partition.task,
        corpus=partition.corpus,
        selected=partition.selected,
        folds=partition.folds,
        leakage=partition.leakage,
        encoder=ChatEncoder(tokenizer),
        folder=folder,
    )


@dataclass(frozen=True, kw_only=True)
class LabelledData:
    """Examples with labels, and those of them that a task selects (as indices into the corpus)."""

    task: Task
    corpus: Corpus
    selected: tuple[int, ...]

    @property
    def examples(self) -> tuple[Example, ...]:
        """The selected examples."""
        return tuple(self.corpus.examples[i] for i in self.selected)

    def ids_in(self, indices: Sequence[int]) -> frozenset[str]:
        """Return the ids of the examples at these indices of the corpus."""
        return frozenset(self.corpus.examples[i].id for i in indices)


def read_labelled(config: RunConfig, task: Task) -> LabelledData:
    """Return the labelled data that a configuration names; rationales are not asked for.

    Raises:
        DataError: For data at fault, or when the task selects none.
    """
    read = replace(config, rationale=False)
    corpus = build_corpus(read, task)
    selected = tuple(i for i, example in enumerate(corpus.examples) if task.select(example))
    check_selection(corpus, task, selected, needs_rationales=read.rationale)
    return LabelledData(task=task, corpus=corpus, selected=selected)


def known_ids(config: RunConfig, data: LabelledData) -> frozenset[str]:
    """Return the ids of all examples, and of all client turns that make none.

    Such turns open a dialogue, hold no text, have no label or were merged into another;
    ``recap.predict`` may have answered them.
    """
    given = config.data
    turns = read_utterances(
        reader=given.reader,
        path=Path(given.path) if given.path is not None else None,
        # What is at fault was told when the labelled data were read.
        issues=IssueLog(given.name),
        merge_adjacent=False,
        options=reader_options(given),
    )
    return frozenset(example.id for example in (*data.corpus.examples, *turns))


def partition_of(config: RunConfig, data: LabelledData) -> tuple[Fold, ...]:
    """Return the folds of the data under ``cv.*``.

    Raises:
        ConfigError: For folds that cannot be had, or ``cv.fold`` naming one that is not there.
    """
    check_fold(config)
    return split_folds(
        data.corpus.examples,
        n_folds=config.cv.folds,
        seed=config.cv.seed,
        group=config.cv.group,
        protocol=config.cv.protocol,
    )


def own_data(saved: SavedModel) -> Partition:
    """Return the data of the run that a model comes from, as they were.

    Raises:
        ConfigError: When it comes from none.
        DataError: When they cannot be read.
    """
    if saved.run is None:
        raise ConfigError(
            f"{saved.folder}: lies in no run folder, so it is not known what it was trained on; "
            "set cv.fold=all and give data that are new to it"
        )
    data = draw_partition(replace(saved.config, rationale=False))
    recorded = saved.run.read_manifest().get("data_hash")
    if recorded is not None and recorded != data.hashes["data_hash"]:
        raise ConfigError(
            f"{saved.run.path}: the data {saved.config.data.name!r} are not those that the run was "
            "made with; restore the file, or set cv.fold=all and give data that are new to it"
        )
    return data
