"""Checkpoints for resuming: written whole or not at all, found again wherever their folder went."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.distributed as dist
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.distributed.checkpoint.api import CheckpointException

from recap.data.batches import Batch
from recap.errors import ConfigError
from recap.models.sharded_checkpoint import read_rest, read_sharded, replace

_UNREADABLE = (
    *(RuntimeError, EOFError, pickle.UnpicklingError, OSError, KeyError),
    CheckpointException,  # a BaseException
)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds, its tensors mapped from the file.

    A folder that several devices wrote is read whole.

    Raises:
        ConfigError: When the file cannot be read, naming it.
    """
    with _readable(path):
        if path.is_dir():
            return read_sharded(path)
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return content


def read_progress(path: Path) -> tuple[int, int]:
    """Return the epoch (from 0) and the optimiser step that a checkpoint was written at.

    Raises:
        ConfigError: When it cannot be read, naming it.
    """
    if path.is_dir():
        with _readable(path):
            content = read_rest(path)
    else:
        content = read_checkpoint(path)
    return int(content["epoch"]), int(content["global_step"])


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        raise ConfigError(
            f"{path}: this checkpoint cannot be read ({type(error).__name__}), so the fold cannot "
            "go on from it; resume=never trains the fold again"
        ) from error


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames; Lightning's own save can leave half a file (2.6.6)."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint; until it is whole and on the disk, the old one stays."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        with partial.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        if target.is_dir():
            replace(partial, target)
        else:
            partial.replace(target)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Return a checkpoint of one device or several.

        Raises:
            ConfigError: When it cannot be read, naming it.
        """
        return read_checkpoint(Path(path))


class MovableCheckpoint(ModelCheckpoint):
    """A ``ModelCheckpoint`` that still knows its best score after its folder was moved or copied.

    Lightning forgets it then (2.6.6), and the next epoch, however bad, becomes the best one.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back the state, with its paths as they are now."""
        then, now = state_dict["dirpath"], self.dirpath

        def moved(path: str) -> str:
            return str(Path(str(now)) / Path(path).name) if path else path

        super().load_state_dict(
            {
                **state_dict,
                "dirpath": now,
                "best_model_path": moved(state_dict["best_model_path"]),
                "kth_best_model_path": moved(state_dict["kth_best_model_path"]),
                "last_model_path": moved(state_dict["last_model_path"]),
                "best_k_models": {moved(k): v for k, v in state_dict["best_k_models"].items()},
            }
            if then != now
            else state_dict
        )


class SaveOnTermination(lightning.Callback):
    """Ends a training that SIGTERM asks to end, with a checkpoint, on all devices at the same step.

    Inside an optimiser step there is nothing to save, for gradients are not part of a checkpoint:
    the step is finished first. Lightning's own answer to the signal sends a message to the other
    devices in the midst of whatever they are exchanging (2.6.6), so its handler is replaced by one
    that takes a note, and devices compare their notes where they all come by.

    Args:
        path: Where the checkpoint goes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._asked = False
        self._between_steps = False

    def on_fit_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Listen for the signal."""
        self._listen()

    def on_test_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Listen for the signal."""
        self._listen()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Ask for the end after a whole optimiser step."""
        self._between_steps = batch.plan.ends_step
        if self._between_steps:
            self._end_if_asked(trainer)

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Ask for the end after a batch."""
        self._end_if_asked(trainer)

    def on_test_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Ask for the end after a batch."""
        self._end_if_asked(trainer)

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        """Save, if the exception is Lightning's answer to the end that was asked for."""
        if isinstance(exception, SIGTERMException) and trainer.training and self._between_steps:
            trainer.save_checkpoint(self._path)

    def _listen(self) -> None:
        self._asked = False
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._note)

    def _note(self, number: int, frame: Any) -> None:
        self._asked = True

    def _end_if_asked(self, trainer: lightning.Trainer) -> None:
        asked = self._asked
        if trainer.world_size > 1:
            notes = torch.tensor(float(asked), device=trainer.strategy.root_device)
            dist.all_reduce(notes, op=dist.ReduceOp.MAX)
            asked = bool(notes)
        if asked:
            # Lightning raises SIGTERMException at the end of this batch.
            trainer._signal_connector.received_sigterm = True
