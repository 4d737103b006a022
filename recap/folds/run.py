"""A run: labeled data under one configuration, dealt into the same folds for every system."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Required, TypedDict

from recap.config import CvConfig, RunConfig
from recap.data.corpus import Corpus, read_corpus
from recap.data.encode import EncodedExample, Encoding
from recap.data.folds import HASH_CHARACTERS, content_key, data_hash, partition_hash, split_folds
from recap.data.leakage import leakage_report, with_shots
from recap.errors import ConfigError, DataError, RecapError, quote_id
from recap.models.engine.label_scoring import check_threshold
from recap.models.hub import find_folder
from recap.models.identity import DIGESTS_FILE, changed_files, model_digests
from recap.models.precision import describe, settled_trainer
from recap.output.format import lost_turns
from recap.records import Example, Fold
from recap.runs.folder import (
    Part,
    RunFolder,
    open_run_folder,
    read_config,
    refuse_other_data,
    write_json,
)
from recap.runs.saved import SavedModel
from recap.system.processes import device_type, environment, is_first_process
from recap.tasks.library import build_task
from recap.tasks.task import Task


class FoldExamples(TypedDict, total=False):
    """The encoded examples of a training, as a data module takes them."""

    train: Required[Sequence[EncodedExample]]
    select: Sequence[EncodedExample]
    test: Sequence[EncodedExample]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What all folds of a run share, whatever system answers their examples."""

    config: RunConfig
    task: Task
    corpus: Corpus
    """The examples, before the task selects."""
    selected: tuple[int, ...]
    """Those that the task takes, as indices into the corpus."""
    encoding: Encoding | None = None
    """The selected examples as token ids, in their order, for systems that learn from them."""
    shots: Mapping[int, tuple[Example, ...]] = field(default_factory=dict)
    """The solved examples in the prompts of every fold, for systems that are shown some."""
    prompted: Mapping[str, Any] = field(default_factory=dict)
    """What config.yaml holds of a prompted system beside the configuration of a training."""

    @property
    def folder(self) -> RunFolder:
        """Where its files are."""
        return RunFolder(path=Path(self.config.runs_dir) / self.config.run)

    @property
    def parts(self) -> Sequence[Part]:
        """The folds that ``cv.fold`` asks for, or the final model."""
        cv = self.config.cv
        return range(cv.folds) if cv.fold == "all" else [cv.fold]

    @cached_property
    def folds(self) -> tuple[Fold, ...]:
        """The partition, over all examples of the corpus."""
        cv = self.config.cv
        return split_folds(
            self.corpus.examples,
            n_folds=cv.folds,
            seed=cv.seed,
            group=cv.group,
            protocol=cv.protocol,
        )

    @cached_property
    def leakage(self) -> Mapping[str, Any]:
        """What folds share with each other and with the examples in prompts."""
        examples = self.corpus.examples
        leakage = leakage_report(examples, self.folds)
        return with_shots(leakage, examples, self.folds, self.shots) if self.shots else leakage

    @cached_property
    def hashes(self) -> Mapping[str, str]:
        """Of data, partition, and all that a prompt says beside the dialogue."""
        blank = Example(id="", history=(), response="")
        shown = "\0".join(message.text for message in self.task.messages(blank))
        return {
            "data_hash": data_hash(self.corpus.examples),
            "partition_hash": partition_hash(self.corpus.examples, self.folds),
            "prompt_hash": hashlib.sha256(shown.encode()).hexdigest()[:HASH_CHARACTERS],
        }

    @property
    def judges_selection(self) -> bool:
        """Whether folds write selection.jsonl: who selects is not who is reported."""
        return self.config.cv.protocol == "nested"

    @property
    def numbers(self) -> dict[str, Any]:
        """What the manifest says of the numbers of a model that this machine computes, if any."""
        config = self.config
        if config.backbone.family == "remote" or (config.baseline or {}).get("method") == "tfidf":
            return {}
        trains = config.finetune.method != "none"
        return describe(config.trainer, config.optimizer.name if trains else None)

    @property
    def lost_turns(self) -> list[str]:
        """What the limit on prompts, or on the inputs of an encoder, cost."""
        if self.encoding is None:
            return []
        encoder = (self.config.baseline or {}).get("max_tokens")
        limit = f"encoder.max_tokens={encoder}" if encoder else self.encoding.limit
        return lost_turns(self.encoding.counts, limit)

    def examples(self, indices: Sequence[int] | None = None) -> tuple[Example, ...]:
        """Return the selected examples, or those of them at these indices of the corpus."""
        wanted = set(self.selected if indices is None else indices)
        return tuple(self.corpus.examples[i] for i in self.selected if i in wanted)

    def examples_of(self, fold: Fold) -> FoldExamples:
        """Return the encoded examples of a fold."""
        train, select, test = map(self.encoded, (fold.train, fold.select, fold.test))
        return {"train": train, "select": select, "test": test}

    def encoded(self, indices: Sequence[int]) -> tuple[EncodedExample, ...]:
        """Return the encoded examples at these indices of the corpus, less those not selected."""
        assert self.encoding is not None
        wanted = set(indices)
        pairs = zip(self.selected, self.encoding.examples, strict=True)
        return tuple(example for index, example in pairs if index in wanted)


def read_run(config: RunConfig, *, needs_rationales: bool | None = None) -> Run:
    """Return the examples in their folds: the same ones for every system on the same data.

    Every example has to have a rationale where ``needs_rationales``, by default
    ``config.rationale``.

    Raises:
        ConfigError: For missing rationales, or a threshold that the task has no use for.
        DataError: For data at fault, or a fold with nothing to train or test.
    """
    config, task = settle_numbers(config), build_task(config)
    check_threshold(config.decoding.threshold, task, config.decoding.name)
    needed = config.rationale if needs_rationales is None else needs_rationales
    run = _read(config, task, needs_rationales=needed)
    # Drawn now, for a final model too: what cannot be split is told before anything is written.
    if run.folds and config.cv.fold != "final":
        check_folds(run.folds, set(run.selected))
    return run


def settle_numbers(config: RunConfig) -> RunConfig:
    """Return a run whose precision and matrix products are named: those that it was begun with.

    Else those of this machine (:func:`recap.models.precision.settled_trainer`, and its errors).
    """
    trainer, backbone, trains = config.trainer, config.backbone, config.finetune.method != "none"
    folder = RunFolder(path=Path(config.runs_dir) / config.run)
    # What cannot be read is refused with its reasons when the folder is opened.
    with suppress(RecapError):
        begun = read_config(folder.path).trainer
        named = {key: getattr(trainer, key) for key in ("precision", "matmul")}
        named = {k: getattr(begun, k) if asked == "auto" else asked for k, asked in named.items()}
        trainer = replace(trainer, **named)
    settled = settled_trainer(
        trainer,
        device="cpu" if backbone.family == "remote" else device_type(trainer),
        pretrained=trains and not (backbone.path is None and backbone.hub_id is None),
    )
    return replace(config, trainer=settled)


def read_labeled(config: RunConfig, task: Task) -> Run:
    """Return the labeled data that a configuration names; rationales are not asked for."""
    return _read(replace(config, rationale=False), task, needs_rationales=False)


def _read(config: RunConfig, task: Task, *, needs_rationales: bool) -> Run:
    corpus = build_corpus(config, task)
    selected = tuple(i for i, example in enumerate(corpus.examples) if task.select(example))
    check_selection(corpus, task, selected, needs_rationales=needs_rationales)
    return Run(config=config, task=task, corpus=corpus, selected=selected)


def build_corpus(config: RunConfig, task: Task) -> Corpus:
    """Return the data set's labeled examples, with all labels, before the task selects."""
    data = config.data
    corpus = read_corpus(
        reader=data.reader,
        path=Path(data.path) if data.path is not None else None,
        name=data.name,
        taxonomy=task.taxonomy,
        on_error=data.on_error,
        duplicates=data.duplicates,
        merge_adjacent=data.merge_adjacent,
        no_intervention=data.no_intervention,
        options=data.reader_options,
    )
    if config.cv.max_examples is None or len(corpus.examples) <= config.cv.max_examples:
        return corpus
    even = config.cv.sample == "balanced"
    drawn = draw_examples(corpus.examples, config.cv.max_examples, task if even else None)
    key = "not_drawn_evenly" if even else "not_drawn"
    counts = {**corpus.counts, key: len(corpus.examples) - len(drawn)}
    return replace(corpus, examples=drawn, counts=counts)


def draw_examples(
    examples: Sequence[Example], n: int, task: Task | None = None
) -> tuple[Example, ...]:
    """Return at most ``n`` examples in their order, the same ones for any order of rows.

    With a task, its labels are as even as can be, and the examples that it does not select are left
    out; without, there are of every label as many as its share of all, rounded.
    """
    by_label: dict[str, list[int]] = defaultdict(list)
    for index in sorted(
        range(len(examples)), key=lambda i: (content_key(examples[i]), examples[i].id)
    ):
        example = examples[index]
        if task is None or task.select(example):
            by_label[example.label or "" if task is None else task.gold(example)].append(index)
    # The first of every label, then the second ...; or each where it lies among those of its label.
    ranked = [
        (rank if task else (rank + 0.5) / len(group), label, index)
        for label, group in by_label.items()
        for rank, index in enumerate(group)
    ]
    chosen = sorted(index for _, _, index in sorted(ranked)[:n])
    return tuple(examples[index] for index in chosen)


def read_own_data(saved: SavedModel) -> Run:
    """Return the data of the run that a model comes from, as they were; refuse others."""
    if saved.run is None:
        raise ConfigError(
            f"{saved.folder}: lies in no run folder, so it is not known what it was trained on; "
            "set cv.fold=all and give data that are new to it"
        )
    run = read_run(replace(saved.config, rationale=False))
    recorded = saved.run.read_manifest().get("data_hash")
    if recorded is not None and recorded != run.hashes["data_hash"]:
        raise ConfigError(
            f"{saved.run.path}: the data {saved.config.data.name!r} are not those that the run was "
            "made with; restore the file, or set cv.fold=all and give data that are new to it"
        )
    return run


def open_run(run: Run) -> None:
    """Make the run's folder with its first files: what was read, how it was dealt into folds.

    A ``ConfigError`` for a run with other options there, a ``DataError`` for other data, or another
    model.
    """
    folder = open_run_folder(run.config, prompted=run.prompted, write=is_first_process())
    refuse_other_data(folder, **run.hashes)
    files = backbone_files(run.config)
    if became := changed_files(folder.read_manifest().get("backbone_files", files), files):
        raise DataError(
            f"{folder.path}: its model is no longer the one that this run was begun with: "
            f"{became}; set run=NAME for a new run, or restore the files"
        )
    if is_first_process():
        if not folder.manifest.is_file():
            hashes = {**run.hashes, **({"backbone_files": files} if files else {})}
            folder.update_manifest(seed=run.config.seed, **hashes, **environment())
        if run.numbers:
            folder.update_manifest(precision=run.numbers)
        write_json(folder.leakage, dict(run.leakage), private=True)
        corpus = run.corpus
        what_was_read = {
            "name": corpus.name,
            "synthetic": corpus.synthetic,
            "rows_read": corpus.rows_read,
            "rows_accepted": corpus.rows_accepted,
            "examples": len(corpus.examples),
            "selected_by_task": len(run.selected),
            "counts": dict(corpus.counts),
            "notes": corpus.notes(),
            "faults": [str(fault) for fault in corpus.issues],
        }
        write_json(folder.data, what_was_read)


def backbone_files(config: RunConfig, *, keep: bool = True) -> dict[str, str]:
    """Return the digests of the files that a run's model begins from, by name.

    None for one that is made on the spot, or that is a server's. With ``keep`` they are kept under
    ``runs_dir``, so that weights are read once for all runs.
    """
    backbone = config.backbone
    if backbone.path is None and backbone.hub_id is None:
        return {}
    folder = find_folder(**backbone.source)
    assert folder is not None
    return model_digests(folder, cache=Path(config.runs_dir) / DIGESTS_FILE if keep else None)


def check_folds(folds: Sequence[Fold], selected: set[int]) -> None:
    """Find a fold that has nothing to train, select or test before the first one is trained."""
    for fold in folds:
        for part, indices in (("train", fold.train), ("select", fold.select), ("test", fold.test)):
            if selected.isdisjoint(indices):
                raise DataError(
                    f"fold {fold.index} has no example of this task to {part}: its labels lie in "
                    "too few groups or rows; use fewer folds (cv.folds) or another cv.group"
                )


def check_fold(cv: CvConfig) -> None:
    """Check that ``cv.fold`` is one of the folds; else a ``ConfigError`` says which there are."""
    if isinstance(cv.fold, int) and not 0 <= cv.fold < cv.folds:
        raise ConfigError(
            f"cv.fold: there is no fold {cv.fold} among {cv.folds}; "
            f"use 0 to {cv.folds - 1}, all or final"
        )


def check_selection(
    corpus: Corpus, task: Task, selected: Sequence[int], *, needs_rationales: bool
) -> None:
    """Check that the task takes any example, and that each has the rationale it is to give.

    A ``ConfigError`` for a missing rationale, a ``DataError`` where the task takes none.
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
