"""Tasks by name: from YAML files (``conf/task/``), from installed packages, registered in Python.

A task can be written as plain values and back, so that a model's folder holds the task it learned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml

from recap.config import RunConfig, TaskConfig
from recap.errors import ConfigError, UnknownNameError, WrittenError, did_you_mean
from recap.registry import Registry
from recap.system.files import conf_dir, read_yaml
from recap.tasks.task import Task, define_task, read_prompt_file
from recap.taxonomy import Taxonomy, check_kinds, taxonomy_from_dict

TASK_KEYS = ("name", "taxonomy", "labels", "within", "role", "instruction")
"""What a task's YAML may hold; language, rationale and the like are options of the run."""


def builtin_task(name: str, **options: Any) -> Task:
    """Return the task of ``conf/task/<name>.yaml``; an ``UnknownNameError`` for none.

    ``options`` are fields of :class:`recap.tasks.task.Task`, such as ``language="zh"``.
    """
    return load_task_file(_conf_file("task", name, ()), **options)


def tasks_that_know(labels: Iterable[str]) -> list[str]:
    """Return the tasks, built in or of a ``conf/`` here, whose taxonomies know all labels."""
    labels, found = list(labels), []
    for folder in (conf_dir(), Path("conf")):
        for file in sorted(folder.glob("task/*.yaml")):
            try:
                known = load_task_file(file).taxonomy
            except ConfigError:
                continue  # it is another one that is asked for
            if all(known.find(label) is not None for label in labels):
                found.append(file.stem)
    return list(dict.fromkeys(found))


def load_task_file(path: Path, **options: Any) -> Task:
    """Return the task that a YAML file describes.

    A taxonomy given by name is looked for beside the file, in ``taxonomy/`` beside the file's
    folder, then among the built-in ones.

    Raises:
        ConfigError: When the file cannot be read or does not describe a task.
    """
    path = Path(path)
    folders = (path.parent, path.parent.parent / "taxonomy")
    data = read_yaml(path)
    # A file that also sets options of the run (Hydra's "@package _global_") nests the task.
    if isinstance(data.get("task"), dict):
        data = data["task"]
    with _told_with_line(path):
        return task_from_dict(data, default_name=path.stem, taxonomy_folders=folders, **options)


def task_from_dict(
    data: Mapping[str, Any],
    *,
    default_name: str | None = None,
    taxonomy_folders: Sequence[Path] = (),
    **options: Any,
) -> Task:
    """Return the task that a mapping describes, as YAML and Hydra give it.

    ``data`` holds ``taxonomy`` (a name, or the mapping of a taxonomy file), and if need be
    ``name``, ``labels``, ``within``, ``role`` and ``instruction`` (a text, or a text per language).
    A taxonomy is looked for in ``taxonomy_folders`` before the built-in one; ``options`` are fields
    of :class:`recap.tasks.task.Task`.

    Raises:
        ConfigError: For missing or unknown keys, naming them, and values of another kind.
    """
    check_kinds(data, _KINDS)
    name = data.get("name") or default_name or ""
    for key in data:
        if key not in TASK_KEYS:
            raise ConfigError(
                f"task {name!r} has the unknown key {key!r}{did_you_mean(str(key), TASK_KEYS)}; "
                f"known: {', '.join(TASK_KEYS)}"
            )
    if not name or not data.get("taxonomy"):
        raise ConfigError(
            f"task {name!r} lacks 'name' or 'taxonomy'; give both, the latter by name or in full"
        )
    taxonomy = data["taxonomy"]
    return define_task(
        name=name,
        taxonomy=(
            taxonomy_from_dict(taxonomy)
            if isinstance(taxonomy, Mapping)
            else load_taxonomy(str(taxonomy), folders=taxonomy_folders)
        ),
        labels=data.get("labels"),
        within=data.get("within"),
        role=data.get("role"),
        instruction=data.get("instruction"),
        **options,
    )


def load_taxonomy(name: str, *, folders: Sequence[Path] = ()) -> Taxonomy:
    """Return the taxonomy of ``<name>.yaml`` in one of ``folders``, else the built-in one.

    Raises:
        UnknownNameError: When there is none, with the closest name.
        ConfigError: When the file does not describe a taxonomy.
    """
    path = _conf_file("taxonomy", name, folders)
    data = read_yaml(path)
    with _told_with_line(path):
        return taxonomy_from_dict({"name": path.stem, **data})


def check_written_task(data: Mapping[str, Any], path: Path | None, taxonomy: Path | None) -> None:
    """Check the kinds of a task's values, its taxonomy's too; a ``ConfigError`` names the line.

    Each has the file that it stands in, where it has one.
    """
    with _told_with_line(path):
        check_kinds(data, _KINDS)
    written = data.get("taxonomy")
    if isinstance(written, Mapping):
        with _told_with_line(taxonomy or path):
            taxonomy_from_dict(written)


_KINDS = {
    "name": "text",
    "labels": "list",
    "within": "text",
    "role": "texts",
    "instruction": "texts",
}


@contextmanager
def _told_with_line(path: Path | None) -> Iterator[None]:
    try:
        yield
    except WrittenError as error:
        raise at_line(error, path) from None


def at_line(error: WrittenError, path: Path | None) -> ConfigError:
    """Return an error that also names the file and the line at which the value stands."""
    if path is None:
        return error
    root = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
    above: list[tuple[str, ...]] = [(), ("task",), ("taxonomy",), ("task", "taxonomy")]
    found = [_inner(root, (*keys, *error.keys)) for keys in above]
    line = max(found, key=lambda place: place[0])[1]
    return ConfigError(f"{path}:{line + 1}: {error}")


def _inner(node: Any, keys: Sequence[str | int]) -> tuple[int, int]:
    """Return how many of the last keys lead somewhere in a YAML node, and the line they lead to."""
    for depth, key in enumerate(keys):
        inner = None
        if isinstance(node, yaml.MappingNode):
            inner = next((v for k, v in node.value if k.value == str(key)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int):
            inner = node.value[key]
        if inner is None:
            return depth - len(keys), node.start_mark.line
        node = inner
    return 0, node.start_mark.line


def _conf_file(kind: str, name: str, folders: Sequence[Path]) -> Path:
    searched = [*folders, conf_dir() / kind]
    for folder in searched:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    known = sorted(path.stem for path in searched[-1].glob("*.yaml"))
    raise UnknownNameError(
        f"there is no {kind} {name!r}{did_you_mean(name, known)}; "
        f"known: {', '.join(known) or 'none'}"
    )


TaskSource = Task | Callable[..., Task]
"""A task, or a function that makes one from fields of :class:`Task` given by keyword."""

AnyTaskSource = TypeVar("AnyTaskSource", bound=TaskSource)

TASKS: Registry[Any] = Registry("task", entry_point_group="recap.tasks")
"""Every known task; packages add to it through the entry point group ``recap.tasks``."""

_BUILT_IN = {
    "binary": ("detection",),
    "fine_grained": ("fine-grained", "finegrained", "13-way"),
    "flat": ("14-way",),
    "annomi_talk": ("annomi-talk", "client_talk"),
}


def register_task(
    name: str, *, aliases: Iterable[str] = ()
) -> Callable[[AnyTaskSource], AnyTaskSource]:
    """Return a decorator that registers a task, or a function that makes one."""
    return TASKS.register(name, aliases=aliases)


def get_task(name: str, **options: Any) -> Task:
    """Return the task of a name, an alias or ``package.module:attribute``.

    ``options`` are fields of :class:`Task`, such as ``language="zh"`` or ``rationale=False``.

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


def build_task(config: RunConfig) -> Task:
    """Return a run's task with its prompt; a ``ConfigError`` for labels or a file of no use."""
    prompt = config.prompt
    options: dict[str, Any] = {
        "language": prompt.language or config.data.prompt_language,
        "rationale": config.rationale,
        "label_form": prompt.label_form,
        "style": prompt.style,
        "history": prompt.history,
        "layout": prompt.layout,
    }
    if prompt.file is not None:
        options["prompt_text"] = read_prompt_file(Path(prompt.file), language=options["language"])
    return configured_task(config.task, **options)


def configured_task(definition: TaskConfig, **options: Any) -> Task:
    """Return the task that a configuration defines or names, or raise a ``ConfigError``."""
    if definition.taxonomy is None:
        return get_task(definition.name, **options)
    return task_from_dict({key: getattr(definition, key) for key in TASK_KEYS}, **options)


for _name, _aliases in _BUILT_IN.items():
    register_task(_name, aliases=_aliases)(partial(builtin_task, _name))


_PLAIN = tuple(field.name for field in dataclasses.fields(Task) if field.name != "taxonomy")


def task_to_dict(task: Task) -> dict[str, Any]:
    """Return a task as what JSON can hold, its whole taxonomy included."""
    plain = {name: _plain(getattr(task, name)) for name in _PLAIN}
    taxonomy = {
        "name": task.taxonomy.name,
        "categories": [
            {key: _plain(value) for key, value in dataclasses.asdict(category).items()}
            for category in task.taxonomy.categories
        ],
        "rejected": dict(task.taxonomy.rejected),
    }
    return {**plain, "taxonomy": taxonomy}


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
    taxonomy, labels = taxonomy_from_dict(values["taxonomy"]), tuple(values["labels"])
    return Task(**{**values, "taxonomy": taxonomy, "labels": labels})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value
