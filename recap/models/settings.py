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
_DTYPES = ("float32", "float16", "bfloat16", "float64")


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
        _check_types(values)
        return ModelSettings(**{**values, "task": task_from_saved(values["task"])})
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ConfigError) as error:
        raise ConfigError(
            f"{file}: cannot be used ({error}); copy it again from where the model was trained"
        ) from error


def _check_types(values: dict[str, Any]) -> None:
    """Refuse values of other types: names of types are looked up in torch, lengths are counted."""
    for key in ("dtype", "compute_dtype"):
        if values[key] not in _DTYPES:
            raise ConfigError(f"{key} has to be one of {', '.join(_DTYPES)}")
    for key in ("max_prompt_tokens", "max_new_tokens"):
        n = values[key]
        if key == "max_prompt_tokens" and n is None:
            continue
        if not isinstance(n, int) or isinstance(n, bool) or n < 1:
            raise ConfigError(f"{key} has to be a positive whole number")
    if not isinstance(values["quantize"], bool):
        raise ConfigError("quantize has to be true or false")
