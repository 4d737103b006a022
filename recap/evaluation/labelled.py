"""A labelled data set as it is scored: read, with the examples that a task selects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from recap.build import build_corpus
from recap.config import RunConfig
from recap.data.corpus import Corpus
from recap.data.folds import split_folds
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
