"""The paper's published figures beside measured ones."""

from __future__ import annotations

import pytest
from builders import system

from recap.report.tables import PublishedRow, published_row, published_rows


def row(model: str, setting: str, rationale: bool | None = None) -> PublishedRow:
    """Return the one published row of that name."""
    (found,) = (
        r
        for r in published_rows()
        if (r.model, r.setting, r.rationale) == (model, setting, rationale)
    )
    return found


def test_the_headline_figures_are_those_of_table_4() -> None:
    llama = row("Llama-3.1-8B-Instruct", "full", rationale=True)
    claude = row("Claude-3.5-Sonnet", "few-shot")
    headline = {
        ("fine_grained", "macro_f1"): (66.58, 1.30),
        ("fine_grained", "accuracy"): (67.72, 0.99),
        ("binary", "macro_f1"): (91.25, 0.46),
        ("binary", "accuracy"): (91.41, 0.45),
    }
    for (task, metric), (mean, std) in headline.items():
        figure = llama.figure(task, metric)
        assert figure is not None
        assert (figure.mean, figure.std) == (mean, std)
    best = claude.figure("binary", "macro_f1")
    ours = llama.figure("binary", "macro_f1")
    assert best is not None
    assert best.mean is not None
    assert ours is not None
    assert ours.mean is not None
    assert round(ours.mean - best.mean, 2) == 9.75


@pytest.mark.parametrize("metric", ["precision", "recall", "f1"])
def test_published_binary_macro_figures_are_the_means_of_their_classes(metric: str) -> None:
    compared = 0
    for published in published_rows():
        cells = [
            published.figure("binary", metric, "Collaboration"),
            published.figure("binary", metric, "Resistance"),
            published.figure("binary", f"macro_{metric}"),
        ]
        means = [cell.mean for cell in cells if cell is not None and cell.mean is not None]
        if len(means) == 3:
            assert sum(means[:2]) / 2 == pytest.approx(means[2], abs=0.0151), published.model
            compared += 1
    assert compared >= 18


@pytest.mark.parametrize(
    ("model", "setting", "rationale", "task", "metric", "category"),
    [
        ("Llama-3.1-8B-Instruct", "lora", False, "fine_grained", "macro_f1", ""),
        ("Llama-3.1-8B-Instruct", "lora", True, "fine_grained", "macro_f1", ""),
        ("Llama-3.1-8B-Instruct", "full", False, "binary", "macro_f1", ""),
        ("Qwen2.5-7B-Instruct", "lora", False, "binary", "accuracy", ""),
        ("Llama-3.1-70B-Instruct", "zero-shot", None, "fine_grained", "macro_precision", ""),
        ("Qwen2.5-32B-Instruct", "zero-shot", None, "fine_grained", "f1", "Inattention"),
    ],
)
def test_cells_that_the_paper_contradicts_are_blank_and_say_why(
    model: str, setting: str, rationale: bool | None, task: str, metric: str, category: str
) -> None:
    figure = row(model, setting, rationale).figure(task, metric, category)
    assert figure is not None
    assert figure.mean is None
    assert figure.doubt


@pytest.mark.parametrize("category", ["Minimum Talk", "Limit Setting", "Sidetracking"])
def test_rows_that_our_copy_lacks_are_not_filled_from_memory(category: str) -> None:
    assert not [r for r in published_rows() if r.figure("fine_grained", "f1", category)]


def test_deviations_that_two_tables_print_differently_are_blank_but_their_mean_stays() -> None:
    figure = row("Qwen2.5-7B-Instruct", "zero-shot").figure("fine_grained", "macro_f1")
    assert figure is not None
    assert (figure.mean, figure.std) == (21.21, None)


@pytest.mark.parametrize(
    ("model", "setting", "rationale", "expected"),
    [
        ("llama8b", "full", True, "Llama-3.1-8B-Instruct"),
        ("qwen7b", "lora r8", True, "Qwen2.5-7B-Instruct"),
        ("qwen7b", "lora r16", True, None),
        ("gpt-4o-2024-08-06", "zero-shot", True, "GPT-4o"),
        ("gpt-4o-mini", "zero-shot", True, None),
        ("claude-3-5-sonnet-20240620", "few-shot", False, "Claude-3.5-Sonnet"),
        ("meta-llama/Meta-Llama-3.1-70B-Instruct", "zero-shot", True, "Llama-3.1-70B-Instruct"),
        ("Qwen/Qwen2.5-72B-Instruct", "few-shot", True, "Qwen2.5-72B-Instruct"),
        ("tiny", "full", True, None),
    ],
)
def test_a_published_row_stands_beside_the_same_system_alone(
    model: str, setting: str, rationale: bool, expected: str | None
) -> None:
    found = published_row(system(model, setting, rationale=rationale, runs={}))
    assert (found.model if found else None) == expected
