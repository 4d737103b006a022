"""history.csv: a row every few optimiser steps and one a pass over the selection examples."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import lightning
import torch

from recap.run_folder import write_atomic
from recap.tracking.tracker import HistoryRow, Tracker

COLUMNS = tuple(field.name for field in fields(HistoryRow))
"""The columns of history.csv, in order."""


class History(lightning.Callback):
    """Keeps the history of one training, writes it to a file, and tells a tracker.

    Its rows travel in the checkpoint, so that a resumed training ends with the history of an
    uninterrupted one (times apart).

    Args:
        path: Where history.csv goes.
        tracker: Told of every row.
        every_steps: Optimiser steps between two rows of the training loss.
    """

    def __init__(self, path: Path, tracker: Tracker, *, every_steps: int) -> None:
        self._path = path
        self._tracker = tracker
        self._every_steps = every_steps
        self._rows: list[HistoryRow] = []
        self._tokens = 0
        self._since = 0.0

    @property
    def rows(self) -> tuple[HistoryRow, ...]:
        """The rows so far."""
        return tuple(self._rows)

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far, for the checkpoint."""
        return {"rows": [asdict(row) for row in self._rows]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back the rows that a checkpoint holds; later ones are forgotten."""
        self._rows = [HistoryRow(**row) for row in state_dict["rows"]]

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Start the clock."""
        self._since = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: torch.Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add up tokens, and write a row when enough optimiser steps are done."""
        self._tokens += int(sum(len(row.prompt) + len(row.answer) for row in batch.examples))
        step = trainer.global_step
        if not batch.plan.ends_step or step % self._every_steps:
            return
        now = time.monotonic()
        self._add(
            trainer,
            HistoryRow(
                step=step,
                epoch=trainer.current_epoch,
                split="train",
                loss=float(trainer.callback_metrics["train_loss"]),
                learning_rate=_learning_rate(trainer),
                tokens_per_second=self._tokens / max(now - self._since, 1e-9),
            ),
        )
        self._tokens, self._since = 0, now

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Write the selection loss."""
        if trainer.sanity_checking or "val_loss" not in trainer.callback_metrics:
            return
        self._add(
            trainer,
            HistoryRow(
                step=trainer.global_step,
                epoch=trainer.current_epoch,
                split="select",
                loss=float(trainer.callback_metrics["val_loss"]),
                learning_rate=_learning_rate(trainer),
                tokens_per_second=None,
            ),
        )

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Write the last rows."""
        self._write(trainer)

    def on_save_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Bring the file up to what the checkpoint holds."""
        self._write(trainer)

    def _add(self, trainer: lightning.Trainer, row: HistoryRow) -> None:
        self._rows.append(row)
        if trainer.is_global_zero:
            self._tracker.log_step(row)

    def _write(self, trainer: lightning.Trainer) -> None:
        if not trainer.is_global_zero:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in self._rows)
        write_atomic(self._path, text.getvalue())


def _learning_rate(trainer: lightning.Trainer) -> float:
    return float(trainer.optimizers[0].param_groups[0]["lr"])
