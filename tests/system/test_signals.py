"""SIGTERM and SIGUSR1: a checkpoint of the step under way, 143, and SLURM is asked to go on."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import wandb_files
from faults import record_fault
from kills import Kill, resumes
from test_crashes import LORA, MODULE, THREE_A_STEP, WORKERS, Runs
from test_crashes import sources as sources

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
