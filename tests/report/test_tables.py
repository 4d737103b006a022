"""The paper's tables from run folders."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from builders import run_with

from recap.output.report import Report
from recap.output.tables import ReportTable
from recap.report.options import ReportConfig
from recap.report.runs import ReportedRun, group_systems, read_runs
from recap.report.tables import tables_section

OPTIONS = ReportConfig(runs=("runs",))
WITH_PAPER = ReportConfig(runs=("runs",), reference="paper")
BINARY = "task=binary"


def sheet(findings: Report, start: str) -> ReportTable:
    """Return the first table whose title starts so."""
    return next(s for s in findings.sheets if s.title.startswith(start))


def test_mean_and_deviation_are_those_of_the_folds_by_hand() -> None:
    # 0.60 and 0.70: mean 0.65; deviations of 0.05, so the sample SD is 0.05 * sqrt(2) = 0.0707.
    table = sheet(tables_section([run_with("a", [BINARY], {0: 0.6, 1: 0.7})], OPTIONS), "Overall")
    assert table.rows == (("tiny", "full", "✓", "2", *["65.00 ± 7.07"] * 4, "0.00 ± 0.00"),)


def test_the_best_mean_of_a_column_is_bold_and_of_unparsed_answers_the_lowest() -> None:
    runs = [
        run_with("a", [BINARY], {0: 0.6, 1: 0.7}),
        run_with("b", [BINARY, "finetune=lora"], {0: 0.8, 1: 0.9}),
    ]
    table = sheet(tables_section(runs, OPTIONS), "Overall")
    assert table.bold == {(1, 4), (1, 5), (1, 6), (1, 7)}
    assert r"\textbf{85.00 $\pm$ 7.07}" in table.latex()
    assert "**85.00 ± 7.07**" in table.markdown()


def test_systems_that_print_alike_are_both_best() -> None:
    runs = [
        run_with("a", [BINARY], {0: 0.5, 1: 0.8}),
        run_with("b", [BINARY, "finetune=lora"], {0: 0.8, 1: 0.500001}),
        run_with("c", [BINARY, "rationale=false"], {0: 0.1, 1: 0.2}),
    ]
    table = sheet(tables_section(runs, OPTIONS), "Overall")
    assert {(0, 6), (1, 6)} <= table.bold
    assert (2, 6) not in table.bold


def test_a_system_is_one_row_whatever_tasks_it_was_scored_on() -> None:
    runs = [
        run_with("a", ["task=fine_grained"], {0: 0.6, 1: 0.7}),
        run_with("b", [BINARY], {0: 0.8, 1: 0.9}),
        run_with("c", [BINARY, "finetune=lora"], {0: 0.8, 1: 0.9}),
    ]
    assert [set(system.runs) for system in group_systems(runs)] == [
        {"fine_grained", "binary"},
        {"binary"},
    ]
    ablation = sheet(tables_section(runs, OPTIONS), "Ablation")
    assert ablation.rows[0][3:] == (*["85.00 ± 7.07"] * 4, *["65.00 ± 7.07"] * 4)
    assert ablation.rows[1][3:] == (*["85.00 ± 7.07"] * 4, *[""] * 4)


def test_systems_that_look_the_same_are_told_apart_by_the_options_that_differ() -> None:
    runs = [
        run_with("a", [BINARY], {0: 0.6}),
        run_with("b", [BINARY, "prompt.history=none"], {0: 0.6}),
    ]
    notes = [system.note for system in group_systems(runs)]
    assert notes == ["prompt.history=intervention", "prompt.history=none"]


def test_a_missing_fold_is_named_and_its_row_says_partial() -> None:
    findings = tables_section([run_with("a", [BINARY], {1: 0.6})], OPTIONS)
    assert sheet(findings, "Overall").rows[0][3] == "1 of 2: partial"
    assert any(
        "a has 1 of 2 folds; missing: fold 0" in note and note.startswith("Partial")
        for note in findings.notes
    )


def test_the_published_row_stands_below_its_measured_one_marked_and_never_best() -> None:
    # Measured worse than the paper's 91.25 and still best, since published figures do not compete.
    runs = [
        run_with("a", [BINARY, "backbone=llama8b"], {0: 0.5, 1: 0.6}),
        run_with("b", [BINARY, "backbone=llama8b", "rationale=false"], {0: 0.2, 1: 0.3}),
    ]
    findings = tables_section(runs, WITH_PAPER)
    table = sheet(findings, "Overall")
    name = "Llama-3.1-8B-Instruct"
    assert [row[0] for row in table.rows] == [name, f"{name} ‡"] * 2
    assert table.rows[1][3] == "published"
    assert table.rows[1][6] == "91.25 ± 0.46"
    assert {row for row, _ in table.bold} == {0}
    # The label-only row's binary cells are shifted in the paper: blank, with the reason.
    assert table.rows[3][4:8] == ("", "", "", "")
    assert any("shifted" in note for note in findings.notes)


def test_without_reference_nothing_published_is_shown() -> None:
    findings = tables_section([run_with("a", [BINARY, "backbone=llama8b"], {0: 0.5})], OPTIONS)
    assert "‡" not in "".join(s.markdown() for s in findings.sheets)
    assert "published" not in "".join(findings.notes)


def test_every_category_has_its_row_of_precision_recall_and_f1() -> None:
    run = run_with("a", ["task=fine_grained"], {0: 0.6, 1: 0.7})
    sheets = [s for s in tables_section([run], OPTIONS).sheets if s.title.startswith("By category")]
    columns = [name for s in sheets for name in s.header[3:]]
    assert columns == [f"{label} {m}" for label in run.task.labels for m in ("P", "R", "F1")]
    assert len(run.task.labels) == 13


@pytest.fixture(scope="module")
def runs(small_runs: Path) -> tuple[ReportedRun, ...]:
    """Return three real runs."""
    return read_runs([str(small_runs)])


def test_figures_of_real_runs_are_those_of_their_summaries(runs: tuple[ReportedRun, ...]) -> None:
    findings = tables_section(runs, OPTIONS)
    by_run = {row["run"]: row for row in findings.figures["rows"]}
    for run in runs:
        found = by_run[run.name]["metrics"]["macro_f1"]
        values = tuple(run.scores[fold].metrics["macro_f1"] for fold in sorted(run.scores))
        assert found["values"] == values
        assert found["mean"] == pytest.approx(sum(v or 0 for v in values) / len(values))


def test_the_csv_rows_hold_every_figure_at_full_precision(
    runs: tuple[ReportedRun, ...], tmp_path: Path
) -> None:
    from recap.output.report import write_report

    write_report(tables_section(runs, OPTIONS), tmp_path)
    with (tmp_path / "tables.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for run in runs:
        (row,) = (
            r
            for r in rows
            if (r["run"], r["metric"], r["category"]) == (run.name, "f1", "Resistance")
        )
        assert float(row["mean"]) == run.summary.per_label["Resistance"].f1.mean
