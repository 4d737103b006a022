"""Models of the Hugging Face hub: from this machine's cache, or fetched when the hub can be had."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from recap.environment import switch_telemetry_off
from recap.errors import ConfigError

HUB_TIMEOUT_SECONDS = 8.0
"""How long the hub may take to answer before a run without weights is given up."""

WEIGHT_FILES = ("*.safetensors",)
"""Files of which a folder with weights has at least one: pickles are programs."""

_NOT_NEEDED = (
    *("original/*", "*.gguf", "*.h5", "*.msgpack", "*.ot", "*.onnx"),
    *("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.py"),
)
"""The same weights in other formats, those that are programs among them, and programs."""


def hub_folder(hub_id: str, name: str, family: str, *, group: str = "backbone") -> Path:
    """Return where a model's files are on this machine; fetch them when they can be had.

    Args:
        hub_id: Such as ``Qwen/Qwen2.5-7B-Instruct``.
        name: The model's name, for messages.
        family: ``qwen2`` or ``llama``, whose licence has to be accepted.
        group: The options that it is chosen by, for messages.

    Raises:
        ConfigError: When the files are not here and cannot be fetched; within seconds when the hub
            does not answer.
    """
    switch_telemetry_off()
    from huggingface_hub import snapshot_download

    cached = _cached_folder(hub_id)
    if cached is not None:
        return cached
    _require_hub(hub_id, name, family, group)
    try:
        return Path(snapshot_download(hub_id, ignore_patterns=list(_NOT_NEEDED)))
    except (
        Exception
    ) as error:  # the client raises its own, httpx's and the operating system's errors
        raise _no_weights(hub_id, name, family, group, first_line(error)) from error


def _cached_folder(hub_id: str) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(hub_id, local_files_only=True))
    except Exception:  # noqa: BLE001 - nothing cached, or unreadable: the hub is asked next
        return None
    return folder if _is_complete(folder) else None


def _is_complete(folder: Path) -> bool:
    """Return whether a cached model has all of its files; a download may have been cut off."""
    if not (folder / "config.json").is_file():
        return False
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return all((folder / shard).is_file() for shard in shards)
    return any(next(folder.glob(pattern), None) for pattern in WEIGHT_FILES)


def _require_hub(hub_id: str, name: str, family: str, group: str) -> None:
    """Fail when the hub does not answer for this model within seconds."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        raise _no_weights(hub_id, name, family, group, "HF_HUB_OFFLINE is set")
    failure: list[str] = ["the hub did not answer"]

    def ask() -> None:
        try:
            HfApi().model_info(hub_id, timeout=HUB_TIMEOUT_SECONDS)
            failure.clear()
        except Exception as error:  # noqa: BLE001 - reported below, whatever it is
            failure[:] = [first_line(error)]

    # In a thread: looking a host name up has no timeout of its own.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(HUB_TIMEOUT_SECONDS)
    if failure:
        raise _no_weights(hub_id, name, family, group, failure[0])


def _no_weights(hub_id: str, name: str, family: str, group: str, why: str) -> ConfigError:
    licence = (
        " (after accepting its licence on the hub and `hf auth login`)" if family == "llama" else ""
    )
    return ConfigError(
        f"the weights of {group} {name!r} ({hub_id}) are not on this machine and cannot be "
        f"fetched: {why}. On a machine with access run "
        f"`hf download {hub_id} --local-dir FOLDER`{licence}, copy FOLDER here and add "
        f"{group}.path=FOLDER; or use {group}=tiny, which needs no download"
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, of at most 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
