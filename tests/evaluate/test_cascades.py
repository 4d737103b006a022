"""Two finished runs as one system, from their own files and, for false alarms, their models."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from builders import read_json, read_jsonl, write_jsonl
from talk import rows

from recap.errors import ConfigError
from recap.evaluate import __main__ as evaluate
from recap.evaluate.cascade import evaluate_cascade
from recap.evaluate.options import load_evaluation
from recap.evaluate.saved_model import Evaluation
from recap.tasks.library import get_task

GOLD = {row["id"]: row["label"] for row in rows()}
R, C = "Resistance", "Collaboration"


@pytest.fixture
def stages(trained: Path, tmp_path: Path) -> Path:
    """Copies of both runs, with three alarms and two misses a fold in the first stage's labels."""
    for name in ("binary", "fine"):
        shutil.copytree(trained / name, tmp_path / name)
    for k in (0, 1):
        file = tmp_path / "binary" / f"fold{k}" / "predictions.jsonl"
        said = read_jsonl(file)
        seen: Counter[str] = Counter()
        for row in said:
            seen[row["gold"]] += 1
            wrong = seen[row["gold"]] <= (3 if row["gold"] == C else 2)
            row["label"] = {R: C, C: R}[row["gold"]] if wrong else row["gold"]
            row["parsed"] = True
        write_jsonl(file, said)
    return tmp_path


def scored(stages: Path, *overrides: str) -> Evaluation:
    named = [f"binary={stages / 'binary'}", f"fine_grained={stages / 'fine'}", "trainer=cpu"]
    return evaluate_cascade(load_evaluation([*named, *overrides]))


def second_answers(stages: Path) -> dict[str, str | None]:
    return {
        row["id"]: row["label"]
        for k in (0, 1)
        for row in read_jsonl(stages / "fine" / f"fold{k}" / "predictions.jsonl")
    }


def test_end_to_end_it_is_right_where_both_stages_are(stages: Path) -> None:
    found = scored(stages)
    second = second_answers(stages)
    judged = {
        row["id"]: row["label"]
        for k in (0, 1)
        for row in read_jsonl(stages / "binary" / f"fold{k}" / "predictions.jsonl")
    }
    right = sum(
        judged[name] == C if gold == C else judged[name] == R and second[name] == gold
        for name, gold in GOLD.items()
    )
    assert found.scores.metrics["accuracy"] == right / 80
    assert found.scores.labels == get_task("flat").labels
    assert {p.id: p.gold for p in found.predictions} == GOLD
    assert found.summary is not None
    assert found.summary.folds == (0, 1)


def test_every_error_has_its_stage_and_the_shares_add_up(stages: Path) -> None:
    figures = scored(stages).figures
    errors, second = figures["errors"], second_answers(stages)
    assert errors["counts"]["missed"] == 4
    assert errors["counts"]["false_alarms"] == 6
    assert errors["first_stage"] == 10
    missed = {
        row["id"]
        for k in (0, 1)
        for row in read_jsonl(stages / "binary" / f"fold{k}" / "predictions.jsonl")
        if (row["gold"], row["label"]) == (R, C)
    }
    wrong = sum(second[name] != GOLD[name] for name in second if name not in missed)
    assert errors["second_stage"] == wrong
    assert errors["total"] == 10 + wrong
    shares = errors["shares"]
    assert shares["first_stage"] + shares["second_stage"] == pytest.approx(1)
    stage = figures["stages"]["fine_grained"]
    assert stage["n"] == len(second)
    assert figures["stages"]["binary"]["metrics"]["accuracy"] == 70 / 80


def test_the_second_stage_is_asked_about_false_alarms_by_the_model_of_their_fold(
    stages: Path,
) -> None:
    found = scored(stages)
    alarms = [p for p in found.predictions if p.gold == C and p.label != C]
    assert len(alarms) == 6
    assert any("asked about 6 examples" in note for note in found.notes)
    # What a tiny model says of them is its own affair, but it is text of the second stage.
    assert all(p.text.startswith("Behavior") for p in alarms)


def test_without_models_false_alarms_are_refused_or_count_as_unparsed(stages: Path) -> None:
    asked = scored(stages)
    for k in (0, 1):
        shutil.rmtree(stages / "fine" / f"fold{k}" / "model")
    with pytest.raises(ConfigError, match=r"3 examples of fold 0 .*false_alarms=invalid"):
        scored(stages)
    found = scored(stages, "false_alarms=invalid")
    assert sum(p.label is None for p in found.predictions if p.gold == C) == 6
    for name in ("accuracy", "macro_recall"):
        assert found.scores.metrics[name] == asked.scores.metrics[name]
    assert found.figures["errors"]["first_stage"] == asked.figures["errors"]["first_stage"]
    assert any("upper bounds" in note for note in found.notes)


def test_runs_over_other_partitions_are_refused_with_both_named(stages: Path) -> None:
    manifest = stages / "fine" / "manifest.json"
    there = read_json(manifest)
    manifest.write_text(json.dumps({**there, "partition_hash": "feedfeedfeedfeed"}))
    own = read_json(stages / "binary" / "manifest.json")["partition_hash"]
    with pytest.raises(ConfigError, match=rf"{own}.*feedfeedfeedfeed.*same data and cv options"):
        scored(stages)


def test_only_folds_that_both_have_finished_are_scored(stages: Path) -> None:
    (stages / "fine" / "fold0" / "scores.json").unlink()
    found = scored(stages)
    assert {p.fold for p in found.predictions} == {1}
    assert (found.scores.n, found.summary) == (40, None)
    with pytest.raises(ConfigError, match=r"not cv\.fold=0 in common"):
        scored(stages, "cv.fold=0")


def test_stages_in_the_wrong_order_and_folders_that_are_no_runs_are_refused(
    stages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = [f"binary={stages / 'fine'}", f"fine_grained={stages / 'binary'}"]
    assert evaluate.main(wrong) == 2
    assert "these two runs are no cascade" in capsys.readouterr().err
    assert evaluate.main([f"binary={stages}", f"fine_grained={stages / 'fine'}"]) == 2
    assert "binary=" in capsys.readouterr().err


def test_tables_and_files_show_both_stages_and_the_errors(
    stages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = stages / "out"
    named = [f"binary={stages / 'binary'}", f"fine_grained={stages / 'fine'}"]
    assert evaluate.main([*named, f"out={out}", "false_alarms=invalid"]) == 0
    printed = capsys.readouterr().out
    assert "end to end" in printed
    assert "resistance missed" in printed
    figures = read_json(out / "scores.json")
    assert set(figures["stages"]) == {"binary", "fine_grained"}
    header = "| metric | end to end | mean ± SD of folds | binary | fine_grained |"
    assert header in (out / "scores.md").read_text(encoding="utf-8")
    assert len(read_jsonl(out / "predictions.jsonl")) == 80
    assert read_json(out / "summary.json")["folds"] == [0, 1]
