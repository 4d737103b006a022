"""What a fold does when it is stopped, moved, resumed or set up on another backbone."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import record_fault
from safetensors.torch import load_file
from shrunk import IN_BLOCKS, write_family

from recap.folds.training import Training
from recap.models.backbone import load_tiny
from recap.models.module import ResponseModule
from recap.runs.folder import locked
from recap.train import __main__ as train

BASE = [
    "task=binary",
    "rationale=false",
    "cv.folds=2",
    "cv.fold=0",
    "cv.max_examples=42",
    "prompt.history=none",
    "decoding.max_new_tokens=4",
    "logger=csv",
    "trainer=cpu",
]


def run(*overrides: str, runs_dir: Path, name: str = "r") -> int:
    return train.main([*BASE, *overrides, f"runs_dir={runs_dir}", f"run={name}"])


def manifest(runs_dir: Path, name: str = "r") -> Any:
    return json.loads((runs_dir / name / "manifest.json").read_text(encoding="utf-8"))


def newest(runs_dir: Path) -> Path:
    return max((runs_dir / "r" / "fold0" / "checkpoints").glob("*.ckpt"))


def force_losses(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> list[dict[str, Any]]:
    """Make validation report these losses in turn; return the weights after each epoch."""
    weights: list[dict[str, Any]] = []

    def log(self: ResponseModule) -> None:
        self._val_loss.reset()
        weights.append({k: v.clone() for k, v in self.model.state_dict().items()})
        self.log("val_loss", torch.tensor(losses[self.current_epoch]))

    monkeypatch.setattr(ResponseModule, "on_validation_epoch_end", log)
    return weights


def interrupt(when: Callable[[Any], bool]) -> Callable[..., Any]:
    """Return a method that is hit by Ctrl-C when ``when`` holds of its object."""

    def hit(self: Any, *arguments: Any) -> None:
        if when(self):
            raise KeyboardInterrupt

    return hit


def test_the_best_epoch_is_tested_and_exported_and_patience_ends_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = force_losses(monkeypatch, [2.0, 1.0, 3.0, 4.0, 5.0, 6.0])
    assert run("trainer.max_epochs=6", "trainer.patience=2", runs_dir=tmp_path) == 0
    assert len(weights) == 4  # two epochs without a lower loss after the second
    assert manifest(tmp_path)["folds"]["fold0"]["selected_epoch"] == 2
    exported = load_file(tmp_path / "r" / "fold0" / "model" / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(exported[name], weights[1][name])
    assert not torch.equal(exported[name], weights[3][name])


def test_a_copied_run_folder_still_knows_its_best_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    force_losses(monkeypatch, [1.0, 2.0, 3.0])
    with monkeypatch.context() as patch:
        patch.setattr(ResponseModule, "on_train_epoch_end", interrupt(_in_epoch(1)))
        assert run("trainer.max_epochs=3", runs_dir=tmp_path / "there") == 130
    shutil.copytree(tmp_path / "there", tmp_path / "here")
    assert run("trainer.max_epochs=3", runs_dir=tmp_path / "here") == 0
    assert manifest(tmp_path / "here")["folds"]["fold0"]["selected_epoch"] == 1


def _in_epoch(epoch: int) -> Callable[[Any], bool]:
    return lambda module: module.current_epoch == epoch


def test_what_an_abandoned_training_left_is_not_taken_for_another_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = "trainer.max_epochs=3"
    with monkeypatch.context() as patch:
        patch.setattr(Training, "test", interrupt(lambda _: True))
        assert run(epochs, runs_dir=tmp_path) == 130
    with monkeypatch.context() as patch:
        patch.setattr(ResponseModule, "on_train_epoch_end", interrupt(_in_epoch(1)))
        assert run(epochs, "resume=never", runs_dir=tmp_path) == 130
    assert run(epochs, runs_dir=tmp_path) == 0
    assert [r["at"] for r in manifest(tmp_path)["resumes"]] == ["train"]
    assert run(epochs, runs_dir=tmp_path, name="whole") == 0
    files = [tmp_path / name / "fold0" / "scores.json" for name in ("r", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_fold_killed_while_decoding_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Training, "test", interrupt(lambda _: True))
        assert run("trainer.max_epochs=1", runs_dir=tmp_path) == 130
    monkeypatch.setattr(ResponseModule, "training_step", interrupt(lambda _: True))
    assert run("trainer.max_epochs=1", runs_dir=tmp_path) == 0
    assert manifest(tmp_path)["resumes"][0]["at"] == "decode"


def test_a_checkpoint_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Training, "test", interrupt(lambda _: True))
        assert run("trainer.max_epochs=1", runs_dir=tmp_path) == 130
    last = newest(tmp_path)
    last.write_bytes(last.read_bytes()[:1000])
    assert run("trainer.max_epochs=1", runs_dir=tmp_path) == 2
    said = capsys.readouterr().err
    assert last.name in said
    assert "resume=never" in said
    assert run("trainer.max_epochs=1", "resume=never", runs_dir=tmp_path) == 0


def test_two_processes_do_not_train_one_fold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(tmp_path / "r" / "fold0"):
        assert run("trainer.max_epochs=1", runs_dir=tmp_path) == 2
    assert "another process is working on it" in capsys.readouterr().err
    record_fault("two processes on one folder", tried=1, survived=1, lost=0)


def test_a_loss_that_is_not_a_number_is_never_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    force_losses(monkeypatch, [1.0, float("nan"), 0.5])
    assert run("trainer.max_epochs=3", runs_dir=tmp_path) == 0
    assert manifest(tmp_path)["folds"]["fold0"]["selected_epoch"] == 1


def test_a_fold_with_nothing_to_test_is_found_before_any_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = [{"speaker": "counselor", "text": "Tell me."}]
    rows = [
        {"id": f"e{i}", "session": f"s{i % 4}", "history": turns, "response": f"So {i}.",
         "label": "Collaboration" if i % 4 else "Blaming"}
        for i in range(16)
    ]  # fmt: skip
    file = tmp_path / "d.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    overrides = ["task=fine_grained", "data=dialogues", f"data.path={file}", "cv.group=session"]
    assert run(*overrides, "cv.fold=all", runs_dir=tmp_path) == 2
    said = capsys.readouterr()
    assert "has no example of this task to" in said.err
    assert "cv.group" in said.err
    assert "to train," not in said.out


@pytest.mark.slow
def test_sigterm_ends_with_143_and_a_checkpoint_of_the_last_step(tmp_path: Path) -> None:
    overrides = [*BASE, "trainer.max_epochs=400", "trainer.patience=400", "trainer.progress=false"]
    command = [sys.executable, "-m", "recap.train", *overrides, f"runs_dir={tmp_path}", "run=r"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch 2 " in line:
            break
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    assert "goes on where it was" in said
    last = torch.load(newest(tmp_path), weights_only=True)
    assert last["global_step"] >= 4


@pytest.mark.parametrize(("backbone", "family"), [("qwen7b", "qwen2"), ("llama8b", "llama")])
def test_a_named_backbone_trains_from_a_folder_of_weights(
    backbone: str, family: str, tmp_path: Path
) -> None:
    folder = write_family(tmp_path / "weights", family)
    overrides = [f"backbone={backbone}", f"backbone.path={folder}", "prompt=brief"]
    small = ["trainer.max_epochs=1", "cv.max_examples=16", "global_batch_size=4"]
    assert run(*overrides, *small, "finetune=lora", runs_dir=tmp_path) == 0
    assert (tmp_path / "r" / "fold0" / "model" / "adapter_model.safetensors").is_file()


def test_a_killed_training_in_four_bits_ends_as_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_family(tmp_path / "weights", "llama", widths=IN_BLOCKS)
    overrides = ["backbone=llama8b", f"backbone.path={folder}", "prompt=brief", "finetune=qlora"]
    overrides += ["trainer.max_epochs=3", "cv.max_examples=16", "global_batch_size=4"]
    overrides += ["optimizer=adamw8bit", "trainer.gradient_checkpointing=true"]
    with monkeypatch.context() as patch:
        patch.setattr(ResponseModule, "on_train_epoch_end", interrupt(_in_epoch(1)))
        assert run(*overrides, runs_dir=tmp_path) == 130
    last = torch.load(newest(tmp_path), weights_only=True)
    assert all(".lora_" in name for name in last["state_dict"]), "tuned weights alone"
    assert run(*overrides, runs_dir=tmp_path) == 0
    assert run(*overrides, runs_dir=tmp_path, name="whole") == 0
    ends = [
        load_file(tmp_path / name / "fold0" / "model" / "adapter_model.safetensors")
        for name in ("r", "whole")
    ]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_without_tuning_the_untouched_backbone_is_scored(tmp_path: Path) -> None:
    assert run("finetune=none", runs_dir=tmp_path) == 0
    assert manifest(tmp_path)["folds"]["fold0"]["selected_epoch"] == 0
    fold = tmp_path / "r" / "fold0"
    assert {file.name for file in fold.iterdir()} == {".lock", "predictions.jsonl", "scores.json"}
    model, _ = load_tiny(seed=0)
    scored = json.loads((fold / "scores.json").read_text(encoding="utf-8"))["metrics"]["loss"]
    # Random weights spread their guesses over the vocabulary.
    assert scored == pytest.approx(math.log(model.config.vocab_size), rel=0.1)


@pytest.mark.parametrize("backbone", ["qwen7b", "llama8b"])
def test_a_named_backbone_without_weights_says_how_to_supply_them(
    backbone: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    assert run(f"backbone={backbone}", runs_dir=tmp_path) == 2
    assert time.monotonic() - began < 20
    assert "backbone.path=FOLDER" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_a_device_that_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert run("trainer.accelerator=gpu", runs_dir=tmp_path) == 2
    assert "trainer=cpu" in capsys.readouterr().err
