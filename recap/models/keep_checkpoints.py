"""When checkpoints are written: after epochs, every few optimiser steps, and before an end."""

from __future__ import annotations

import math
import signal
from typing import Any

import lightning
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from recap import termination
from recap.data.batches import Batch
from recap.models.checkpoint_folder import KEPT, CheckpointFolder

_RECENT, _BEST = 2, 2
"""How many checkpoints of either kind are kept; one may be of both kinds."""


class KeepCheckpoints(Checkpoint):
    """Keeps the two newest checkpoints and those of the two lowest selection losses so far.

    Written after every epoch, after every ``every_steps`` optimiser steps, and when SIGTERM or
    SIGUSR1 asks the training to end: after the step that is under way, on all devices after the
    same one. A training that goes on from any of them repeats the steps that were lost bit for bit.

    Gradients are not part of a checkpoint, so there is none between the micro-batches of a step.
    Nor is there one of steps after an epoch's last step before its validation: Lightning would go
    on behind it (2.6.6).

    Args:
        folder: Where they go.
        every_steps: Optimiser steps between two checkpoints within an epoch; ``None``: none.
        selecting: Whether there is a selection loss.
    """

    def __init__(
        self, folder: CheckpointFolder, *, every_steps: int | None = None, selecting: bool
    ) -> None:
        self._folder = folder
        self._every_steps = every_steps
        self._selecting = selecting
        self._recent: list[str] = []
        self._best: list[str] = []
        self._best_loss = math.inf
        self._stopping = False

    @property
    def state_key(self) -> str:
        """Where :class:`CheckpointFolder` finds the state in a checkpoint."""
        return KEPT

    def state_dict(self) -> dict[str, Any]:
        """Return which checkpoints are kept, this one included, and whether training ends here."""
        return {
            "recent": list(self._recent),
            "best": list(self._best),
            "best_loss": self._best_loss,
            "stopping": self._stopping,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state back."""
        self._recent, self._best = list(state_dict["recent"]), list(state_dict["best"])
        self._best_loss = state_dict["best_loss"]
        self._stopping = state_dict["stopping"]

    def on_test_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Listen for the signals."""
        termination.listen()

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Listen for the signals, delete what a kill left, and stop where training had stopped.

        Lightning's own handler sends a message to the other devices in the midst of whatever they
        are exchanging, and has begun to listen only after ``on_fit_start`` (2.6.6). The one that
        takes its place takes a note, and devices compare their notes where they all come by.
        """
        termination.listen()
        self._tidy(trainer)
        if self._stopping:
            # Lightning's checkpoints do not hold it, and would train one epoch more (2.6.6).
            trainer.should_stop = True

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Save if it is time, or if the end is asked for."""
        if not batch.plan.ends_step or trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return
        asked = _is_end_asked_for(trainer)
        if asked or (self._every_steps and trainer.global_step % self._every_steps == 0):
            self._save(trainer)
        if asked:
            raise SIGTERMException

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Save if the end is asked for."""
        if _is_end_asked_for(trainer):
            if trainer.state.fn == "fit":
                self._save(trainer)
            raise SIGTERMException

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Save, as the best if the selection loss is the lowest; end if that is asked for."""
        self._stopping = trainer.should_stop
        loss = float(trainer.callback_metrics["val_loss"]) if self._selecting else math.nan
        # Never so for a loss that is not a number.
        if loss < self._best_loss:
            self._best_loss = loss
            self._best = [self._next_name(), *self._best][:_BEST]
        self._save(trainer)
        if _is_end_asked_for(trainer):
            raise SIGTERMException

    def on_test_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """End if that is asked for."""
        if _is_end_asked_for(trainer):
            raise SIGTERMException

    def on_save_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Have a validation that is under way begin anew: what it has added up is not saved."""
        if trainer.validating:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            for counts in (progress["total"], progress["current"]):
                # Which is how Lightning knows a validation that was interrupted (2.6.6).
                counts |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            progress["is_last_batch"] = False

    def _save(self, trainer: lightning.Trainer) -> None:
        name = self._next_name()
        self._recent = [*self._recent, name][-_RECENT:]
        trainer.save_checkpoint(self._folder.path / name)
        self._tidy(trainer)

    def _tidy(self, trainer: lightning.Trainer) -> None:
        if trainer.is_global_zero:
            self._folder.keep_only({*self._recent, *self._best})

    def _next_name(self) -> str:
        last = max((int(name.partition(".")[0]) for name in self._recent), default=0)
        return f"{last + 1:06d}.ckpt"


def _is_end_asked_for(trainer: lightning.Trainer) -> bool:
    """Return whether a signal has come to any of the devices; all of them have to ask."""
    noted = termination.strongest_noted()
    if trainer.world_size > 1:
        notes = torch.tensor(float(noted), device=trainer.strategy.root_device)
        dist.all_reduce(notes, op=dist.ReduceOp.MAX)
        noted = int(notes)
        if noted == 1 + termination.SIGNALS.index(signal.SIGUSR1):
            termination.note(signal.SIGUSR1)
    return noted > 0
