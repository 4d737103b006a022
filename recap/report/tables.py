"""The overview and the paper's tables from run folders: overall, ablation, per category.

The paper's published figures (arXiv 2601.14780, Tables 4, 5, 10 and 11) can stand beside ours.
``published.csv`` holds every cell that our copy of the paper has, in percent, as mean ± deviation;
over all categories precision, recall and F1 are macro-averages. A ? stands where the paper
contradicts itself (two tables print different figures, rows repeat or join others, means do not fit
the classes); ``doubt`` says how. Cells that our copy lacks are empty.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from recap.data.corpus import SYNTHETIC
from recap.metrics.scalar import SCALAR_METRICS
from recap.metrics.scores import DDOF, missing_labels, spread_text, support_warning
from recap.output.charts import COLORS, add_legend, draw_mean, draw_values, name_rows, open_axes
from recap.output.format import percent
from recap.output.report import Report
from recap.output.tables import ReportTable, table_of
from recap.output.templates import render_notes
from recap.records import FEW_TEST_EXAMPLES, Spread, Summary
from recap.report.options import ReportConfig
from recap.report.runs import ReportedRun, ReportedSystem, by_task, group_systems
from recap.runs.provenance import learned_from

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class PublishedFigure:
    """One published cell, in percent; ``None`` where the paper contradicts itself."""

    mean: float | None
    std: float | None
    doubt: str
    """Why it, or its deviation, is ``None``."""


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One published system; ``figures`` by task, category (empty: over all) and metric."""

    model: str
    setting: str
    rationale: bool | None
    """``None`` where the paper does not say."""
    figures: Mapping[tuple[str, str, str], PublishedFigure]

    def figure(self, task: str, metric: str, category: str = "") -> PublishedFigure | None:
        """Return a figure, ``None`` where our copy of the paper has none."""
        return self.figures.get((task, category, metric))


_MODELS = {
    "gpt4o": "GPT-4o",
    "claude35sonnet": "Claude-3.5-Sonnet",
    "qwen7b": "Qwen2.5-7B-Instruct",
    "qwen14b": "Qwen2.5-14B-Instruct",
    "qwen32b": "Qwen2.5-32B-Instruct",
    "qwen72b": "Qwen2.5-72B-Instruct",
    "llama8b": "Llama-3.1-8B-Instruct",
    "llama70b": "Llama-3.1-70B-Instruct",
}
_SERVED = {
    "gpt4o": r"gpt-4o(-\d{4}-\d{2}-\d{2})?",
    "claude35sonnet": r"claude-3-5-sonnet(-\d{8}|-latest)?",
}
"""As their vendors call them; open models are called as on the hub."""
_RATIONALES = {"true": True, "false": False, "": None}
_SYSTEM = ("system", "shots", "tuning", "rationale")
"""Columns of published.csv that tell systems apart."""

PER_LABEL = {"precision": "P", "recall": "R", "f1": "F1"}
"""Figures of a category, and what a table's header calls them."""


@cache
def published_rows() -> tuple[PublishedRow, ...]:
    """Return all published rows, baselines first."""
    grouped: dict[tuple[str, ...], dict[tuple[str, str, str], PublishedFigure]] = {}
    text = files("recap.report").joinpath("published.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        figures = grouped.setdefault(tuple(row[name] for name in _SYSTEM), {})
        for column in (*PER_LABEL, "accuracy"):
            metric = column if row["category"] or column == "accuracy" else f"macro_{column}"
            if row[column]:
                mean, std = (
                    None if part == "?" else float(part) for part in row[column].split(" ± ")
                )
                figures[row["task"], row["category"], metric] = PublishedFigure(
                    mean=mean, std=std, doubt=row["doubt"]
                )
    return tuple(
        PublishedRow(
            model=_MODELS[system],
            setting={"0": "zero-shot", "1": "few-shot"}.get(shots, tuning),
            rationale=_RATIONALES[rationale],
            figures=figures,
        )
        for (system, shots, tuning, rationale), figures in grouped.items()
    )


def published_row(system: ReportedSystem) -> PublishedRow | None:
    """Return the paper's row of a system: same model, tuning or shots, and rationale."""
    for row in published_rows():
        setting = "lora r8" if row.setting == "lora" else row.setting
        if system.setting != setting or row.rationale not in (None, system.rationale):
            continue
        key = next(key for key, name in _MODELS.items() if name == row.model)
        on_hub = rf"([\w.-]+/)?(Meta-)?{re.escape(row.model)}"
        if system.model == key or re.fullmatch(_SERVED.get(key, on_hub), system.model):
            return row
    return None


def _run_figures(run: ReportedRun, system: ReportedSystem) -> dict[str, Any]:
    summary = run.summary
    return {
        "run": run.name,
        "kind": run.kind,
        "task": run.task.name,
        "model": system.model,
        "setting": system.setting,
        "rationale": system.rationale,
        "protocol": summary.protocol,
        "folds": list(summary.folds),
        "missing_folds": list(run.missing),
        "metrics": {name: asdict(spread) for name, spread in summary.metrics.items()},
        "metrics_pooled": dict(summary.metrics_pooled),
        "per_label": {label: asdict(found) for label, found in summary.per_label.items()},
    }


def csv_rows(
    systems: Sequence[ReportedSystem], *, with_published: bool
) -> Iterator[Mapping[str, Any]]:
    """Yield a row for every figure of every run, with the published one in percent if asked for."""
    for system in systems:
        published = published_row(system) if with_published else None
        for task, run in system.runs.items():
            for (category, metric), spread in _figures_of(run.summary).items():
                theirs = published.figure(task, metric, category) if published else None
                beside = {
                    "published_mean_percent": theirs.mean if theirs else None,
                    "published_std_percent": theirs.std if theirs else None,
                }
                yield {
                    "run": run.name,
                    "model": system.model,
                    "setting": system.setting,
                    "rationale": system.rationale,
                    "task": task,
                    "category": category,
                    "metric": metric,
                    "mean": spread.mean,
                    "std": spread.std,
                    "folds": len(run.scores),
                    "missing_folds": " ".join(map(str, run.missing)),
                    **(beside if with_published else {}),
                }


def _figures_of(summary: Summary) -> dict[tuple[str, str], Spread]:
    found = {("", metric): spread for metric, spread in summary.metrics.items()}
    for label, figures in summary.per_label.items():
        found |= {(label, metric): getattr(figures, metric) for metric in PER_LABEL}
    return found


OVERALL = {"macro_precision": "P", "macro_recall": "R", "macro_f1": "F1", "accuracy": "Acc"}
"""Metrics of the paper's overall columns in its order, and what Table 5 calls them."""

_CATEGORIES_A_SHEET = 3
_PAPER_TASKS = ("binary", "fine_grained")
PUBLISHED = "‡"
"""Mark of a published row."""


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One line of a table: a system with its figures, measured or published."""

    system: ReportedSystem
    published: PublishedRow | None
    """The published row that this line shows; ``None`` for a measured one."""

    def heads(self) -> tuple[str, str, str]:
        """Return model, setting and rationale."""
        model, setting, mark = self.system.cells
        return (model if self.published is None else f"{model} {PUBLISHED}", setting, mark)

    def figure(self, task: str, metric: str, category: str = "") -> Spread | PublishedFigure | None:
        """Return a figure of a category, or over all of them."""
        if self.published is not None:
            return self.published.figure(task, metric, category)
        run = self.system.runs.get(task)
        if run is None:
            return None
        return _figures_of(run.summary).get((category, metric))


def tables_section(runs: Sequence[ReportedRun], options: ReportConfig) -> Report:
    """Return the tables over all runs, a row a system; the best mean of each column is bold."""
    systems = group_systems(runs)
    system_of = {run.name: system for system in systems for run in system.runs.values()}
    tasks = sorted(by_task(runs), key=lambda name: (*_PAPER_TASKS, name).index(name))
    sheets = [_overall(systems, task, options) for task in tasks]
    sheets += _ablation(systems, tasks, options)
    for task in tasks:
        sheets += _by_category(systems, task, _labels(runs, task), options)
    if few_by_task(runs):
        sheets = [replace(sheet, bold=frozenset()) for sheet in sheets]
    published = [
        {
            "row": row,
            "doubts": sorted({f.doubt for f in row.figures.values() if f.doubt and f.mean is None}),
        }
        for row in map(published_row, systems if options.reference == "paper" else ())
        if row is not None
    ]
    return Report(
        action="tables",
        title="Scores",
        figures={"ddof": DDOF, "rows": [_run_figures(run, system_of[run.name]) for run in runs]},
        sheets=tuple(sheets),
        notes=render_notes(
            "report/notes.yaml",
            "tables",
            ddof=DDOF,
            few=few_by_task(runs),
            protocols=sorted({run.config.cv.protocol for run in runs}),
            partial=partial_runs(runs),
            runs=_label_warnings(runs),
            reference=options.reference,
            published=published,
            mark=PUBLISHED,
        ),
        charts={
            f"categories_{task}": partial(_category_chart, systems, task, _labels(runs, task))
            for task in tasks
        },
        rows=list(csv_rows(systems, with_published=options.reference == "paper")),
    )


def _category_chart(systems: Sequence[ReportedSystem], task: str, labels: Sequence[str]) -> Figure:
    """Return F1 by category of the systems with the best macro-F1: a dot a fold, a bar the mean."""
    of_task = [(system, system.runs[task].summary) for system in systems if task in system.runs]
    best = sorted(of_task, key=lambda pair: -(pair[1].metrics["macro_f1"].mean or 0.0))
    shown = best[: len(COLORS)]
    step = 0.8 / len(shown)
    figure, axes = open_axes(7.2, 1.0 + len(labels) * max(0.3, 0.11 * len(shown)))
    name_rows(axes, labels)
    drawn = {}
    for place, ((system, summary), color) in enumerate(zip(shown, COLORS, strict=False)):
        for y, label in enumerate(labels):
            found = summary.per_label[label].f1.values
            values = [value for value in found if value is not None]
            middle = y - 0.4 + step * (place + 0.5)
            drawn[system.name] = draw_values(axes, values, middle, color=color, s=14)
            if values:
                draw_mean(axes, values, middle, step / 2, color=color)
    axes.set_xlim(-2, 102)
    axes.set_xlabel("F1, percent; a dot a fold, a bar the mean")
    axes.grid(axis="x", linewidth=0.4)
    add_legend(figure, drawn)
    return figure


def partial_runs(runs: Sequence[ReportedRun]) -> list[dict[str, ReportedRun]]:
    """Return the runs that lack folds, as notes take them."""
    return [{"run": run} for run in runs if run.missing]


def _label_warnings(runs: Sequence[ReportedRun]) -> list[dict[str, str | None]]:
    return [{"name": run.title, "warning": support_warning(run.summary)} for run in runs]


def _labels(runs: Sequence[ReportedRun], task: str) -> tuple[str, ...]:
    return next(run.summary.labels for run in runs if run.task.name == task)


def _rows(
    systems: Sequence[ReportedSystem], options: ReportConfig, task: str | None = None
) -> list[TableRow]:
    """Return a line for every system, each before its published row; of one task where named."""
    rows = []
    for system in systems:
        if task is not None and task not in system.runs:
            continue
        rows.append(TableRow(system=system, published=None))
        published = published_row(system) if options.reference == "paper" else None
        if published and (task is None or any(key[0] == task for key in published.figures)):
            rows.append(TableRow(system=system, published=published))
    return rows


def _score_table(
    title: str,
    header: Sequence[str],
    *,
    heads: Sequence[Sequence[str]],
    figures: Sequence[Sequence[Spread | PublishedFigure | None]],
    lower: Sequence[int] = (),
) -> ReportTable:
    """Return a table of figures behind columns of words, the best of each column in bold."""
    n_heads = len(heads[0])
    rows = zip(heads, figures, strict=True)
    return ReportTable(
        title=title,
        header=tuple(header),
        rows=tuple((*head, *map(_cell, line)) for head, line in rows),
        text_columns=tuple(range(n_heads)),
        bold=best_cells(figures, first_column=n_heads, lower=lower),
    )


def _overall(systems: Sequence[ReportedSystem], task: str, options: ReportConfig) -> ReportTable:
    rows = _rows(systems, options, task)
    names = [*OVERALL, *(name for name in SCALAR_METRICS if name not in OVERALL)]
    metrics = [SCALAR_METRICS[name] for name in names]
    of_paper = " (Table 4)" if task in _PAPER_TASKS else ""
    return _score_table(
        f"Overall, {task}{of_paper}",
        ("Model", "Setting", "Rationale", "Folds", *(m.title for m in metrics)),
        heads=[(*row.heads(), _folds(row, task)) for row in rows],
        figures=[[row.figure(task, name) for name in names] for row in rows],
        lower=[place for place, metric in enumerate(metrics) if not metric.higher_is_better],
    )


def _ablation(
    systems: Sequence[ReportedSystem], tasks: Sequence[str], options: ReportConfig
) -> list[ReportTable]:
    """Return backbone x rationale x tuning (Table 5), where more than one variant was trained."""
    trained = [s for s in systems if next(iter(s.runs.values())).kind == "trained"]
    if len(trained) < 2:
        return []
    rows = _rows(sorted(trained, key=lambda s: (s.model, s.setting, not s.rationale)), options)
    shown = [task for task in tasks if any(task in system.runs for system in trained)]
    return [
        _score_table(
            "Ablation: backbone × tuning × rationale (Table 5)",
            (
                *("Model", "Tuning", "Rationale"),
                *(f"{task} {OVERALL[name]}" for task in shown for name in OVERALL),
            ),
            heads=[row.heads() for row in rows],
            figures=[
                [row.figure(task, name) for task in shown for name in OVERALL] for row in rows
            ],
        )
    ]


def _by_category(
    systems: Sequence[ReportedSystem], task: str, labels: Sequence[str], options: ReportConfig
) -> list[ReportTable]:
    """Return the figures of each category, some categories a table."""
    rows = _rows(systems, options, task)
    parts = [
        labels[i : i + _CATEGORIES_A_SHEET] for i in range(0, len(labels), _CATEGORIES_A_SHEET)
    ]
    of_paper = {"binary": " (Table 4)", "fine_grained": " (Tables 10 and 11)"}.get(task, "")
    return [
        _score_table(
            f"By category, {task}{of_paper}"
            + (f", part {number} of {len(parts)}" if len(parts) > 1 else ""),
            (
                *("Model", "Setting", "Rationale"),
                *(f"{label} {short}" for label in part for short in PER_LABEL.values()),
            ),
            heads=[row.heads() for row in rows],
            figures=[
                [row.figure(task, metric, label) for label in part for metric in PER_LABEL]
                for row in rows
            ],
        )
        for number, part in enumerate(parts, start=1)
    ]


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
    for x, of_column in enumerate(zip(*figures, strict=True)):
        column = {
            y: round(100 * figure.mean, 2)
            for y, figure in enumerate(of_column)
            if isinstance(figure, Spread) and figure.mean is not None
        }
        if len(set(column.values())) > 1:
            wanted = min(column.values()) if x in lower else max(column.values())
            best |= {(y, x + first_column) for y, value in column.items() if value == wanted}
    return frozenset(best)


def _cell(figure: Spread | PublishedFigure | None) -> str:
    if isinstance(figure, Spread):
        return spread_text(figure)
    if figure is None or figure.mean is None:
        return ""
    return f"{figure.mean:.2f}" + ("" if figure.std is None else f" ± {figure.std:.2f}")


def _folds(row: TableRow, task: str) -> str:
    if row.published is not None:
        return "published"
    run = row.system.runs[task]
    done, asked = len(run.scores), run.config.cv.folds
    return f"{done}" if done == asked else f"{done} of {asked}: partial"


_KINDS = {"trained": "fine-tuned", "prompted": "prompted", "baseline": "baseline"}


def overview_section(runs: Sequence[ReportedRun], options: ReportConfig) -> Report:
    """Return the runs of a report and what it comes to."""
    systems = group_systems(runs)
    unparsed = {run.title: 100 * (run.summary.metrics["invalid_rate"].mean or 0.0) for run in runs}
    worst = max(unparsed, key=lambda name: unparsed[name])
    return Report(
        action="overview",
        title="Overview",
        figures={"runs": [_figures(run) for run in runs]},
        sheets=(_runs(systems),),
        notes=headline(runs)
        + render_notes(
            "report/notes.yaml",
            "overview",
            synthetic=synthetic_note(runs),
            few=few_by_task(runs),
            runs=_label_warnings(runs),
            partial=partial_runs(runs),
            paper_protocol=any(
                run.config.cv.protocol == "paper" and run.kind != "prompted" for run in runs
            ),
            n_runs=len(runs),
            n_unparsed=sum(percent > 0 for percent in unparsed.values()),
            worst={"name": worst, "percent": unparsed[worst]},
        ),
    )


def synthetic_note(runs: Sequence[ReportedRun]) -> str:
    """Return that the corpus is synthetic; empty where it is not, or does not say so."""
    return SYNTHETIC if any(run.data.get("synthetic") for run in runs) else ""


def headline(runs: Sequence[ReportedRun]) -> tuple[str, ...]:
    """Return a sentence a task: its best system by mean macro-F1."""
    systems = group_systems(runs)
    sentences = []
    for task in by_task(runs):
        scored = [(system, system.runs[task]) for system in systems if task in system.runs]
        best, run = max(scored, key=lambda pair: pair[1].summary.metrics["macro_f1"].mean or 0.0)
        spread = run.summary.metrics["macro_f1"]
        over = f"{len(run.scores)} folds" if len(run.scores) > 1 else "one fold"
        few = few_examples(runs, task) is not None
        alone = sum(run.task.name == task for run in runs) == 1
        rank = "a macro-F1" if alone else f"the {'highest' if few else 'best'} macro-F1"
        sentences.append(
            f"{task}: {best.name} has {rank} of {spread_text(spread)} percent over {over}, "
            f"{run.n_predictions:,} test examples"
            + (f", too few for a winner (fewer than {FEW_TEST_EXAMPLES})." if few else ".")
        )
        if missing_labels(run.summary):
            pooled = percent(run.summary.metrics_pooled.get("macro_f1"))
            sentences[-1] += f" Labels that a fold lacks count as 0 there; pooled it is {pooled}."
    return tuple(sentences)


def few_examples(runs: Sequence[ReportedRun], task: str) -> int | None:
    """Return how many test examples a task has where they are too few for a winner."""
    fewest = min(run.n_predictions for run in runs if run.task.name == task)
    return fewest if fewest < FEW_TEST_EXAMPLES else None


def few_by_task(runs: Sequence[ReportedRun]) -> list[dict[str, Any]]:
    """Return the tasks without a winner for their few test examples, as notes take them."""
    found = [(task, few_examples(runs, task)) for task in by_task(runs)]
    return [{"task": task, "n": n, "few": FEW_TEST_EXAMPLES} for task, n in found if n is not None]


def _runs(systems: Sequence[ReportedSystem]) -> ReportTable:
    return table_of(
        "Runs",
        [(system, run) for system in systems for run in system.runs.values()],
        {
            "Run": lambda row: row[1].name,
            "Kind": lambda row: _KINDS[row[1].kind],
            "Task": lambda row: row[1].task.name,
            "System": lambda row: row[0].name,
            "Folds": lambda row: f"{len(row[1].scores)} of {row[1].config.cv.folds}",
            "Protocol": lambda row: row[1].config.cv.protocol,
            "Data": lambda row: learned_from(row[1].config.data.name, row[1].data.get("synthetic")),
            "Test examples": lambda row: f"{row[1].n_predictions:,}",
        },
        text_columns=(0, 1, 2, 3, 4, 5, 6),
    )


def _figures(run: ReportedRun) -> dict[str, Any]:
    return {
        "run": run.name,
        "kind": run.kind,
        "task": run.task.name,
        "data": run.config.data.name,
        "synthetic": run.data.get("synthetic"),
        "folds": list(run.scores),
        "missing_folds": list(run.missing),
        "n_predictions": run.n_predictions,
        "data_hash": run.manifest.get("data_hash"),
        "partition_hash": run.manifest.get("partition_hash"),
    }
