"""A run that finds its learning rate trains as one that was given that rate."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import recap
from recap.config import check_combinations
from recap.errors import ConfigError
from recap.models.callbacks import RangeTest
from recap.models.module import ResponseModule
from recap.train import __main__ as train

BASE = [
    *("task=binary", "rationale=false", "cv.folds=2", "cv.max_examples=42", "prompt.history=none"),
    *("decoding.max_new_tokens=4", "logger=none", "trainer=cpu", "trainer.max_epochs=2"),
    *("trainer.log_every_steps=1", "global_batch_size=6", "trainer.per_device_batch_size=2"),
]
FIND = "optimizer.find_learning_rate=true"
MEASURED = {"tokens_per_second", "examples_per_second", "memory_gib"}


def run(*overrides: str, runs_dir: Path, name: str) -> int:
    return train.main([*BASE, *overrides, f"runs_dir={runs_dir}", f"run={name}"])


def found(runs_dir: Path, name: str) -> dict[str, Any]:
    manifest = json.loads((runs_dir / name / "manifest.json").read_text(encoding="utf-8"))
    entry: dict[str, Any] = manifest["learning_rate"]
    return entry


def history(fold: Path) -> list[dict[str, str]]:
    with (fold / "history.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in MEASURED} for row in rows]


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_training_after_the_search_equals_training_with_that_rate_given_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Stopped after the search and the first epoch, and gone on with.
    with monkeypatch.context() as patch:
        patch.setattr(ResponseModule, "on_save_checkpoint", interrupt)
        assert run(FIND, runs_dir=tmp_path, name="found") == 130
    entry = found(tmp_path, "found")
    assert entry["found_on"] == "fold0"
    assert entry["used"] in [pytest.approx(rate, rel=0.01) for rate in entry["tried"]]
    assert len(entry["tried"]) == len(entry["losses"]) > 10
    assert f"learning rate {entry['used']:g}, found on fold0" in capsys.readouterr().out

    monkeypatch.setattr(RangeTest, "on_train_batch_end", interrupt)  # no other search
    assert run(FIND, runs_dir=tmp_path, name="found") == 0
    assert found(tmp_path, "found") == entry
    assert capsys.readouterr().out.count("found on fold0") == 2, "said for every fold"
    given = f"optimizer.learning_rate={entry['used']!r}"
    assert run(given, runs_dir=tmp_path, name="given") == 0
    assert not list(tmp_path.glob("*.ckpt"))
    for fold in ("fold0", "fold1"):
        folders = [tmp_path / name / fold for name in ("found", "given")]
        assert history(folders[0]) == history(folders[1])
        scores = [json.loads((folder / "scores.json").read_text()) for folder in folders]
        assert len({one.pop("made_with")["configuration_hash"] for one in scores}) == 2
        assert scores[0] == scores[1]
        for file in ("predictions.jsonl", "model/model.safetensors"):
            assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes()


def test_nothing_is_searched_unless_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RangeTest, "on_train_batch_start", interrupt)
    assert run("cv.fold=0", runs_dir=tmp_path, name="r") == 0
    manifest = json.loads((tmp_path / "r" / "manifest.json").read_text(encoding="utf-8"))
    assert "learning_rate" not in manifest


def test_a_search_without_training_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no learning rate to find.*find_learning_rate=false"):
        check_combinations(recap.load_config([FIND, "finetune=none"]))


def test_a_configured_rate_that_is_not_used_is_no_reason_to_refuse() -> None:
    weights = ["backbone=qwen7b", "backbone.path=nowhere", "backbone.dtype=bfloat16"]
    small = [*weights, "optimizer.learning_rate=5e-7"]
    with pytest.raises(ConfigError, match="too small for weights in bfloat16"):
        check_combinations(recap.load_config(small))
    check_combinations(recap.load_config([*small, FIND]))


def test_a_found_rate_that_the_weights_cannot_take_up_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recap.folds.training.suggest_rate", lambda *_: 5e-7)
    monkeypatch.setattr("recap.folds.training.N_STEPS", 1)
    assert run(FIND, "backbone.dtype=bfloat16", "cv.fold=0", runs_dir=tmp_path, name="r") == 2
    assert "learning_rate=5e-07 is too small for weights in bfloat16" in capsys.readouterr().err
