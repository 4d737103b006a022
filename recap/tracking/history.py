"""history.csv: a row every few optimiser steps and one a pass over the selection examples."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal, cast

import lightning
import torch

from recap.errors import DataError
from recap.models.finite_steps import FiniteSteps
from recap.run_folder import write_atomic
from recap.tracking.speed import Speed, SpeedMeter, peak_memory_gib
from recap.tracking.tracker import HistoryRow, Tracker

COLUMNS = tuple(field.name for field in fields(HistoryRow))
"""The columns of history.csv, in order."""


class History(lightning.Callback):
    """Keeps the history of one training, writes it to a file, and tells a tracker.

    Its rows travel in the checkpoint, so that a resumed training ends with the history of an
    uninterrupted one (speed and memory apart). Validation and saving do not count as training time.

    Args:
        path: Where history.csv goes.
        tracker: Told of every row.
        every_steps: Optimiser steps between two rows of the training loss.
        finite: Counts the steps that were skipped.
        clock: Returns seconds; for tests.
    """

    def __init__(
        self,
        path: Path,
        tracker: Tracker,
        *,
        every_steps: int,
        finite: FiniteSteps | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._tracker = tracker
        self._every_steps = every_steps
        self._finite = finite
        self._rows: list[HistoryRow] = []
        self._meter = SpeedMeter(clock)
        self._speed: Speed | None = None

    @property
    def rows(self) -> tuple[HistoryRow, ...]:
        """The rows so far."""
        return tuple(self._rows)

    @property
    def speed(self) -> Speed | None:
        """The speed at the last row of the training loss; ``None`` before the first."""
        return self._speed

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far, for the checkpoint."""
        return {"rows": [asdict(row) for row in self._rows]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back the rows that a checkpoint holds; later ones are forgotten."""
        self._rows = [HistoryRow(**row) for row in state_dict["rows"]]

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Let the clock run."""
        self._meter.start()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: torch.Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add up examples and tokens, and write a row when enough optimiser steps are done."""
        if not batch.plan.filler:
            tokens = sum(len(row.prompt) + len(row.answer) for row in batch.examples)
            self._meter.add(examples=len(batch.examples), tokens=tokens)
        step = trainer.global_step
        if not batch.plan.ends_step or step % self._every_steps:
            return
        self._speed = self._meter.take(_over_devices(trainer, self._meter.counts()))
        self._add(
            trainer,
            HistoryRow(
                step=step,
                epoch=trainer.current_epoch,
                split="train",
                loss=float(trainer.callback_metrics["train_loss"]),
                learning_rate=_learning_rate(trainer),
                tokens_per_second=self._speed.tokens,
                examples_per_second=self._speed.examples,
                memory_gib=peak_memory_gib(trainer.strategy.root_device),
                skipped_steps=self._skipped(),
            ),
        )

    def on_validation_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Stop the clock until the next training batch."""
        self._meter.stop()

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Stop the clock: checkpoints are saved now."""
        self._meter.stop()

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
                examples_per_second=None,
                memory_gib=peak_memory_gib(trainer.strategy.root_device),
                skipped_steps=self._skipped(),
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

    def _skipped(self) -> int:
        return 0 if self._finite is None else self._finite.skipped

    def _write(self, trainer: lightning.Trainer) -> None:
        if not trainer.is_global_zero:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in self._rows)
        write_atomic(self._path, text.getvalue())


def read_history(path: Path) -> tuple[HistoryRow, ...]:
    """Return the rows of a history.csv, none where nothing was trained.

    Raises:
        DataError: When it cannot be read.
    """
    if not path.is_file():
        return ()
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return tuple(_row(cells) for cells in csv.DictReader(file))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: is not a history as recap writes it; restore it, or run the fold again"
        ) from error


def selection_loss(path: Path, epoch: int) -> float | None:
    """Return the selection loss after an epoch (counted from 1) as history.csv has it.

    ``None`` for an epoch without one: there was nothing to select by, or nothing was trained.
    """
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] == "select" and int(row["epoch"]) == epoch - 1:
                return float(row["loss"])
    return None


def _row(cells: Mapping[str, str]) -> HistoryRow:
    split = cells["split"]
    if split not in ("train", "select"):
        raise ValueError("neither training nor selection")
    return HistoryRow(
        step=int(cells["step"]),
        epoch=int(cells["epoch"]),
        split=cast(Literal["train", "select"], split),
        loss=float(cells["loss"]),
        learning_rate=float(cells["learning_rate"]),
        tokens_per_second=_number(cells["tokens_per_second"]),
        examples_per_second=_number(cells["examples_per_second"]),
        memory_gib=float(cells["memory_gib"]),
        # Runs of before they were counted have no such column.
        skipped_steps=int(cells.get("skipped_steps") or 0),
    )


def _number(cell: str) -> float | None:
    return float(cell) if cell else None


def _learning_rate(trainer: lightning.Trainer) -> float:
    return float(trainer.optimizers[0].param_groups[0]["lr"])


def _over_devices(trainer: lightning.Trainer, counts: tuple[int, int]) -> tuple[float, float]:
    """Return the sums over all devices; every device has to call it at the same step."""
    if trainer.world_size == 1:
        return counts
    local = torch.tensor(counts, dtype=torch.float32, device=trainer.strategy.root_device)
    total = trainer.strategy.reduce(local, reduce_op="sum")
    assert isinstance(total, torch.Tensor)
    examples, tokens = total.tolist()
    return examples, tokens
