"""What a model's folder says of how the model is asked: ``recap.json``, beside the weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recap.errors import ConfigError
from recap.tasks.saved import task_from_saved, task_to_dict
from recap.tasks.task import Task

SETTINGS_FILE = "recap.json"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """How a tuned model was asked while it was trained, and in which types it computed.

    Enough to ask it the same way on another machine; nothing of the data, and no path.
    """

    task: Task
    """Labels, prompt and answer format."""
    max_prompt_tokens: int | None = None
    """Longest prompt; longer ones lost whole oldest turns."""
    max_new_tokens: int = 128
    """Longest answer."""
    dtype: str = "float32"
    """Type of the weights in memory, by its name in torch."""
    compute_dtype: str = "float32"
    """Type that matrices were multiplied in."""
    quantize: bool = False
    """Whether an adapter's base was held in 4 bits."""


def settings_text(settings: ModelSettings) -> str:
    """Return the text of ``recap.json``."""
    values = {
        "format": _FORMAT,
        "task": task_to_dict(settings.task),
        "max_prompt_tokens": settings.max_prompt_tokens,
        "max_new_tokens": settings.max_new_tokens,
        "dtype": settings.dtype,
        "compute_dtype": settings.compute_dtype,
        "quantize": settings.quantize,
    }
    return json.dumps(values, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def read_settings(folder: Path) -> ModelSettings | None:
    """Return what a model's folder says, ``None`` where it has no ``recap.json``.

    Raises:
        ConfigError: When the file cannot be read, or is of another version.
    """
    file = folder / SETTINGS_FILE
    if not file.is_file():
        return None
    try:
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if values.pop("format") != _FORMAT:
            raise ConfigError("it was written by another version of recap")
        return ModelSettings(**{**values, "task": task_from_saved(values["task"])})
    except (OSError, ValueError, TypeError, KeyError, ConfigError) as error:
        raise ConfigError(
            f"{file}: cannot be used ({error}); copy it again from where the model was trained"
        ) from error
