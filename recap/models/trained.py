"""Tuned models read back from their folders: whole ones, and adapters beside their base."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recap.errors import ConfigError
from recap.models.backbone import load_backbone
from recap.models.export import BASE_FOLDER
from recap.models.folders import add_adapter, read_adapter, read_model_config, read_tokenizer
from recap.models.hub import WEIGHT_FILES, first_line, hub_folder
from recap.models.merge import ADAPTER_CONFIG, base_of, is_adapter_folder
from recap.models.settings import SETTINGS_FILE, ModelSettings

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model ready to answer; ``adapter`` is to be switched on before each use, if there is one.

    Models whose ``model`` is the same object share their base.
    """

    model: Any
    tokenizer: Any
    adapter: str | None


def load_trained(
    folders: Sequence[Path],
    settings: Sequence[ModelSettings],
    *,
    base: str | Path | None = None,
    device: str = "auto",
    dtype: str | None = None,
) -> list[TrainedModel]:
    """Return the models of some folders; adapters over one base share it in memory.

    Args:
        folders: Hugging Face folders or PEFT adapters, as training writes them.
        settings: How each was trained.
        base: Folder or hub id of the adapters' base, where it is not where they say.
        device: ``cpu``, ``cuda`` or ``auto``: a GPU where there is one.
        dtype: Type of the weights in memory; by default what training computed in on a GPU, and on
            a CPU the type that the weights had.

    Raises:
        ConfigError: When a folder's weights or an adapter's base cannot be loaded.
    """
    device = _device(device)
    shared: dict[tuple[Any, ...], Any] = {}
    loaded = []
    for number, (folder, asked) in enumerate(zip(folders, settings, strict=True)):
        chosen = dtype or _dtype_for(device, asked)
        if not is_adapter_folder(folder):
            model = _loaded(folder, chosen, asked).to(device)
            loaded.append(_ready(model, folder, None))
            continue
        source = _base_folder(folder, base)
        key = (_identity(source), chosen, asked.quantize, asked.compute_dtype)
        name = f"stage{number}"
        if key in shared:
            add_adapter(shared[key], folder, name=name)
        else:
            shared[key] = _adapted(_loaded(source, chosen, asked), folder, name)
        shared[key].to(device)
        loaded.append(_ready(shared[key], folder, name))
    return loaded


def model_identity(folder: Path) -> str:
    """Return a hash that two folders with the same model share, wherever they are.

    It is of the small files, and of sizes and both ends of the weights: quick for any size.
    """
    digest = hashlib.sha256()
    files = [folder / name for name in (SETTINGS_FILE, ADAPTER_CONFIG, "config.json")]
    for file in files:
        if file.is_file():
            digest.update(_without_paths(file))
    for file in sorted(f for pattern in WEIGHT_FILES for f in folder.glob(pattern)):
        digest.update(f"{file.name}:{file.stat().st_size}:".encode())
        digest.update(_both_ends(file))
    for pattern in ("adapter_model*.safetensors",):
        for file in sorted(folder.glob(pattern)):
            digest.update(_both_ends(file))
    return digest.hexdigest()[:16]


def _without_paths(file: Path) -> bytes:
    """Return a JSON file's values without that which names a place on this machine."""
    values = json.loads(file.read_text(encoding="utf-8"))
    for key in ("base_model_name_or_path", "_name_or_path"):
        values.pop(key, None)
    return json.dumps(values, sort_keys=True).encode()


def _both_ends(file: Path) -> bytes:
    with file.open("rb") as opened:
        start = opened.read(_MIB)
        opened.seek(max(0, file.stat().st_size - _MIB))
        return start + opened.read(_MIB)


def _device(device: str) -> str:
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device={device}: there is no GPU here; set device=cpu, or leave it out")
    return device


def _dtype_for(device: str, settings: ModelSettings) -> str:
    if device != "cpu":
        return settings.compute_dtype
    # A CPU has no fast arithmetic of this type.
    return "float32" if settings.dtype == "float16" else settings.dtype


def _base_folder(folder: Path, base: str | Path | None) -> Path:
    named = str(base) if base is not None else base_of(folder)
    if Path(named).is_dir():
        return Path(named)
    if _HUB_ID.fullmatch(named):
        return hub_folder(named, named, "")
    raise ConfigError(
        f"{folder}: the adapter's base is not at {named}; put its weights back there, or name "
        "their folder with base=FOLDER"
    )


def _identity(base: Path) -> str:
    """Return what one base has in common: its place, or its content when an adapter brought it."""
    return model_identity(base) if base.name == BASE_FOLDER else str(base.resolve())


def _loaded(source: Path, dtype: str, settings: ModelSettings) -> Any:
    try:
        family = read_model_config(source).model_type
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{source}: holds no model that can be loaded ({first_line(error)}); it has to have "
            "config.json, *.safetensors and the tokenizer's files"
        ) from error
    model, _ = load_backbone(
        name=source.name,
        family=family,
        path=source,
        dtype=dtype,
        quantize=settings.quantize,
        compute_dtype=settings.compute_dtype,
    )
    return model


def _adapted(model: Any, folder: Path, name: str) -> Any:
    try:
        return read_adapter(model, folder, name=name)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folder}: this adapter does not fit its base ({first_line(error)}); name the base "
            "that it was trained on with base=FOLDER"
        ) from error


def _ready(model: Any, folder: Path, adapter: str | None) -> TrainedModel:
    try:
        tokenizer = read_tokenizer(folder)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folder}: its tokenizer cannot be loaded ({first_line(error)}); copy the whole "
            "folder again"
        ) from error
    return TrainedModel(
        model=model.eval().requires_grad_(False), tokenizer=tokenizer, adapter=adapter
    )
