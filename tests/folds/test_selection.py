"""What a fold says of the examples that selected its epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders import read_jsonl
from shrunk import write_family

from recap import load_config
from recap.evaluate import __main__ as evaluate
from recap.folds.run import read_run
from recap.metrics.files import predictions_from_jsonl
from recap.models.module import ResponseModule
from recap.train import __main__ as train

SMOKE = ["experiment=smoke", "logger=none", "trainer=cpu", "trainer.progress=false"]
NESTED = [*SMOKE, "cv.protocol=nested", "decoding.max_new_tokens=8"]


def selected_ids(overrides: list[str], fold: int) -> list[str]:
    """Return the ids of the examples that select, drawn again from the data."""
    run = read_run(load_config(overrides))
    chosen = set(run.folds[fold].select) & set(run.selected)
    return [run.corpus.examples[i].id for i in sorted(chosen)]


@pytest.fixture(scope="module")
def nested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nested")
    assert train.main([*NESTED, f"runs_dir={folder}", "run=r"]) == 0
    return folder / "r"


@pytest.mark.parametrize("fold", [0, 1])
def test_a_nested_run_judges_exactly_the_examples_that_select(nested: Path, fold: int) -> None:
    file = nested / f"fold{fold}" / "selection.jsonl"
    ids = [row["id"] for row in read_jsonl(file)]
    assert ids == selected_ids(NESTED, fold)
    assert 0 < len(ids) < 20, "about a tenth of the 80 examples of the other fold"
    tested = {row["id"] for row in read_jsonl(nested / f"fold{fold}" / "predictions.jsonl")}
    assert tested.isdisjoint(ids)


def test_its_lines_are_predictions_of_the_likeliest_label(nested: Path) -> None:
    file = nested / "fold0" / "selection.jsonl"
    predictions = predictions_from_jsonl(file.read_text(encoding="utf-8"))
    for prediction in predictions:
        assert prediction.fold == 0
        assert prediction.probabilities is not None
        assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-4)
        assert prediction.label is not None
        assert prediction.probabilities[prediction.label] == max(prediction.probabilities.values())
        assert (prediction.text, prediction.rationale, prediction.parsed) == ("", None, True)
    manifest = json.loads((nested / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["folds"]["fold0"]["selection_seconds"] > 0


def test_where_the_reported_examples_select_there_is_no_such_file(tmp_path: Path) -> None:
    assert train.main([*SMOKE, "cv.fold=0", f"runs_dir={tmp_path}", "run=r"]) == 0
    assert (tmp_path / "r" / "fold0" / "predictions.jsonl").is_file()
    assert not (tmp_path / "r" / "fold0" / "selection.jsonl").exists()


def test_a_fold_killed_while_it_judges_is_not_trained_again_and_ends_the_same(
    nested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hit(*_: Any) -> None:
        raise KeyboardInterrupt

    again = [*NESTED, f"runs_dir={tmp_path}", "run=r", "cv.fold=0"]
    with monkeypatch.context() as patch:
        patch.setattr(ResponseModule, "predict_step", hit)
        assert train.main(again) == 130
    assert not (tmp_path / "r" / "fold0" / "scores.json").exists()
    monkeypatch.setattr(ResponseModule, "training_step", hit)
    assert train.main(again) == 0
    manifest = json.loads((tmp_path / "r" / "manifest.json").read_text(encoding="utf-8"))
    assert [resume["at"] for resume in manifest["resumes"]] == ["decode"]
    for name in ("selection.jsonl", "predictions.jsonl"):
        files = [folder / "fold0" / name for folder in (nested, tmp_path / "r")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_an_untuned_backbone_and_adapters_judge_too(tmp_path: Path) -> None:
    weights = write_family(tmp_path / "weights", "llama")
    small = [*NESTED, "task=binary", "cv.fold=0", "cv.max_examples=40", "prompt=brief"]
    small += ["backbone=llama8b", f"backbone.path={weights}", f"runs_dir={tmp_path}"]
    for method in ("none", "lora"):
        assert train.main([*small, f"finetune={method}", f"run={method}"]) == 0
        ids = [row["id"] for row in read_jsonl(tmp_path / method / "fold0" / "selection.jsonl")]
        assert ids == selected_ids(small, 0)


@pytest.mark.parametrize("method", ["tfidf", "encoder"])
def test_baselines_judge_them_as_well(method: str, tmp_path: Path) -> None:
    options = [*NESTED, "task=binary", "cv.fold=0", f"runs_dir={tmp_path}", "run=r"]
    assert evaluate.main([f"method={method}", "encoder.max_epochs=1", *options]) == 0
    found = read_jsonl(tmp_path / "r" / "fold0" / "selection.jsonl")
    assert [row["id"] for row in found] == selected_ids(options, 0)
    assert all(set(row["probabilities"]) == {"Resistance", "Collaboration"} for row in found)


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_devices_judge_as_one(strategy: str, nested: Path, tmp_path: Path) -> None:
    two = [*NESTED, f"trainer.strategy={strategy}", "trainer.devices=2", "cv.fold=0"]
    assert train.main([*two, f"runs_dir={tmp_path}", "run=r"]) == 0
    one, other = (
        read_jsonl(folder / "fold0" / "selection.jsonl") for folder in (nested, tmp_path / "r")
    )
    assert [row["id"] for row in other] == [row["id"] for row in one]
    for row, same in zip(one, other, strict=True):
        assert same["probabilities"] == pytest.approx(row["probabilities"], rel=1e-3)
