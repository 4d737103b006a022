"""Callbacks of a training: when checkpoints are written, and steps that would spoil the weights.

A step whose loss or gradient is no finite number would make every weight NaN, and every later
checkpoint with them: it is skipped, counted, in the end fatal.
"""

from __future__ import annotations

import logging
import math
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from recap.data.batches import Batch
from recap.errors import ConfigError, quote_id
from recap.models.checkpoints import (
    KEPT,
    CheckpointFolder,
    partial_of,
    read_checkpoint,
    save_digested,
)
from recap.models.module import gather_over_devices
from recap.system import processes as termination
from recap.system.files import sync, writing

_RECENT, _BEST = 2, 2
"""How many checkpoints of either kind are kept; one may be of both kinds."""


class KeepCheckpoints(Checkpoint):
    """Keeps the two newest checkpoints and those of the two lowest selection losses so far.

    Written after every epoch, after every ``every_steps`` optimizer steps, and when SIGTERM or
    SIGUSR1 asks the training to end: after the step that is under way, on all devices after the
    same one. A training that goes on from any of them repeats the steps that were lost bit for bit.

    Gradients are not part of a checkpoint, so there is none between the micro-batches of a step.
    Nor is there one of steps after an epoch's last step before its validation: Lightning would go
    on behind it (2.6.6).
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

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen for the signals."""
        termination.listen()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
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
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Save if it is time, or if a stop was requested."""
        if not batch.plan.ends_step or trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return
        stop = _is_stop_requested(trainer)
        if stop or (self._every_steps and trainer.global_step % self._every_steps == 0):
            self._save(trainer)
        if stop:
            raise SIGTERMException

    def on_validation_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Save if a stop was requested."""
        if _is_stop_requested(trainer):
            if trainer.state.fn == "fit":
                self._save(trainer)
            raise SIGTERMException

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, as the best if the selection loss is the lowest; stop if that was requested."""
        self._stopping = trainer.should_stop
        loss = float(trainer.callback_metrics["val_loss"]) if self._selecting else math.nan
        # Never so for a loss that is not a number.
        if loss < self._best_loss:
            self._best_loss = loss
            self._best = [self._next_name(), *self._best][:_BEST]
        self._save(trainer)
        if _is_stop_requested(trainer):
            raise SIGTERMException

    def on_test_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Stop if that was requested."""
        if _is_stop_requested(trainer):
            raise SIGTERMException

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Have a validation that is under way begin anew: what it has added up is not saved."""
        if trainer.validating:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            for counts in (progress["total"], progress["current"]):
                # Which is how Lightning knows a validation that was interrupted (2.6.6).
                counts |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            progress["is_last_batch"] = False

    def _save(self, trainer: Trainer) -> None:
        name = self._next_name()
        self._recent = [*self._recent, name][-_RECENT:]
        trainer.save_checkpoint(self._folder.path / name)
        self._tidy(trainer)

    def _tidy(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            self._folder.keep_only({*self._recent, *self._best})

    def _next_name(self) -> str:
        last = max((int(name.partition(".")[0]) for name in self._recent), default=0)
        return f"{last + 1:06d}.ckpt"


def _is_stop_requested(trainer: Trainer) -> bool:
    """Return whether a signal has come to any of the devices; all of them have to call this."""
    noted = _largest(termination.strongest_noted(), trainer)
    if trainer.world_size > 1 and noted == 1 + termination.SIGNALS.index(signal.SIGUSR1):
        termination.note(signal.SIGUSR1)
    return noted > 0


def _largest(number: int, trainer: Trainer) -> int:
    """Return the largest number of any device; every device has to call this."""
    if trainer.world_size == 1:
        return number
    numbers = torch.tensor(float(number), device=trainer.strategy.root_device)
    dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
    return int(numbers)


_MOST_NAMED = 8
_LOG = logging.getLogger(__name__)


class FiniteSteps(Callback):
    """Skips optimizer steps that would spoil the weights, and stops after ``most_in_a_row``.

    Weights, moments and decay stay as they are; the step counts, so that the learning rate moves
    on. Under ``16-mixed`` gradients that overflow are the loss scaler's affair, and only the loss
    is looked at. ``skipped`` counts the steps so far.
    """

    def __init__(self, most_in_a_row: int) -> None:
        self.skipped = 0
        self._in_a_row = 0
        self._most_in_a_row = most_in_a_row
        self._ids: list[list[str]] = []
        self._finite: list[torch.Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the counts."""
        return {"skipped": self.skipped, "in_a_row": self._in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the counts back."""
        self.skipped, self._in_a_row = state_dict["skipped"], state_dict["in_a_row"]

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Note which examples the next loss is of."""
        self._ids.append([example.id for example in batch.examples])

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor
    ) -> None:
        """Note whether a micro-batch's loss is finite."""
        self._finite.append(torch.isfinite(loss.detach()))

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Drop the step's gradients if anything about them is not finite.

        A ``ConfigError`` names the examples of the last one of too many such steps in a row.
        """
        finite = torch.stack(self._finite).tolist()
        step_ids, self._ids, self._finite = self._ids, [], []
        judges_gradients = getattr(trainer.precision_plugin, "scaler", None) is None
        whole = all(finite) and (not judges_gradients or _has_finite_gradients(optimizer))
        if not _largest(int(not whole), trainer):
            self._in_a_row = 0
            return
        # An optimizer leaves weights without a gradient alone.
        optimizer.zero_grad(set_to_none=True)
        self.skipped += 1
        self._in_a_row += 1
        suspects = [ids for ids, is_finite in zip(step_ids, finite, strict=True) if not is_finite]
        suspects = suspects or ([] if whole else step_ids)
        ids = gather_over_devices([id_ for batch in suspects for id_ in batch])
        named = _named(list(dict.fromkeys(ids)))
        step = trainer.global_step + 1
        if trainer.is_global_zero:
            _LOG.warning(
                "optimizer step %d skipped, the loss or its gradient is no finite number "
                "(%d in a row, %d in all): %s",
                *(step, self._in_a_row, self.skipped, named),
            )
        if self._in_a_row >= self._most_in_a_row:
            raise ConfigError(
                f"training stopped at optimizer step {step}: in {self._in_a_row} steps in a row "
                f"the loss or its gradient was no finite number, last with {named}; lower "
                "optimizer.learning_rate, set trainer.precision=32-true, or look at these "
                "examples (trainer.max_skipped_steps is the limit)"
            )


def _has_finite_gradients(optimizer: Optimizer) -> bool:
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    return bool(torch.isfinite(norm))


def _named(ids: list[str]) -> str:
    """Return ids as a message names them; never a text."""
    shown = ", ".join(quote_id(id_) for id_ in ids[:_MOST_NAMED])
    more = len(ids) - _MOST_NAMED
    rest = f" and {more} more" if more > 0 else ""
    return f"example{'s' * (len(ids) != 1)} {shown}{rest}"


LOWEST_RATE, HIGHEST_RATE, N_STEPS = 1e-7, 1.0, 100
"""What is tried, from the paper's 5e-7 for whole models to what no adapter survives."""

DIVERGED = 4.0
"""The test ends where the loss is so many times the lowest so far (Lightning's threshold)."""


_NEIGHBORS = 4
"""Steps on either side that a loss is averaged with before slopes are taken."""


class RangeTest(Callback):
    """Raises the learning rate with every optimizer step, and keeps each step's loss.

    The trainer stops after ``n_steps`` rates, evenly spaced in their logarithm, or when the loss
    diverges. The test is that of Smith (2017, "Cyclical Learning Rates", section 3.3). Lightning
    has one too (2.6.6), but it takes the last micro-batch's share for the loss of a step, measures
    slopes over the rate and not its logarithm, and leaves the schedule at the configured rate.
    """

    def __init__(self, n_steps: int = N_STEPS) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self._planned = np.geomspace(LOWEST_RATE, HIGHEST_RATE, n_steps).tolist()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set this step's rate, whatever the schedule says."""
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = self._planned[len(self.losses)]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the token mean of the step that just ended."""
        if not batch.plan.ends_step:
            return
        loss = float(trainer.callback_metrics["train_loss"])
        self.rates.append(self._planned[len(self.losses)])
        self.losses.append(loss)
        diverged = not math.isfinite(loss) or loss > DIVERGED * min(self.losses)
        if diverged or len(self.losses) == len(self._planned):
            trainer.should_stop = True


def suggest_rate(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Return the rate at which the loss falls fastest over the logarithm of the rate.

    Losses are averaged over neighboring steps first; what comes after the lowest of these averages
    is not looked at. A ``ConfigError`` where the loss never falls, or for too few steps to tell.
    """
    finite = [(rate, loss) for rate, loss in zip(rates, losses, strict=True) if math.isfinite(loss)]
    window = 2 * _NEIGHBORS + 1
    if len(finite) <= window:
        raise ConfigError(
            f"optimizer.find_learning_rate: the loss diverged after {len(finite)} steps at "
            f"learning rates up to {rates[-1] if rates else LOWEST_RATE:.1e}; "
            "set optimizer.learning_rate"
        )
    smooth = np.convolve([loss for _, loss in finite], np.ones(window) / window, mode="valid")
    logarithms = np.log([rate for rate, _ in finite])[_NEIGHBORS:-_NEIGHBORS]
    slopes = np.gradient(smooth, logarithms)[: int(smooth.argmin()) + 1]
    steepest = int(slopes.argmin())
    if slopes[steepest] >= 0:
        raise ConfigError(
            "optimizer.find_learning_rate: the loss falls at no learning rate; "
            "set optimizer.learning_rate"
        )
    return float(f"{math.exp(logarithms[steepest]):.3g}")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, onto the disk, and renames."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint; until it is whole and on the disk, the old one stays."""
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
        """Return a checkpoint of one device or several, as :func:`read_checkpoint` does."""
        return read_checkpoint(Path(path))
