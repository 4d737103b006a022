"""What all folds of a run share: task, examples, partition, token ids, run folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from recap.build import build_corpus, build_task
from recap.combinations import check_combinations
from recap.config import RunConfig
from recap.data.chat import ChatEncoder
from recap.data.corpus import Corpus
from recap.data.encode import EncodedExample, Encoding, encode_examples
from recap.data.folds import HASH_CHARACTERS, data_hash, partition_hash, split_folds
from recap.data.leakage import leakage_report
from recap.errors import ConfigError, DataError, quote_id
from recap.launch import is_first_process, world_size
from recap.models.backbone import load_skeleton, load_tokenizer
from recap.models.shared_prefix import choose_batching
from recap.records import Example, Fold
from recap.run_folder import RunFolder, environment, open_run_folder, refuse_other_data, write_json
from recap.tasks.task import Task


class FoldedRun(Protocol):
    """What is told of any run in folds, whatever system it scores."""

    @property
    def config(self) -> RunConfig:
        """What was asked for."""

    @property
    def task(self) -> Task:
        """What is told apart."""

    @property
    def corpus(self) -> Corpus:
        """The examples, before the task selects."""

    @property
    def selected(self) -> tuple[int, ...]:
        """Those that the task takes, as indices into the corpus."""

    @property
    def folds(self) -> tuple[Fold, ...]:
        """The partition."""

    @property
    def leakage(self) -> Mapping[str, Any]:
        """What folds share."""

    @property
    def folder(self) -> RunFolder:
        """Where its files are."""

    @property
    def lost_turns(self) -> Mapping[str, int]:
        """What the limit on inputs cost, as :class:`recap.data.encode.Encoding` counts it."""

    @property
    def token_limit(self) -> str:
        """The option that limits inputs, and its value."""


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


@dataclass(frozen=True, kw_only=True)
class FoldedData:
    """A data set in the folds that every system is scored on, whatever it is made of.

    ``selected`` are indices into the corpus that the task takes.
    """

    task: Task
    corpus: Corpus
    selected: tuple[int, ...]
    folds: tuple[Fold, ...]
    leakage: Mapping[str, Any]
    hashes: Mapping[str, str]
    """``data_hash``, ``partition_hash`` and ``prompt_hash``."""

    def examples(self, indices: Sequence[int]) -> tuple[Example, ...]:
        """Return the examples at these indices of the corpus, without those not selected."""
        wanted = set(indices)
        return tuple(self.corpus.examples[i] for i in self.selected if i in wanted)


def fold_data(config: RunConfig) -> FoldedData:
    """Return a run's labelled examples, selected and in folds.

    Raises:
        ConfigError: For missing rationales, or folds that cannot be had.
        DataError: For data at fault.
    """
    task = build_task(config)
    corpus = build_corpus(config, task)
    selected = tuple(i for i, example in enumerate(corpus.examples) if task.select(example))
    check_selection(config, corpus, task, selected)
    folds = split_folds(
        corpus.examples,
        n_folds=config.cv.folds,
        seed=config.cv.seed,
        group=config.cv.group,
        protocol=config.cv.protocol,
    )
    if config.cv.fold != "final":
        check_folds(folds, set(selected))
    return FoldedData(
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


def begin_run_folder(config: RunConfig, data: FoldedData) -> RunFolder:
    """Return a run's folder with its first files written, or found as they would be written.

    Raises:
        ConfigError: When the folder holds another run.
        DataError: When the data changed since the run was begun.
    """
    folder = open_run_folder(config, write=is_first_process())
    refuse_other_data(folder, **data.hashes)
    if is_first_process():
        if not folder.manifest.is_file():
            folder.update_manifest(seed=config.seed, **data.hashes, **environment())
        write_json(folder.leakage, dict(data.leakage))
        write_json(folder.data, _account(data.corpus, len(data.selected)))
    return folder


def prepare(config: RunConfig) -> Setup:
    """Return what all folds of a run share, with the run folder's first files written.

    Raises:
        ConfigError: For a fold that does not exist, choices that cannot go together, another number
            of processes than of devices, missing rationales, or a folder that holds another run.
        DataError: For data at fault, or data that changed since the run was begun.
    """
    check_fold(config)
    check_combinations(config)
    world_size(config.trainer)
    data = fold_data(config)
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
    return Setup(
        config=config,
        task=data.task,
        corpus=data.corpus,
        selected=data.selected,
        folds=data.folds,
        leakage=data.leakage,
        encoder=ChatEncoder(tokenizer),
        folder=begin_run_folder(config, data),
    )


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
        "faults": [str(fault) for fault in corpus.faults],
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


def check_selection(config: RunConfig, corpus: Corpus, task: Task, selected: Sequence[int]) -> None:
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
    if config.rationale:
        without = [corpus.examples[i].id for i in selected if not corpus.examples[i].rationale]
        if without:
            raise ConfigError(
                f"rationale=true needs a rationale in every example, and {len(without)} of "
                f"{len(selected)} have none (the first: {quote_id(without[0])}); "
                "set rationale=false to train on labels alone"
            )
