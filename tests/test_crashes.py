"""A run that is killed ends as one that is not: weights, history, predictions and summary.

SIGTERM and SIGUSR1 cost nothing: a checkpoint of the step under way, 143, and SLURM is asked to go
on. All processes are forked from one server, which takes seven seconds to start: hence one file.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import wandb_files
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


WITHOUT_STEPS = ("checkpoint.every_steps=null",)
VALIDATION_AND_TEST = MODULE + "_add_loss"
MOMENTS = {
    # The signal's moment, the step that the next process goes on from, and where it goes on.
    "in a step's second micro-batch": (MODULE + "training_step", 5, "train", 2),
    "in an epoch's last step": (MODULE + "training_step", 8, "train", 3),
    "in the validation": (VALIDATION_AND_TEST, 2, "train", 3),
    "in a checkpoint": ("recap.models.checkpoints:_Digesting.write", 1, "train", 3),
    "after the last step": (MODULE + "training_step", 18, "train", 6),
    "while decoding": (MODULE + "test_step", 2, "decode", 6),
}
"""Of two epochs of three steps, each of three micro-batches."""
QUICK = ("in a step's second micro-batch", "in the validation", "in an epoch's last step")


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(moment, marks=[] if moment in QUICK else [pytest.mark.slow])
        for moment in MOMENTS
    ],
)
def test_a_signal_at_any_moment_costs_nothing(
    moment: str, tmp_path: Path, sources: list[str]
) -> None:
    target, nth, stage, step = MOMENTS[moment]
    runs = Runs(tmp_path, sources, (*THREE_A_STEP, *WITHOUT_STEPS))
    number = signal.SIGUSR1 if nth % 2 else signal.SIGTERM
    assert runs.run("cut", Kill(target=target, nth=nth, number=number)) == 143, runs.log.read_text()
    assert "goes on where it was" in runs.log.read_text()
    runs.compare()
    assert [(entry["at"], entry["step"]) for entry in resumes(tmp_path / "cut")] == [(stage, step)]
    record_fault("SIGTERM / SIGUSR1", tried=1, survived=1, lost=0)


def test_a_signal_before_the_training_ends_the_command_too(
    tmp_path: Path, sources: list[str]
) -> None:
    runs = Runs(tmp_path, sources, ())
    kill = Kill(target="recap.folds.tuned:settle_learning_rate", number=signal.SIGTERM)
    assert runs.run("cut", kill) == 143, runs.log.read_text()
    assert not (tmp_path / "cut" / "fold0" / "checkpoints").exists()


@pytest.mark.parametrize("array", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_slurm_queues_the_job_again_and_the_next_start_goes_on(
    array: bool, tmp_path: Path, sources: list[str]
) -> None:
    programs, calls = tmp_path / "bin", tmp_path / "calls"
    programs.mkdir()
    (programs / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    (programs / "scontrol").chmod(0o755)
    slurm = {
        "SLURM_JOB_ID": "4242",
        "SLURM_NTASKS": "1",
        "SLURM_JOB_NAME": "folds",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODELIST": "localhost",
        **({"SLURM_ARRAY_JOB_ID": "4200", "SLURM_ARRAY_TASK_ID": "7"} if array else {}),
        "PATH": f"{programs}:{os.environ['PATH']}",
    }
    runs = Runs(tmp_path, sources, (*LORA, *WORKERS, *WITHOUT_STEPS))
    kill = Kill(target=MODULE + "training_step", nth=2, number=signal.SIGUSR1)
    assert runs.run("cut", kill, variables=slurm) == 143, runs.log.read_text()
    assert calls.read_text() == ("requeue 4200_7\n" if array else "requeue 4242\n")
    assert "the job is queued again" in runs.log.read_text()
    assert runs.run("cut", variables=slurm) == 0, runs.log.read_text()
    assert [entry["step"] for entry in resumes(tmp_path / "cut")] == [2]
    runs.compare()
    record_fault("SIGTERM / SIGUSR1", tried=1, survived=1, lost=0, note="SLURM")


def test_a_job_that_slurm_does_not_take_back_is_said(tmp_path: Path, sources: list[str]) -> None:
    runs = Runs(tmp_path, sources, WITHOUT_STEPS)
    kill = Kill(target=MODULE + "training_step", nth=1, number=signal.SIGUSR1)
    slurm = {"SLURM_JOB_ID": "4242", "PATH": str(tmp_path)}
    assert runs.run("cut", kill, variables=slurm) == 143
    assert "scontrol could not queue the job again" in runs.log.read_text()


def test_a_wandb_run_that_a_signal_ended_is_marked(tmp_path: Path, sources: list[str]) -> None:
    runs = Runs(tmp_path, sources, ("logger=wandb", *WITHOUT_STEPS))
    kill = Kill(target=MODULE + "training_step", nth=2, number=signal.SIGTERM)
    assert runs.run("cut", kill) == 143, runs.log.read_text()
    (file,) = (tmp_path / "cut" / "wandb").glob("offline-run-*/*.wandb")
    records = list(wandb_files.read_records(file))
    kinds = [record.WhichOneof("record_type") for record in records]
    assert "preempting" in kinds
    assert [r.exit.exit_code for r in records if r.WhichOneof("record_type") == "exit"] == [143]


def test_a_checkpoint_that_is_broken_is_said_and_the_one_before_it_is_taken(
    tmp_path: Path, sources: list[str]
) -> None:
    runs = Runs(tmp_path, sources, ())
    # Killed in the second epoch's last step: checkpoints 4 and 5 are the newest.
    assert runs.run("cut", Kill(target=MODULE + "training_step", nth=6)) == -signal.SIGKILL
    *_, newest = checkpoints(tmp_path)
    newest.write_bytes(newest.read_bytes()[:-1000])
    runs.compare()
    assert f"{newest.name}: this checkpoint is cut short" in runs.log.read_text()
    assert [entry["step"] for entry in resumes(tmp_path / "cut")] == [4]
    record_fault("corrupt checkpoint", tried=1, survived=1, lost=0, note="newest, cut short")


def test_a_best_checkpoint_that_is_broken_gives_way_to_the_best_one_before_it(
    tmp_path: Path, sources: list[str]
) -> None:
    runs = Runs(tmp_path, sources, WITHOUT_STEPS)
    assert runs.run("cut", Kill(target=MODULE + "test_step")) == -signal.SIGKILL
    _, best = checkpoints(tmp_path)
    # The training ended with the best one: what was in it is trained again.
    best.write_bytes(best.read_bytes()[:-1000])
    runs.compare()
    assert resumes(tmp_path / "cut") == [{"fold": "fold0", "step": 3, "at": "train"}]
    assert selected_epoch(tmp_path) == 2
    record_fault("corrupt checkpoint", tried=1, survived=1, lost=0, note="best and newest")


def checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / "cut" / "fold0" / "checkpoints").glob("*.ckpt"))


def selected_epoch(folder: Path) -> int:
    manifest = json.loads((folder / "cut" / "manifest.json").read_text(encoding="utf-8"))
    epoch: int = manifest["folds"]["fold0"]["selected_epoch"]
    return epoch
