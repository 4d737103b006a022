"""A label of three examples under five folds: what is undefined in the folds without it."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path

import pytest
from builders import read_json, write_jsonl
from sklearn.metrics import f1_score
from wandb_files import read_page, read_run, read_table

from recap.evaluate.__main__ import main as evaluate
from recap.report.__main__ import main as report

Printed = pytest.CaptureFixture[str]
N_FOLDS = 5


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty utterances; a word of their own tells the three resistant ones."""
    rows = [
        {
            "id": f"e{i}",
            "history": [{"speaker": "counselor", "text": "How was it?"}],
            "response": f"never never number {i}" if i < 3 else f"good good number {i}",
            "label": "Blaming" if i < 3 else "Collaboration",
        }
        for i in range(50)
    ]
    return write_jsonl(tmp_path_factory.mktemp("data") / "few.jsonl", rows)


@pytest.fixture(scope="module")
def runs_dir(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that answers all of them rightly."""
    runs_dir = tmp_path_factory.mktemp("runs")
    data = ("data=dialogues", f"data.path={corpus}", f"cv.folds={N_FOLDS}", "trainer=cpu")
    run = ("method=tfidf", "task=binary", "logger=wandb", f"runs_dir={runs_dir}", "run=perfect")
    assert evaluate([*data, *run]) == 0
    return runs_dir


@pytest.fixture
def folder(runs_dir: Path) -> Path:
    folder = runs_dir / "perfect"
    assert read_json(folder / "summary.json")["metrics"]["accuracy"]["mean"] == 1
    return folder


def test_recall_and_f1_are_null_where_a_fold_lacks_the_label(folder: Path) -> None:
    rows = [read_json(folder / f"fold{k}/scores.json")["per_label"] for k in range(N_FOLDS)]
    lacking = [k for k, row in enumerate(rows) if row["Resistance"]["support"] == 0]
    assert len(lacking) == 2
    for k, row in enumerate(rows):
        figures = [row["Resistance"][name] for name in ("precision", "recall", "f1")]
        assert figures == ([None] * 3 if k in lacking else [1.0] * 3)
        assert row["Collaboration"]["f1"] == 1.0
    spread = read_json(folder / "summary.json")["per_label"]["Resistance"]["recall"]
    assert (spread["mean"], spread["std"]) == (1.0, 0.0)
    assert [k for k, value in enumerate(spread["values"]) if value is None] == lacking


def test_macro_figures_are_scikit_learns_and_pooled_ones_stand_beside_them(folder: Path) -> None:
    summary = read_json(folder / "summary.json")
    golds = [
        [json.loads(line)["gold"] for line in (folder / f"fold{k}/predictions.jsonl").open()]
        for k in range(N_FOLDS)
    ]
    labels = ["Resistance", "Collaboration"]
    expected = [
        f1_score(gold, gold, labels=labels, average="macro", zero_division=0) for gold in golds
    ]
    found = summary["metrics"]["macro_f1"]
    assert found["values"] == pytest.approx(expected)
    assert found["mean"] == pytest.approx(0.8)
    assert found["std"] == pytest.approx(statistics.stdev([1, 1, 1, 0.5, 0.5]))
    together = [gold for fold in golds for gold in fold]
    assert summary["metrics_pooled"] == {
        "macro_f1": f1_score(together, together, labels=labels, average="macro"),
        "macro_precision": 1.0,
        "macro_recall": 1.0,
        "accuracy": 1.0,
        "invalid_rate": 0.0,
    }


def test_console_page_and_report_warn_and_name_the_label(
    folder: Path, corpus: Path, tmp_path: Path, capsys: Printed
) -> None:
    missing = read_json(folder / "summary.json")["per_label"]["Resistance"]["recall"]["values"]
    folds = ", ".join(str(k) for k, value in enumerate(missing) if value is None)
    warning = f"no tested example of Resistance (folds {folds}): recall and F1 are undefined"
    page = (folder / "summary.md").read_text("utf-8")
    assert f"Warning: {warning}" in page
    assert "Pooled, all folds' predictions together: Macro-F1 100.00," in page
    again = ("method=tfidf", "task=binary", f"runs_dir={folder.parent}", "run=perfect")
    data = ("data=dialogues", f"data.path={corpus}", f"cv.folds={N_FOLDS}", "trainer=cpu")
    assert evaluate([*again, *data, "logger=wandb"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"warning: {warning}" in printed
    assert "pooled macro F1 100.00" in printed
    assert report([f"runs={folder}", f"out={tmp_path}"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Labels that a fold lacks count as 0 there; pooled it is 100.00." in printed
    page = (tmp_path / "report.md").read_text("utf-8")
    assert f"TF-IDF, linear classifier: {warning}" in page
    assert "80.00 ± 27.39 (perfect; pooled 100.00" in page
    [found] = read_json(tmp_path / "report.json")["tables"]["rows"]
    assert found["metrics_pooled"]["macro_f1"] == 1.0
    assert None in found["per_label"]["Resistance"]["f1"]["values"]


def test_wandb_draws_the_folds_that_have_the_label(folder: Path) -> None:
    files = (folder / "wandb").rglob("*.wandb")
    [file] = [file for file in files if "summary" in read_run(file)["name"]]
    assert read_run(file)["summary"]["macro_f1/pooled"] == 1.0
    table = {row["label"]: row for row in read_table(file, "per_category")}
    assert (table["Resistance"]["f1_mean"], table["Resistance"]["support"]) == (1.0, 3)
    page = read_page(file, "f1_over_folds")
    assert page.count("<circle") == 3 + 5
    assert "nan" not in page


def as_before(folder: Path) -> None:
    """Give a run the files that earlier versions wrote: 0 for null, and nothing pooled."""
    for k in range(N_FOLDS):
        file = folder / f"fold{k}/scores.json"
        scores = read_json(file)
        for row in scores["per_label"].values():
            row |= {name: 0.0 for name, value in row.items() if value is None}
        file.write_text(json.dumps(scores), encoding="utf-8")
    summary = read_json(folder / "summary.json")
    del summary["metrics_pooled"]
    for name in ("precision", "recall", "f1"):
        spread = summary["per_label"]["Resistance"][name]
        spread["values"] = [value or 0.0 for value in spread["values"]]
        spread["mean"] = statistics.fmean(spread["values"])
        spread["std"] = statistics.stdev(spread["values"])
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    page = (folder / "summary.md").read_text("utf-8")
    lines = [x for x in page.split("\n") if not x.startswith(("Warning:", "Pooled"))]
    at = next(i for i, line in enumerate(lines) if line.startswith("| Resistance"))
    lines[at] = f"| Resistance | {' | '.join(['60.00 ± 54.77'] * 3)} | 3 |"
    blank = next(i for i, line in enumerate(lines) if line.startswith("| Category")) - 1
    del lines[blank]
    (folder / "summary.md").write_text("\n".join(lines), encoding="utf-8")


def test_runs_of_now_and_of_before_are_verified(
    folder: Path, tmp_path: Path, capsys: Printed
) -> None:
    assert report([f"runs={folder}", "verify=true", f"out={tmp_path / 'out'}"]) == 0
    earlier = Path(shutil.copytree(folder, tmp_path / "earlier"))
    as_before(earlier)
    assert report([f"runs={earlier}", "verify=true", f"out={tmp_path / 'before'}"]) == 0
    assert "verified earlier" in capsys.readouterr().err
    # A report of it says what one of today's says.
    found = [
        read_json(tmp_path / name / "report.json")["tables"]["rows"][0]
        for name in ("out", "before")
    ]
    assert found[0]["per_label"] == found[1]["per_label"]
    file = earlier / "summary.json"
    changed = file.read_text("utf-8").replace("0.6,", "0.7,", 1)
    assert changed != file.read_text("utf-8")
    file.write_text(changed, encoding="utf-8")
    assert report([f"runs={earlier}", "verify=true"]) == 1


def test_a_label_that_is_answered_and_never_right_has_a_precision_of_0(
    corpus: Path, tmp_path: Path, capsys: Printed
) -> None:
    said = [{"id": f"e{i}", "label": "Excusing" if i == 9 else "Collaboration"} for i in range(50)]
    file = write_jsonl(tmp_path / "said.jsonl", said)
    data = ("data=dialogues", f"data.path={corpus}", "task=flat", f"out={tmp_path / 'out'}")
    assert evaluate([f"predictions={file}", *data]) == 0
    rows = read_json(tmp_path / "out" / "scores.json")["per_label"]
    assert rows["Excusing"] == {"precision": 0.0, "recall": None, "f1": None, "support": 0}
    assert rows["Minimizing"] == {"precision": None, "recall": None, "f1": None, "support": 0}
    # There are such examples, and none is found.
    assert rows["Blaming"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 3}
    printed = " ".join(capsys.readouterr().out.split())
    assert "no tested example of Challenging, Discounting, Disagreeing, Excusing, " in printed
    assert "zero_division=0" in (tmp_path / "out" / "scores.md").read_text("utf-8")
