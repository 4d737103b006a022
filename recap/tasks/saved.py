"""A task as plain values and back, so that a model's folder can say what the model was taught."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from recap.errors import ConfigError
from recap.tasks.task import Task
from recap.taxonomy import Taxonomy, taxonomy_from_dict

_PLAIN = tuple(field.name for field in dataclasses.fields(Task) if field.name != "taxonomy")


def task_to_dict(task: Task) -> dict[str, Any]:
    """Return a task as what JSON can hold, its whole taxonomy included."""
    plain = {name: _plain(getattr(task, name)) for name in _PLAIN}
    return {**plain, "taxonomy": _taxonomy_to_dict(task.taxonomy)}


def task_from_saved(values: Mapping[str, Any]) -> Task:
    """Return the task that :func:`task_to_dict` wrote.

    Raises:
        ConfigError: When a key is missing or unknown, or the values make no task.
    """
    if set(values) != {*_PLAIN, "taxonomy"}:
        odd = ", ".join(sorted(set(values) ^ {*_PLAIN, "taxonomy"}))
        raise ConfigError(
            f"a saved task is not one of this version: it lacks or adds {odd}; "
            "use the version of recap that the model was trained with"
        )
    return Task(
        **{
            **values,
            "taxonomy": taxonomy_from_dict(values["taxonomy"]),
            "labels": tuple(values["labels"]),
        }
    )


def _taxonomy_to_dict(taxonomy: Taxonomy) -> dict[str, Any]:
    return {
        "name": taxonomy.name,
        "categories": [
            {key: _plain(value) for key, value in dataclasses.asdict(category).items()}
            for category in taxonomy.categories
        ],
        "rejected": dict(taxonomy.rejected),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value
