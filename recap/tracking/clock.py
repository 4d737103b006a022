"""Epochs as they end, with the seconds that they took."""

from __future__ import annotations

import time
from collections.abc import Callable

import lightning

OnEpoch = Callable[[int, float | None, float], None]
"""Called with an epoch's number, its selection loss and the seconds that it took."""


class EpochClock(lightning.Callback):
    """Tells of every finished epoch."""

    def __init__(self, on_epoch: OnEpoch) -> None:
        self._on_epoch = on_epoch
        self._since = 0.0

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Look at the clock."""
        self._since = time.monotonic()

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Tell of the epoch."""
        if trainer.is_global_zero:
            loss = trainer.callback_metrics.get("val_loss")
            self._on_epoch(
                trainer.current_epoch,
                None if loss is None else float(loss),
                time.monotonic() - self._since,
            )
        self._since = time.monotonic()
