"""Hugging Face folders, read as data: nothing in them runs, and weights are safetensors.

A folder can name code of its own (``auto_map``), keep its weights as a pickle, which is a program,
and ask for kernels from the hub. All of that is refused here, and nothing of recap calls
``from_pretrained`` elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recap.errors import ConfigError
from recap.models.hub import WEIGHT_FILES, first_line

ADAPTER_WEIGHTS = "adapter_model.safetensors"
"""The file of an adapter's weights."""

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_WITHOUT_CODE = {"local_files_only": True, "trust_remote_code": False}


def read_model_config(folder: str | Path) -> Any:
    """Return the ``transformers`` configuration that ``config.json`` describes.

    Raises:
        ValueError: When it cannot be read, or names code to run.
    """
    from transformers import AutoConfig

    with _as_value_error():
        config = AutoConfig.from_pretrained(folder, **_WITHOUT_CODE)
        kernel = str(getattr(config, "_attn_implementation", None) or "")
    if "/" in kernel:
        raise ValueError("config.json asks for attention kernels from the hub, which is code")
    return config


def read_tokenizer(folder: str | Path) -> Any:
    """Return the tokenizer of a folder.

    Raises:
        ValueError: When it cannot be read, or names code to run.
    """
    from transformers import AutoTokenizer

    auto_tokenizer: Any = AutoTokenizer
    with _as_value_error():
        return auto_tokenizer.from_pretrained(folder, **_WITHOUT_CODE)


def read_model(auto_model: Any, folder: str | Path, **options: Any) -> Any:
    """Return what ``auto_model.from_pretrained`` makes of a folder's ``*.safetensors``.

    Args:
        auto_model: One of the ``AutoModel`` classes of ``transformers``.
        folder: A whole model, or the hub id of one that is in the local cache.
        options: Further arguments.

    Raises:
        ConfigError: When the weights are a pickle.
        ValueError: When they cannot be read, or the folder names code to run.
    """
    if Path(folder).is_dir():
        require_safetensors(Path(folder), str(folder))
    read_model_config(folder)
    with _as_value_error():
        return auto_model.from_pretrained(folder, use_safetensors=True, **_WITHOUT_CODE, **options)


def read_adapter(model: Any, folder: Path, *, name: str = "default") -> Any:
    """Return a PEFT model: a base with the adapter of a folder.

    Raises:
        ConfigError: When the adapter's weights are a pickle.
        ValueError: When they cannot be read, or do not fit.
    """
    from peft import PeftModel

    _require_adapter_weights(folder)
    with _as_value_error():
        return PeftModel.from_pretrained(model, str(folder), adapter_name=name)


def add_adapter(model: Any, folder: Path, *, name: str) -> None:
    """Add the adapter of a folder to a PEFT model; arguments and errors as :func:`read_adapter`."""
    _require_adapter_weights(folder)
    with _as_value_error():
        model.load_adapter(str(folder), adapter_name=name, is_trainable=False)


def require_safetensors(folder: Path, shown: str) -> None:
    """Check that a folder has weights that are data.

    Args:
        folder: Of a whole model.
        shown: What messages call it.

    Raises:
        ConfigError: When it has none, or a pickle in their place.
    """
    if any(next(folder.glob(pattern), None) for pattern in WEIGHT_FILES):
        return
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    if pickles:
        raise ConfigError(f"{shown} holds {_is_a_program(pickles[0])}")
    raise ConfigError(
        f"{shown} holds no *.safetensors; it has to be a folder in Hugging Face's format with the "
        "weights and tokenizer of the model (config.json, *.safetensors, tokenizer.json)"
    )


def _require_adapter_weights(folder: Path) -> None:
    """Refuse what peft would look for next: a pickle, or an adapter of that name on the hub."""
    if (folder / ADAPTER_WEIGHTS).is_file():
        return
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    if pickles:
        raise ConfigError(f"{folder} holds {_is_a_program(pickles[0])}")
    raise ConfigError(f"{folder}: lacks {ADAPTER_WEIGHTS}; copy the whole folder again")


def _is_a_program(name: str) -> str:
    return (
        f"no *.safetensors but {name}, a pickle: a program that would run with your rights. Get "
        "the weights as *.safetensors, or, where you trust who made them, convert them as "
        "docs/security.md shows"
    )


@contextmanager
def _as_value_error() -> Iterator[None]:
    """Have whatever the libraries raise about a folder be a ``ValueError`` with one line."""
    try:
        yield
    except (OSError, ValueError, ConfigError):
        raise
    except Exception as error:  # tokenizers, safetensors and peft raise their own, or plain ones
        raise ValueError(first_line(error)) from error
