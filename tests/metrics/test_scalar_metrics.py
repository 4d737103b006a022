"""A metric that is registered in one place stands in every file, table and page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import read_json, read_jsonl
from sklearn.metrics import cohen_kappa_score
from wandb_files import read_run

from recap.errors import ConfigError
from recap.evaluate import __main__ as evaluate
from recap.metrics.files import json_text, scores_from_dict, scores_to_dict, summary_from_dict
from recap.metrics.scalar import SCALAR_METRICS, metric_of, scalar_metric
from recap.metrics.scores import scores_from_confusion, summarize, summary_markdown
from recap.report import __main__ as report
from recap.runs.folder import read_config
from recap.runs.model_card import CardFacts, model_card
from recap.statistics.agreement import cohen_kappa
from recap.tasks.library import build_task

TODAY = ("macro_f1", "macro_precision", "macro_recall", "accuracy", "invalid_rate")
LABELS = ("a", "b", "c")
RUN = [
    *("method=tfidf", "task=fine_grained", "cv.folds=2", "cv.max_examples=120", "trainer=cpu"),
    *("logger=wandb", "run=it"),
]


@pytest.fixture(scope="module")
def qwk() -> Iterator[None]:
    """Register quadratic weighted kappa of the answers that were read, and take it out again."""

    @scalar_metric("qwk", title="Weighted kappa", short="QWK", higher_is_better=True)
    def _(counts: Any) -> float:
        return float(cohen_kappa(counts[:, :-1], "quadratic"))

    yield
    del SCALAR_METRICS["qwk"]


@pytest.fixture(scope="module")
def folder(qwk: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cross-validated baseline, scored with the metric."""
    runs = tmp_path_factory.mktemp("runs")
    assert evaluate.main([*RUN, f"runs_dir={runs}"]) == 0
    return runs / "it"


def kappas(folder: Path) -> list[float]:
    """Return scikit-learn's weighted kappa of each fold's predictions."""
    labels = read_json(folder / "summary.json")["labels"]
    found = []
    for k in (0, 1):
        said = read_jsonl(folder / f"fold{k}" / "predictions.jsonl")
        gold, answered = ([row[name] for row in said] for name in ("gold", "label"))
        found.append(cohen_kappa_score(gold, answered, labels=labels, weights="quadratic"))
    return found


def percent(values: list[float]) -> str:
    """Return mean and sample deviation in percent, by numpy."""
    return f"{100 * np.mean(values):.2f} ± {100 * np.std(values, ddof=1):.2f}"


def test_the_metrics_of_scores_json_keep_their_order_and_the_loss_is_last() -> None:
    scores = scores_from_confusion("t", LABELS, np.eye(3, 4), 0.5)
    assert tuple(scores.metrics) == (*TODAY, "loss")
    assert tuple(SCALAR_METRICS) == TODAY


def test_a_new_metric_stands_in_the_files_with_its_mean_and_deviation(folder: Path) -> None:
    expected = kappas(folder)
    scores = [read_json(folder / f"fold{k}" / "scores.json") for k in (0, 1)]
    assert [list(one["metrics"]) for one in scores] == [[*TODAY, "qwk", "loss"]] * 2
    assert [one["metrics"]["qwk"] for one in scores] == pytest.approx(expected, abs=1e-12)
    summary = summary_from_dict(read_json(folder / "summary.json")).metrics["qwk"]
    assert summary.mean == pytest.approx(np.mean(expected))
    assert summary.std == pytest.approx(np.std(expected, ddof=1))
    assert f"| Weighted kappa | {percent(expected)} |" in (folder / "summary.md").read_text("utf-8")


def test_a_new_metric_stands_on_the_console(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([*RUN, f"runs_dir={folder.parent}"]) == 0
    [line] = [row for row in capsys.readouterr().out.splitlines() if row.startswith("│ QWK")]
    assert percent(kappas(folder)) in line


def test_a_new_metric_stands_in_wandb(folder: Path) -> None:
    runs = [read_run(file) for file in folder.rglob("*.wandb")]
    [summary] = [run["summary"] for run in runs if run["job_type"] == "summary"]
    assert summary["qwk/mean"] == pytest.approx(np.mean(kappas(folder)))
    assert summary["qwk/std"] == pytest.approx(np.std(kappas(folder), ddof=1))
    [first] = [run["summary"] for run in runs if run["name"].endswith("fold0")]
    assert first["test/qwk"] == pytest.approx(kappas(folder)[0])


def test_a_new_metric_stands_in_the_report(folder: Path, tmp_path: Path) -> None:
    assert report.main([f"runs={folder}", f"out={tmp_path}", "verify=true"]) == 0
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    [head] = [line for line in page.splitlines() if "| Weighted kappa |" in line]
    cells = [cell.strip() for cell in head.split("|")]
    place = cells.index("Weighted kappa")
    row = next(line for line in page.splitlines() if percent(kappas(folder)) in line)
    assert row.split("|")[place].strip() == percent(kappas(folder))
    assert "qwk" in (tmp_path / "report.csv").read_text(encoding="utf-8")


def test_a_new_metric_stands_on_a_model_card(folder: Path) -> None:
    config = read_config(folder)
    card = model_card(
        CardFacts(
            part="fold0",
            config=config,
            task=build_task(config),
            synthetic=True,
            counts={},
            scores=scores_from_dict(read_json(folder / "fold0" / "scores.json")),
            summary=summary_from_dict(read_json(folder / "summary.json")),
        )
    )
    own = f"{100 * kappas(folder)[0]:.2f}"
    assert f"| Weighted kappa | {own} | {percent(kappas(folder))} |" in card


def test_what_is_undefined_is_null_and_has_no_mean(qwk: None) -> None:
    one_label = scores_from_confusion("t", LABELS, [[3, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert one_label.metrics["qwk"] is None
    assert '"qwk": null' in json_text(scores_to_dict(one_label))
    other = scores_from_confusion("t", LABELS, np.eye(3, 4))
    spread = summarize({0: one_label, 1: other}, protocol="paper").metrics["qwk"]
    assert (spread.mean, spread.std, spread.values) == (None, None, (None, 1.0))


def test_a_fold_that_was_scored_before_has_no_value_and_the_summary_no_mean() -> None:
    before = scores_from_confusion("t", LABELS, np.eye(3, 4))
    scalar_metric("later", title="Later", higher_is_better=True)(lambda counts: 1.0)
    try:
        after = scores_from_confusion("t", LABELS, np.eye(3, 4))
        for folds in ({0: before, 1: after}, {0: after, 1: before}):
            summary = summarize(folds, protocol="paper")
            assert summary.metrics["later"].mean is None
            assert "| Later | – |" in summary_markdown(summary)
    finally:
        del SCALAR_METRICS["later"]


def test_a_name_is_taken_once_and_an_unknown_one_stands_for_itself() -> None:
    for name in ("accuracy", "loss"):
        with pytest.raises(ConfigError, match="choose another name"):
            scalar_metric(name, title="Again", higher_is_better=True)
    assert (metric_of("other").title, metric_of("loss").higher_is_better) == ("other", False)
