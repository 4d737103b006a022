"""The page on reproduction gives the hours that recap.plan gives."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reproduce.md"


@pytest.fixture
def paper_plans(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("paper_plans")


def shown() -> list[str]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("| rows | GPUs |"))
    return lines[first : lines.index("", first)]


def test_the_page_has_a_line_for_every_row_that_runs_on_ones_own_gpus(
    paper_plans: ModuleType,
) -> None:
    rows = [*paper_plans.TRAINED, *paper_plans.PROMPTED]
    assert len(rows) == 12
    assert shown()[:2] == list(paper_plans.HEADER)
    assert [line.split("`")[1] for line in shown()[2:]] == rows


def test_the_page_adds_the_hours_of_each_table_up(paper_plans: ModuleType) -> None:
    cells = {line.split("`")[1]: line.split("|") for line in shown()[2:]}
    hours = {row: float(line[5]) + float(line[7]) for row, line in cells.items()}
    sums = {
        "5.78": hours[paper_plans.TRAINED[0]],
        "35.92": sum(hours[row] for row in paper_plans.TRAINED),
        "1.47": sum(hours[row] for row in paper_plans.PROMPTED),
    }
    assert sums == {text: pytest.approx(float(text), abs=1e-9) for text in sums}
    page = PAGE.read_text(encoding="utf-8")
    assert "5.78 hours for Table 4's fine-tuned rows, and 35.92 for all of Table 5" in page
    assert "1.47 for\nthe zero-shot rows" in page


@pytest.mark.slow
def test_the_page_has_the_figures_of_recap_plan(paper_plans: ModuleType) -> None:
    assert list(paper_plans.table()) == shown()
