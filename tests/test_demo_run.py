"""What `make demo` shows, computed again: it is learned, and it takes the counsellor's turn."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from demo_rationales import rationale_checks

import recap
from recap.config import RunConfig
from recap.folds.run import Run, read_run
from recap.folds.tuned import cross_validate
from recap.metrics.files import predictions_from_jsonl
from recap.models.tfidf import example_text, tfidf_probabilities
from recap.records import Summary

pytestmark = pytest.mark.slow


def configuration(runs_dir: Path, *overrides: str) -> RunConfig:
    return recap.load_config([f"runs_dir={runs_dir}", "logger=csv", "trainer=cpu", *overrides])


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def summary(runs_dir: Path) -> Summary:
    found = cross_validate(configuration(runs_dir))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def drawn(summary: Summary, runs_dir: Path) -> Run:
    assert summary.folds == (0, 1, 2, 3, 4)
    return read_run(configuration(runs_dir))


def macro_f1(summary: Summary) -> float:
    mean = summary.metrics["macro_f1"].mean
    assert mean is not None
    return mean


def test_the_demo_is_learned_but_not_trivial(summary: Summary, drawn: Run) -> None:
    assert len(drawn.selected) <= 1300
    assert 0.75 <= macro_f1(summary) <= 0.97
    invalid = summary.metrics["invalid_rate"].mean
    assert invalid is not None
    assert invalid < 0.01


def test_words_of_the_response_alone_score_fifteen_points_less(
    summary: Summary, drawn: Run
) -> None:
    from sklearn.metrics import f1_score

    values = []
    for fold in drawn.folds:
        train, test = drawn.examples(fold.train), drawn.examples(fold.test)
        gold = [drawn.task.gold(e) for e in test]
        rows = tfidf_probabilities(
            [example_text(e, context="response") for e in train],
            [drawn.task.gold(e) for e in train],
            [example_text(e, context="response") for e in test],
            class_weight="balanced",
        )
        said = [max(row, key=lambda label: row[label]) for row in rows]
        labels = list(drawn.task.labels)
        values.append(f1_score(gold, said, labels=labels, average="macro", zero_division=0))
    assert macro_f1(summary) - statistics.fmean(values) >= 0.15


def test_without_the_counsellors_turn_the_model_scores_fifteen_points_less(
    summary: Summary, runs_dir: Path
) -> None:
    blind = cross_validate(configuration(runs_dir, "prompt.history=none"))
    assert blind is not None
    assert macro_f1(summary) - macro_f1(blind) >= 0.15


def test_rationales_name_the_behaviour_and_the_act_that_is_really_there(drawn: Run) -> None:
    checks = []
    for fold in drawn.folds:
        text = drawn.folder.fold(fold.index).predictions.read_text(encoding="utf-8")
        examples = {example.id: example for example in drawn.examples(fold.test)}
        for prediction in predictions_from_jsonl(text):
            act = examples[prediction.id].history[-1].label
            assert act is not None
            if prediction.label is not None:
                checks.append(
                    rationale_checks(
                        prediction.rationale or "", label=prediction.label, act=act, language="en"
                    )
                )
    assert len(checks) > 1200
    assert statistics.fmean(check.behavior for check in checks) >= 0.9
    assert statistics.fmean(check.act for check in checks) >= 0.9
