"""W&B's summary run, read back from its offline files."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wandb_files import read_page, read_records, read_run, read_table

from recap.metrics.scores import scores_from_confusion, summarize
from recap.records import Scores
from recap.runs.history import FinishedFolds, HistoryRow
from recap.runs.wandb import WandbTracker, learning_curves

LABELS = ("Arguing", "Denying")
COUNTS = {
    0: [[6, 2, 1], [3, 8, 0]],
    1: [[5, 4, 0], [1, 9, 1]],
    2: [[8, 1, 0], [4, 6, 0]],
}


DIES = """
import os, signal, sys
from pathlib import Path
sys.path[1:1] = ["tests", "tests/runs"]
from recap.runs import wandb
from test_wandb import finished, tracker_of

# Between the figures and the tables of the summary run.
wandb.log_folds = lambda run, folds: os.kill(os.getpid(), signal.SIGKILL)
tracker_of(Path(sys.argv[1])).log_summary(finished(0, 1))
"""


def row(step: int, split: Any, loss: float) -> HistoryRow:
    return HistoryRow(
        step=step,
        epoch=0,
        split=split,
        loss=loss,
        learning_rate=1e-3,
        tokens_per_second=None,
        examples_per_second=None,
        memory_gib=1.0,
    )


def history(number: int) -> tuple[HistoryRow, ...]:
    rows = [row(step, "train", 2 / step + number) for step in (10, 20, 30)]
    return (*rows, row(30, "select", 0.25 + number), row(40, "train", math.nan))


def finished(*indices: int, loss: bool = True) -> FinishedFolds:
    scores: dict[int, Scores] = {
        k: scores_from_confusion("t", LABELS, COUNTS[k], 0.1 * (k + 1) if loss else None)
        for k in indices
    }
    return FinishedFolds(
        summary=summarize(scores, protocol="paper"),
        scores=scores,
        histories={k: history(k) if loss else () for k in indices},
    )


@pytest.fixture
def tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WandbTracker:
    """Return the tracker of a run folder called ``secret``, and a home folder of its own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    return tracker_of(tmp_path)


def tracker_of(tmp_path: Path) -> WandbTracker:
    (tmp_path / "secret").mkdir(exist_ok=True)
    options = {"cv.folds": 3, "seed": 1, "data.path": "/clients/secret.jsonl"}
    return WandbTracker(
        folder=tmp_path / "secret", group="g", project="p", mode="offline", options=options
    )


def files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "secret").rglob("*.wandb"))


def test_the_summary_run_holds_how_every_metric_spreads(
    tracker: WandbTracker, tmp_path: Path
) -> None:
    folds = finished(0, 1, 2)
    tracker.log_summary(folds)
    (file,) = files(tmp_path)
    run = read_run(file)
    assert (run["name"], run["group"], run["job_type"]) == ("g/summary", "g", "summary")
    told = run["summary"]
    assert (told["folds"], told["ddof"], told["protocol"]) == ([0, 1, 2], 1, "paper")
    accuracies = [14 / 20, 14 / 20, 14 / 19]
    assert told["accuracy/values"] == pytest.approx(accuracies)
    for name in ("macro_f1", "accuracy", "invalid_rate", "loss"):
        values = told[f"{name}/values"]
        assert values == [folds.scores[k].metrics[name] for k in range(3)]
        assert told[f"{name}/mean"] == pytest.approx(np.mean(values))
        assert told[f"{name}/std"] == pytest.approx(np.std(values, ddof=1))
        assert [told[f"{name}/min"], told[f"{name}/max"]] == [min(values), max(values)]


def test_the_summary_run_has_tables_per_category_and_per_cell(
    tracker: WandbTracker, tmp_path: Path
) -> None:
    tracker.log_summary(finished(0, 1, 2))
    (file,) = files(tmp_path)
    counts = np.array([COUNTS[k] for k in range(3)])
    hits = np.diagonal(counts, axis1=1, axis2=2)
    recalls = hits / counts.sum(axis=2)
    precisions = hits / counts.sum(axis=1)[:, :2]
    f1 = 2 * precisions * recalls / (precisions + recalls)
    rows = read_table(file, "per_category")
    assert [r["label"] for r in rows] == list(LABELS)
    for name, values in (("precision", precisions), ("recall", recalls), ("f1", f1)):
        assert [r[f"{name}_mean"] for r in rows] == pytest.approx(values.mean(axis=0))
        assert [r[f"{name}_std"] for r in rows] == pytest.approx(values.std(axis=0, ddof=1))
    assert [r["support"] for r in rows] == [9 + 9 + 9, 11 + 11 + 10]
    cells = read_table(file, "confusion")
    shares = counts / counts.sum(axis=2, keepdims=True)
    assert [(c["gold"], c["predicted"]) for c in cells] == [
        (gold, said) for gold in LABELS for said in (*LABELS, "invalid")
    ]
    for name, values in (("count", counts), ("share", shares)):
        assert [c[f"{name}_mean"] for c in cells] == pytest.approx(values.mean(axis=0).ravel())
        deviations = values.std(axis=0, ddof=1).ravel()
        assert [c[f"{name}_std"] for c in cells] == pytest.approx(deviations)
    assert {c["folds"] for c in cells} == {3}


def test_the_summary_run_has_box_plots_and_the_confusion_as_pages(
    tracker: WandbTracker, tmp_path: Path
) -> None:
    tracker.log_summary(finished(0, 1, 2))
    (file,) = files(tmp_path)
    metrics, f1 = read_page(file, "metrics_over_folds"), read_page(file, "f1_over_folds")
    for name in ("macro_f1", "macro_precision", "macro_recall", "accuracy", "invalid_rate", "loss"):
        assert f">{name}</text>" in metrics
    assert "fold 2: 73.68" in metrics  # 14 of 19
    assert "fold 1: 0.2<" in metrics  # the loss, in nats
    assert all(f">{label}</text>" in f1 for label in LABELS)
    assert len(re.findall("<circle", f1)) == 2 * 3
    # Of Arguing 6/9, 5/9 and 8/9 are answered so.
    assert "70.4 ± 17.0<small>6.3 ± 1.5</small>" in read_page(file, "confusion_over_folds")


def test_learning_curves_of_all_folds_are_one_chart(tracker: WandbTracker, tmp_path: Path) -> None:
    tracker.log_summary(finished(0, 2))
    (file,) = files(tmp_path)
    points = [
        (r["lineKey"], r["step"], r["lineVal"]) for r in read_table(file, "learning_curves_table")
    ]
    assert points == [
        *(("fold0 training", step, 2 / step) for step in (10, 20, 30)),
        ("fold0 selection", 30, 0.25),
        *(("fold2 training", step, 2 / step + 2) for step in (10, 20, 30)),
        ("fold2 selection", 30, 2.25),
    ]
    panels = [
        update.value_json
        for record in read_records(file)
        for update in record.config.update
        if list(update.nested_key) == ["_wandb", "visualize", "learning_curves"]
    ]
    assert len(panels) == 1
    assert "wandb/lineseries/v0" in panels[0]
    assert '"learning_curves_table"' in panels[0]


def test_long_curves_are_thinned_with_their_ends_kept() -> None:
    histories = {k: [row(step, "train", 1.0) for step in range(5_000)] for k in range(3)}
    curves = learning_curves(histories, most=100)
    assert [len(points) for points in curves.values()] == [33, 33, 33]
    steps = [step for step, _ in curves["fold1 training"]]
    assert (steps[0], steps[-1]) == (0, 4_999)
    assert len(set(np.diff(steps))) <= 2  # as even as whole steps can be
    assert learning_curves({0: []}) == {}


def test_a_system_that_was_not_trained_has_no_curves_and_no_loss(
    tracker: WandbTracker, tmp_path: Path
) -> None:
    tracker.log_summary(finished(0, 1, loss=False))
    (file,) = files(tmp_path)
    told = read_run(file)["summary"]
    assert told["loss/values"] == [None, None]
    assert [told[f"loss/{name}"] for name in ("mean", "std", "min", "max")] == [None] * 4
    assert "learning_curves" not in " ".join(told)
    assert ">loss<" not in read_page(file, "metrics_over_folds")
    assert ">macro_f1<" in read_page(file, "metrics_over_folds")


def test_one_fold_has_no_deviation_anywhere(tracker: WandbTracker, tmp_path: Path) -> None:
    tracker.log_summary(finished(1))
    (file,) = files(tmp_path)
    told = read_run(file)["summary"]
    assert (told["accuracy/std"], told["accuracy/mean"]) == (None, 0.7)
    assert {r["f1_std"] for r in read_table(file, "per_category")} == {None}
    assert "±" not in read_page(file, "f1_over_folds")
    assert "no standard deviation" in read_page(file, "f1_over_folds")


def test_the_same_summary_is_not_written_twice(tracker: WandbTracker, tmp_path: Path) -> None:
    tracker.log_summary(finished(0, 1))
    (first,) = files(tmp_path)
    held = first.read_bytes()
    tracker.log_summary(finished(0, 1))
    tracker_of(tmp_path).log_summary(finished(0, 1))
    assert files(tmp_path) == [first]
    assert first.read_bytes() == held


def test_a_summary_of_more_folds_takes_the_place_of_the_earlier_one(
    tracker: WandbTracker, tmp_path: Path
) -> None:
    tracker.start_fold("fold0")
    tracker.log_fold(finished(0).scores[0])
    tracker.log_summary(finished(0))
    tracker_of(tmp_path).log_summary(finished(0, 1, 2))
    runs = {run["name"]: run for run in map(read_run, files(tmp_path))}
    assert len(files(tmp_path)) == len(runs) == 2
    assert runs["g/summary"]["summary"]["folds"] == [0, 1, 2]
    assert len(runs["g/summary"]["history"]) == 1
    assert runs["g/fold0"]["summary"]["test/accuracy"] == 0.7


def test_what_a_kill_has_cut_off_is_written_by_the_next_call(
    tmp_path: Path, project_root: Path
) -> None:
    # Without W&B's background process of this one.
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    command = [sys.executable, "-c", DIES, str(tmp_path)]
    killed = subprocess.run(command, cwd=project_root, env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    (cut_off,) = (tmp_path / "secret" / "wandb").glob("offline-run-*")
    tracker_of(tmp_path).log_summary(finished(0, 1))
    (file,) = files(tmp_path)
    assert file.parent != cut_off
    assert read_run(file)["summary"]["folds"] == [0, 1]
    assert len(read_run(file)["history"]) == 1
    assert not cut_off.exists()


def test_no_path_reaches_wandb_and_no_file_leaves_the_run_folder(
    tracker: WandbTracker, tmp_path: Path
) -> None:
    tracker.start_fold("fold0")
    tracker.log_step(row(1, "train", 0.5))
    tracker.log_fold(finished(0).scores[0])
    tracker.start_fold("fold1")
    tracker.abandon()
    tracker.log_summary(finished(0, 1, 2))
    assert len(files(tmp_path)) == 3
    paths = [str(tmp_path).encode(), b"secret", str(Path.cwd()).encode(), b"/home"]
    for file in (tmp_path / "secret").rglob("*"):
        if file.is_file():
            assert not [path for path in paths if path in file.read_bytes()], file.name
    for file in files(tmp_path):
        for record in read_records(file):
            assert record.WhichOneof("record_type") != "artifact"
            said = record.SerializeToString()
            assert not [path for path in paths if path in said]
    # W&B's own log of its own start, which names no folder of ours.
    outside = [file for file in (tmp_path / "home").rglob("*") if file.is_file()]
    assert [file for file in outside if not file.name.startswith("core-debug-")] == []
    assert not [file for file in outside if b"secret" in file.read_bytes()]
