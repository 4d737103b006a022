"""What annotators said, read as the options say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from recap.analysis.judgements import Judgement
from recap.corpus_actions.options import CorpusConfig
from recap.corpus_actions.sources import LONGEST_RAW_LABEL, MOST_RAW_LABELS, find_task
from recap.data.judgement_columns import USUAL_NAMES, JudgementLayout
from recap.data.judgements import Judgements, read_judgements
from recap.errors import ConfigError, DataError, did_you_mean
from recap.tasks.task import Task

OF_THE_DATA = ("agreement", "adjudicate")
"""Actions that look for annotations in the data's own file where no other is named."""


def open_annotations(config: CorpusConfig) -> Judgements:
    """Return the judgements under the labels of the task.

    A label finer than the task's becomes the one above it; one outside the task stays.

    Raises:
        ConfigError: When no file is named.
        DataError: When it cannot be used.
    """
    task = find_task(config) if config.labels == "canonical" else None
    options = config.annotations
    found = read_judgements(
        annotation_paths(config),
        layout=JudgementLayout(
            columns=_columns(config),
            annotators=tuple(options.annotators or ()),
            multi_label=options.multi_label,
            label_names=options.label_names,
        ),
        taxonomy=task.taxonomy if task is not None else None,
        skip_faults=config.data.on_error == "skip",
    )
    if task is None:
        _refuse_texts({judgement.label for judgement in found.judgements})
        return found
    return replace(found, judgements=tuple(_of_task(task, j) for j in found.judgements))


def annotation_paths(config: CorpusConfig) -> list[Path]:
    """Return the files that hold annotations.

    Raises:
        ConfigError: When there are none.
    """
    path = config.annotations.path
    if not path and config.action in OF_THE_DATA and config.data.path is not None:
        return [Path(config.data.path)]
    if not path:
        raise ConfigError(
            f"action={config.action}: needs annotations.path=FILE (a table, a zip or a folder of "
            "Doccano exports)"
        )
    return [named_path("annotations.path", part) for part in several(path)]


def _columns(config: CorpusConfig) -> dict[str, str | list[str] | None]:
    """Return the named columns; where the data's own file is read, also what names those."""
    named = {role: name for role, name in config.annotations.columns.items() if name is not None}
    of_data = config.data.options.get("columns") if not config.annotations.path else None
    shared = of_data if isinstance(of_data, dict) else {}
    return {**{role: shared[role] for role in USUAL_NAMES if shared.get(role)}, **named}


def several(path: str | list[str]) -> list[str]:
    """Return the paths of an option that takes one or more."""
    return [path] if isinstance(path, str) else path


def named_path(option: str, path: str) -> Path:
    """Return the path that an option names.

    Raises:
        ConfigError: When nothing is there.
    """
    found = Path(path).expanduser()
    if not found.exists():
        beside = [p.name for p in found.parent.iterdir()] if found.parent.is_dir() else []
        raise ConfigError(
            f"{option}={path}: there is no such file{did_you_mean(found.name, beside)}"
        )
    return found


def label_order(config: CorpusConfig) -> tuple[str, ...]:
    """Return labels in the order of the taxonomy, none for ``labels=raw``."""
    if config.labels != "canonical":
        return ()
    task = find_task(config)
    return (*task.labels, *task.taxonomy.leaves)


def reading_notes(found: Judgements) -> list[str]:
    """Return a sentence on rows that are no judgement, when some are."""
    notes = []
    if found.unlabelled:
        notes.append(f"{found.unlabelled:,} rows or cells hold no label and are no judgement")
    if found.rows_rejected:
        notes.append(f"{found.rows_rejected:,} of {found.rows_read:,} rows were left out")
    return notes


def label_of_task(task: Task, label: str) -> str:
    """Return the task's label at or above one of the taxonomy, itself where there is none."""
    above = [name for name in task.taxonomy.lineage(label) if name in task.labels]
    return above[0] if above else label


def canonical_label(config: CorpusConfig, label: str) -> str:
    """Return a label of the taxonomy as one of the task, itself for ``labels=raw``."""
    return label_of_task(find_task(config), label) if config.labels == "canonical" else label


def _refuse_texts(labels: set[str]) -> None:
    """Refuse labels that may be client text, which tables would print."""
    if len(labels) > MOST_RAW_LABELS or max(map(len, labels)) > LONGEST_RAW_LABEL:
        raise DataError(
            f"labels=raw: more than {MOST_RAW_LABELS} different labels, or one of more than "
            f"{LONGEST_RAW_LABEL} characters: is this the column of labels? name it with "
            "annotations.columns.label"
        )


def _of_task(task: Task, judgement: Judgement) -> Judgement:
    return replace(judgement, label=label_of_task(task, judgement.label))
