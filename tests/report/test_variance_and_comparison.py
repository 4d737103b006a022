"""The sections on variance and comparison, over small real runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from recap.errors import ConfigError
from recap.evaluate.__main__ import main as evaluate
from recap.output.report import Report
from recap.report.comparison import comparison_section, variance_section
from recap.report.options import ReportConfig
from recap.report.runs import ReportedRun, group_repeats, protocol_twins, read_runs


@pytest.fixture(scope="module")
def runs(small_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ReportedRun, ...]:
    """Return the small runs, TF-IDF again under another partition, and both again nested."""
    folder = Path(shutil.copytree(small_runs, tmp_path_factory.mktemp("compared") / "runs"))
    common = ["experiment=smoke", "task=binary", "logger=none", f"runs_dir={folder}"]
    for name, *more in (
        ("words_again", "cv.seed=1"),
        ("words_nested", "cv.protocol=nested"),
    ):
        assert evaluate([*common, "method=tfidf", f"run={name}", *more]) == 0
    return read_runs([str(folder)])


@pytest.fixture(scope="module")
def options() -> ReportConfig:
    return ReportConfig(runs=("x",))


@pytest.fixture(scope="module")
def variance(runs: tuple[ReportedRun, ...], options: ReportConfig) -> Report:
    return variance_section(runs, options)


@pytest.fixture(scope="module")
def compared(runs: tuple[ReportedRun, ...], options: ReportConfig) -> Report:
    found = comparison_section(runs, options)
    assert found is not None
    return found


def named(runs: tuple[ReportedRun, ...], *names: str) -> list[ReportedRun]:
    return [run for name in names for run in runs if run.name == name]


def fold_scores(run: ReportedRun) -> list[float]:
    return [
        float(
            f1_score(
                [p.gold for p in fold],
                [p.label or "invalid" for p in fold],
                labels=list(run.task.labels),
                average="macro",
                zero_division=0,
            )
        )
        for fold in run.predictions.values()
    ]


def test_runs_that_differ_in_seeds_alone_are_repetitions(runs: tuple[ReportedRun, ...]) -> None:
    groups = {tuple(run.name for run in group) for group in group_repeats(runs)}
    assert groups == {("asked",), ("trained",), ("words", "words_again"), ("words_nested",)}


def test_twins_differ_in_the_protocol_alone_and_share_a_partition(
    runs: tuple[ReportedRun, ...],
) -> None:
    [(paper, nested)] = protocol_twins(runs)
    assert [run.name for run in paper] == ["words", "words_again"]
    assert [run.name for run in nested] == ["words_nested"]
    assert not protocol_twins(named(runs, "words_again", "words_nested"))


def test_the_spread_over_folds_is_recomputed_from_predictions(
    runs: tuple[ReportedRun, ...], variance: Report
) -> None:
    for run in runs:
        values = fold_scores(run)
        found = variance.figures["runs"][run.name]["folds"]["macro_f1"]
        assert found["values"] == pytest.approx(values)
        assert found["std"] == pytest.approx(np.std(values, ddof=1))
        assert (found["minimum"], found["maximum"]) == pytest.approx((min(values), max(values)))
        # Two folds: 1/2 + 1 in place of 1/2.
        reach = stats.t.ppf(0.975, 1) * np.sqrt(1.5 * np.var(values, ddof=1))
        if found["low"] is not None:
            assert found["low"] == pytest.approx(np.mean(values) - reach)


def test_pooled_figures_hold_an_interval_over_sessions(
    runs: tuple[ReportedRun, ...], variance: Report
) -> None:
    [run] = named(runs, "words")
    found = variance.figures["runs"]["words"]
    gold, said = zip(*[(p.gold, p.label) for p in run.all_predictions], strict=True)
    pooled = found["pooled"]["macro_f1"]
    assert pooled["value"] == pytest.approx(f1_score(gold, said, average="macro"))
    assert pooled["low"] < pooled["value"] < pooled["high"]
    assert pooled["interval"] == (pooled["low"], pooled["high"])


def test_repetitions_and_the_gap_between_protocols_have_tables(
    runs: tuple[ReportedRun, ...], variance: Report
) -> None:
    scores = [fold_scores(run) for run in named(runs, "words", "words_again")]
    found = variance.figures["repeats"]["words (× 2 seeds)"]["macro_f1"]
    assert found["std_between"] == pytest.approx(np.std(np.mean(scores, axis=1), ddof=1))
    [gap] = variance.figures["protocol_gaps"]
    [nested] = named(runs, "words_nested")
    assert gap["differences"] == pytest.approx(np.subtract(scores[0], fold_scores(nested)))
    titles = [sheet.title for sheet in variance.sheets]
    assert "Repeated cross-validation" in titles
    assert "Protocols side by side: macro-F1, paper minus nested" in titles


def test_what_figures_are_of_and_what_they_are_not_is_said(variance: Report) -> None:
    notes = " ".join(variance.notes)
    assert "not the mean over folds" in notes
    assert "not what another training would give" in notes


def test_all_pairs_are_compared_and_corrected(compared: Report) -> None:
    found = compared.figures["families"]["binary"]
    # Of asked, trained, words and words_nested all pairs but the last two, which are twins.
    assert len(found) == 5
    assert any("cv.protocol alone are compared under Variance" in note for note in compared.notes)
    for each in found:
        for test, p in each["p"].items():
            adjusted = each["p_holm"][test]
            assert (p is None) == (adjusted is None) == (test in each["no_p_because"])
            assert p is None or 0 <= p <= adjusted <= 1


def test_only_partitions_of_both_systems_count(
    runs: tuple[ReportedRun, ...], compared: Report
) -> None:
    words, trained = named(runs, "words", "trained")
    [each] = [
        pair
        for pair in compared.figures["families"]["binary"]
        if {pair["first"], pair["second"]} == {"trained", "words (× 2 seeds)"}
    ]
    expected = np.subtract(fold_scores(trained), fold_scores(words))
    assert each["n_repeats"] == 1
    assert each["mcnemar"] is not None
    assert any("only the partitions that both were run over" in note for note in compared.notes)
    assert each["differences"] == pytest.approx(expected)


def test_one_run_can_be_what_all_others_are_compared_with(
    runs: tuple[ReportedRun, ...], options: ReportConfig
) -> None:
    chosen = ReportConfig(runs=("x",), resamples=0, compare_to="trained")
    found = comparison_section(named(runs, "asked", "trained", "words"), chosen)
    assert found is not None
    pairs = [(e["first"], e["second"]) for e in found.figures["families"]["binary"]]
    assert pairs == [("asked", "trained"), ("words", "trained")]


def test_an_unknown_run_to_compare_with_is_refused_with_the_nearest_name(
    runs: tuple[ReportedRun, ...],
) -> None:
    with pytest.raises(ConfigError, match=r"compare_to=train: .*did you mean 'trained'"):
        comparison_section(runs, ReportConfig(runs=("x",), compare_to="train"))


def test_runs_over_other_partitions_are_named_and_not_compared(
    runs: tuple[ReportedRun, ...], options: ReportConfig
) -> None:
    found = comparison_section(named(runs, "trained", "words", "words_again")[::2], options)
    assert found is None
    all_three = comparison_section(named(runs, "trained", "words_nested", "words_again"), options)
    assert all_three is not None
    assert any("cv.seed=1 are not compared" in note for note in all_three.notes)


def test_a_single_run_has_nothing_to_be_compared_with(
    runs: tuple[ReportedRun, ...], options: ReportConfig
) -> None:
    assert comparison_section(named(runs, "words"), options) is None
    assert variance_section(named(runs, "words"), options).figures["repeats"] == {}


def test_other_protocols_are_named(compared: Report) -> None:
    assert any(
        "tiny, full fine-tuning, with rationale and TF-IDF" in note
        and "were selected under cv.protocol=paper and nested" in note
        for note in compared.notes
    )


@pytest.mark.parametrize("section", ["variance", "compared"])
def test_figures_are_strict_json_and_charts_draw(
    section: str, request: pytest.FixtureRequest
) -> None:
    findings: Any = request.getfixturevalue(section)
    json.dumps(findings.figures, allow_nan=False)
    assert findings.charts
    for draw in findings.charts.values():
        axes = draw().axes[0]
        assert "percent" in axes.get_xlabel()
        assert len(axes.get_yticklabels()) > 1


def with_sessions(
    run: ReportedRun, folder: Path, session_of: Callable[[int], str | None]
) -> ReportedRun:
    """Return a copy of a run whose predictions have other sessions."""
    copied = Path(shutil.copytree(run.folder.path, folder / run.name))
    for file in copied.glob("fold*/predictions.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        changed = [{**row, "session": session_of(i)} for i, row in enumerate(rows)]
        file.write_text("".join(json.dumps(row) + "\n" for row in changed))
    [again] = read_runs([str(copied)])
    return again


def test_clients_are_left_out_whole_where_the_data_know_them(
    runs: tuple[ReportedRun, ...], options: ReportConfig
) -> None:
    [run] = named(runs, "words")
    assert run.people is not None
    clients = {run.people[p.id][0] for p in run.all_predictions}
    found = variance_section([run], options).figures["runs"]["words"]
    assert (found["resampled_by"], found["n_resampled"]) == ("client", len(clients))
    again = variance_section([replace(run, people=None)], options)
    assert again.figures["runs"]["words"]["resampled_by"] == "session"
    assert any("could not be read again" in note for note in again.notes)


def test_examples_without_sessions_count_by_themselves_and_the_page_says_so(
    runs: tuple[ReportedRun, ...], tmp_path: Path, options: ReportConfig
) -> None:
    again = with_sessions(named(runs, "words")[0], tmp_path, lambda row: None)
    found = variance_section([replace(again, people=None)], options)
    assert found.figures["runs"]["words"]["resampled_by"] == "example"
    assert found.figures["runs"]["words"]["n_resampled"] == len(again.all_predictions)
    assert found.figures["runs"]["words"]["pooled"]["accuracy"]["cluster"] is None
    assert any("taken for independent: TF-IDF, linear" in note for note in found.notes)


def test_too_few_sessions_are_said_in_place_of_intervals(
    runs: tuple[ReportedRun, ...], tmp_path: Path, options: ReportConfig
) -> None:
    few = [
        replace(with_sessions(run, tmp_path, lambda row: f"s{row % 9}"), people=None)
        for run in named(runs, "words", "trained")
    ]
    said = "9 sessions are too few: under 10 there is no interval and no p"
    assert any(said in note for note in variance_section(few, options).notes)
    compared = comparison_section(few, options)
    assert compared is not None
    assert any("No p of McNemar for " in n and f": {said}" in n for n in compared.notes)
    found = compared.figures["families"]["binary"][0]
    assert found["pooled"]["n_units"] == 9
    assert set(found["p"].values()) == {None}
    assert found["corrected_t"]["low"] is None
