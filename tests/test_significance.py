"""The simulations of benchmarks/significance.py at a small size, and what their figures say."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "significance.json"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import modules as the script ``benchmarks/significance.py`` sees them."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


def test_under_a_true_null_the_naive_test_rejects_too_often_and_the_corrected_one_does_not(
    load: Callable[[str], ModuleType],
) -> None:
    null = load("simulations.null")
    setting = null.NullSetting(learner="centroid", examples=60, folds=5, repeats=10)
    found = null.replicate(setting, 300, np.random.default_rng(0))["rejections"]
    assert found["naive_t"] > 90
    assert found["corrected_t"] <= 0.09 * 300


@pytest.mark.parametrize(
    ("learner", "reference"),
    [
        ("centroid", NearestCentroid()),
        ("naive_bayes", GaussianNB(var_smoothing=0, priors=[1 / 3] * 3)),
        ("nearest_neighbor", KNeighborsClassifier(n_neighbors=1)),
    ],
)
def test_the_learners_are_those_of_scikit_learn(
    load: Callable[[str], ModuleType], learner: str, reference: Any
) -> None:
    null = load("simulations.null")
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1, 60, 4)) + np.repeat(np.arange(3), 20)[None, :, None]
    gold = np.repeat(np.arange(3), 20)
    train = rng.permutation(60).reshape(1, 60) >= 12
    found = null.LEARNERS[learner](x)(train)[0][~train[0]]
    fitted = reference.fit(x[0][train[0]], gold[train[0]])
    np.testing.assert_array_equal(found, fitted.predict(x[0][~train[0]]))


def test_folds_are_stratified_and_scores_are_those_of_scikit_learn(
    load: Callable[[str], ModuleType],
) -> None:
    null = load("simulations.null")
    setting = null.NullSetting(learner="nearest_neighbor", examples=30, folds=5, repeats=2)
    answers = null.draw_answers(setting, 2, np.random.default_rng(2))
    gold = np.repeat(np.arange(3), 10)
    scores = null.macro_f1(gold, answers.predicted[0], answers.fold, setting)
    assert scores.shape == (2, 10)
    for data_set in range(2):
        for repeat in range(2):
            for k in range(5):
                held_out = answers.fold[data_set, repeat] == k
                assert np.bincount(gold[held_out]).tolist() == [2, 2, 2]
                said = answers.predicted[0][data_set, repeat][held_out]
                expected = f1_score(
                    gold[held_out], said, labels=[0, 1, 2], average="macro", zero_division=0
                )
                assert scores[data_set, 5 * repeat + k] == pytest.approx(expected)


def test_the_true_scores_are_those_of_very_many_sessions(
    load: Callable[[str], ModuleType],
) -> None:
    coverage = load("simulations.coverage")
    from recap.metrics.scores import scores_from_confusion

    for labels in ("two", "thirteen"):
        truth = coverage.population(labels)
        true = coverage.true_scores(truth)
        setting = coverage.Setting(study="scores", labels=labels, clusters=20_000, correlation=0.1)
        for system in coverage.draw(setting, truth, np.random.default_rng(3)):
            names = [str(i) for i in range(len(truth.shares))]
            found = scores_from_confusion("t", names, system.sum(axis=0).astype(int)).metrics
            assert found["macro_f1"] == pytest.approx(true["macro_f1"], abs=0.005)
            assert found["accuracy"] == pytest.approx(true["accuracy"], abs=0.005)


def test_the_script_writes_every_figure_and_the_same_for_any_number_of_processes(
    load: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, null = load("significance"), load("simulations.null")
    monkeypatch.setattr(script, "CHUNK", 2)
    setting = null.NullSetting(learner="centroid", examples=30)
    monkeypatch.setattr(script, "NULL_SETTINGS", (setting,))
    reports = []
    for processes in (1, 2):
        file = tmp_path / f"{processes}.json"
        given = ["--replications", "4", "--json", str(file), "--processes", str(processes)]
        assert script.main(given) == 0
        reports.append(json.loads(file.read_text()))
    assert reports[0] == reports[1]
    assert reports[0]["null"][0]["replications"] == 4
    assert set(reports[0]["null"][0]["rejected"]) == {
        *("naive_t", "corrected_t", "mcnemar", "clusters")
    }


# The figures that the documentation shows.


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return found


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def test_the_page_shows_the_figures_that_were_measured(results: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "significance.md").read_text(encoding="utf-8")
    rows = [
        (
            row["learner"].replace("_", " "),
            str(row["examples"]),
            f"{row['repeats']} × {row['folds']}",
            *(
                percent(row["rejected"].get(test))
                for test in ("naive_t", "corrected_t", "mcnemar", "clusters")
            ),
        )
        for row in results["null"]
    ]
    assert len(rows) == 27
    missing = [row for row in rows if f"| {' | '.join(row)} |" not in page]
    assert not missing


def test_the_corrected_test_holds_its_level_over_one_cross_validation(
    results: dict[str, Any],
) -> None:
    once = [row for row in results["null"] if row["repeats"] == 1]
    assert all(row["replications"] >= 2000 for row in results["null"])
    assert max(row["rejected"]["corrected_t"] for row in once) <= 0.06
    stable = [row for row in results["null"] if row["learner"] != "nearest_neighbor"]
    assert max(row["rejected"]["corrected_t"] for row in stable) <= 0.06
    repeated = [row for row in results["null"] if row["repeats"] > 1]
    assert min(row["rejected"]["naive_t"] for row in repeated) > 0.4
