"""Anybody's predictions file: joined by id, every row accounted for, nothing guessed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from builders import read_json, read_jsonl, write_jsonl
from sklearn.metrics import accuracy_score, f1_score
from talk import rows

from recap.errors import ConfigError, DataError
from recap.evaluate import __main__ as evaluate
from recap.evaluate.options import load_evaluation
from recap.evaluate.predictions_file import evaluate_file
from recap.evaluate.saved_model import Evaluation
from recap.predict import __main__ as predict

GOLD = {row["id"]: row["label"] for row in rows()}
RESISTANT = [name for name, label in GOLD.items() if label != "Collaboration"]


def scored(corpus: Path, file: Path, *overrides: str) -> Evaluation:
    config = [f"predictions={file}", "data=dialogues", f"data.path={corpus}", "cv.folds=2"]
    return evaluate_file(load_evaluation([*config, "task=flat", *overrides]))


def answers(**changed: Any) -> list[dict[str, Any]]:
    """Return an answer to every example, right but for those given by id."""
    return [{"id": name, "label": changed.get(name, label)} for name, label in GOLD.items()]


def test_scores_are_those_of_scikit_learn(corpus: Path, tmp_path: Path) -> None:
    said = answers(e0="Blaming", e1="Excusing", e2="Minimizing", e5=None)
    found = scored(corpus, write_jsonl(tmp_path / "p.jsonl", said)).scores
    gold, label = list(GOLD.values()), [row["label"] or "invalid" for row in said]
    assert found.n == 80
    assert found.metrics["accuracy"] == pytest.approx(accuracy_score(gold, label))
    expected = f1_score(gold, label, labels=found.labels, average="macro", zero_division=0)
    assert found.metrics["macro_f1"] == pytest.approx(expected)
    assert found.metrics["invalid_rate"] == 1 / 80


def test_labels_are_read_in_any_spelling_and_below_those_of_the_task(
    corpus: Path, tmp_path: Path
) -> None:
    said = answers()
    spellings = {
        "Blaming": "Denying - Blaming",
        "Minimizing": "否认-最小化",
        "Collaboration": "合作",
    }
    for row in said:
        row["label"] = spellings[row["label"]]
    file = write_jsonl(tmp_path / "p.jsonl", said)
    assert scored(corpus, file).scores.metrics["accuracy"] == 1.0
    assert scored(corpus, file, "task=binary").scores.metrics["accuracy"] == 1.0


def test_a_thought_in_a_label_is_no_part_of_it(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = answers()
    for row in said:
        row["label"] = f"<think>\nCollaboration?\n</think>\n\n{row['label']}"
    said[0]["label"] = "<think>Collaboration"
    file = write_jsonl(tmp_path / "p.jsonl", said)
    config = [f"predictions={file}", "data=dialogues", f"data.path={corpus}", "cv.folds=2"]
    assert evaluate.main([*config, "task=flat", f"out={tmp_path / 'out'}"]) == 0
    scores = read_json(tmp_path / "out/scores.json")
    assert (scores["metrics"]["accuracy"], scores["cut_in_thought"]) == (79 / 80, 1)
    assert "1 answers were cut off inside a thought" in capsys.readouterr().out


def test_what_is_no_label_is_wrong_and_counted_by_kind(corpus: Path, tmp_path: Path) -> None:
    said = answers(e0=None, e1="", e2="null", e3="I cannot tell", e4="Resistance")
    evaluation = scored(corpus, write_jsonl(tmp_path / "p.jsonl", said))
    assert evaluation.scores.metrics["invalid_rate"] == 5 / 80
    assert evaluation.scores.metrics["accuracy"] == 75 / 80
    notes = "\n".join(evaluation.notes)
    assert "80 rows read, 80 accepted, 0 rejected" in notes
    assert "3 rows have no label" in notes
    assert "1 labels are no spelling of the taxonomy" in notes
    assert "1 labels are not the task's" in notes
    assert "cannot tell" not in notes


def test_every_row_at_fault_is_listed_with_its_line_and_the_mend(
    corpus: Path, tmp_path: Path
) -> None:
    bad = [
        {"id": "e0", "label": "Blaming"},
        {"id": "e99", "label": "Blaming"},
        {"label": "Blaming"},
        {"id": "e1"},
        {"id": "e2", "label": "Blaming", "fold": -1},
        {"id": "e3", "label": "Blaming", "probabilities": {"Blaming": "high"}},
    ]
    file = write_jsonl(tmp_path / "p.jsonl", [*answers()[:1], *bad])
    file.write_text(file.read_text() + "not json\n")
    with pytest.raises(DataError) as error:
        scored(corpus, file)
    lines = str(error.value).splitlines()
    assert lines[0] == f"{file}: 7 of 8 rows cannot be used:"
    for number, said in {
        2: "id 'e0' is at line 1 already",
        3: "id 'e99' is not in the labeled data",
        4: "id: is missing",
        5: "label: is missing",
        6: "fold: is no fold's index",
        7: "probabilities: holds no finite number",
        8: "row: is not valid JSON",
    }.items():
        [line] = [line for line in lines if line.strip().startswith(f"{file}:{number}:")]
        assert said in line
    assert "data.on_error=skip" in lines[-1]


def test_all_faults_of_a_row_are_listed_and_no_file_is_left_out_whole(
    corpus: Path, tmp_path: Path
) -> None:
    row = {"id": "e99", "label": "Blaming", "probabilities": [0.5], "fold": "one"}
    file = write_jsonl(tmp_path / "p.jsonl", [row])
    with pytest.raises(DataError) as error:
        scored(corpus, file)
    lines = [line.strip().partition(f"{file}:")[2] for line in str(error.value).splitlines()]
    assert [line.split(":")[:2] for line in lines[1:-1]] == [
        ["1", " probabilities"],
        ["1", " id"],
        ["1", " fold"],
    ]
    assert str(error.value).endswith("\nmend them")


def test_rows_at_fault_are_left_out_on_request_and_still_listed(
    corpus: Path, tmp_path: Path
) -> None:
    file = write_jsonl(tmp_path / "p.jsonl", [*answers(), {"id": "e0", "label": "Excusing"}])
    evaluation = scored(corpus, file, "data.on_error=skip")
    assert evaluation.scores.metrics["accuracy"] == 1.0  # the first one counts
    counts = evaluation.figures["rows"]
    assert (counts["read"], counts["accepted"], counts["rejected"]) == (81, 80, 1)
    assert any("p.jsonl:81: id:" in note for note in evaluation.notes)


@pytest.mark.parametrize(
    ("on_missing", "n", "accuracy"), [("invalid", 80, 78 / 80), ("drop", 78, 1.0)]
)
def test_missing_predictions_fail_unless_something_else_is_asked_for(
    corpus: Path, tmp_path: Path, on_missing: str, n: int, accuracy: float
) -> None:
    file = write_jsonl(tmp_path / "p.jsonl", answers()[2:])
    with pytest.raises(DataError, match=r"2 of 80 labeled examples have no prediction") as error:
        scored(corpus, file)
    assert "id 'e0'\n  id 'e1'\n" in str(error.value)
    evaluation = scored(corpus, file, f"on_missing={on_missing}")
    assert (evaluation.scores.n, evaluation.figures["missing"]) == (n, 2)
    assert evaluation.scores.metrics["accuracy"] == accuracy
    assert any(f"on_missing={on_missing}" in note for note in evaluation.notes)


def test_a_table_is_read_like_json_lines(corpus: Path, tmp_path: Path) -> None:
    for name, delimiter in (("p.csv", ","), ("p.tsv", "\t")):
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerow(["id", "label", "model"])
            writer.writerows([row["id"], row["label"] or "", "mine"] for row in answers(e0=None))
        assert scored(corpus, tmp_path / name).scores.metrics["accuracy"] == 79 / 80
    (tmp_path / "q.csv").write_text("id,lable\ne0,Blaming\n")
    with pytest.raises(DataError, match=r"no column 'label' \(did you mean 'lable'\?\)"):
        scored(corpus, tmp_path / "q.csv")


def test_a_set_smaller_than_the_folds_is_scored_all_the_same(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "three.jsonl", rows(3))
    file = write_jsonl(tmp_path / "p.jsonl", answers()[:3])
    assert scored(data, file, "cv.folds=5").scores.n == 3
    with pytest.raises(ConfigError, match=r"cv\.folds=5: there are only 3"):
        scored(data, file, "cv.folds=5", "cv.fold=0")


def test_rows_of_examples_that_the_task_leaves_aside_are_counted_and_not_used(
    corpus: Path, tmp_path: Path
) -> None:
    evaluation = scored(corpus, write_jsonl(tmp_path / "p.jsonl", answers()), "task=fine_grained")
    assert evaluation.scores.n == len(RESISTANT)
    aside = 80 - len(RESISTANT)
    assert any(note.startswith(f"{aside} rows are of examples") for note in evaluation.notes)


def both_folds(run: Path, path: Path) -> Path:
    """Write the predictions of a run's two folds to one file."""
    files = [run / f"fold{k}" / "predictions.jsonl" for k in (0, 1)]
    return write_jsonl(path, [row for file in files for row in read_jsonl(file)])


def test_a_finished_run_scores_what_its_own_files_say(
    trained: Path, corpus: Path, tmp_path: Path
) -> None:
    both = both_folds(trained / "binary", tmp_path / "both.jsonl")
    evaluation = scored(corpus, both, "task=binary")
    assert evaluation.summary is not None
    said = read_json(trained / "binary" / "summary.json")["metrics"]["macro_f1"]
    assert evaluation.summary.metrics["macro_f1"].values == pytest.approx(said["values"])
    assert evaluation.summary.metrics["macro_f1"].std == pytest.approx(said["std"])


def test_one_fold_of_a_run_is_expected_to_answer_for_that_fold_alone(
    trained: Path, corpus: Path
) -> None:
    file = trained / "binary" / "fold1" / "predictions.jsonl"
    evaluation = scored(corpus, file, "task=binary")
    assert (evaluation.scores.n, evaluation.summary) == (40, None)
    assert "folds of this partition: 1" in evaluation.notes


def test_folds_of_another_partition_are_said_and_pooled(
    trained: Path, corpus: Path, tmp_path: Path
) -> None:
    both = both_folds(trained / "binary", tmp_path / "both.jsonl")
    evaluation = scored(corpus, both, "task=binary", "cv.seed=9")
    assert evaluation.summary is None
    assert evaluation.scores.n == 80
    assert any("are not those of this partition" in note for note in evaluation.notes)


def test_a_file_that_contradicts_the_data_is_said_to(corpus: Path, tmp_path: Path) -> None:
    said = [{**row, "gold": "Excusing", "task": "other"} for row in answers()]
    notes = scored(corpus, write_jsonl(tmp_path / "p.jsonl", said)).notes
    assert any(note.startswith("80 rows give another gold label") for note in notes)
    assert any("of another task than 'flat'" in note for note in notes)


def test_scores_predictions_and_a_page_are_written(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = answers(e0="Blaming")
    for row in said:
        row["probabilities"] = {"Collaboration": 0.9, "Blaming": 0.1}
    file = write_jsonl(tmp_path / "p.jsonl", said)
    overrides = [f"predictions={file}", "data=dialogues", f"data.path={corpus}", "task=flat"]
    assert evaluate.main([*overrides, f"out={tmp_path / 'out'}"]) == 0
    assert "p.jsonl: 80 rows read, 80 accepted" in capsys.readouterr().out
    scores = read_json(tmp_path / "out" / "scores.json")
    assert scores["metrics"]["accuracy"] == 79 / 80
    apart = sum(row["label"] != "Collaboration" for row in said)
    assert scores["argmax_disagreement"] == apart / 80
    assert "| accuracy | 98.75 |" in (tmp_path / "out" / "scores.md").read_text()
    written = read_jsonl(tmp_path / "out" / "predictions.jsonl")
    assert [row["id"] for row in written] == list(GOLD)
    assert written[0]["label"] == "Blaming"


@pytest.mark.parametrize(
    ("probabilities", "said"),
    [
        ({"Collaboration": 0.9, "Blaming": 0.8}, "add up to 1.7"),
        ({"Collaboration": 0.6, "Blaming": 0.3}, "add up to 0.9"),
        ({"Collaboration": 0.98, "Blaming": 0.0}, "add up to 0.98"),
        ({"Collaboration": 1.2, "Blaming": -0.2}, "hold -0.2"),
        ({"Collaboration": 97, "Blaming": 3}, "add up to 100"),
    ],
)
def test_probabilities_that_are_none_are_refused_by_line(
    probabilities: dict[str, float],
    said: str,
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = answers()
    given[2]["probabilities"] = probabilities
    # Rounded to two digits, three thirds are 0.99.
    given[3]["probabilities"] = {"Collaboration": 0.33, "Blaming": 0.33, "Excusing": 0.33}
    file = write_jsonl(tmp_path / "p.jsonl", given)
    overrides = [f"predictions={file}", "data=dialogues", f"data.path={corpus}", "task=flat"]
    assert evaluate.main(overrides) == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert (
        f"p.jsonl:3: probabilities: {said}, write numbers from 0 to 1 that add up to 1" in printed
    )
    assert "1 of 80 rows" in printed


def test_what_is_scored_is_never_written_over(
    corpus: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_jsonl(tmp_path / "predictions.jsonl", answers())
    config = [f"predictions={file}", "data=dialogues", f"data.path={corpus}", "task=flat"]
    run = trained / "binary"
    for out in (tmp_path, run, run / "fold0", run / "fold7"):
        before = {path: path.read_bytes() for path in out.glob("*.*") if path.is_file()}
        assert evaluate.main([*config, f"out={out}"]) == 2
        said = capsys.readouterr()
        assert "would be overwritten" in said.err + said.out
        assert {path: path.read_bytes() for path in out.glob("*.*") if path.is_file()} == before
    assert evaluate.main([*config, f"out={tmp_path / 'scores'}"]) == 0
    assert evaluate.main([*config, f"out={tmp_path / 'scores'}"]) == 0


def dialogues(path: Path) -> Path:
    """Write twelve labelled dialogues that the client opens; their ids look like formulas."""
    talks = []
    for row in rows(12):
        turns = [
            {"speaker": "client", "text": "Hello, here I am."},
            *row["history"],
            {"speaker": "client", "text": row["response"], "label": row["label"]},
        ]
        talks.append({"session": f"=s-{row['id']}", "turns": turns})
    return write_jsonl(path, talks)


@pytest.mark.parametrize("name", ["answers.jsonl", "answers.csv"])
def test_what_recap_predict_writes_is_scored_as_it_is(
    trained: Path, tmp_path: Path, name: str
) -> None:
    data = dialogues(tmp_path / "talks.jsonl")
    model = trained / "binary" / "fold0"
    words = [f"model={model}", f"input={data}", f"output={tmp_path / name}", "device=cpu"]
    assert predict.main(words) == 0
    evaluation = scored(data, tmp_path / name, "task=binary")
    assert evaluation.scores.n == 12
    assert any(note.startswith("12 rows are of examples that are not") for note in evaluation.notes)
    for prediction in evaluation.predictions:
        assert prediction.session.startswith("=s-")
        assert sum((prediction.probabilities or {}).values()) == pytest.approx(1, abs=1e-4)
