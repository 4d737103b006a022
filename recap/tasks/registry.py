"""Tasks by name: the built-in ones, those of installed packages, and those registered in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from recap.errors import ConfigError
from recap.registry import Registry
from recap.tasks.library import builtin_task
from recap.tasks.task import Task

TaskSource = Task | Callable[..., Task]
"""A task, or a function that makes one from fields of :class:`Task` given by keyword."""

Source = TypeVar("Source", bound=TaskSource)

TASKS: Registry[Any] = Registry("task", entry_point_group="recap.tasks")
"""Every known task; packages add to it through the entry point group ``recap.tasks``."""

_BUILT_IN = {
    "binary": ("detection",),
    "fine_grained": ("fine-grained", "finegrained", "13-way"),
    "flat": ("14-way",),
    "annomi_talk": ("annomi-talk", "client_talk"),
}


def register_task(name: str, *, aliases: Iterable[str] = ()) -> Callable[[Source], Source]:
    """Return a decorator that registers a task, or a function that makes one.

    Raises:
        ConfigError: When a name is taken.
    """
    return TASKS.register(name, aliases=aliases)


def get_task(name: str, **options: Any) -> Task:
    """Return the task of a name, an alias or ``package.module:attribute``.

    Args:
        name: Of the task.
        options: Fields of :class:`Task`, such as ``language="zh"`` or ``rationale=False``.

    Raises:
        UnknownNameError: When there is none, with the closest name.
        ConfigError: When what is registered is no task.
    """
    source = TASKS.get(name)
    try:
        task = replace(source, **options) if isinstance(source, Task) else source(**options)
    except TypeError as error:
        raise ConfigError(
            f"task {name!r} stands for something that takes no fields of a task ({error}); "
            "register a Task or a function that returns one"
        ) from error
    if not isinstance(task, Task):
        raise ConfigError(
            f"task {name!r} stands for a {type(task).__name__}; "
            "register a Task or a function that returns one"
        )
    return task


for _name, _aliases in _BUILT_IN.items():
    register_task(_name, aliases=_aliases)(partial(builtin_task, _name))
