"""Comparisons of two systems, against the parts they are made of and by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import prediction, run_with
from scipy import stats
from sklearn.metrics import f1_score
from statsmodels.stats import multitest

from recap.errors import ConfigError, DataError
from recap.records import Prediction
from recap.report.comparison import TESTS, Comparison, compare, with_holm
from recap.report.options import ReportConfig
from recap.report.runs import ReportedRun
from recap.runs.folder import RunFolder

RUN = run_with("r", ["experiment=smoke", "task=binary"], {0: 0.5})
LABELS = RUN.task.labels
OPTIONS = ReportConfig(runs=("x",))


def run(
    name: str,
    *,
    right: float,
    seed: int,
    partition: str = "p",
    folds: tuple[int, ...] = (0, 1, 2, 3),
    n_folds: int = 4,
) -> ReportedRun:
    """Return a run that answers a share rightly; ids, golds and sessions follow the fold alone."""
    rng = np.random.default_rng(seed)
    return replace(
        RUN,
        folder=RunFolder(path=Path(name)),
        config=replace(RUN.config, cv=replace(RUN.config.cv, folds=n_folds)),
        manifest={"partition_hash": partition},
        predictions={
            fold: tuple(
                prediction(
                    f"{fold}-{i}",
                    LABELS[i % 2],
                    LABELS[i % 2 if rng.uniform() < right else 1 - i % 2],
                    session=f"s{fold}-{i // 4}",
                    fold=fold,
                )
                for i in range(40)
            )
            for fold in folds
        },
    )


def macro_f1(predictions: tuple[Prediction, ...]) -> float:
    return float(
        f1_score([p.gold for p in predictions], [p.label for p in predictions], average="macro")
    )


def test_the_parts_are_those_of_scikit_learn_and_scipy() -> None:
    first, second = run("a", right=0.9, seed=1), run("b", right=0.8, seed=2)
    found = compare((first,), (second,), OPTIONS)
    expected = [macro_f1(first.predictions[k]) - macro_f1(second.predictions[k]) for k in range(4)]
    assert found.differences == pytest.approx(expected)
    # Nadeau and Bengio 2003 with four folds: 1/4 + 1/3 in place of 1/4.
    t = np.mean(expected) / np.sqrt((1 / 4 + 1 / 3) * np.var(expected, ddof=1))
    assert found.t_test is not None
    assert found.t_test.t == pytest.approx(t)
    assert found.p["corrected_t"] == pytest.approx(2 * stats.t.sf(abs(t), 3))
    pairs = [
        (one.label == one.gold, other.label == other.gold)
        for k in range(4)
        for one, other in zip(first.predictions[k], second.predictions[k], strict=True)
    ]
    only = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    assert found.mcnemar is not None
    assert (found.mcnemar.first_only, found.mcnemar.second_only) == only
    assert found.p["mcnemar"] == pytest.approx(stats.binomtest(only[0], sum(only)).pvalue)
    everything = [
        tuple(p for k in range(4) for p in each.predictions[k]) for each in (first, second)
    ]
    pooled = macro_f1(everything[0]) - macro_f1(everything[1])
    assert found.pooled.macro_f1.value == pytest.approx(pooled)
    assert found.pooled.n_units == 40


def test_the_order_of_predictions_does_not_matter() -> None:
    first, second = run("a", right=0.9, seed=1), run("b", right=0.8, seed=2)
    turned = replace(
        second, predictions={k: tuple(reversed(v)) for k, v in second.predictions.items()}
    )
    assert compare((first,), (second,), OPTIONS) == compare((first,), (turned,), OPTIONS)


def test_repetitions_over_other_partitions_give_r_times_k_differences() -> None:
    first = [run(f"a{i}", right=0.9, seed=i, partition=f"p{i}") for i in range(3)]
    second = [run(f"b{i}", right=0.8, seed=9 + i, partition=f"p{i}") for i in range(3)]
    found = compare(
        tuple(first),
        tuple(reversed(second)),
        OPTIONS,
    )
    expected = [
        macro_f1(one.predictions[k]) - macro_f1(other.predictions[k])
        for one, other in zip(first, second, strict=True)
        for k in range(4)
    ]
    assert found.differences == pytest.approx(expected)
    # Bouckaert and Frank 2004: 1/(r k) + n2/n1 at r k - 1 degrees of freedom.
    t = np.mean(expected) / np.sqrt((1 / 12 + 1 / 3) * np.var(expected, ddof=1))
    assert found.p["corrected_t"] == pytest.approx(2 * stats.t.sf(abs(t), 11))
    assert found.n_repeats == 3
    assert found.mcnemar is None
    assert "several runs" in found.reasons["mcnemar"]


def test_repetitions_over_one_partition_are_averaged_and_are_no_more_folds() -> None:
    first = [run(f"a{i}", right=0.9, seed=i) for i in range(2)]
    second = run("b", right=0.8, seed=7)
    found = compare(tuple(first), (second,), OPTIONS)
    expected = [
        np.mean([macro_f1(each.predictions[k]) for each in first]) - macro_f1(second.predictions[k])
        for k in range(4)
    ]
    assert found.differences == pytest.approx(expected)
    assert found.pooled.macro_f1.value == pytest.approx(
        np.mean(
            [macro_f1(tuple(p for k in range(4) for p in each.predictions[k])) for each in first]
        )
        - macro_f1(tuple(p for k in range(4) for p in second.predictions[k]))
    )


def test_only_folds_that_both_have_finished_are_compared() -> None:
    first, second = run("a", right=0.9, seed=1), run("b", right=0.8, seed=2, folds=(1, 3))
    found = compare((first,), (second,), OPTIONS)
    assert found.folds == (1, 3)
    assert found.t_test is not None
    assert found.t_test.df == 1


def test_what_has_no_p_says_why_and_is_never_nan() -> None:
    first = run("a", right=0.9, seed=1)
    found = compare((first,), (replace(first, folder=RunFolder(path=Path("same"))),), OPTIONS)
    assert found.p == {"corrected_t": None, "mcnemar": 1.0, "bootstrap": None}
    assert found.reasons == {
        "corrected_t": "the difference is the same in every fold",
        "bootstrap": "the same whichever session is left out",
    }
    one_fold = compare(
        (run("a", right=0.9, seed=1, folds=(2,)),), (first,), replace(OPTIONS, resamples=0)
    )
    assert one_fold.reasons == {
        "corrected_t": "one fold has no variance",
        "bootstrap": "not asked for",
    }


def test_under_ten_clusters_no_test_has_a_p_and_no_figure_an_interval() -> None:
    first, second = run("a", right=0.9, seed=1), run("b", right=0.6, seed=2)
    nine = {p.id: (f"c{i % 9}", None) for i, p in enumerate(first.all_predictions)}
    few = compare((replace(first, people=nine),), (second,), OPTIONS)
    reason = "9 clients are too few: under 10 there is no interval and no p"
    assert few.reasons == dict.fromkeys(TESTS, reason)
    assert set(few.p.values()) == {None}
    assert (few.t_test.low, few.t_test.high) == (None, None)
    assert (few.pooled.macro_f1.interval, few.pooled.macro_f1.reason) == (None, reason)


def test_clients_of_several_sessions_widen_the_interval_of_a_difference() -> None:
    first, second = run("a", right=0.9, seed=1), run("b", right=0.6, seed=2)
    # Four folds of ten sessions, two sessions of each client.
    people = {
        p.id: (f"c{int(p.session.split('-')[1]) // 2}-{p.fold}", None)
        for p in first.all_predictions
    }
    found = compare((replace(first, people=people),), (second,), OPTIONS).pooled
    assert (found.kind, found.n_units, found.macro_f1.cluster) == ("client", 20, "client")


def test_other_labels_are_refused() -> None:
    first = run("a", right=0.9, seed=1)
    fine = run_with("b", ["experiment=smoke", "task=fine_grained"], {0: 0.5})
    with pytest.raises(ConfigError, match="compare runs of one task"):
        compare((first,), (fine,), OPTIONS)


def test_runs_without_a_fold_in_common_are_refused() -> None:
    first = run("a", right=0.9, seed=1, folds=(0, 1))
    with pytest.raises(ConfigError, match="a and b have no finished fold in common"):
        compare((first,), (run("b", right=0.8, seed=2, folds=(2,)),), OPTIONS)


@pytest.mark.parametrize("change", [{"id": "stranger"}, {"gold": LABELS[1]}, {"session": "other"}])
def test_other_examples_golds_or_sessions_are_refused_by_id(change: dict[str, str]) -> None:
    first, second = run("a", right=0.9, seed=1), run("b", right=0.8, seed=2)
    altered = {
        **second.predictions,
        2: (replace(second.predictions[2][0], **change), *second.predictions[2][1:]),
    }
    with pytest.raises(DataError, match=r"fold 2 of a and of b .* example '(2-0|stranger)'"):
        compare((first,), (replace(second, predictions=altered),), OPTIONS)


def test_holm_is_applied_to_each_test_over_all_comparisons(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gc.collect", lambda *_: 0)
    systems = [(run(f"{i}", right=0.7 + 0.07 * i, seed=i),) for i in range(4)]
    found: list[Comparison] = [
        compare(systems[i], systems[j], OPTIONS) for i in range(4) for j in range(i)
    ]
    adjusted = with_holm(found)
    for test in TESTS:
        expected = multitest.multipletests([each.p[test] for each in found], method="holm")[1]
        assert [each.p_holm[test] for each in adjusted] == pytest.approx(list(expected))
