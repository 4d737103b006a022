"""Calibration of whole runs, recomputed from their files with torch, torchmetrics, scikit-learn."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import read_jsonl, write_jsonl
from sklearn.metrics import (
    brier_score_loss,
    log_loss,
    precision_recall_curve,
    precision_recall_fscore_support,
)
from torchmetrics.classification import MulticlassCalibrationError

from recap.evaluate.__main__ import main as evaluate
from recap.output.report import Report, write_report
from recap.report.calibration import calibration_section
from recap.report.options import ReportConfig
from recap.report.runs import read_runs

LABELS = ["Resistance", "Collaboration"]
OPTIONS = ["method=tfidf", "cv.folds=2", "cv.max_examples=400", "logger=none"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return runs over one partition: nested binary, the same under the paper's protocol, flat."""
    folder = tmp_path_factory.mktemp("calibrated")
    common = [*OPTIONS, f"runs_dir={folder}"]
    assert evaluate([*common, "task=binary", "cv.protocol=nested", "run=nested"]) == 0
    assert evaluate([*common, "task=binary", "run=paper"]) == 0
    assert evaluate([*common, "task=flat", "cv.protocol=nested", "run=flat"]) == 0
    fine = ["task=fine_grained", "cv.protocol=nested", "tfidf.class_weight=null"]
    assert evaluate([*common, *fine, "run=fine"]) == 0
    return folder


def section(*folders: Path, **options: Any) -> Report:
    names = tuple(map(str, folders))
    found = calibration_section(read_runs(names), ReportConfig(runs=names, **options))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def found(runs: Path) -> Report:
    return section(*(runs / name for name in ("nested", "paper", "flat", "fine")), prior=0.17)


def forecasts(file: Path, labels: list[str] = LABELS) -> tuple[np.ndarray, np.ndarray]:
    rows = read_jsonl(file)
    probabilities = np.array([[row["probabilities"][label] for label in labels] for row in rows])
    gold = np.array([labels.index(row["gold"]) for row in rows])
    return probabilities / probabilities.sum(axis=1, keepdims=True), gold


def test_the_figures_as_given_are_those_of_the_predictions(runs: Path, found: Report) -> None:
    given = found.figures["runs"]["nested"]["given"]
    for fold in (0, 1):
        probabilities, gold = forecasts(runs / "nested" / f"fold{fold}" / "predictions.jsonl")
        metric = MulticlassCalibrationError(num_classes=2, n_bins=15, norm="l1")
        ece = float(metric(torch.tensor(probabilities), torch.tensor(gold)))
        assert given["ece"]["values"][fold] == pytest.approx(ece, abs=1e-6)
        brier = brier_score_loss(gold, probabilities, labels=[0, 1], scale_by_half=False)
        assert given["brier"]["values"][fold] == pytest.approx(brier)
        assert given["nll"]["values"][fold] == pytest.approx(
            log_loss(gold, probabilities, labels=[0, 1])
        )
    values = given["ece"]["values"]
    assert given["ece"]["mean"] == pytest.approx(np.mean(values))
    assert given["ece"]["std"] == pytest.approx(np.std(values, ddof=1))


def test_the_temperature_is_fitted_on_the_selection_split_and_judged_on_the_test_part(
    runs: Path, found: Report
) -> None:
    figures = found.figures["runs"]["nested"]
    assert figures["fitted_on"] == "selection"
    for fold in (0, 1):
        logs, gold = (
            torch.tensor(part)
            for part in forecasts(runs / "nested" / f"fold{fold}" / "selection.jsonl")
        )
        inverse = torch.ones((), dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([inverse], max_iter=200, line_search_fn="strong_wolfe")

        def loss(logs: Any = logs, gold: Any = gold, inverse: Any = inverse) -> torch.Tensor:
            inverse.grad = None
            value = torch.nn.functional.cross_entropy(logs.log() * inverse, gold)
            value.backward()
            return value

        optimizer.step(loss)
        temperature = float(1 / inverse.detach())
        assert figures["temperature"]["value"]["values"][fold] == pytest.approx(
            temperature, rel=1e-3
        )
        probabilities, gold = forecasts(runs / "nested" / f"fold{fold}" / "predictions.jsonl")
        scaled = torch.softmax(torch.tensor(probabilities).log() / temperature, dim=1).numpy()
        assert figures["scaled"]["nll"]["values"][fold] == pytest.approx(
            log_loss(gold, scaled, labels=[0, 1]), rel=1e-3
        )
    assert figures["scaled"]["accuracy"] == figures["given"]["accuracy"]
    assert figures["scaled"]["nll"]["mean"] < figures["given"]["nll"]["mean"]


def test_the_threshold_for_a_recall_comes_from_the_selection_split(
    runs: Path, found: Report
) -> None:
    flagged = found.figures["runs"]["nested"]["flagged"]
    practice = found.figures["runs"]["nested"]["flagged_in_practice"]
    for fold in (0, 1):
        probabilities, gold = forecasts(runs / "nested" / f"fold{fold}" / "selection.jsonl")
        _, recalls, thresholds = precision_recall_curve(gold == 0, probabilities[:, 0])
        chosen = max(t for t, r in zip(thresholds, recalls[:-1], strict=True) if r >= 0.9)
        assert flagged["threshold"]["values"][fold] == pytest.approx(chosen)
        probabilities, gold = forecasts(runs / "nested" / f"fold{fold}" / "predictions.jsonl")
        resistant = gold == 0
        weights = np.where(resistant, 0.17 / resistant.mean(), 0.83 / (1 - resistant.mean()))
        for figures, weight in ((flagged, None), (practice, weights)):
            precision, recall, _, _ = precision_recall_fscore_support(
                resistant, probabilities[:, 0] >= chosen, sample_weight=weight, average="binary"
            )
            assert figures["precision"]["values"][fold] == pytest.approx(precision)
            assert figures["recall"]["values"][fold] == pytest.approx(recall)


def test_the_prior_is_corrected_by_the_ratio_of_the_odds(runs: Path, found: Report) -> None:
    for fold in (0, 1):
        shift = found.figures["runs"]["nested"]["prior_shift"][str(fold)]
        # class_weight=balanced: to the model both labels were equally frequent.
        assert shift["trained"] == 0.5
        probabilities, gold = forecasts(runs / "nested" / f"fold{fold}" / "predictions.jsonl")
        resistant = gold == 0
        weights = np.where(resistant, 0.17 / resistant.mean(), 0.83 / (1 - resistant.mean()))
        odds = probabilities[:, 0] / probabilities[:, 1]
        for name, predicted in (("expected", odds >= 1), ("corrected", odds * 0.17 / 0.83 >= 1)):
            expected = precision_recall_fscore_support(
                resistant, predicted, sample_weight=weights, average="binary"
            )
            found_ = [shift[name][figure] for figure in ("precision", "recall", "f1")]
            assert found_ == pytest.approx(list(expected[:3]))
        assert shift["corrected"]["recall"] <= shift["expected"]["recall"]


def test_resistance_of_the_flat_task_is_the_sum_over_its_behaviors(
    runs: Path, found: Report
) -> None:
    labels = json.loads((runs / "flat" / "fold0" / "scores.json").read_text())["labels"]
    probabilities, gold = forecasts(runs / "flat" / "fold0" / "selection.jsonl", labels)
    resistant = [label != "Collaboration" for label in labels]
    assert sum(resistant) == 13
    scores = np.sort(probabilities[:, resistant].sum(axis=1)[np.array(resistant)[gold]])[::-1]
    needed = int(np.ceil(0.9 * len(scores)))
    threshold = found.figures["runs"]["flat"]["flagged"]["threshold"]["values"][0]
    assert threshold == pytest.approx(scores[needed - 1])
    assert found.figures["runs"]["flat"]["prior_shift"]["0"]["trained"] == pytest.approx(13 / 14)


def test_under_the_papers_protocol_nothing_is_fitted_and_the_mend_is_named(found: Report) -> None:
    figures = found.figures["runs"]["paper"]
    assert figures["fitted_on"] is None
    for name in ("scaled", "temperature", "accepted", "flagged", "flagged_in_practice"):
        assert figures[name] is None
    assert figures["prior_shift"]["0"]["scaled_and_corrected"] is None
    assert figures["prior_shift"]["0"]["corrected"] is not None
    assert set(figures["reliability"]) == {"given"}
    [note] = [note for note in found.notes if ": no temperature" in note]
    paper = note.partition(": no temperature")[0]
    assert paper.startswith("TF-IDF, linear classifier")
    assert "cv.protocol=nested" in note
    cells = {
        row[0]: row for sheet in found.sheets for row in sheet.rows if "recall" in sheet.header[3]
    }
    assert cells[paper][1:] == ("not fitted", *["–"] * 6)


def test_a_task_of_resistance_alone_has_no_threshold_for_it(found: Report) -> None:
    figures = found.figures["runs"]["fine"]
    assert figures["flagged"] is None
    assert figures["prior_shift"] == {"0": None, "1": None}
    with_fine = [
        sheet.title for sheet in found.sheets if any("fine_grained" in row[0] for row in sheet.rows)
    ]
    assert [title.split()[0] for title in with_fine] == [
        "Calibration",
        "Calibration",
        "Abstention:",
    ]


def test_a_nested_run_of_an_earlier_version_is_said_to_lack_the_file(
    runs: Path, tmp_path: Path
) -> None:
    old = Path(shutil.copytree(runs / "nested", tmp_path / "old"))
    (old / "fold1" / "selection.jsonl").unlink()
    findings = section(old)
    assert findings.figures["runs"]["old"]["fitted_on"] is None
    assert any("fold1 has no selection.jsonl" in note for note in findings.notes)


def _without_probabilities(fold: Path, keep: int) -> None:
    file = fold / "predictions.jsonl"
    rows = read_jsonl(file)
    for row in rows[keep:]:
        row["probabilities"] = None
    rows[0] |= {"label": None, "parsed": False, "text": "well"}
    write_jsonl(file, rows)


def test_predictions_without_probabilities_are_said_and_not_judged(
    runs: Path, tmp_path: Path
) -> None:
    some, none = (
        Path(shutil.copytree(runs / "paper", tmp_path / name)) for name in ("some", "none")
    )
    for fold in ("fold0", "fold1"):
        _without_probabilities(some / fold, 50)
        _without_probabilities(none / fold, 0)
    findings = section(some, none)
    assert findings.figures["without_probabilities"] == ["none"]
    figures = findings.figures["runs"]["some"]
    assert (figures["n"], figures["n_left_out"], figures["n_unreadable"]) == (100, 300, 2)
    left_out = "TF-IDF, linear classifier, some: 300 answers have no probabilities"
    assert f"{left_out} and are left out." in findings.notes
    assert findings.notes[-1].endswith("without calibration: TF-IDF, linear classifier, none.")
    alone = section(none)
    assert (alone.sheets, alone.charts, alone.figures["runs"]) == ((), {}, {})


def test_a_prompted_run_is_judged_and_nothing_of_it_corrected(small_runs: Path) -> None:
    findings = section(small_runs / "asked", prior=0.17)
    figures = findings.figures["runs"]["asked"]
    assert figures["fitted_on"] is None
    assert figures["prior_shift"]["0"]["corrected"] is None
    assert figures["prior_shift"]["0"]["expected"] is not None
    assert any("has learned none" in note for note in findings.notes)


def test_everything_can_be_written_and_figures_name_their_axes(
    found: Report, tmp_path: Path
) -> None:
    written = {path.name for path in write_report(found, tmp_path)}
    assert {"calibration.json", "calibration_reliability.svg"} <= written
    assert json.loads((tmp_path / "calibration.json").read_text())["prior"] == 0.17
    for draw in found.charts.values():
        for axes in draw().axes:
            if axes.axison:
                assert axes.get_ylabel()
                assert axes.get_xlabel() or axes.get_ylabel() == "answers that are right, %"


def test_counts_of_the_reliability_diagram_are_all_examples(found: Report) -> None:
    for figures in found.figures["runs"].values():
        for bins in figures["reliability"].values():
            assert sum(one["n"] for one in bins) == figures["n"] > 0
        coverage = figures["risk_coverage"]["coverage"]
        assert 10 < len(coverage) <= 100
        assert coverage[-1] == 1
