"""Checkpoints for resuming: written whole or not at all, found again wherever their folder went."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from recap.data.batches import Batch
from recap.errors import ConfigError


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds, its tensors mapped from the file.

    Raises:
        ConfigError: When the file cannot be read, naming it.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError) as error:
        raise ConfigError(
            f"{path}: this checkpoint cannot be read ({type(error).__name__}), so the fold cannot "
            "go on from it; resume=never trains the fold again"
        ) from error
    return content


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
        partial.replace(target)


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
    """Saves a checkpoint when SIGTERM ends the training between two optimiser steps.

    Inside an optimiser step there is nothing to save: gradients are not part of a checkpoint.

    Args:
        path: Where it goes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._between_steps = False

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Note whether the optimiser has just stepped."""
        self._between_steps = batch.plan.ends_step

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        """Save, if the exception is Lightning's answer to SIGTERM."""
        if isinstance(exception, SIGTERMException) and trainer.training and self._between_steps:
            trainer.save_checkpoint(self._path)
