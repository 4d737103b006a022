"""merge=true: a run's adapters end as whole models, or stay what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file, save_file
from shrunk import IN_BLOCKS, write_family
from transformers import AutoModelForCausalLM

import recap
from recap.folds.tuned import default_tolerance
from recap.train import __main__ as train

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


def run(*overrides: str, runs_dir: Path) -> int:
    base = [
        *("task=binary", "rationale=false", "cv.folds=2", "cv.max_examples=42"),
        *("prompt.history=none", "decoding.max_new_tokens=4", "logger=none", "trainer=cpu"),
        *("trainer.max_epochs=1", "finetune=lora", "run=r", f"runs_dir={runs_dir}"),
    ]
    return train.main([*base, *overrides])


def merges(folder: Path) -> dict[str, Any]:
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    entries: dict[str, Any] = manifest["merges"]
    return entries


def test_adapters_of_finished_folds_are_merged_but_for_one_that_was_tampered_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(runs_dir=tmp_path) == 0
    folder = tmp_path / "r"
    adapted = AutoPeftModelForCausalLM.from_pretrained(folder / "fold1" / "model")
    expected = adapted.merge_and_unload()(IDS).logits
    tampered = folder / "fold0" / "model" / "adapter_model.safetensors"
    weights = load_file(tampered)
    changed = {k: w + 0.3 if "lora_B" in k else w for k, w in weights.items()}
    save_file(changed, tampered, metadata={"format": "pt"})
    before = tampered.read_bytes()

    assert run("merge=true", runs_dir=tmp_path) == 2
    said = capsys.readouterr()
    scores = json.loads((folder / "fold0" / "scores.json").read_text(encoding="utf-8"))
    assert f"as it was trained {scores['metrics']['loss']:.6f}" in said.err
    assert "merge=false" in said.err
    assert tampered.read_bytes() == before
    assert "fold1    merged: loss" in said.out
    assert list(merges(folder)) == ["fold1"]
    assert recap.Detector.from_pretrained(folder / "fold1").labels == (
        "Resistance",
        "Collaboration",
    )
    entry = merges(folder)["fold1"]
    assert abs(entry["adapted_loss"] - entry["merged_loss"]) <= entry["tolerance"] == 1e-5
    loaded = AutoModelForCausalLM.from_pretrained(folder / "fold1" / "model")
    torch.testing.assert_close(loaded(IDS).logits, expected, rtol=1e-5, atol=1e-5)
    assert not (folder / "fold1" / "model" / "base").exists()

    assert run("merge=true", "merge_tolerance=100", runs_dir=tmp_path) == 0
    assert set(merges(folder)) == {"fold0", "fold1"}


def test_the_final_adapter_over_four_bits_is_compared_with_itself_over_four_bits(
    tmp_path: Path,
) -> None:
    weights = write_family(tmp_path / "weights", "llama", widths=IN_BLOCKS)
    overrides = ["backbone=llama8b", f"backbone.path={weights}", "prompt=brief", "finetune=qlora"]
    overrides += ["cv.max_examples=16", "cv.fold=final", "merge=true", "merge_tolerance=0.5"]
    assert run(*overrides, runs_dir=tmp_path) == 0
    model = tmp_path / "r" / "final" / "model"
    assert (model / "model.safetensors").is_file()
    entry = merges(tmp_path / "r")["final"]
    # Random weights in 4 bits answer a little differently; equal losses would compare one model.
    assert 1e-6 < abs(entry["adapted_loss"] - entry["merged_loss"]) <= 0.5


def test_models_without_adapters_are_left_as_they_are(tmp_path: Path) -> None:
    assert run("finetune=full", "merge=true", "cv.fold=0", runs_dir=tmp_path) == 0
    manifest = json.loads((tmp_path / "r" / "manifest.json").read_text(encoding="utf-8"))
    assert "merges" not in manifest


@pytest.mark.parametrize(
    ("overrides", "tolerance"),
    [
        (["finetune=lora"], 1e-5),
        (["finetune=lora", "trainer.precision=bf16-mixed"], 0.01),
        (["finetune=lora", "backbone.dtype=bfloat16"], 0.01),
        (["finetune=qlora"], 0.05),
    ],
)
def test_the_accepted_difference_follows_the_precision(
    overrides: list[str], tolerance: float
) -> None:
    assert default_tolerance(recap.load_config(overrides)) == tolerance
