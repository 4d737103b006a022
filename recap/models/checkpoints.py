"""The checkpoints of one training, each written whole or not at all, and the disk space for them.

Lightning's own save (2.6.6) leaves half a file where the temporary folder is on another disk, and
puts the whole checkpoint together in memory first. Here checkpoints are numbered in the order in
which they were written, and one never takes the place of another, so that a kill can at most leave
a partial one behind. The newest whole one is what a training goes on from.
"""

from __future__ import annotations

import logging
import os
import pickle
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException

from recap.errors import ConfigError
from recap.models.sharded_checkpoints import (
    fault_of,
    partial_of,
    read_rest,
    read_sharded,
    save_digested,
)
from recap.system.files import sync, write_atomic, writing

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
    """Return the epoch (from 0) and the optimizer step that a checkpoint was written at.

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


KEPT = "KeepCheckpoints"
"""Under which key of a checkpoint's callbacks it stands which ones are kept, and why."""

_TRAINED = "trained"
_LOG = logging.getLogger(__name__)


class CheckpointFolder:
    """The folder ``checkpoints/`` of a fold.

    Args:
        path: Need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._warned: set[Path] = set()

    def newest(self) -> Path | None:
        """Return the newest checkpoint that is as it was written, ``None`` when there is none.

        Raises:
            ConfigError: When there are some, and none of them is whole.
        """
        there = sorted(self.path.glob("*.ckpt"), reverse=True)
        found = self._first_whole(there)
        if there and found is None:
            raise ConfigError(
                f"{there[0]}: this checkpoint {fault_of(there[0])}, and there is no whole one "
                "before it to go on from; resume=never trains the fold again"
            )
        return found

    def stage(self) -> tuple[str, int] | None:
        """Return the stage and the optimizer step of the newest checkpoint.

        The stage is ``"train"``, or ``"decode"`` once the training is over; ``None``: a fresh
        start.

        Raises:
            ConfigError: As :meth:`newest`.
        """
        newest = self.newest()
        if newest is None:
            return None
        step, mark = read_progress(newest)[1], self.path / _TRAINED
        done = mark.is_file() and mark.read_text(encoding="utf-8") == str(step)
        return ("decode" if done else "train"), step

    def mark_trained(self) -> None:
        """Write down that the training ended with the newest checkpoint."""
        newest = self.newest()
        assert newest is not None
        write_atomic(self.path / _TRAINED, str(read_progress(newest)[1]))

    def best(self) -> Path:
        """Return the checkpoint of the lowest selection loss, or the best one before it.

        Raises:
            ConfigError: When no selection loss was a number, or no such checkpoint is whole.
        """
        newest = self.newest()
        names = [] if newest is None else self._kept(newest)["best"]
        if not names:
            raise ConfigError(
                f"{self.path}: the selection loss was no finite number after any epoch, so there "
                "is no best one; lower optimizer.learning_rate, or set trainer.precision=32-true"
            )
        found = self._first_whole([self.path / name for name in names])
        if found is None:
            raise ConfigError(
                f"{self.path / names[0]}: the best checkpoint is not whole, and there is none "
                "before it; resume=never trains the fold again"
            )
        return found

    def clear(self) -> None:
        """Delete everything."""
        shutil.rmtree(self.path, ignore_errors=True)

    def keep_only(self, names: Collection[str]) -> None:
        """Delete everything but checkpoints of these names: what a kill left behind, too."""
        if not self.path.is_dir():
            return
        for other in self.path.iterdir():
            if other.name not in names:
                if other.is_dir():
                    shutil.rmtree(other)
                else:
                    other.unlink()

    def _first_whole(self, paths: list[Path]) -> Path | None:
        for path in paths:
            fault = fault_of(path) if path.exists() else "is not there any more"
            if fault is None:
                return path
            if path not in self._warned:
                self._warned.add(path)
                _LOG.warning("%s: this checkpoint %s; the one before it is taken", path, fault)
        return None

    @staticmethod
    def _kept(checkpoint: Path) -> dict[str, Any]:
        kept: dict[str, Any] = read_head(checkpoint)["callbacks"][KEPT]
        return kept


_AT_ONCE = 3
"""Two whole checkpoints and one that is being written: no training of three saves has fewer."""

_GIGABYTE = 1e9


def require_free_space(folder: Path, model: Any, *, optimizer: str, n_saves: int) -> None:
    """Check that there is disk space for a training's checkpoints and its model.

    What is required is the least that the training will need, so that no run that could end is
    refused; quotas are not seen.

    Args:
        folder: Where the checkpoints go; what lies there already is not needed again.
        model: A model or an adapted one; its trainable weights are in the checkpoints.
        optimizer: Its registered name.
        n_saves: Checkpoints that are written at least.

    Raises:
        ConfigError: With what is needed and what is there.
    """
    needed = least_bytes(model, optimizer=optimizer, n_saves=n_saves) - _bytes_in(folder)
    there = folder
    while not there.is_dir():
        there = there.parent
    free = shutil.disk_usage(there).free
    if needed > free:
        raise ConfigError(
            f"{folder}: training needs at least {needed / _GIGABYTE:.3f} GB on this disk for its "
            f"checkpoints and the model, and {free / _GIGABYTE:.3f} GB are free; make room, set "
            "runs_dir to a folder on another disk, or tune less (finetune=lora)"
        )


def least_bytes(model: nn.Module, *, optimizer: str, n_saves: int) -> int:
    """Return how many bytes checkpoints and the model take together, at least.

    A checkpoint holds trainable weights and the optimizer's moments: two numbers a weight, of its
    own type (torch's AdamW), of 32 bits or of 8 (bitsandbytes 0.50). Nothing is assumed of other
    optimizers.
    """
    weights = list(model.parameters())
    tuned = [weight for weight in weights if weight.requires_grad]
    checkpoint = _bytes(tuned) + sum(_moments(weight, optimizer) for weight in tuned)
    # Only what is tuned is written where the rest is frozen.
    exported = _bytes(tuned)
    training = min(n_saves, _AT_ONCE) * checkpoint
    exporting = min(n_saves, _AT_ONCE - 1) * checkpoint + exported
    return max(training, exporting)


def _moments(weight: Tensor, optimizer: str) -> int:
    width = {"adamw": weight.element_size(), "paged_adamw32bit": 4}.get(optimizer, 0)
    width = 1 if optimizer in ("adamw8bit", "paged_adamw8bit") else width
    return 2 * width * weight.numel()


def _bytes(weights: list[Any]) -> int:
    return sum(weight.numel() * weight.element_size() for weight in weights)


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
