"""What a run needs whose model is prompted as it is: solved examples for prompts, their tokens."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from recap.config import RunConfig
from recap.data.folds import content_key
from recap.errors import DataError
from recap.folds.run import Run, read_run
from recap.records import Example, Message
from recap.tasks.task import Task

ShotCategories = Literal["labels", "leaves"]


def draw_shots(
    train: Sequence[Example],
    task: Task,
    *,
    categories: ShotCategories = "labels",
    seed: int,
    fold: int,
) -> tuple[Example, ...]:
    """Return one training example of each category, in an order drawn with them.

    Draw and order depend on the seed, the fold and the examples, not on the order of the rows.

    Args:
        train: The fold's training examples that the task selects.
        task: Whose prompt they are for.
        categories: ``labels``: those that the task tells apart (two for the binary task);
            ``leaves``: the finest ones at or below them (fourteen).
        seed: Of draw and order.
        fold: The fold's index, so that folds draw independently.

    Raises:
        DataError: When a category has no training example, or none with a rationale though the task
            gives one.
    """
    rows = sorted(train, key=lambda example: (content_key(example), example.id))
    wanted, lineage = task.labels, task.taxonomy.lineage
    if categories == "leaves":
        leaves = task.taxonomy.leaves
        wanted = tuple(x for x in leaves if not set(task.labels).isdisjoint(lineage(x)))
    shots = []
    for category in wanted:
        of_it = [row for row in rows if row.label and category in lineage(row.label)]
        shown = [row for row in of_it if not task.rationale or (row.rationale or "").strip()]
        if not shown:
            raise DataError(_lacking(category, fold, bool(of_it), categories))
        shots.append(random.Random(f"{seed}/{fold}/{category}").choice(shown))
    random.Random(f"{seed}/{fold}").shuffle(shots)
    return tuple(shots)


def _lacking(category: str, fold: int, exists: bool, categories: ShotCategories) -> str:
    if exists:
        return (
            f"shots=1: no training example of {category!r} in fold {fold} has a rationale to show; "
            "set rationale=false, or shots=0"
        )
    coarser = ", shot_categories=labels" if categories == "leaves" else ""
    return (
        f"shots=1: fold {fold} has no training example of {category!r} to show; set shots=0"
        f"{coarser}, fewer folds (cv.folds), or a task without this category"
    )


def estimated_tokens(messages: Sequence[Message]) -> int:
    """Return about how many tokens a prompt has: a quarter of its ASCII characters, all others.

    The rule of thumb for English, and on the safe side for Chinese; tokenizers of servers are not
    known here.

    >>> estimated_tokens([Message(role="user", text="twelve chars")])
    3
    """
    text = "".join(message.text for message in messages)
    ascii_characters = sum(character.isascii() for character in text)
    return -(-ascii_characters // 4) + len(text) - ascii_characters


def read_prompted(config: RunConfig, *, shots: int, categories: ShotCategories) -> Run:
    """Return the run, with the shots of every fold: a category without one is told at once.

    Args:
        config: Names task, data and protocol.
        shots: 1 where prompts show a solved example of each category, else 0.
        categories: As for :func:`draw_shots`.

    Raises:
        DataError: For data at fault, or a category without an example to show.
    """
    run = read_run(config, needs_rationales=False)
    drawn = {
        fold.index: draw_shots(
            run.examples(fold.train),
            run.task,
            categories=categories,
            seed=config.seed,
            fold=fold.index,
        )
        for fold in (run.folds if shots else ())
    }
    return replace(run, shots=drawn)
