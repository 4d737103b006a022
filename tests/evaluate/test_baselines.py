"""Baselines in the folds, the files and the tables of trained runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from builders import read_json, read_jsonl, write_jsonl
from sklearn.metrics import f1_score
from talk import rows
from wandb_files import read_run

from recap.config import result_options
from recap.errors import ConfigError
from recap.evaluate import __main__ as evaluate
from recap.evaluate.baselines import cross_validate_baseline
from recap.evaluate.options import baseline_run, chosen_source, load_evaluation
from recap.metrics.files import predictions_from_jsonl
from recap.metrics.scores import argmax_disagreement
from recap.runs.folder import read_config
from recap.tasks.library import get_task

BINARY = ("Resistance", "Collaboration")
CONTRACT_FILES = [
    *("config.yaml", "manifest.json", "leakage.json", "summary.json", "summary.md"),
    *("fold0/predictions.jsonl", "fold0/scores.json", "fold1/predictions.jsonl"),
]
KEYS = {
    *("id", "session", "fold", "task", "gold", "label", "probabilities", "rationale", "text"),
    "parsed",
}


def run(corpus: Path, runs_dir: Path, *overrides: str) -> int:
    return evaluate.main(
        [
            *("data=dialogues", f"data.path={corpus}", f"runs_dir={runs_dir}", "cv.folds=2"),
            *("logger=none", "trainer=cpu", "task=binary", "run=first", *overrides),
        ]
    )


@pytest.fixture(scope="module")
def tfidf(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs_dir = tmp_path_factory.mktemp("tfidf")
    assert run(corpus, runs_dir, "method=tfidf", "logger=wandb") == 0
    return runs_dir / "first"


@pytest.fixture(scope="module")
def encoder(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs_dir = tmp_path_factory.mktemp("encoder")
    assert run(corpus, runs_dir, *ENCODER) == 0
    return runs_dir / "first"


ENCODER = ("method=encoder", "encoder.max_epochs=2", "encoder.batch_size=8")


@pytest.mark.parametrize("system", ["tfidf", "encoder"])
def test_a_baseline_leaves_the_files_of_a_trained_run(
    system: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(system)
    assert [name for name in CONTRACT_FILES if not (folder / name).is_file()] == []
    assert not (folder / "fold0" / "checkpoints").exists()
    said = [row for k in (0, 1) for row in read_jsonl(folder / f"fold{k}" / "predictions.jsonl")]
    assert len(said) == len({row["id"] for row in said}) == 80
    task = get_task("binary", label_form="bare")
    for row in said:
        assert set(row) == KEYS
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert row["label"] == max(row["probabilities"], key=row["probabilities"].get)
        assert task.parse(row["text"]).label == row["label"]
        assert (row["rationale"], row["parsed"]) == (None, True)
    scores = read_json(folder / "fold0" / "scores.json")
    assert scores["argmax_disagreement"] == 0.0
    assert scores["metrics"]["loss"] is None


@pytest.mark.parametrize("system", ["tfidf", "encoder"])
def test_the_summary_follows_from_the_predictions(
    system: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(system)
    expected = []
    for k in (0, 1):
        written = read_jsonl(folder / f"fold{k}" / "predictions.jsonl")
        gold, said = [row["gold"] for row in written], [row["label"] for row in written]
        expected.append(f1_score(gold, said, average="macro", zero_division=0))
    assert read_json(folder / "summary.json")["metrics"]["macro_f1"]["values"] == pytest.approx(
        expected
    )


def test_the_scores_of_a_trained_fold_say_how_often_a_label_is_not_the_arg_max(
    trained: Path,
) -> None:
    folder = trained / "binary" / "fold0"
    text = (folder / "predictions.jsonl").read_text(encoding="utf-8")
    expected = argmax_disagreement(predictions_from_jsonl(text))
    assert read_json(folder / "scores.json")["argmax_disagreement"] == expected


COUNTS = {"Collaboration": 120, "Blaming": 60, "Excusing": 18, "Minimizing": 2}


@pytest.mark.parametrize(
    ("task", "sample", "said", "expected"),
    [
        # A fifth of each, the default; of 200 examples, 40.
        ("flat", (), "labels keep their shares", {"Collaboration": 24, "Blaming": 12}),
        ("binary", (), "labels keep their shares", {"Collaboration": 24, "Resistance": 16}),
        ("binary", ("cv.sample=balanced",), "cv.sample=balanced", dict.fromkeys(BINARY, 20)),
        # Two of Minimizing are all there are; the other 38 fall to two labels.
        ("fine_grained", ("cv.sample=balanced",), "about even", {"Blaming": 20, "Excusing": 18}),
    ],
)
def test_examples_are_drawn_by_their_shares_or_evenly_over_the_tasks_labels(
    task: str,
    sample: tuple[str, ...],
    said: str,
    expected: dict[str, int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    labels = [label for label, n in COUNTS.items() for _ in range(n)]
    history = [{"speaker": "counselor", "text": "How was it?"}]
    file = write_jsonl(
        tmp_path / "many.jsonl",
        [
            {"id": f"e{i}", "history": history, "response": f"{label} {i}", "label": label}
            for i, label in enumerate(labels)
        ],
    )
    drawn = (f"task={task}", "cv.max_examples=40", "method=tfidf", *sample)
    assert run(file, tmp_path, *drawn) == 0
    said_rows = [
        row for k in (0, 1) for row in read_jsonl(tmp_path / f"first/fold{k}/predictions.jsonl")
    ]
    counts = Counter(row["gold"] for row in said_rows)
    assert sum(counts.values()) == 40
    assert {label: counts[label] for label in expected} == expected
    assert "160 examples were not drawn (cv.max_examples" in capsys.readouterr().out
    assert said in read_json(tmp_path / "first" / "data.json")["notes"][0]


def test_folds_and_hashes_are_those_of_a_run_that_was_trained(tfidf: Path, trained: Path) -> None:
    there, here = (read_json(f / "manifest.json") for f in (trained / "binary", tfidf))
    for name in ("data_hash", "partition_hash"):
        assert here[name] == there[name]
    ids = [
        [row["id"] for row in read_jsonl(folder / "fold1" / "predictions.jsonl")]
        for folder in (tfidf, trained / "binary")
    ]
    assert ids[0] == ids[1]


def test_a_finished_fold_is_never_run_again(
    tfidf: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (tfidf / "fold1" / "scores.json").stat().st_mtime_ns
    assert run(corpus, tfidf.parent, "method=tfidf") == 0
    assert (tfidf / "fold1" / "scores.json").stat().st_mtime_ns == before
    assert capsys.readouterr().out.count("finished before") == 2


def test_other_options_never_land_in_the_same_folder(
    tfidf: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(corpus, tfidf.parent, "method=tfidf", "tfidf.context=full") == 2
    assert "baseline.context" in capsys.readouterr().err
    assert run(corpus, tfidf.parent, *ENCODER) == 2


def test_wandb_gets_a_run_a_fold_and_a_summary(tfidf: Path) -> None:
    runs = [read_run(file) for file in sorted(tfidf.glob("wandb/offline-run-*/*.wandb"))]
    assert sorted(run["name"] for run in runs) == ["first/fold0", "first/fold1", "first/summary"]
    fold = next(run for run in runs if run["name"] == "first/fold0")
    assert fold["config"]["baseline.method"] == "tfidf"
    assert fold["summary"]["test/macro_f1"] > 0.5
    summary = next(run for run in runs if run["name"] == "first/summary")
    assert summary["summary"]["folds"] == [0, 1]
    assert summary["summary"]["loss/mean"] is None
    logged = {key.split("/")[0] for row in summary["history"] for key in row}
    assert {"per_category", "confusion", "confusion_over_folds", "f1_over_folds"} <= logged
    assert not [key for key in logged if key.startswith("learning_curves")]


def test_an_encoder_keeps_its_history_and_a_model_that_plain_transformers_load(
    encoder: Path,
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    assert (encoder / "fold0" / "history.csv").read_text(encoding="utf-8").count("select") == 2
    entry = read_json(encoder / "manifest.json")["folds"]["fold0"]
    assert entry["selected_epoch"] in (1, 2)
    assert entry["select_loss"] > 0
    model = AutoModelForSequenceClassification.from_pretrained(encoder / "fold0" / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(encoder / "fold0" / "model")
    assert model.config.id2label == {0: "Resistance", 1: "Collaboration"}
    row = read_jsonl(encoder / "fold0" / "predictions.jsonl")[0]
    number = int(row["id"][1:])
    mark, said = tokenizer.eos_token_id, rows()[number]["response"]
    asked = tokenizer("Counselor: What do you make of that?")["input_ids"]
    ids = [mark, *asked, mark, *tokenizer(said)["input_ids"], mark]
    kinds = [0] * (len(asked) + 2) + [1] * (len(ids) - len(asked) - 2)
    with torch.no_grad():
        found = model(input_ids=torch.tensor([ids]), token_type_ids=torch.tensor([kinds])).logits
    expected = [row["probabilities"][label] for label in ("Resistance", "Collaboration")]
    assert found.softmax(-1)[0].tolist() == pytest.approx(expected, abs=1e-5)


def test_the_same_seed_gives_the_same_encoder(encoder: Path, corpus: Path, tmp_path: Path) -> None:
    assert run(corpus, tmp_path, *ENCODER, "cv.fold=0", "keep_models=none") == 0
    files = [folder / "fold0" / "predictions.jsonl" for folder in (encoder, tmp_path / "first")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not (tmp_path / "first" / "fold0" / "model").exists()


def test_a_fold_that_was_stopped_goes_on_from_its_last_checkpoint(
    encoder: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recap.models.encoder import EncoderModule

    whole = EncoderModule.on_train_batch_start
    stopping = True

    def stops(self: EncoderModule, batch: object, batch_idx: int) -> None:
        if stopping and self.trainer.current_epoch == 1:
            raise RuntimeError("stopped")
        whole(self, batch, batch_idx)

    monkeypatch.setattr(EncoderModule, "on_train_batch_start", stops)
    assert run(corpus, tmp_path, *ENCODER, "cv.fold=0") == 1
    assert list((tmp_path / "first" / "fold0" / "checkpoints").glob("*.ckpt"))
    stopping = False
    assert run(corpus, tmp_path, *ENCODER, "cv.fold=0") == 0
    files = [folder / "fold0" / "predictions.jsonl" for folder in (encoder, tmp_path / "first")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_an_encoder_without_weights_leaves_nothing_behind(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(corpus, tmp_path, "method=encoder", "encoder=bert") == 2
    assert "encoder.path=FOLDER" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_a_baseline_cannot_do_is_refused_by_name(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for override, said in {
        "cv.fold=final": "cv.fold=all",
        "cv.fold=7": "0 to 1",
        "out=somewhere": "run folder",
    }.items():
        assert run(corpus, tmp_path, "method=tfidf", override) == 2
        assert said in capsys.readouterr().err
    assert run(corpus, tmp_path, "method=encoder", "trainer.devices=2") == 2
    assert "trainer.devices=1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["method=tfidf"], "demo-fine_grained-tfidf"),
        (["method=tfidf", "tfidf.analyzer=word", "backbone=qwen7b"], "demo-fine_grained-tfidf"),
        (["method=tfidf", "encoder=bert", "logger=csv", "cv.fold=1"], "demo-fine_grained-tfidf"),
        (["method=encoder", "task=binary"], "demo-binary-encoder-tiny"),
        (
            ["method=encoder", "encoder=bert", "tfidf.context=full"],
            "demo-fine_grained-encoder-bert",
        ),
        (["method=encoder", "encoder.per_device_batch_size=2"], "demo-fine_grained-encoder-tiny"),
    ],
)
def test_a_run_is_named_after_what_a_baseline_has(overrides: list[str], name: str) -> None:
    assert load_evaluation(overrides).training.run == name


@pytest.mark.parametrize(
    "override",
    [
        *("method=tfidf tfidf.context=full", "method=tfidf tfidf.analyzer=char"),
        *("method=tfidf tfidf.class_weight=null", "method=tfidf cv.seed=3", "method=tfidf seed=3"),
        *("method=encoder encoder.learning_rate=1e-4", "method=encoder encoder.max_tokens=99"),
        *("method=encoder encoder.max_epochs=3", "method=encoder encoder.batch_size=4"),
        *("method=encoder encoder.history=full", "method=encoder encoder.path=/models/mine"),
        "method=encoder sampling=balanced",
    ],
)
def test_an_option_that_changes_results_changes_the_name(override: str) -> None:
    name = load_evaluation(override.split()).training.run
    assert name.startswith("demo-fine_grained-")
    assert len(name.rpartition("-")[2]) == 8


def test_chinese_is_read_by_characters_unless_told_otherwise() -> None:
    options = baseline_run(load_evaluation(["method=tfidf", "data.language=zh"])).baseline
    assert options is not None
    assert options["analyzer"] == "char"


def test_the_run_folder_says_what_the_baseline_was(encoder: Path) -> None:
    config = read_config(encoder)
    assert config.baseline == {"method": "encoder", "history": "intervention", "max_tokens": 256}
    assert (config.backbone.name, config.backbone.family) == ("encoder-tiny", "other")
    assert result_options(config)["trainer.max_epochs"] == 2
    assert yaml.safe_load((encoder / "config.yaml").read_text())["global_batch_size"] == 8


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["model=a", "predictions=b"],
        ["method=tfidf", "model=a"],
        ["binary=a"],
        ["fine_grained=a"],
    ],
)
def test_exactly_one_thing_is_scored(overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"one thing to score: model=FOLDER.*method=tfidf"):
        chosen_source(load_evaluation(overrides))


@pytest.mark.slow
def test_words_of_the_demo_score_what_the_results_page_says(tmp_path: Path) -> None:
    config = load_evaluation(["method=tfidf", f"runs_dir={tmp_path}", "logger=none"])
    spread = cross_validate_baseline(config).metrics["macro_f1"]
    assert spread.mean == pytest.approx(0.6506, abs=5e-4)
    assert spread.std == pytest.approx(0.0133, abs=5e-4)
