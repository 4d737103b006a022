"""Tables and files of what a command has found."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from rich.console import Console

from recap.output.format import console_for
from recap.output.report import Report, one_by_one, print_report, write_report
from recap.output.tables import ReportTable

LONG = "a text that is longer than the forty characters of a line"


def quiet() -> Console:
    return console_for(file=io.StringIO(), width=60)


def test_columns_of_long_texts_break_their_lines_in_latex() -> None:
    sheet = ReportTable(
        title="T", header=("a", "n", "what"), rows=(("x", "1", LONG),), text_columns=(0, 2)
    )
    assert r"\begin{tabular}{lrp{0.80\linewidth}}" in sheet.latex()
    short = ReportTable(title="T", header=("a", "n"), rows=(("x_1 & co", "5%"),))
    assert r"\begin{tabular}{lr}" in short.latex()
    assert r"x\_1 \& co & 5\% \\" in short.latex()


def test_markdown_aligns_texts_left_and_figures_right() -> None:
    sheet = ReportTable(
        title="T", header=("a", "n", "b"), rows=(("x|y", "1", "z"),), text_columns=(0, 2)
    )
    assert "| --- | ---: | --- |" in sheet.markdown()
    assert r"| x\|y | 1 | z |" in sheet.markdown()


def test_figures_are_listed_one_by_one_under_dotted_names() -> None:
    nested = {"a": {"b": 1, "c": [2.5, {"d": None}]}, "e": "x"}
    assert list(one_by_one(nested)) == [
        ("a.b", 1),
        ("a.c.0", 2.5),
        ("a.c.1.d", None),
        ("e", "x"),
    ]


def test_files_hold_figures_rows_tables_and_pages(tmp_path: Path) -> None:
    report = Report(
        action="probe",
        title="A probe",
        figures={"third": 1 / 3},
        sheets=(ReportTable(title="T", header=("a", "n"), rows=(("x", "1"),)),),
        notes=("said aside",),
        rows=[{"name": "x, y", "n": 1 / 3}],
        pages={"more.txt": "more"},
    )
    written = write_report(report, tmp_path, quiet())
    assert sorted(path.name for path in written) == sorted(p.name for p in tmp_path.iterdir())
    assert json.loads((tmp_path / "probe.json").read_text("utf-8")) == {"third": 1 / 3}
    with (tmp_path / "probe.csv").open(encoding="utf-8", newline="") as file:
        [row] = csv.DictReader(file)
    assert (row["name"], float(row["n"])) == ("x, y", 1 / 3)
    page = (tmp_path / "probe.md").read_text("utf-8")
    assert page.startswith("# A probe\n")
    assert "- said aside" in page
    assert (tmp_path / "more.txt").read_text("utf-8") == "more"


def test_chinese_cells_are_folded_not_cut_off() -> None:
    console = quiet()
    text = "这是一个很长的句子" * 12
    sheet = ReportTable(title="T", header=("a", "b"), rows=(("x", text),), text_columns=(0, 1))
    report = Report(action="probe", title="P", figures={}, sheets=(sheet,))
    print_report(report, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert printed.count("这") == 12
    assert "…" not in printed
