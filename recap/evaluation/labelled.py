"""A labelled data set as it is scored: read, with the examples that a task selects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from recap.build import build_corpus, reader_options
from recap.config import RunConfig
from recap.data.corpus import Corpus
from recap.data.faults import FaultLog
from recap.data.folds import split_folds
from recap.data.utterances import read_utterances
from recap.partition import check_fold, check_selection
from recap.records import Example, Fold
from recap.tasks.task import Task


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
        faults=FaultLog(given.name),
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
