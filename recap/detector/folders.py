"""Which model a folder of the user's stands for, and how that model is asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recap.build import build_task, model_settings
from recap.errors import ConfigError
from recap.models.merge import is_adapter_folder
from recap.models.settings import SETTINGS_FILE, ModelSettings, read_settings
from recap.run_folder import RunFolder, model_folder, read_config


@dataclass(frozen=True, kw_only=True)
class FoundModel:
    """A folder with weights or an adapter, and what it was taught."""

    folder: Path
    settings: ModelSettings


def find_model(folder: str | Path) -> FoundModel:
    """Return the model of a run's folder, a fold's folder, or a model's own.

    A run stands for its ``final`` model if there is one, else for the fold with the lowest
    selection loss. A model's folder has ``recap.json``, or lies where training put it.

    Raises:
        ConfigError: When there is no such folder, or no model in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such folder; name a run folder or a model's")
    if (folder / "config.yaml").is_file() and not _holds_model(folder):
        folder = model_folder(RunFolder(path=folder))
    elif (folder / "model").is_dir() and not _holds_model(folder):
        folder = folder / "model"
    if not _holds_model(folder):
        raise ConfigError(
            f"{folder}: holds no model; name a run folder, a fold's folder in it, or a folder with "
            "config.json or adapter_config.json"
        )
    return FoundModel(folder=folder, settings=_settings(folder))


def _holds_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() or is_adapter_folder(folder)


def _settings(folder: Path) -> ModelSettings:
    settings = read_settings(folder)
    if settings is not None:
        return settings
    run = folder.resolve().parent.parent
    if not (run / "config.yaml").is_file():
        raise ConfigError(
            f"{folder}: lacks {SETTINGS_FILE}, which says what the model was taught, and does not "
            "lie in a run folder; copy the folder whole from where it was trained"
        )
    config = read_config(run)
    return model_settings(config, build_task(config))
