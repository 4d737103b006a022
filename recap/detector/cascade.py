"""How stages are put together: which models, which label leads on, which threshold applies."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from recap.errors import ConfigError
from recap.tasks.task import Task


def stage_folders(
    model: str | Path | None, binary: str | Path | None, fine_grained: str | Path | None
) -> list[str | Path]:
    """Return the folders of the stages, in their order.

    Raises:
        ConfigError: When neither one model nor both stages are named.
    """
    if model is not None and binary is None and fine_grained is None:
        return [model]
    if model is None and binary is not None and fine_grained is not None:
        return [binary, fine_grained]
    raise ConfigError("name one model (model=FOLDER), or both stages (binary= and fine_grained=)")


def in_language(task: Task, language: Literal["en", "zh"] | None) -> Task:
    """Return the task in a language, in its own for ``None``."""
    return task if language is None else dataclasses.replace(task, language=language)


def find_gate(first: Task, second: Task) -> str:
    """Return the label of the first stage that the second stage's labels lie below.

    Raises:
        ConfigError: When there is none.
    """
    above = [set(second.taxonomy.lineage(label)[1:]) for label in second.labels]
    gates = [label for label in first.labels if all(label in names for names in above)]
    if len(gates) != 1:
        raise ConfigError(
            f"tasks {first.name!r} and {second.name!r} make no cascade: no label of the first lies "
            "above all labels of the second; name a model of the binary task with binary= and one "
            "of the fine-grained task with fine_grained="
        )
    return gates[0]


def one_label(
    threshold: float | Mapping[str, float] | None,
) -> float | tuple[str, float] | None:
    """Return a threshold as a value that can be compared.

    Raises:
        ConfigError: When it names several labels, or none.
    """
    if not isinstance(threshold, Mapping):
        return threshold
    if len(threshold) != 1:
        raise ConfigError("threshold takes one label, such as {'Resistance': 0.3}")
    return next(iter(threshold.items()))


def first_label_threshold(
    threshold: float | tuple[str, float] | None, task: Task, gate: str | None
) -> float | None:
    """Return from which probability on the first of two labels is decided for.

    Args:
        threshold: Of a named label; without a name, of the gate, else of the first label.
        task: Of the first stage.
        gate: The label that leads on to the second stage, if there is one.

    Raises:
        ConfigError: When the task has no such label or not two, or the number is no probability.
    """
    if threshold is None:
        return None
    named = threshold if isinstance(threshold, tuple) else (gate or task.labels[0], threshold)
    label, least = named
    if label not in task.labels or len(task.labels) != 2:
        raise ConfigError(
            f"threshold: {label!r} is not one of two labels of task {task.name!r}, and a threshold "
            "decides between two; leave it out, or use a model of two labels"
        )
    if not 0 <= least <= 1:
        raise ConfigError(f"threshold: {least:g} is no probability; give a number from 0 to 1")
    # The second label is decided for from ``least`` on: the first one above what is left.
    return least if label == task.labels[0] else math.nextafter(1 - least, 2)
