"""Several processes: started, watched, ended together, and counted before anything begins."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import recap
from recap.config import TrainerConfig
from recap.errors import ConfigError, RecapError
from recap.system.processes import is_first_process, run_processes, world_size
from recap.train import __main__ as train


def barrier() -> None:
    dist.init_process_group("gloo")


def add_up(send: Callable[..., None], by: int) -> None:
    barrier()
    total = torch.tensor(by * (1 + dist.get_rank()))
    dist.all_reduce(total)
    send("total", int(total), is_first_process())


def lose_the_second(send: Callable[..., None]) -> None:
    barrier()
    if dist.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()


def refuse(send: Callable[..., None]) -> None:
    raise ConfigError("there is no such thing; set another")


def fail(send: Callable[..., None]) -> None:
    raise ZeroDivisionError("of our own making")


def run(function: Callable[..., None], *arguments: Any) -> list[tuple[str, tuple[Any, ...]]]:
    heard: list[tuple[str, tuple[Any, ...]]] = []
    run_processes(
        function,
        *arguments,
        n=2,
        what="fold0",
        on_message=lambda name, values: heard.append((name, values)),
    )
    return heard


@pytest.mark.multiprocess
def test_processes_find_each_other_and_the_first_one_reports() -> None:
    assert run(add_up, 5) == [("total", (15, True))]


@pytest.mark.multiprocess
def test_a_process_that_dies_ends_all_and_is_named() -> None:
    began = time.monotonic()
    with pytest.raises(RecapError, match=r"fold0: rank 1 of 2 was killed by SIGKILL.*goes on"):
        run(lose_the_second)
    # The other one would wait at the barrier for half an hour.
    assert time.monotonic() - began < 120


@pytest.mark.multiprocess
def test_a_users_mistake_in_a_process_is_told_as_it_is() -> None:
    with pytest.raises(ConfigError, match=r"^there is no such thing; set another$"):
        run(refuse)


@pytest.mark.multiprocess
def test_any_other_error_in_a_process_comes_with_its_traceback() -> None:
    with pytest.raises(RecapError, match=r"(?s)fold0: one of 2 ranks failed.*ZeroDivisionError"):
        run(fail)


def test_devices_of_all_machines_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "6")
    assert world_size(TrainerConfig(devices=3, nodes=2)) == 6
    with pytest.raises(ConfigError, match=r"started 6 processes, but .* make 4"):
        world_size(TrainerConfig(devices=2, nodes=2))


def test_a_slurm_job_of_one_task_starts_its_own_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert world_size(TrainerConfig(devices=8)) == 8
    monkeypatch.setenv("SLURM_NTASKS", "16")
    with pytest.raises(ConfigError, match="started 16 processes"):
        world_size(TrainerConfig(devices=8))
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert not is_first_process()


def test_other_machines_need_a_launcher() -> None:
    with pytest.raises(ConfigError, match="torchrun or srun"):
        world_size(TrainerConfig(devices=8, nodes=2))


SMALL = [
    *("cv.folds=2", "cv.max_examples=42", "prompt.history=none", "trainer.accelerator=cpu"),
    *("decoding.max_new_tokens=6", "cv.fold=0", "global_batch_size=4", "logger=none"),
]


def assert_same_answers(one: Path, two: Path) -> None:
    """Compare predictions; sums in another order move the last digits of probabilities."""
    rows, others = ([json.loads(line) for line in file.open("rb")] for file in (one, two))
    assert len(rows) == len(others) > 0
    for row, other in zip(rows, others, strict=True):
        assert row.pop("probabilities") == pytest.approx(other.pop("probabilities"), rel=1e-3)
        assert row == other


@pytest.mark.multiprocess
def test_one_command_trains_a_fold_on_two_devices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [*SMALL, "cv.max_examples=20", "trainer.max_epochs=1", f"runs_dir={tmp_path}"]
    assert train.main([*small, "run=one"]) == 0
    one = capsys.readouterr().out
    assert train.main([*small, "run=two", "trainer=fsdp", "trainer.devices=2"]) == 0
    two = capsys.readouterr().out
    predictions = [tmp_path / name / "fold0" / "predictions.jsonl" for name in ("one", "two")]
    assert_same_answers(*predictions)
    assert "2 x cpu (fsdp)" in (tmp_path / "two" / "manifest.json").read_text()
    assert not (tmp_path / "two" / "fold0" / "checkpoints").exists()
    # What happens inside the fold is told as ever.
    assert [line for line in one.splitlines() if "leading tokens" in line] == [
        line for line in two.splitlines() if "leading tokens" in line
    ]
    assert "selection loss" in two


def command(*overrides: str, launcher: tuple[str, ...] = ("-m",)) -> list[str]:
    return [sys.executable, *launcher, "recap.train", *SMALL, *overrides]


@pytest.mark.slow
@pytest.mark.multiprocess
def test_torchrun_trains_all_folds_in_its_processes(tmp_path: Path) -> None:
    small = ["trainer.max_epochs=1", "cv.fold=all", f"runs_dir={tmp_path}"]
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    assert subprocess.run(command(*small, "run=one"), check=False).returncode == 0
    two = subprocess.run(
        command(*small, "run=two", "trainer=ddp", "trainer.devices=2", launcher=torchrun),
        capture_output=True,
        text=True,
        check=False,
    )
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("fold1    macro F1") == 1
    for fold in ("fold0", "fold1"):
        one, two_ = (tmp_path / run / fold / "predictions.jsonl" for run in ("one", "two"))
        assert_same_answers(one, two_)


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_sweep_over_two_devices_fills_a_folder_per_job(tmp_path: Path) -> None:
    sweep = ["-m", "finetune=full,lora", "trainer=fsdp", "trainer.devices=2", "cv.fold=all"]
    done = subprocess.run(
        command(*sweep, "trainer.max_epochs=1", f"runs_dir={tmp_path}"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summaries = sorted(tmp_path.glob("demo-*/summary.json"))
    assert len(summaries) == 2
    assert all('"folds": [\n    0,\n    1\n  ]' in file.read_text() for file in summaries)
    assert "All jobs" in done.stdout


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_sigterm_ends_all_with_a_checkpoint_from_which_they_go_on(
    tmp_path: Path, strategy: str
) -> None:
    long = [
        *("trainer.max_epochs=6", "trainer.patience=6", f"trainer.strategy={strategy}"),
        *("trainer.devices=2", f"runs_dir={tmp_path}"),
    ]
    whole = recap.load_config([*SMALL, *long, "run=whole"])
    assert subprocess.run(command(*long, "run=whole"), check=False).returncode == 0
    process = subprocess.Popen(
        command(*long, "run=cut"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch 1" in line:
            break
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 143, said
    assert "goes on where it was" in said
    assert list((tmp_path / "cut" / "fold0" / "checkpoints").glob("*.ckpt"))
    assert subprocess.run(command(*long, "run=cut"), check=False).returncode == 0
    assert whole.run == "whole"
    folds = [tmp_path / run / "fold0" for run in ("whole", "cut")]
    assert len({(fold / "predictions.jsonl").read_bytes() for fold in folds}) == 1
    assert len({(fold / "model" / "model.safetensors").read_bytes() for fold in folds}) == 1
    assert '"resumes"' in (tmp_path / "cut" / "manifest.json").read_text()
