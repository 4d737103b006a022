"""Solved examples for a prompt: one of each category, from the training part of a fold."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from recap.data.folds import content_key
from recap.errors import DataError
from recap.records import Example
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
    shots = []
    for category in _categories(task, categories):
        of_it = [row for row in rows if _belongs(row, category, task)]
        shown = [row for row in of_it if not task.rationale or (row.rationale or "").strip()]
        if not shown:
            raise DataError(_lacking(category, fold, bool(of_it), categories))
        shots.append(random.Random(f"{seed}/{fold}/{category}").choice(shown))
    random.Random(f"{seed}/{fold}").shuffle(shots)
    return tuple(shots)


def _categories(task: Task, categories: ShotCategories) -> tuple[str, ...]:
    if categories == "labels":
        return task.labels
    wanted = set(task.labels)
    leaves = task.taxonomy.leaves
    return tuple(leaf for leaf in leaves if wanted.intersection(task.taxonomy.lineage(leaf)))


def _belongs(example: Example, category: str, task: Task) -> bool:
    return example.label is not None and category in task.taxonomy.lineage(example.label)


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
