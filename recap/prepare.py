"""What all folds of a run share: task, examples, partition, token ids, run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from recap.combinations import check_combinations
from recap.config import RunConfig
from recap.data.chat import ChatEncoder
from recap.data.corpus import Corpus
from recap.data.encode import EncodedExample, Encoding, encode_examples
from recap.launch import is_first_process, world_size
from recap.models.backbone import load_skeleton, load_tokenizer
from recap.models.shared_prefix import choose_batching
from recap.partition import check_fold, draw_partition, record_partition
from recap.records import Example, Fold
from recap.run_folder import RunFolder, open_run_folder
from recap.tasks.task import Task


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
