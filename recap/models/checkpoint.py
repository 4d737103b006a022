"""One checkpoint for resuming: written whole or not at all, compared with its checksum when read.

Lightning's own save (2.6.6) leaves half a file where the temporary folder is on another disk, and
puts the whole checkpoint together in memory first.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch.distributed.checkpoint.api import CheckpointException

from recap.disks import sync, writing
from recap.errors import ConfigError
from recap.models.digests import fault_of, save_digested
from recap.models.sharded_checkpoint import partial_of, read_rest, read_sharded

_UNREADABLE = (
    *(RuntimeError, EOFError, pickle.UnpicklingError, OSError, KeyError),
    CheckpointException,  # a BaseException
)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds, its tensors mapped from the file.

    A folder that several devices wrote is read whole.

    Raises:
        ConfigError: When it is not what was written, or cannot be read, naming it.
    """
    with _readable(path):
        if path.is_dir():
            return read_sharded(path)
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return content


def read_head(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds beside tensors that are spread over devices.

    Raises:
        ConfigError: As :func:`read_checkpoint`.
    """
    if not path.is_dir():
        return read_checkpoint(path)
    with _readable(path):
        return read_rest(path)


def read_progress(path: Path) -> tuple[int, int]:
    """Return the epoch (from 0) and the optimiser step that a checkpoint was written at.

    Raises:
        ConfigError: As :func:`read_checkpoint`.
    """
    content = read_head(path)
    return int(content["epoch"]), int(content["global_step"])


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        fault = fault_of(path)
        if fault is None:
            yield
            return
    except _UNREADABLE as error:
        raise ConfigError(
            f"{path}: this checkpoint cannot be read ({type(error).__name__}), so the fold cannot "
            "go on from it; resume=never trains the fold again"
        ) from error
    raise ConfigError(
        f"{path}: this checkpoint {fault}, so the fold cannot go on from it; "
        "resume=never trains the fold again"
    )


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, onto the disk, and renames."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint; until it is whole and on the disk, the old one stays.

        Raises:
            OSError: When the disk does not take it, naming the file.
        """
        target = Path(path)
        partial = partial_of(target)
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                save_digested(checkpoint, partial)
            except OSError:
                partial.unlink(missing_ok=True)
                raise
            partial.replace(target)
            sync(target.parent)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Return a checkpoint of one device or several.

        Raises:
            ConfigError: When it is not what was written, or cannot be read, naming it.
        """
        return read_checkpoint(Path(path))
