"""history.csv: what its rows hold, and which time they count."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import pytest
import shrunk
import torch

from recap.config import OptimizerConfig
from recap.data.encode import ChatEncoder, EncodedExample
from recap.data.loaders import DataModule
from recap.errors import DataError
from recap.models.module import ResponseModule
from recap.runs.history import (
    COLUMNS,
    History,
    SpeedMeter,
    Tracker,
    TrainingBar,
    peak_memory_gib,
    read_history,
)
from recap.tasks.library import builtin_task

TOKENIZER = shrunk.qwen2_tokenizer()
EXAMPLES = [
    EncodedExample(id=str(i), prompt=(5, 6, 7 + i), answer=(8, 2), gold=0) for i in range(12)
]


class Clock:
    """Shows the seconds that were spent by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Tick:
    """Shows a second more whenever it is looked at."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1
        return self.seconds


class Timed(ResponseModule):
    """Takes one second a training batch, and a thousand for validation and for every epoch's end.

    It cannot be seen from outside which of its methods Lightning calls inside the training time.
    """

    clock: Clock

    def training_step(self, *arguments: Any) -> torch.Tensor:
        self.clock.seconds += 1
        return super().training_step(*arguments)

    def on_validation_epoch_end(self) -> None:
        self.clock.seconds += 1000
        super().on_validation_epoch_end()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.clock.seconds += 1000
        super().on_save_checkpoint(checkpoint)


class Shown(lightning.Callback):
    """Keeps what the progress bar would show after each batch."""

    def __init__(self, bar: TrainingBar) -> None:
        self.bar = bar
        self.metrics: list[dict[str, Any]] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.bar._began = 0.0, trainer.global_step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.bar._trainer = trainer
        self.metrics.append(self.bar.get_metrics(trainer, pl_module))


def fit(folder: Path, *, every_steps: int, select: bool = True) -> tuple[list[Any], Shown]:
    """Train two epochs of three steps of two micro-batches; return the rows of the file."""
    clock = Clock()
    history = History(folder / "history.csv", Tracker(), every_steps=every_steps, clock=clock)
    module = Timed(
        model=shrunk.model_of("qwen2", len(TOKENIZER)),
        task=builtin_task("binary"),
        encoder=ChatEncoder(TOKENIZER),
        optimizer=OptimizerConfig(learning_rate=1e-3),
    )
    module.clock = clock
    shown = Shown(TrainingBar(history))
    data = DataModule(
        train=EXAMPLES,
        select=EXAMPLES[:2] if select else (),
        pad_id=0,
        global_batch_size=4,
        per_device_batch_size=2,
    )
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=2,
        accumulate_grad_batches=data.accumulation(),
        use_distributed_sampler=False,
        callbacks=[history, shown],
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data)
    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file)), shown


@pytest.mark.parametrize("select", [True, False])
@pytest.mark.parametrize("every_steps", [1, 2])
def test_training_speed_counts_neither_validation_nor_saving(
    tmp_path: Path, every_steps: int, select: bool
) -> None:
    rows, _ = fit(tmp_path, every_steps=every_steps, select=select)
    trained = [row for row in rows if row["split"] == "train"]
    assert [int(row["step"]) for row in trained] == list(range(every_steps, 7, every_steps))
    # A second a batch of two examples of three prompt and two answer tokens.
    assert [float(row["examples_per_second"]) for row in trained] == [2.0] * len(trained)
    assert [float(row["tokens_per_second"]) for row in trained] == [10.0] * len(trained)


def test_rows_tell_the_memory_and_leave_speed_out_where_nothing_is_trained(tmp_path: Path) -> None:
    rows, _ = fit(tmp_path, every_steps=3)
    assert tuple(rows[0]) == COLUMNS
    assert [row["split"] for row in rows] == ["train", "select"] * 2
    for row in rows:
        # Python with torch takes more than 0.1 GiB, and this machine less than 100.
        assert 0.1 < float(row["memory_gib"]) < 100
        assert (row["examples_per_second"] == "") == (row["split"] == "select")


def test_a_history_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    rows, _ = fit(tmp_path, every_steps=3)
    read = read_history(tmp_path / "history.csv")
    assert [
        {k: "" if v is None else str(v) for k, v in asdict(row).items()} for row in read
    ] == rows
    assert isinstance(read[0].step, int)
    assert isinstance(read[0].loss, float)
    assert read_history(tmp_path / "missing.csv") == ()


@pytest.mark.parametrize(
    "text",
    [
        "step,epoch\n1,0\n",
        ",".join(COLUMNS) + "\n1,0,train,0.5\n",
        ",".join(COLUMNS) + "\n1,0,other,0.5,0.1,,,1.0\n",
        ",".join(COLUMNS) + "\n1,0,train,half,0.1,,,1.0\n",
    ],
)
def test_a_file_that_is_no_history_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "history.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"history\.csv: is not a history"):
        read_history(tmp_path / "history.csv")


def test_the_bar_shows_speed_rate_memory_and_the_time_that_is_left(tmp_path: Path) -> None:
    _, shown = fit(tmp_path, every_steps=2)
    first, last = shown.metrics[0], shown.metrics[-1]
    assert "tokens/s" not in first, "nothing is measured yet"
    assert "left" not in first, "no step is done yet"
    assert {"lr", "memory"} <= first.keys()
    assert {"train_loss", "val_loss", "lr", "memory"} <= last.keys()
    assert last["tokens/s"] == "10"
    assert last["examples/s"] == "2.00"
    assert last["memory"].endswith(" GiB")
    assert float(last["lr"]) == 0  # the cosine is through
    assert last["left"] == "0:00:00"


@pytest.mark.multiprocess
def test_the_speed_is_that_of_all_devices_without_what_one_only_repeats(tmp_path: Path) -> None:
    data = DataModule(train=EXAMPLES[:9], pad_id=0, global_batch_size=8, per_device_batch_size=3)
    module = ResponseModule(
        model=shrunk.model_of("qwen2", len(TOKENIZER)),
        task=builtin_task("binary"),
        encoder=ChatEncoder(TOKENIZER),
    )
    lightning.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp_fork",
        max_epochs=1,
        accumulate_grad_batches=data.accumulation(2),
        use_distributed_sampler=False,
        callbacks=[History(tmp_path / "h.csv", Tracker(), every_steps=1, clock=Tick())],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, data)
    with (tmp_path / "h.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    # A tick a step: one of eight examples, and one of the ninth, which one device has alone.
    assert [float(row["examples_per_second"]) for row in rows] == [8, 1]
    assert [float(row["tokens_per_second"]) for row in rows] == [40, 5]


def test_a_meter_counts_the_time_between_start_and_stop_alone() -> None:
    clock = Clock()
    meter = SpeedMeter(clock)
    meter.start()
    clock.seconds = 2
    meter.add(examples=4, tokens=100)
    meter.stop()
    clock.seconds = 50
    meter.start()
    meter.start()
    clock.seconds = 53
    assert meter.take() == (4 / 5, 20)
    clock.seconds = 54
    meter.add(examples=1, tokens=3)
    assert meter.take((2, 6)) == (2, 6), "the counts of all devices"


def test_the_peak_of_a_process_on_a_cpu_covers_what_it_has_just_filled() -> None:
    before = peak_memory_gib(torch.device("cpu"))
    filled = torch.ones(2**28)  # 1 GiB
    grown = peak_memory_gib(torch.device("cpu"))
    assert filled[-1] == 1
    del filled
    assert grown >= max(before, 1.0)
    assert peak_memory_gib(torch.device("cpu")) >= grown, "a peak does not fall"
