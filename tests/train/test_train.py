"""The main job on a few dozen examples, through the command itself."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shrunk
import yaml
from builders import read_json, read_jsonl
from sklearn.metrics import accuracy_score, f1_score
from talk import LEARNING
from wandb_files import read_page, read_run, read_table

from recap.models.backbone import load_tiny
from recap.records import Example
from recap.runs.detector import Detector
from recap.train import __main__ as train

SMALL = [
    "cv.folds=2",
    "cv.max_examples=42",
    "cv.sample=balanced",
    "trainer.max_epochs=1",
    "prompt.history=none",
    "decoding.max_new_tokens=6",
]
CONTRACT_FILES = [
    "config.yaml",
    "manifest.json",
    "leakage.json",
    "summary.json",
    "summary.md",
    "fold0/predictions.jsonl",
    "fold0/scores.json",
    "fold0/history.csv",
    "fold0/model/model.safetensors",
    "fold0/model/chat_template.jinja",
    "fold1/predictions.jsonl",
]


def run(*overrides: str, runs_dir: Path) -> int:
    return train.main([*SMALL, *overrides, f"runs_dir={runs_dir}", "trainer=cpu"])


def read_predictions(fold: Path) -> list[dict[str, Any]]:
    return read_jsonl(fold / "predictions.jsonl")


def read_history(fold: Path) -> list[dict[str, str]]:
    with (fold / "history.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def folder(trained: Path) -> Path:
    """A finished run with W&B, of the binary task, whose model has learned something."""
    folder = trained / "binary"
    rows = [row for k in (0, 1) for row in read_predictions(folder / f"fold{k}")]
    right = sum(row["label"] == row["gold"] for row in rows)
    # Otherwise the tests below would compare zeros with zeros.
    assert 0 < right < len(rows)
    assert {"Resistance", "Collaboration"} <= {row["label"] for row in rows}
    return folder


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A copy of that run, which a test may go on with."""
    return Path(shutil.copytree(folder, tmp_path / "binary"))


def again(corpus: Path, runs_dir: Path, *overrides: str) -> int:
    """Give the command of the finished run once more."""
    given = ["task=binary", "run=binary", f"data.path={corpus}", f"runs_dir={runs_dir}"]
    return train.main([*LEARNING, *given, *overrides])


def test_a_run_folder_holds_the_files_of_the_contract(folder: Path) -> None:
    missing = [name for name in CONTRACT_FILES if not (folder / name).is_file()]
    assert missing == []
    assert not (folder / "fold0" / "checkpoints").exists()  # of use only until the fold is finished


def test_folds_evaluate_every_example_once_in_data_order(folder: Path) -> None:
    rows = [row for k in (0, 1) for row in read_predictions(folder / f"fold{k}")]
    assert len(rows) == len({row["id"] for row in rows}) == 80
    assert {row["fold"] for row in rows} == {0, 1}
    assert set(rows[0]) == {
        "id", "session", "fold", "task", "gold", "label", "probabilities", "rationale", "text",
        "parsed",
    }  # fmt: skip


def test_scores_can_be_recomputed_from_the_predictions(folder: Path) -> None:
    for k in (0, 1):
        rows, scores = (
            read_predictions(folder / f"fold{k}"),
            read_json(folder / f"fold{k}" / "scores.json"),
        )
        gold, said = [row["gold"] for row in rows], [row["label"] or "invalid" for row in rows]
        expected = f1_score(gold, said, labels=scores["labels"], average="macro", zero_division=0)
        assert scores["metrics"]["macro_f1"] == pytest.approx(expected, abs=1e-12)
        assert scores["metrics"]["accuracy"] == pytest.approx(accuracy_score(gold, said), abs=1e-12)
        assert scores["metrics"]["invalid_rate"] == sum(not row["parsed"] for row in rows) / len(
            rows
        )
        assert scores["n"] == len(rows) == sum(map(sum, scores["confusion"]))


def test_every_prediction_has_the_probabilities_of_all_labels(folder: Path) -> None:
    for k in (0, 1):
        for row in read_predictions(folder / f"fold{k}"):
            assert list(row["probabilities"]) == ["Resistance", "Collaboration"]
            assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("decoding", ["constrained", "scored"])
def test_labels_follow_the_decoding_and_none_is_unreadable(decoding: str, tmp_path: Path) -> None:
    options = ["cv.fold=0", "run=r", "logger=none", f"decoding={decoding}"]
    assert run("task=flat", *options, runs_dir=tmp_path) == 0
    rows = read_predictions(tmp_path / "r" / "fold0")
    assert all(row["parsed"] for row in rows)
    assert len(rows) == 21
    if decoding == "scored":
        for row in rows:
            chances = row["probabilities"]
            assert chances[row["label"]] == max(chances.values())


def test_a_threshold_moves_the_line_between_two_labels(tmp_path: Path) -> None:
    options = ["task=binary", "cv.fold=0", "run=r", "logger=none", "decoding=scored"]
    for threshold, expected in (("1e-9", "Resistance"), ("1.0", "Collaboration")):
        runs = tmp_path / expected
        assert run(*options, f"decoding.threshold={threshold}", runs_dir=runs) == 0
        assert {row["label"] for row in read_predictions(runs / "r" / "fold0")} == {expected}


def test_the_summary_holds_mean_and_sample_deviation_of_the_folds(folder: Path) -> None:
    summary = read_json(folder / "summary.json")
    losses = [read_json(folder / f"fold{k}" / "scores.json")["metrics"]["loss"] for k in (0, 1)]
    assert summary["folds"] == [0, 1]
    assert summary["ddof"] == 1
    assert summary["metrics"]["loss"]["values"] == losses
    assert summary["metrics"]["loss"]["mean"] == pytest.approx(sum(losses) / 2)
    assert summary["metrics"]["loss"]["std"] == pytest.approx(abs(losses[0] - losses[1]) / 2**0.5)


def test_the_epoch_with_the_lowest_selection_loss_is_tested(folder: Path) -> None:
    rows = read_history(folder / "fold0")
    assert list(rows[0]) == [
        *("step", "epoch", "split", "loss", "learning_rate", "tokens_per_second"),
        *("examples_per_second", "memory_gib", "skipped_steps"),
    ]
    losses = [float(row["loss"]) for row in rows if row["split"] == "select"]
    selected = read_json(folder / "manifest.json")["folds"]["fold0"]["selected_epoch"]
    assert losses[selected - 1] == min(losses)
    assert read_json(folder / "manifest.json")["folds"]["fold0"]["select_loss"] == min(losses)
    # Under the paper's protocol the selection examples are the test examples.
    tested = read_json(folder / "fold0" / "scores.json")["metrics"]["loss"]
    assert tested == pytest.approx(min(losses), rel=1e-5)


def test_finished_folds_are_never_run_again(
    copied: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (copied / "fold1" / "scores.json").stat().st_mtime_ns
    assert again(corpus, copied.parent) == 0
    assert (copied / "fold1" / "scores.json").stat().st_mtime_ns == before
    assert capsys.readouterr().out.count("finished before") == 2


def test_where_no_bar_is_shown_each_epoch_tells_the_time_that_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["task=binary", "rationale=false", "logger=none", "trainer.max_epochs=2"]
    assert run(*overrides, "run=r", runs_dir=tmp_path) == 0
    epochs = [line for line in capsys.readouterr().out.splitlines() if " epoch " in line]
    left = r", about \d+ s of the fold"
    assert len(epochs) == 4
    assert re.search(left + r", \d+ s of the run left$", epochs[0])
    assert re.search(left + r" left$", epochs[2]), "the last fold is the rest of the run"
    assert not any("left" in line for line in epochs[1::2]), "the last epoch leaves nothing"


def test_only_the_model_of_the_fold_with_the_lowest_selection_loss_is_kept_when_asked(
    copied: Path, corpus: Path
) -> None:
    folds = read_json(copied / "manifest.json")["folds"]
    losses = {name: fold["select_loss"] for name, fold in folds.items()}
    assert again(corpus, copied.parent, "logger=none", "keep_models=best") == 0
    assert [f.parent.name for f in copied.glob("fold*/model")] == [min(losses, key=losses.get)]
    assert (copied / "fold0" / "predictions.jsonl").is_file()


def test_a_folder_with_other_options_is_refused_by_name(
    copied: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert again(corpus, copied.parent, "optimizer.learning_rate=0.5") == 2
    said = capsys.readouterr().err
    assert "optimizer.learning_rate" in said
    assert "run=NAME" in said


def test_wandb_holds_a_run_per_fold_and_a_summary_with_the_spread(folder: Path) -> None:
    runs = {r["name"]: r for r in map(read_run, (folder / "wandb").rglob("*.wandb"))}
    assert set(runs) == {"binary/fold0", "binary/fold1", "binary/summary"}
    assert {r["group"] for r in runs.values()} == {"binary"}
    summary = read_json(folder / "summary.json")["metrics"]["macro_f1"]
    told = runs["binary/summary"]["summary"]
    assert [told["macro_f1/mean"], told["macro_f1/std"]] == [summary["mean"], summary["std"]]
    assert told["macro_f1/values"] == summary["values"]
    rows = runs["binary/fold0"]["history"]
    assert [row["select/loss"] for row in rows if "select/loss" in row]
    written = [row for row in read_history(folder / "fold0") if row["split"] == "train"]
    sent = [row for row in rows if "train/loss" in row]
    assert written
    for name in ("tokens_per_second", "examples_per_second", "memory_gib", "learning_rate"):
        assert [row[name] for row in sent] == [float(row[name]) for row in written]


def summary_file(folder: Path) -> Path:
    found = [f for f in (folder / "wandb").rglob("*.wandb") if "summary" in read_run(f)["name"]]
    assert len(found) == 1
    return found[0]


def test_wandb_has_the_learning_curves_of_all_folds_and_their_confusion(folder: Path) -> None:
    file = summary_file(folder)
    written = [
        (f"fold{k} {name}", int(row["step"]), float(row["loss"]))
        for k in (0, 1)
        for split, name in (("train", "training"), ("select", "selection"))
        for row in read_history(folder / f"fold{k}")
        if row["split"] == split
    ]
    chart = read_table(file, "learning_curves_table")
    assert [(row["lineKey"], row["step"], row["lineVal"]) for row in chart] == written
    assert len({name for name, _, _ in written}) == 4
    pooled = np.sum([read_json(folder / f"fold{k}/scores.json")["confusion"] for k in (0, 1)], 0)
    cells = read_table(file, "confusion")
    assert [row["count_mean"] for row in cells] == (pooled / 2).ravel().tolist()
    labels = read_json(folder / "summary.json")["per_label"]
    table = {row["label"]: row for row in read_table(file, "per_category")}
    assert {label: row["f1_mean"] for label, row in table.items()} == {
        label: row["f1"]["mean"] for label, row in labels.items()
    }
    assert "fold 1:" in read_page(file, "metrics_over_folds")


def test_a_finished_run_completes_its_summary_run_but_writes_none_twice(
    copied: Path, corpus: Path
) -> None:
    before = summary_file(copied)
    assert again(corpus, copied.parent) == 0
    assert summary_file(copied) == before
    # As a kill between the last fold and the summary run leaves it.
    shutil.rmtree(before.parent)
    (copied / "wandb" / "summary.sha256").unlink()
    predictions = (copied / "fold1" / "predictions.jsonl").stat().st_mtime_ns
    assert again(corpus, copied.parent) == 0
    assert read_run(summary_file(copied))["summary"]["folds"] == [0, 1]
    assert (copied / "fold1" / "predictions.jsonl").stat().st_mtime_ns == predictions


def test_no_text_of_the_data_reaches_wandb_or_the_configuration(folder: Path) -> None:
    from recap.folds.run import build_corpus
    from recap.runs.folder import read_config
    from recap.tasks.library import build_task

    config = read_config(folder)
    corpus = build_corpus(config, build_task(config))
    texts = {e.response for e in corpus.examples} | {
        e.rationale for e in corpus.examples if e.rationale
    }
    texts = {text for text in texts if len(text) > 20}
    assert len(texts) > 20
    files = [f for f in (folder / "wandb").rglob("*") if f.is_file()]
    files += [
        folder / name for name in ("config.yaml", "manifest.json", "leakage.json", "summary.json")
    ]
    leaks = [f.name for f in files for text in texts if text.encode() in f.read_bytes()]
    assert leaks == []


def test_one_partition_serves_all_tasks(trained: Path) -> None:
    binary, fine = (trained / name for name in ("binary", "fine"))
    hashes = [read_json(run / "manifest.json")["partition_hash"] for run in (binary, fine)]
    assert hashes[0] == hashes[1]
    rows = read_predictions(binary / "fold0")
    resistant = {row["id"] for row in rows if row["gold"] == "Resistance"}
    assert {row["id"] for row in read_predictions(fine / "fold0")} == resistant


def test_the_final_model_is_trained_for_the_mean_selected_epoch(copied: Path, corpus: Path) -> None:
    assert again(corpus, copied.parent, "cv.fold=final", "logger=csv") == 0
    manifest = read_json(copied / "manifest.json")
    selected = [fold["selected_epoch"] for fold in manifest["folds"].values()]
    assert manifest["final"]["epochs"] == round(sum(selected) / 2)
    assert (copied / "final" / "model" / "config.json").is_file()
    assert (copied / "final" / "history.csv").is_file()


def test_a_sweep_fills_a_folder_per_job_and_ends_with_one_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    swept = ["-m", "cv.protocol=paper,nested"]
    assert run(*swept, "logger=csv", "rationale=false", "cv.fold=0", runs_dir=tmp_path) == 0
    folders = sorted(p.parent for p in tmp_path.glob("*/summary.json"))
    assert len(folders) == 2
    configs = [yaml.safe_load((f / "config.yaml").read_text(encoding="utf-8")) for f in folders]
    assert {c["cv"]["protocol"] for c in configs} == {"paper", "nested"}
    said = capsys.readouterr().out
    assert "All jobs" in said
    assert all(f.name in said.rpartition("All jobs")[2] for f in folders)


def test_a_lora_run_ends_with_an_adapter_that_peft_loads(tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    assert (
        run(
            "finetune=lora",
            "run=lora",
            "cv.fold=0",
            "logger=csv",
            "rationale=false",
            runs_dir=tmp_path,
        )
        == 0
    )
    model = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "lora" / "fold0" / "model")
    assert model.peft_config["default"].r == 8


def test_an_interrupted_training_goes_on_and_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recap.runs.history import History

    overrides = [
        "logger=csv",
        "cv.fold=0",
        "trainer.max_epochs=2",
        "rationale=false",
        "task=binary",
        "trainer.log_every_steps=1",
    ]
    assert run(*overrides, "run=whole", runs_dir=tmp_path) == 0
    monkeypatch.setattr(
        History, "on_train_batch_end", _interrupt_in_epoch(1, History.on_train_batch_end)
    )
    assert run(*overrides, "run=cut", runs_dir=tmp_path) == 130
    monkeypatch.undo()
    assert run(*overrides, "run=cut", runs_dir=tmp_path) == 0
    whole, cut = tmp_path / "whole" / "fold0", tmp_path / "cut" / "fold0"
    assert read_json(tmp_path / "cut" / "manifest.json")["resumes"][0]["at"] == "train"
    assert (cut / "scores.json").read_bytes() == (whole / "scores.json").read_bytes()
    assert (cut / "model" / "model.safetensors").read_bytes() == (
        whole / "model" / "model.safetensors"
    ).read_bytes()
    measured = {"tokens_per_second", "examples_per_second", "memory_gib"}
    histories = [
        [{k: v for k, v in row.items() if k not in measured} for row in read_history(fold)]
        for fold in (whole, cut)
    ]
    assert histories[0] == histories[1]
    assert {row["split"] for row in histories[0]} == {"train", "select"}


def test_the_layout_of_batches_is_said_and_changes_no_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said, losses = {}, {}
    for batching in ("auto", "packed", "padded"):
        overrides = ["task=binary", "run=r", "logger=none", "cv.fold=0", f"batching={batching}"]
        assert run(*overrides, runs_dir=tmp_path / batching) == 0
        said[batching] = capsys.readouterr().out
        rows = read_history(tmp_path / batching / "r" / "fold0")
        losses[batching] = [float(row["loss"]) for row in rows]
    assert re.search(r"batching trunk: \d\d+ leading tokens", said["auto"])
    assert "batching packed\n" in said["packed"]
    assert losses["auto"] == pytest.approx(losses["padded"], rel=1e-5)
    assert losses["packed"] == pytest.approx(losses["padded"], rel=1e-5)


def test_a_layout_that_would_not_be_exact_is_refused_or_said_to_be_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = load_tiny(seed=0)
    model.config.attention_dropout = 0.1
    model.save_pretrained(tmp_path / "weights")
    tokenizer.save_pretrained(tmp_path / "weights")
    options = [f"backbone.path={tmp_path / 'weights'}", "logger=none", "cv.fold=0"]
    weights = tmp_path / "weights" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(b"refused before these are read")
    assert run(*options, "run=a", "batching=trunk", runs_dir=tmp_path) == 2
    assert "set batching=packed" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    weights.write_bytes(content)
    assert run(*options, "run=b", runs_dir=tmp_path) == 0
    assert "batching packed, not trunk: shared tokens" in capsys.readouterr().out


def _interrupt_in_epoch(epoch: int, go_on: Callable[..., None]) -> Callable[..., None]:
    def interrupt(self: Any, trainer: Any, *arguments: Any) -> None:
        if trainer.current_epoch == epoch:
            raise KeyboardInterrupt
        go_on(self, trainer, *arguments)

    return interrupt


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["cv.folds=1"], "cv.folds"),
        (["task=fine_graned"], "fine_grained"),
        (["data=dialogues", "data.path=absent.jsonl"], "absent.jsonl"),
        (["data=dialogues"], "data.path"),
        (["cv.fold=7"], "cv.fold"),
        (["task=binary", "decoding.threshold=0.3"], "decoding=scored"),
        (["decoding=scored", "decoding.threshold=0.3"], "two labels"),
        (["trainer.max_tokens_per_device=30"], "max_tokens_per_device=30 has no room"),
        (["data=dialogues", "data.path={unlabelled}", "rationale=false"], "label"),
        (["data=dialogues", "data.path={unreasoned}"], "rationale=false"),
        (["data=table", "data.path={bad_row}", "rationale=false"], "bad_row.csv:3"),
        (
            ["data=table", "data.path={unknown_label}", "rationale=false"],
            "did you mean 'Disagreeing'",
        ),
        (["data=table", "data.path={empty_response}", "rationale=false"], "empty_response.csv:3"),
    ],
)
def test_a_mistake_ends_with_exit_code_2_and_one_message_that_names_the_mend(
    overrides: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = "session,speaker,text,label\ns1,counselor,How was the week?,\n"
    files = {
        "unlabelled.jsonl": _example() + "\n",
        "unreasoned.jsonl": "".join(
            _example(id=f"e{i}", label="Blaming", response=f"It is all his doing {i}.") + "\n"
            for i in range(8)
        ),
        "bad_row.csv": head + "s1,nobody,Fine.,Blaming\n",
        "unknown_label.csv": head + "s1,client,No.,Disagreing\n",
        "empty_response.csv": head + "s1,client,,Blaming\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    paths = {Path(name).stem: str(tmp_path / name) for name in files}
    chosen = [o.format(**paths) if "{" in o else o for o in overrides]
    assert train.main([*chosen, f"runs_dir={tmp_path}", "logger=csv"]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert "Traceback" not in printed.err + printed.out


def _example(**fields: Any) -> str:
    turn = {"speaker": "counselor", "text": "How was the week?"}
    return json.dumps(
        {"id": "e", "history": [turn], "response": "As always, I would say.", **fields}
    )


def test_a_thinking_model_is_trained_and_asked_behind_a_thought_that_is_empty(
    tmp_path: Path,
) -> None:
    tokenizer = shrunk.thinking_tokenizer("switched")
    shrunk.model_of("qwen2", len(tokenizer)).save_pretrained(tmp_path / "qwen3")
    tokenizer.save_pretrained(tmp_path / "qwen3")
    given = [f"backbone.path={tmp_path / 'qwen3'}", "backbone.name=b", "cv.fold=0", "run=r"]
    assert run(*given, "backbone.family=qwen2", "logger=none", runs_dir=tmp_path) == 0
    example = Example(id="e", history=(), response="No.")
    detector = Detector.from_pretrained(tmp_path / "r")
    messages = [
        {"role": m.role, "content": m.text} for m in detector.stages[0].task.messages(example)
    ]
    asked = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, enable_thinking=False
    )
    assert list(detector.prompt_ids(example)) == asked["input_ids"]
    assert tokenizer.decode(asked["input_ids"]).endswith("<think>\n\n</think>\n\n")
