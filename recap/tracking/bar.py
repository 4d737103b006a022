"""The progress bar: Lightning's, with speed, learning rate, memory and the time that is left."""

from __future__ import annotations

import time
from datetime import timedelta

import lightning
from lightning.pytorch.callbacks import RichProgressBar

from recap.tracking.history import History
from recap.tracking.speed import peak_memory_gib


class TrainingBar(RichProgressBar):
    """Shows an epoch's batches, and beside them how the whole training goes.

    Args:
        history: Measures the speed.
    """

    def __init__(self, history: History) -> None:
        super().__init__(leave=False)
        self._history = history
        self._began: tuple[float, int] | None = None

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Note when and at which step this process began."""
        super().on_train_start(trainer, pl_module)
        self._began = time.monotonic(), trainer.global_step

    def get_metrics(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return what stands beside the bar.

        ``left`` is the time until the last step of the last epoch, at the pace so far, validation
        included; training may stop earlier.
        """
        shown = super().get_metrics(trainer, pl_module)
        if trainer.optimizers:
            shown["lr"] = f"{trainer.optimizers[0].param_groups[0]['lr']:.2e}"
        if self._history.speed is not None:
            shown["tokens/s"] = f"{self._history.speed.tokens:.0f}"
            shown["examples/s"] = f"{self._history.speed.examples:.2f}"
        shown["memory"] = f"{peak_memory_gib(trainer.strategy.root_device):.1f} GiB"
        left = self._seconds_left(trainer)
        if left is not None:
            shown["left"] = str(timedelta(seconds=round(left)))
        return shown

    def _seconds_left(self, trainer: lightning.Trainer) -> float | None:
        if self._began is None or trainer.state.fn != "fit":
            return None
        began, first_step = self._began
        done = trainer.global_step - first_step
        if not done:
            return None
        left = float(trainer.estimated_stepping_batches) - trainer.global_step
        return max(0.0, left) * (time.monotonic() - began) / done
