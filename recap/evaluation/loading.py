"""Where a saved model is, which run it comes from, and the model itself."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from recap.build import build_task, model_settings
from recap.config import RunConfig
from recap.errors import ConfigError
from recap.models.merge import ADAPTER_CONFIG, is_adapter_folder
from recap.models.settings import SETTINGS_FILE, read_settings
from recap.models.trained import TrainedModel, load_trained
from recap.run_folder import RunFolder, model_folder, read_config
from recap.tasks.task import Task

_FOLD = re.compile(r"fold(\d+)")


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """A model on the disk, and what it was trained to do."""

    folder: Path
    config: RunConfig
    """Of the run that it comes from; without one, what ``recap.json`` and the command line say."""
    task: Task
    run: RunFolder | None
    """The run that it comes from, where its folder still lies in one."""
    fold: int | None
    """The fold that it was trained for; ``None`` for a final model, or one without a run."""


def find_model(path: Path, fallback: RunConfig, *, task_given: bool = False) -> SavedModel:
    """Return the model that a path stands for.

    A run folder stands for its final model if there is one, else for the fold with the lowest
    selection loss; with ``cv.fold`` set to a fold or ``final``, for that one. The folder of a fold
    stands for its model.

    Args:
        path: A run folder, a fold's folder, or a model's.
        fallback: Says what a model does that lies in no run folder; ``cv.fold`` and the run's own
            options are read from it. Where the model has a ``recap.json``, task and lengths are
            those in it.
        task_given: Whether the fallback's task was chosen by somebody, and must be the model's.

    Raises:
        ConfigError: When there is no model, it is a baseline's or another fold's, or has another
            task's labels.
    """
    fold = fallback.cv.fold
    if not path.is_dir():
        raise ConfigError(f"model={path}: there is no such folder; give a run's or a model's")
    if (path / "config.yaml").is_file():
        run = RunFolder(path=path)
        _refuse_baseline(run)
        folder = model_folder(run) if fold == "all" else run.part(fold).model
        if not folder.is_dir():
            raise ConfigError(
                f"{folder}: there is no such model (not trained, or not kept: keep_models); set "
                "cv.fold=all for the one that the run stands for"
            )
    else:
        folder = path / "model" if (path / "model").is_dir() else path
        if not (folder / "config.json").is_file() and not is_adapter_folder(folder):
            raise ConfigError(
                f"model={path}: is neither a run folder (config.yaml) nor a model's (config.json "
                f"or {ADAPTER_CONFIG}); give one of these"
            )
    return _saved(folder, fallback, task_given=task_given)


def load_saved(saved: SavedModel, *, accelerator: str = "auto") -> TrainedModel:
    """Return a saved model on its device, ready to answer.

    Raises:
        ConfigError: When it cannot be loaded.
    """
    if not is_adapter_folder(saved.folder):
        _refuse_encoder(saved.folder)
    settings = read_settings(saved.folder) or model_settings(saved.config, saved.task)
    device = {"gpu": "cuda"}.get(accelerator, accelerator)
    return load_trained([saved.folder], [settings], device=device)[0]


def _saved(folder: Path, fallback: RunConfig, *, task_given: bool) -> SavedModel:
    part, run = folder.parent, RunFolder(path=folder.parent.parent)
    if not run.config.is_file():
        return _without_run(folder, fallback, task_given=task_given)
    _refuse_baseline(run)
    config = read_config(run.path)
    number = _FOLD.fullmatch(part.name)
    fold = int(number[1]) if number else None
    asked = fallback.cv.fold
    if isinstance(asked, int) and asked != fold:
        raise ConfigError(
            f"cv.fold={asked}: {folder} was trained on most of that fold; give the run folder "
            f"(model={run.path}), so that each fold is labelled by its own model"
        )
    return SavedModel(folder=folder, config=config, task=build_task(config), run=run, fold=fold)


def _without_run(folder: Path, fallback: RunConfig, *, task_given: bool) -> SavedModel:
    settings = read_settings(folder)
    if settings is None:
        task = build_task(fallback)
        return SavedModel(folder=folder, config=fallback, task=task, run=None, fold=None)
    if task_given and set(build_task(fallback).labels) != set(settings.task.labels):
        raise ConfigError(
            f"task={fallback.task.name}: {folder} was trained for the labels of task "
            f"{settings.task.name!r} ({SETTINGS_FILE}); leave task out, or give another model"
        )
    config = replace(
        fallback,
        prompt=replace(fallback.prompt, max_tokens=settings.max_prompt_tokens),
        decoding=replace(fallback.decoding, max_new_tokens=settings.max_new_tokens),
    )
    return SavedModel(folder=folder, config=config, task=settings.task, run=None, fold=None)


def _refuse_baseline(run: RunFolder) -> None:
    baseline = read_config(run.path).baseline
    if baseline is not None:
        raise ConfigError(
            f"{run.path}: is the run of a baseline ({baseline.get('method')}), scored on its own "
            "folds already (summary.md); model= takes fine-tuned language models"
        )


def _refuse_encoder(folder: Path) -> None:
    names = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures")
    if names and not any("CausalLM" in str(name) for name in names):
        raise ConfigError(
            f"{folder}: holds {', '.join(map(str, names))}, no language model that answers; score "
            "an encoder with method=encoder encoder.path=FOLDER"
        )
