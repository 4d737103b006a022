"""The paper's tables from run folders: overall, per class, ablation, per category."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from recap.records import Spread, Summary
from recap.report_sections.options import ReportConfig
from recap.report_sections.published import PublishedFigure, PublishedRow, published_row
from recap.report_sections.runs import ReportedRun
from recap.report_sections.systems import System, group_systems
from recap.report_sections.table_figures import PER_LABEL, csv_rows, run_figures
from recap.reporting.category_chart import COLORS, category_chart
from recap.reporting.findings import Findings
from recap.reporting.sheets import Sheet
from recap.scoring.summary import DDOF, spread_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OVERALL = {
    "macro_precision": "Precision",
    "macro_recall": "Recall",
    "macro_f1": "Macro-F1",
    "accuracy": "Accuracy",
}
"""Metrics of the paper's overall columns, in its order."""

_CATEGORIES_A_SHEET = 3
_PAPER_TASKS = ("binary", "fine_grained")
PUBLISHED = "‡"
"""Mark of a published row."""

_TABLE_OF = {"binary": "Table 4", "fine_grained": "Table 4"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table: a system with its figures, measured or published."""

    system: System
    published: PublishedRow | None
    """The published row that this line shows; ``None`` for a measured one."""

    def summary(self, task: str) -> Summary | None:
        """Return what was measured on a task."""
        run = None if self.published else self.system.runs.get(task)
        return None if run is None else run.summary

    def heads(self) -> tuple[str, str, str]:
        """Return model, setting and rationale."""
        model, setting, mark = self.system.cells
        return (model if self.published is None else f"{model} {PUBLISHED}", setting, mark)

    def overall(self, task: str, metric: str) -> Spread | PublishedFigure | None:
        """Return a figure over all categories."""
        if self.published is not None:
            return self.published.figure(task, metric)
        summary = self.summary(task)
        return None if summary is None else summary.metrics[metric]

    def per_label(self, task: str, label: str, metric: str) -> Spread | PublishedFigure | None:
        """Return a figure of one category."""
        if self.published is not None:
            return self.published.figure(task, metric, label)
        summary = self.summary(task)
        if summary is None:
            return None
        found: Spread = getattr(summary.per_label[label], metric)
        return found


def tables_section(runs: Sequence[ReportedRun], options: ReportConfig) -> Findings:
    """Return the tables over all runs, a row a system; the best mean of each column is bold."""
    systems = group_systems(runs)
    tasks = _tasks(runs)
    sheets = [_overall(systems, task, options) for task in tasks]
    sheets += [
        _by_category(systems, task, runs, options, labels, part)
        for task in tasks
        for part, labels in enumerate(_parts(_labels(runs, task)))
    ]
    sheets[len(tasks) : len(tasks)] = _ablation(systems, tasks, options)
    return Findings(
        action="tables",
        title="Scores",
        figures={"ddof": DDOF, "rows": [run_figures(run, systems) for run in runs]},
        sheets=tuple(sheets),
        notes=tuple(_notes(runs, systems, options)),
        charts={f"categories_{task}": _category_chart(systems, task, runs) for task in tasks},
        rows=list(csv_rows(systems, with_published=options.reference == "paper")),
    )


def _category_chart(
    systems: Sequence[System], task: str, runs: Sequence[ReportedRun]
) -> Callable[[], Figure]:
    """Return what draws F1 by category over folds, of the systems with the best macro-F1."""
    labels = _labels(runs, task)
    of_task = [(system, system.runs[task].summary) for system in systems if task in system.runs]
    best = sorted(of_task, key=lambda pair: -(pair[1].metrics["macro_f1"].mean or 0.0))
    shown = {
        system.name: [[value or 0.0 for value in s.per_label[label].f1.values] for label in labels]
        for system, s in best[: len(COLORS)]
    }
    return partial(category_chart, labels, shown)


def partial_notes(runs: Sequence[ReportedRun]) -> list[str]:
    """Return a sentence for every run that lacks folds."""
    return [
        f"Partial: {run.name} has {len(run.scores)} of {run.config.cv.folds} folds; missing: fold "
        f"{', '.join(map(str, run.missing))}."
        for run in runs
        if run.missing
    ]


def _tasks(runs: Sequence[ReportedRun]) -> list[str]:
    found = dict.fromkeys(run.task.name for run in runs)
    first = [task for task in _PAPER_TASKS if task in found]
    return [*first, *(task for task in found if task not in first)]


def _labels(runs: Sequence[ReportedRun], task: str) -> tuple[str, ...]:
    return next(run.summary.labels for run in runs if run.task.name == task)


def _parts(labels: Sequence[str]) -> list[tuple[str, ...]]:
    step = _CATEGORIES_A_SHEET
    return [tuple(labels[i : i + step]) for i in range(0, len(labels), step)]


def _rows(systems: Sequence[System], task: str, options: ReportConfig) -> list[Row]:
    """Return a line for every system that was scored on the task, each before its published row."""
    rows = []
    for system in systems:
        if task not in system.runs:
            continue
        rows.append(Row(system=system, published=None))
        published = published_row(system) if options.reference == "paper" else None
        if published is not None and any(key[0] == task for key in published.figures):
            rows.append(Row(system=system, published=published))
    return rows


def _overall(systems: Sequence[System], task: str, options: ReportConfig) -> Sheet:
    rows = _rows(systems, task, options)
    names = [*OVERALL, "invalid_rate"]
    figures = [[row.overall(task, name) for name in names] for row in rows]
    of_paper = f" ({_TABLE_OF[task]})" if task in _TABLE_OF else ""
    return Sheet(
        title=f"Overall, {task}{of_paper}",
        header=("Model", "Setting", "Rationale", "Folds", *OVERALL.values(), "Invalid"),
        rows=tuple(
            (*row.heads(), _folds(row, task), *map(_cell, line))
            for row, line in zip(rows, figures, strict=True)
        ),
        text_columns=(0, 1, 2, 3),
        bold=best_cells(figures, first_column=4, lower=(4,)),
    )


def _ablation(
    systems: Sequence[System], tasks: Sequence[str], options: ReportConfig
) -> list[Sheet]:
    """Return backbone x rationale x tuning (Table 5), where more than one variant was trained."""
    trained = [s for s in systems if next(iter(s.runs.values())).kind == "trained"]
    if len(trained) < 2:
        return []
    rows: list[Row] = []
    for system in sorted(trained, key=lambda s: (s.model, s.setting, not s.rationale)):
        rows.append(Row(system=system, published=None))
        published = published_row(system) if options.reference == "paper" else None
        if published is not None:
            rows.append(Row(system=system, published=published))
    shown = [task for task in tasks if any(task in system.runs for system in trained)]
    figures = [[row.overall(task, name) for task in shown for name in OVERALL] for row in rows]
    short = dict(zip(OVERALL, ("P", "R", "F1", "Acc"), strict=True))
    return [
        Sheet(
            title="Ablation: backbone × tuning × rationale (Table 5)",
            header=(
                *("Model", "Tuning", "Rationale"),
                *(f"{task} {short[name]}" for task in shown for name in OVERALL),
            ),
            rows=tuple(
                (*row.heads(), *map(_cell, line)) for row, line in zip(rows, figures, strict=True)
            ),
            text_columns=(0, 1, 2),
            bold=best_cells(figures, first_column=3),
        )
    ]


def _by_category(
    systems: Sequence[System],
    task: str,
    runs: Sequence[ReportedRun],
    options: ReportConfig,
    labels: Sequence[str],
    part: int,
) -> Sheet:
    rows = _rows(systems, task, options)
    figures = [
        [row.per_label(task, label, metric) for label in labels for metric in PER_LABEL]
        for row in rows
    ]
    n_parts = len(_parts(_labels(runs, task)))
    numbered = f", part {part + 1} of {n_parts}" if n_parts > 1 else ""
    of_paper = {"binary": " (Table 4)", "fine_grained": " (Tables 10 and 11)"}.get(task, "")
    return Sheet(
        title=f"By category, {task}{of_paper}{numbered}",
        header=(
            *("Model", "Setting", "Rationale"),
            *(f"{label} {short}" for label in labels for short in PER_LABEL.values()),
        ),
        rows=tuple(
            (*row.heads(), *map(_cell, line)) for row, line in zip(rows, figures, strict=True)
        ),
        text_columns=(0, 1, 2),
        bold=best_cells(figures, first_column=3),
    )


def best_cells(
    figures: Sequence[Sequence[Spread | PublishedFigure | None]],
    *,
    first_column: int,
    lower: Sequence[int] = (),
) -> frozenset[tuple[int, int]]:
    """Return the cells of each column's best measured mean, ties included; published never count.

    A column in which no two measured figures differ has no best. Means that print alike tie.

    Args:
        figures: A row a line of the table, without its first ``first_column`` text columns.
        first_column: Where the figures begin.
        lower: Columns of figures in which less is better.
    """
    best = set()
    for x in range(len(figures[0]) if figures else 0):
        means = {y: _measured(line[x]) for y, line in enumerate(figures)}
        column = {y: round(100 * mean, 2) for y, mean in means.items() if mean is not None}
        if len(set(column.values())) < 2:
            continue
        wanted = min(column.values()) if x in lower else max(column.values())
        best |= {(y, x + first_column) for y, value in column.items() if value == wanted}
    return frozenset(best)


def _measured(figure: Spread | PublishedFigure | None) -> float | None:
    return figure.mean if isinstance(figure, Spread) else None


def _cell(figure: Spread | PublishedFigure | None) -> str:
    if figure is None:
        return ""
    if isinstance(figure, Spread):
        return spread_text(figure)
    if figure.mean is None:
        return ""
    return f"{figure.mean:.2f}" + ("" if figure.std is None else f" ± {figure.std:.2f}")


def _folds(row: Row, task: str) -> str:
    if row.published is not None:
        return "published"
    run = row.system.runs[task]
    done, asked = len(run.scores), run.config.cv.folds
    return f"{done}" if done == asked else f"{done} of {asked}: partial"


def _notes(
    runs: Sequence[ReportedRun], systems: Sequence[System], options: ReportConfig
) -> Iterator[str]:
    protocols = sorted({run.config.cv.protocol for run in runs})
    explained = {
        "paper": "paper (the reported fold also selects the checkpoint)",
        "nested": "nested (an inner split of the training folds selects it)",
    }
    yield (
        f"Mean ± sample standard deviation (ddof = {DDOF}) over folds, in percent; bold: best mean "
        f"of a column. Protocol: {'; '.join(explained[p] for p in protocols)}."
    )
    yield "Macro figures are means over categories; an unreadable answer counts as wrong."
    yield from partial_notes(runs)
    if options.reference == "paper":
        yield from _published_notes(systems)


def _published_notes(systems: Sequence[System]) -> Iterator[str]:
    found = [row for row in map(published_row, systems) if row is not None]
    if not found:
        yield "reference=paper: the paper has no row of these systems."
        return
    yield (
        f"{PUBLISHED} published (arXiv 2601.14780), on the authors' ClientResistance corpus, which "
        "is not public: for orientation, never counted as best. Blank: our copy of the paper has "
        "no such cell, or contradicts itself there."
    )
    for row in found:
        doubts = sorted({f.doubt for f in row.figures.values() if f.doubt and f.mean is None})
        if doubts:
            yield f"{PUBLISHED} {row.model}, {row.setting}: blank cells, since {'; '.join(doubts)}."
