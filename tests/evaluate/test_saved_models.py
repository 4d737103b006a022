"""A saved model on labelled data: which one, under which prompt, and what it knew before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from builders import read_json, read_jsonl, write_jsonl
from talk import LEARNING, rows

from recap.errors import ConfigError
from recap.evaluate import __main__ as evaluate
from recap.evaluate.options import load_evaluation
from recap.evaluate.saved_model import Evaluation, evaluate_model
from recap.predict import __main__ as predict
from recap.records import Example
from recap.runs.saved import ModelStage, Prompt
from recap.train import __main__ as train


def scored(model: Path, *overrides: str) -> Evaluation:
    return evaluate_model(load_evaluation([f"model={model}", "trainer=cpu", *overrides]))


def new_rows(tmp_path: Path, n_known: int) -> Path:
    fresh = rows(12)
    for row in fresh[n_known:]:
        row["response"] += " Or so I think."
    return write_jsonl(tmp_path / "new.jsonl", fresh)


def test_a_folds_model_says_on_its_held_out_part_what_it_said_in_training(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained / "binary"
    said = list(read_jsonl(folder / "fold1" / "predictions.jsonl"))
    assert {"Resistance", "Collaboration"} <= {row["label"] for row in said}  # it learned something
    out = f"out={tmp_path}"
    assert evaluate.main([f"model={folder}", "cv.fold=1", "trainer=cpu", out]) == 0
    again = read_jsonl(tmp_path / "predictions.jsonl")
    for key in ("id", "session", "fold", "task", "gold", "label", "text"):
        assert [row[key] for row in again] == [row[key] for row in said]
    before, after = (read_json(f / "scores.json") for f in (folder / "fold1", tmp_path))
    assert after["metrics"]["macro_f1"] == before["metrics"]["macro_f1"]
    assert "also chose the epoch" in capsys.readouterr().out


def test_a_run_stands_for_its_best_fold_and_the_task_it_was_trained_for(
    trained: Path, tmp_path: Path
) -> None:
    folds = read_json(trained / "binary" / "manifest.json")["folds"]
    best = min(folds, key=lambda name: folds[name]["select_loss"])
    file = new_rows(tmp_path, n_known=0)
    found = scored(trained / "binary", "data=dialogues", f"data.path={file}")
    assert found.subject == str(trained / "binary" / best / "model")
    assert (found.scores.task, found.scores.n) == ("binary", 12)
    assert not [note for note in found.notes if note.startswith("WARNING")]


def test_what_it_was_trained_on_is_counted_aloud_and_all_of_it_is_refused(
    trained: Path, corpus: Path, tmp_path: Path
) -> None:
    file = new_rows(tmp_path, n_known=5)
    found = scored(trained / "binary", "data=dialogues", f"data.path={file}")
    [warning] = [note for note in found.notes if note.startswith("WARNING")]
    assert warning.startswith("WARNING: 5 of 12 examples were in the data")
    with pytest.raises(ConfigError, match=r"all 80 examples.*cv\.fold=0"):
        scored(trained / "binary", "data=dialogues", f"data.path={corpus}")


def test_a_model_of_another_fold_is_refused(trained: Path) -> None:
    model = trained / "binary" / "fold0" / "model"
    with pytest.raises(ConfigError, match=r"trained on most of that fold; give the run folder"):
        scored(model, "cv.fold=1")
    assert scored(model.parent, "cv.fold=0").scores.n == 40


def test_a_model_without_its_run_does_what_the_command_line_says(
    trained: Path, tmp_path: Path
) -> None:
    model = tmp_path / "elsewhere" / "mine"
    shutil.copytree(trained / "binary" / "fold0" / "model", model)
    data = ["data=dialogues", f"data.path={new_rows(tmp_path, n_known=0)}"]
    (model / "recap.json").unlink()
    options = ["task=binary", "rationale=false", "prompt.history=none"]
    found = scored(model, *data, *options, "decoding.max_new_tokens=12")
    inside = scored(trained / "binary" / "fold0", *data)
    assert [p.label for p in found.predictions] == [p.label for p in inside.predictions]
    [warning] = [note for note in found.notes if note.startswith("WARNING")]
    assert "lies in no run folder" in warning


def test_a_model_without_its_run_is_asked_as_its_own_file_says_and_as_recap_predict_asks(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "elsewhere" / "mine"
    shutil.copytree(trained / "binary" / "fold0" / "model", model)
    file = new_rows(tmp_path, n_known=0)
    asked: list[list[tuple[int, ...]]] = []
    prompts_of = ModelStage.prompts

    def noting(stage: ModelStage, examples: Sequence[Example]) -> list[Prompt]:
        found = prompts_of(stage, examples)
        asked.append([prompt.ids for prompt in found])
        return found

    monkeypatch.setattr(ModelStage, "prompts", noting)
    found = scored(model, "data=dialogues", f"data.path={file}")
    assert (found.scores.task, found.scores.n) == ("binary", 12)
    words = [f"model={model}", f"input={file}", f"output={tmp_path / 'said.jsonl'}", "device=cpu"]
    assert predict.main(words) == 0
    assert len(asked[0]) == 12
    assert sorted(asked[0]) == sorted(ids for call in asked[1:] for ids in call)
    with pytest.raises(ConfigError, match=r"task=flat: .*labels of task 'binary' \(recap\.json\)"):
        scored(model, "data=dialogues", f"data.path={file}", "task=flat")


def test_what_does_not_fit_the_model_is_not_asked_and_counts_as_unparsed(
    trained: Path, tmp_path: Path
) -> None:
    model = tmp_path / "elsewhere" / "mine"
    shutil.copytree(trained / "binary" / "fold0" / "model", model)
    positions = read_json(model / "config.json")["max_position_embeddings"]
    long = rows(12)
    long[3]["response"] = "so it goes " * positions
    file = write_jsonl(tmp_path / "new.jsonl", long)
    found = scored(model, "data=dialogues", f"data.path={file}")
    assert [note for note in found.notes if note.startswith("1 prompts do not fit the model")]
    assert [p.id for p in found.predictions if not p.parsed] == ["e3"]
    assert found.scores.metrics["invalid_rate"] == 1 / 12


def test_an_adapter_is_put_on_its_base(corpus: Path, tmp_path: Path) -> None:
    overrides = [f"data.path={corpus}", f"runs_dir={tmp_path}", "run=lora", "finetune=lora"]
    assert (
        train.main([*overrides, "task=binary", *LEARNING, "trainer.max_epochs=1", "cv.fold=0"]) == 0
    )
    said = read_jsonl(tmp_path / "lora" / "fold0" / "predictions.jsonl")
    found = scored(tmp_path / "lora", "cv.fold=0")
    assert [p.text for p in found.predictions] == [row["text"] for row in said]


def test_data_that_changed_since_are_refused(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "binary"
    shutil.copytree(trained / "binary", folder)
    manifest = read_json(folder / "manifest.json")
    (folder / "manifest.json").write_text(json.dumps({**manifest, "data_hash": "0" * 16}))
    with pytest.raises(ConfigError, match="are not those that the run was made with"):
        scored(folder, "cv.fold=0")


def test_what_is_no_model_is_refused_with_what_would_be_one(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such folder"):
        scored(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"neither a run folder \(config.yaml\) nor a model's"):
        scored(tmp_path)
    with pytest.raises(ConfigError, match=r"data\.path=x\.jsonl is not the data of the run"):
        scored(trained / "binary", "cv.fold=0", "data=dialogues", "data.path=x.jsonl")
    with pytest.raises(ConfigError, match="no such model"):
        scored(trained / "binary", "cv.fold=final")


def test_a_baselines_folder_is_no_model(corpus: Path, tmp_path: Path) -> None:
    overrides = ["method=tfidf", "data=dialogues", f"data.path={corpus}", "logger=none", "run=b"]
    assert evaluate.main([*overrides, f"runs_dir={tmp_path}", "cv.folds=2", "task=binary"]) == 0
    with pytest.raises(ConfigError, match=r"baseline \(tfidf\), scored on its own folds already"):
        scored(tmp_path / "b")
