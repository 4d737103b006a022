"""A run that is killed ends as one that is not: weights, history, predictions and summary."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faults import record_fault
from kills import Kill, differences, leftovers, results, resumes, run_killed

from recap.cli.compose import load_config
from recap.models.backbone import load_tiny

BASE = [
    *("task=binary", "rationale=false", "cv.folds=2", "cv.fold=0", "data=dialogues"),
    *("prompt=brief", "prompt.history=none", "decoding.max_new_tokens=3", "decoding.batch_size=6"),
    *("logger=csv", "trainer=cpu", "trainer.max_epochs=2", "global_batch_size=6"),
    *("trainer.per_device_batch_size=6", "trainer.log_every_steps=1", "checkpoint.every_steps=1"),
]
"""18 examples to train on, three optimiser steps an epoch, two epochs; the loss falls in both."""

LORA = ("finetune=lora", "finetune.dropout=0.2")
THREE_A_STEP = ("trainer.per_device_batch_size=2",)
WORKERS = ("trainer.workers=2",)

MODULE = "recap.models.module:ResponseModule."
POINTS = {
    "micro-batch": Kill(target=MODULE + "training_step"),
    "step done": Kill(target="recap.models.callbacks:KeepCheckpoints.on_train_batch_end"),
    "inside torch.save": Kill(target="recap.models.checkpoints:_Digesting.write"),
    "before the rename": Kill(target="recap.models.callbacks:save_digested", after=True),
    "between rename and fsync": Kill(target="recap.models.callbacks:sync"),
    "before old ones go": Kill(target="recap.models.checkpoints:CheckpointFolder.keep_only", nth=2),
    "validating": Kill(target=MODULE + "validation_step"),
    "trained": Kill(target="recap.models.checkpoints:CheckpointFolder.mark_trained"),
    "decoding": Kill(target=MODULE + "test_step", nth=2),
    "model written": Kill(target="recap.folds.tuned:save_model", after=True),
    "predictions written": Kill(target="recap.folds.fold:write_predictions", after=True),
    "scores written": Kill(target="recap.folds.fold:write_scores", after=True),
    "summary": Kill(target="recap.folds.fold:write_summary"),
}
INSIDE_SAVING = {
    *("inside torch.save", "before the rename", "between rename and fsync", "before old ones go"),
}
RANDOM_KILLS = 9
"""For each way to train: 54 in all."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options for a small file, and for a tiny model with dropout in its attention."""
    folder = tmp_path_factory.mktemp("sources")
    model, tokenizer = load_tiny(seed=0)
    model.config.attention_dropout = 0.2
    model.save_pretrained(folder / "weights")
    tokenizer.save_pretrained(folder / "weights")
    rows = [
        {"id": f"e{i}", "history": [{"speaker": "counselor", "text": "And?"}],
         "response": f"No {i}. " * (1 + i % 5), "label": "Collaboration" if i % 3 else "Blaming"}
        for i in range(36)
    ]  # fmt: skip
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [f"backbone.path={folder / 'weights'}", f"data.path={data}"]


WHOLE: dict[tuple[str, ...], dict[str, Any]] = {}


class Runs:
    """Runs of one configuration in one folder: ``whole``, which nobody kills, and ``cut``."""

    def __init__(self, folder: Path, sources: list[str], options: Sequence[str]) -> None:
        self.folder = folder
        self.log = folder / "log"
        free = ("trainer.workers", "checkpoint.", "logger")
        self._changing = tuple(option for option in options if not option.startswith(free))
        self._config = load_config([*BASE, *sources, *options, f"runs_dir={folder}", "run=whole"])

    def run(self, name: str, kill: Kill | None = None, **more: Any) -> int:
        return run_killed(replace(self._config, run=name), self.log, kill=kill, **more)

    def compare(self) -> None:
        """Check that the run that was cut has ended as the whole one, and left nothing behind."""
        assert self.run("cut") == 0, self.log.read_text()
        assert differences(results(self.folder / "cut"), self._whole()) == []
        assert leftovers(self.folder / "cut") == []

    def _whole(self) -> dict[str, Any]:
        """Return what a run that nobody kills ends with; made once for options that change it."""
        if self._changing not in WHOLE:
            assert self.run("whole") == 0, self.log.read_text()
            WHOLE[self._changing] = results(self.folder / "whole")
        return WHOLE[self._changing]


WAYS = {
    "full, one batch a step": (),
    "full, three batches a step, workers": (*THREE_A_STEP, *WORKERS),
    "adapters, one batch a step, workers": (*LORA, *WORKERS),
    "adapters, three batches a step": (*LORA, *THREE_A_STEP),
    "every second step": (*THREE_A_STEP, "checkpoint.every_steps=2"),
    "two folds": (*LORA, "cv.fold=all"),
}


@pytest.mark.parametrize(
    ("way", "points"),
    [
        (
            "full, three batches a step, workers",
            ["step done", "inside torch.save", "between rename and fsync", "validating"],
        ),
        (
            "adapters, one batch a step, workers",
            ["before the rename", "trained", "decoding", "scores written"],
        ),
    ],
)
def test_a_run_killed_again_and_again_ends_as_one_that_nobody_kills(
    way: str, points: list[str], tmp_path: Path, sources: list[str]
) -> None:
    runs = Runs(tmp_path, sources, WAYS[way])
    codes = [runs.run("cut", POINTS[point]) for point in points]
    assert codes == [-signal.SIGKILL] * len(points), runs.log.read_text()
    runs.compare()


def test_a_kill_costs_no_more_than_the_steps_between_two_checkpoints(
    tmp_path: Path, sources: list[str]
) -> None:
    runs = Runs(tmp_path, sources, WAYS["every second step"])
    # Killed when the second epoch's second step, the fifth of all, is done and not saved.
    kill = Kill(target=MODULE + "training_step", nth=1 + 5 * 3)
    assert runs.run("cut", kill) == -signal.SIGKILL
    steps_of = [Kill(target=MODULE + "training_step", nth=1 + n * 3) for n in (1, 1, 0)]
    codes = [runs.run("cut", each) for each in steps_of]
    assert codes == [-signal.SIGKILL] * len(codes)
    assert [entry["step"] for entry in resumes(tmp_path / "cut")] == [4, 4, 4]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_run_killed_at_random_ends_as_one_that_nobody_kills(
    way: str, tmp_path: Path, sources: list[str]
) -> None:
    runs = Runs(tmp_path, sources, WAYS[way])
    chance = random.Random(way)
    assert runs.run("warm") == 0, runs.log.read_text()
    began = time.monotonic()
    assert runs.run("timed") == 0, runs.log.read_text()
    lasted = time.monotonic() - began
    names = []
    for _ in range(RANDOM_KILLS):
        if chance.random() < 0.4:
            runs.run("cut", seconds=chance.uniform(0.1, 1.0) * lasted)
            names.append("at some moment")
        else:
            name = chance.choice(list(POINTS))
            runs.run("cut", replace(POINTS[name], nth=chance.randint(1, 4)))
            names.append(name)
        if (tmp_path / "cut" / "summary.json").is_file() and chance.random() < 0.5:
            runs.compare()
            shutil.rmtree(tmp_path / "cut")
    runs.compare()
    survived = len(names)
    inside = [name for name in names if name in INSIDE_SAVING]
    row = "SIGKILL at a random step" if way != "two folds" else "SIGKILL in cross-validation"
    record_fault(row, tried=len(names), survived=survived, lost=0, note=way)
    record_fault("SIGKILL inside saving", tried=len(inside), survived=len(inside), lost=0, note=way)


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_any_kind_of_point_changes_nothing(
    point: str, tmp_path: Path, sources: list[str]
) -> None:
    runs = Runs(tmp_path, sources, WAYS["full, three batches a step, workers"])
    assert runs.run("cut", POINTS[point]) == -signal.SIGKILL, runs.log.read_text()
    runs.compare()
    row = "SIGKILL inside saving" if point in INSIDE_SAVING else "SIGKILL at a random step"
    record_fault(row, tried=1, survived=1, lost=0)
