"""What a training keeps of its steps: history.csv, trackers, the clock and the progress bar."""

from __future__ import annotations

import csv
import io
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from pydantic import TypeAdapter

from recap.errors import DataError
from recap.models.callbacks import FiniteSteps
from recap.records import Example, Prediction, Scores, Summary
from recap.system.files import write_atomic


class SpeedMeter:
    """Counts examples, their tokens (of prompts and answers), and the seconds spent on them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._seconds = 0.0
        self.counts = (0, 0)
        """Examples and tokens since the last :meth:`take`."""

    def start(self) -> None:
        """Let the clock run, if it does not run already."""
        if self._since is None:
            self._since = self._clock()

    def stop(self) -> None:
        """Stop the clock: what comes now (validation, saving) is not training."""
        if self._since is not None:
            self._seconds += self._clock() - self._since
            self._since = None

    def add(self, *, examples: int, tokens: int) -> None:
        """Count what was just trained on."""
        self.counts = (self.counts[0] + examples, self.counts[1] + tokens)

    def take(self, counts: tuple[float, float] | None = None) -> tuple[float, float]:
        """Return the examples and tokens a second since the last call, and begin again."""
        running = self._since is not None
        self.stop()
        examples, tokens = counts or self.counts
        seconds = max(self._seconds, 1e-9)
        self.counts, self._seconds = (0, 0), 0.0
        if running:
            self.start()
        return examples / seconds, tokens / seconds


def peak_memory_gib(device: torch.device) -> float:
    """Return the most memory so far, in GiB: allocated on a GPU, or resident of this process.

    Both are peaks over the life of the process, not over one fold.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kibibytes on Linux (getrusage(2))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


@dataclass(frozen=True, kw_only=True)
class HistoryRow:
    """One row of history.csv.

    ``loss`` is the token mean in nats: of the last optimizer step's examples for ``train``, of the
    whole split for ``select``. ``tokens_per_second`` counts prompt and answer tokens, over all
    devices; it and ``examples_per_second`` are ``None`` for ``select``. ``memory_gib`` is the
    process's peak so far: allocated on the first device if it is a GPU, else resident memory.
    ``skipped_steps`` counts the optimizer steps so far that were not finite.
    """

    step: int
    epoch: int
    split: Literal["train", "select"]
    loss: float
    learning_rate: float
    tokens_per_second: float | None
    examples_per_second: float | None
    memory_gib: float
    skipped_steps: int = 0


@dataclass(frozen=True, kw_only=True)
class FinishedFolds:
    """What the finished folds of a run come to."""

    summary: Summary
    scores: Mapping[int, Scores]
    """By index of the fold."""
    histories: Mapping[int, tuple[HistoryRow, ...]]
    """By index of the fold; empty for folds whose system was not trained step by step."""


class Tracker:
    """Is told of a run as it goes; this one keeps nothing: the run folder's own files are all."""

    def start_fold(self, name: str) -> None:
        """Begin to record one fold (``"fold0"``) or the final model (``"final"``)."""

    def log_step(self, row: HistoryRow) -> None:
        """Record one row of the history of the fold that was begun."""

    def log_fold(self, scores: Scores | None) -> None:
        """Record the scores of the fold that was begun, if it was scored, and close it."""

    def log_texts(self, pairs: Sequence[tuple[Example, Prediction]]) -> None:
        """Record dialogues and answers of the fold that was begun, which the user asked for."""

    def abandon(self, *, preempted: bool = False) -> None:
        """Close the fold that was begun, since it failed or a signal asked for its end."""

    def log_summary(self, folds: FinishedFolds) -> None:
        """Record how figures spread over folds, unless just this is recorded already."""


COLUMNS = tuple(HistoryRow.__dataclass_fields__)
"""The columns of history.csv, in order."""


class History(Callback):
    """Keeps the history of one training, writes it to a file, and tells a tracker.

    Its rows, one every ``every_steps`` optimizer steps and one a validation, travel in the
    checkpoint, so that a resumed training ends with the history of an uninterrupted one (speed and
    memory apart). Validation and saving do not count as training time.
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
        self.speed: tuple[float, float] | None = None
        """Examples and tokens a second at the last row of the training loss."""

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

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Let the clock run."""
        self._meter.start()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: torch.Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add up examples and tokens, and write a row when enough optimizer steps are done."""
        if not batch.plan.filler:
            tokens = sum(len(row.prompt) + len(row.answer) for row in batch.examples)
            self._meter.add(examples=len(batch.examples), tokens=tokens)
        step = trainer.global_step
        if not batch.plan.ends_step or step % self._every_steps:
            return
        self.speed = self._meter.take(_over_devices(trainer, self._meter.counts))
        self._add(trainer, "train", trainer.callback_metrics["train_loss"], self.speed)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock until the next training batch."""
        self._meter.stop()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock: checkpoints are saved now."""
        self._meter.stop()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the selection loss."""
        if not trainer.sanity_checking and "val_loss" in trainer.callback_metrics:
            self._add(trainer, "select", trainer.callback_metrics["val_loss"], None)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the last rows."""
        self._write(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Bring the file up to what the checkpoint holds."""
        self._write(trainer)

    def _add(
        self,
        trainer: Trainer,
        split: Literal["train", "select"],
        loss: torch.Tensor,
        speed: tuple[float, float] | None,
    ) -> None:
        examples, tokens = speed or (None, None)
        row = HistoryRow(
            step=trainer.global_step,
            epoch=trainer.current_epoch,
            split=split,
            loss=float(loss),
            learning_rate=float(trainer.optimizers[0].param_groups[0]["lr"]),
            tokens_per_second=tokens,
            examples_per_second=examples,
            memory_gib=peak_memory_gib(trainer.strategy.root_device),
            skipped_steps=self._finite.skipped if self._finite else 0,
        )
        self._rows.append(row)
        if trainer.is_global_zero:
            self._tracker.log_step(row)

    def _write(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in self._rows)
        write_atomic(self._path, text.getvalue())


def read_history(path: Path) -> tuple[HistoryRow, ...]:
    """Return the rows of a history.csv, none where nothing was trained.

    A ``DataError`` where it cannot be read.
    """
    if not path.is_file():
        return ()
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [{k: cell or None for k, cell in row.items()} for row in csv.DictReader(file)]
        return TypeAdapter(tuple[HistoryRow, ...]).validate_python(rows)
    except ValueError as error:
        raise DataError(
            f"{path}: is not a history as recap writes it; restore it, or run the fold again"
        ) from error


def selection_loss(path: Path, epoch: int) -> float | None:
    """Return the selection loss after an epoch (counted from 1) as history.csv has it.

    ``None`` for an epoch without one: there was nothing to select by, or nothing was trained.
    """
    rows = read_history(path)
    return next((r.loss for r in rows if r.split == "select" and r.epoch == epoch - 1), None)


def _over_devices(trainer: Trainer, counts: tuple[int, int]) -> tuple[float, float]:
    """Return the sums over all devices; every device has to call it at the same step."""
    if trainer.world_size == 1:
        return counts
    local = torch.tensor(counts, dtype=torch.float32, device=trainer.strategy.root_device)
    total = trainer.strategy.reduce(local, reduce_op="sum")
    assert isinstance(total, torch.Tensor)
    examples, tokens = total.tolist()
    return examples, tokens


OnEpoch = Callable[[int, float | None, float], None]
"""Called with an epoch's number, its selection loss and the seconds that it took."""


class EpochClock(Callback):
    """Tells of every finished epoch."""

    def __init__(self, on_epoch: OnEpoch) -> None:
        self._on_epoch = on_epoch
        self._since = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the clock."""
        self._since = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell of the epoch."""
        if trainer.is_global_zero:
            loss = trainer.callback_metrics.get("val_loss")
            self._on_epoch(
                trainer.current_epoch,
                None if loss is None else float(loss),
                time.monotonic() - self._since,
            )
        self._since = time.monotonic()


class TrainingBar(RichProgressBar):
    """Shows an epoch's batches, and beside them how the whole training goes."""

    def __init__(self, history: History) -> None:
        super().__init__(leave=False)
        self._history = history
        self._began: tuple[float, int] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note when and at which step this process began."""
        super().on_train_start(trainer, pl_module)
        self._began = time.monotonic(), trainer.global_step

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return what stands beside the bar.

        ``left`` is the time until the last step of the last epoch, at the pace so far, validation
        included; training may stop earlier.
        """
        shown = super().get_metrics(trainer, pl_module)
        if trainer.optimizers:
            shown["lr"] = f"{trainer.optimizers[0].param_groups[0]['lr']:.2e}"
        if self._history.speed is not None:
            examples, tokens = self._history.speed
            shown["tokens/s"], shown["examples/s"] = f"{tokens:.0f}", f"{examples:.2f}"
        shown["memory"] = f"{peak_memory_gib(trainer.strategy.root_device):.1f} GiB"
        left = self._seconds_left(trainer)
        if left is not None:
            shown["left"] = str(timedelta(seconds=round(left)))
        return shown

    def _seconds_left(self, trainer: Trainer) -> float | None:
        if self._began is None or trainer.state.fn != "fit":
            return None
        began, first_step = self._began
        done = trainer.global_step - first_step
        if not done:
            return None
        left = float(trainer.estimated_stepping_batches) - trainer.global_step
        return max(0.0, left) * (time.monotonic() - began) / done
