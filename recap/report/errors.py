"""Where systems err: by metadata, length and position, by kind and pattern, example by example."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from recap.errors import ConfigError, did_you_mean
from recap.metrics.scores import confusion_of
from recap.output.charts import PLAIN_COLOR, draw_interval, matrix_chart, name_rows, open_panels
from recap.output.format import percent, percent_with_ends
from recap.output.report import Report
from recap.output.tables import ReportTable, table_of
from recap.output.templates import render_notes
from recap.records import Example, Prediction
from recap.report.error_statistics import (
    SUBTLE,
    Confusion,
    ErrorKind,
    GroupScores,
    HardExample,
    KindCount,
    PatternErrors,
    WrongInAll,
    by_column,
    by_history,
    by_length,
    by_negation,
    by_position,
    count_kind,
    hardest_examples,
    largest_groups,
    named_kinds,
    rank_confusions,
    roll_up,
    scores_by_group,
    wrong_in_all,
)
from recap.report.options import ReportConfig
from recap.report.runs import ReportedRun, by_task, read_examples_again
from recap.statistics.clusters import Interval, clustered, reasons

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MOST_GROUPS = 20
"""Groups of a column that are shown: those with the most examples."""

MOST_HARD = 20
"""Hardest examples that are listed."""


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """Scores by one property of the examples."""

    title: str
    n_groups: int
    """Groups that there are, shown or not."""
    groups: tuple[GroupScores, ...]


@dataclass(frozen=True, kw_only=True)
class RunErrors:
    """All that was found of one run's errors, as the figures have it."""

    task: str
    labels: tuple[str, ...]
    overall: GroupScores
    confusion: tuple[tuple[int, ...], ...]
    """Of all folds together."""
    confusions: tuple[Confusion, ...]
    kinds: Mapping[str, KindCount]
    """By name."""
    resistance_missed_by_wording: Mapping[str, KindCount]
    """The first kind, resistance read as collaboration, by whether the response holds an overt
    negation."""
    patterns: PatternErrors | None
    breakdowns: Mapping[str, Breakdown]
    """By metadata column, ``length``, ``position``, ``history`` or ``negation``."""
    hardest: tuple[HardExample, ...]


ByRun = Mapping[str, RunErrors]
"""The errors of each run, by its name."""


def errors_of(
    run: ReportedRun, examples: Mapping[str, Example], options: ReportConfig
) -> RunErrors:
    """Return all that is found of a run's errors, over the predictions of all folds together.

    Args:
        run: The run.
        examples: By id; empty where the data could not be read, which leaves out what needs them.
        options: Columns to break scores down by; level of intervals.

    Raises:
        ConfigError: For a column of ``by`` that no example has.
    """
    predictions, labels = run.all_predictions, run.task.labels
    counts = confusion_of(predictions, task=run.task.name, labels=labels)
    over: dict[str, Any] = {"people": run.people, "confidence": options.level}
    everything = {p.id: "all" for p in predictions}
    kinds = named_kinds(run.task.taxonomy, labels)
    return RunErrors(
        task=run.task.name,
        labels=labels,
        overall=scores_by_group(predictions, everything, labels=labels, **over)[0],
        confusion=tuple(tuple(int(n) for n in row) for row in counts),
        confusions=rank_confusions(counts, labels),
        kinds={kind.name: count_kind(predictions, kind, **over) for kind in kinds},
        resistance_missed_by_wording=_missed_by_wording(predictions, kinds, examples, over),
        patterns=roll_up(counts, labels, run.task.taxonomy, task=run.task.name),
        breakdowns={
            by: Breakdown(
                title=title,
                n_groups=len(set(group_of.values())),
                groups=scores_by_group(
                    predictions, largest_groups(group_of, most=MOST_GROUPS), labels=labels, **over
                ),
            )
            for by, title, group_of in _groupings(predictions, examples, options.by)
            if group_of
        },
        hardest=hardest_examples(predictions, most=MOST_HARD),
    )


def _groupings(
    predictions: Sequence[Prediction], examples: Mapping[str, Example], columns: Sequence[str]
) -> Iterator[tuple[str, str, Mapping[str, str]]]:
    """Yield each property of the answered examples: its name, title, and groups by id."""
    answered = {p.id for p in predictions}
    known = [example for key, example in examples.items() if key in answered]
    if not known:
        return
    for column in columns:
        yield column, column, _column(known, column)
    lengths, unit = by_length(known)
    yield "length", f"length of the response, {unit}", lengths
    # Where in a session an example lies depends on all that were asked, answered or not.
    third = {key: name for key, name in by_position(examples.values()).items() if key in answered}
    yield "position", "position in the session", third
    yield "history", "turns before the response", by_history(known)
    yield "negation", "wording of the response", by_negation(known)


def _column(examples: Sequence[Example], column: str) -> dict[str, str]:
    group_of = by_column(examples, column)
    if not group_of:
        names = dict.fromkeys(
            ["session", "client", "counselor", *(k for e in examples for k in e.meta)]
        )
        columns = [name for name in names if by_column(examples, name)]
        raise ConfigError(
            f"by={column}: no example has a short text or a number there"
            f"{did_you_mean(column, columns)}; known: {', '.join(columns) or 'none'} (in a table, "
            "data.options.meta=[…] says which columns are carried along)"
        )
    return group_of


def _missed_by_wording(
    predictions: Sequence[Prediction],
    kinds: Sequence[ErrorKind],
    examples: Mapping[str, Example],
    over: Mapping[str, Any],
) -> dict[str, KindCount]:
    subtle = next((kind for kind in kinds if kind.name == SUBTLE), None)
    if subtle is None:
        return {}
    wording = by_negation(examples[p.id] for p in predictions if p.id in examples)
    return {
        group: count_kind((p for p in predictions if wording.get(p.id) == group), subtle, **over)
        for group in dict.fromkeys(wording.values())
    }


_RANKED = 10
"""Confusions of each run that the table holds; the figures have all."""

_IDS = 8
"""Ids of a kind of error that the table holds."""

_HARD = 10
"""Hardest examples of each run that the table holds."""

UNPARSED = "unparsed"
"""What tables and figures call answers without a label."""


def error_tables(
    runs: ByRun, shared: Mapping[str, WrongInAll], *, texts: Mapping[str, str]
) -> tuple[ReportTable, ...]:
    """Return the tables; those with nothing in them are left out.

    Args:
        runs: What was found of each run.
        shared: What all runs of a task got wrong, by the task's name.
        texts: Responses by id, to stand beside ids; empty: ids alone.
    """
    overall = {name: one.overall for name, one in runs.items()}
    tables = [
        table_of(
            "All examples, %", overall.items(), {"system": lambda row: row[0], **_GROUP_COLUMNS}
        ),
        _confusions(runs),
        _kinds(runs),
        _patterns(runs),
        *_breakdowns(runs),
        _hardest(runs, texts),
        _shared(shared),
    ]
    return tuple(table for table in tables if table.rows)


_GROUP_COLUMNS: Mapping[str, Callable[[tuple[str, GroupScores]], str]] = {
    "n": lambda row: f"{row[1].n:,}",
    "sessions": lambda row: f"{row[1].sessions:,}",
    "macro-F1": lambda row: _interval_text(row[1].macro_f1),
    "accuracy": lambda row: _interval_text(row[1].accuracy),
    "overconfidence": lambda row: _interval_text(row[1].overconfidence),
}


def _confusions(runs: ByRun) -> ReportTable:
    return table_of(
        "Most frequent confusions",
        [(name, found) for name, one in runs.items() for found in one.confusions[:_RANKED]],
        {
            "system": lambda row: row[0],
            "gold": lambda row: row[1].gold,
            "answered": lambda row: row[1].predicted or UNPARSED,
            "examples": lambda row: f"{row[1].count:,}",
            "% of gold": lambda row: percent(row[1].share_of_gold, 1),
            "% of errors": lambda row: percent(row[1].share_of_errors, 1),
        },
        text_columns=(0, 1, 2),
    )


def _kinds(runs: ByRun) -> ReportTable:
    rows: list[tuple[str, str, KindCount]] = []
    for name, one in runs.items():
        rows += [(name, kind, count) for kind, count in one.kinds.items()]
        by_wording = one.resistance_missed_by_wording.items()
        rows += [(name, f"… {wording}", count) for wording, count in by_wording]
    return table_of(
        "The two kinds of errors that the paper names (Section 6.3)",
        rows,
        {
            "system": lambda row: row[0],
            "kind": lambda row: row[1],
            "gold": lambda row: f"{row[2].n:,}",
            "errors": lambda row: f"{row[2].count:,}",
            "% of gold": lambda row: _interval_text(row[2].share),
            "% of their errors": lambda row: percent(row[2].share_of_errors, 1),
            "ids": lambda row: _listed(row[2].ids),
        },
        text_columns=(0, 1, 6),
    )


def _patterns(runs: ByRun) -> ReportTable:
    found = [(name, one.patterns) for name, one in runs.items() if one.patterns is not None]
    return table_of(
        "Labels rolled up to patterns, %",
        found,
        {
            "system": lambda row: row[0],
            "macro-F1": lambda row: percent(row[1].scores.metrics["macro_f1"], 1),
            "accuracy": lambda row: percent(row[1].scores.metrics["accuracy"], 1),
            "readable errors": lambda row: f"{row[1].errors:,}",
            "within the pattern": lambda row: percent(row[1].within, 1),
            "by chance": lambda row: percent(row[1].within_by_chance, 1),
            "F1 of each pattern": lambda row: ", ".join(
                f"{name} {percent(own.f1, 1)}" for name, own in row[1].scores.per_label.items()
            ),
        },
        text_columns=(0, 6),
    )


def _breakdowns(runs: ByRun) -> Iterator[ReportTable]:
    titles = {by: found.title for one in runs.values() for by, found in one.breakdowns.items()}
    for by, title in titles.items():
        having = {name: one.breakdowns[by] for name, one in runs.items() if by in one.breakdowns}
        yield table_of(
            f"By {title}, %",
            [(name, group) for name, found in having.items() for group in found.groups],
            {"system": lambda row: row[0], "group": lambda row: row[1].group, **_GROUP_COLUMNS},
            text_columns=(0, 1),
        )


def _hardest(runs: ByRun, texts: Mapping[str, str]) -> ReportTable:
    columns: dict[str, Callable[[tuple[str, HardExample]], str]] = {
        "system": lambda row: row[0],
        "id": lambda row: row[1].id,
        "gold": lambda row: row[1].gold,
        "answered": lambda row: row[1].label or UNPARSED,
        "probability of gold": lambda row: (
            "" if row[1].gold_probability is None else f"{row[1].gold_probability:.2g}"
        ),
    }
    if texts:
        columns["response"] = lambda row: " ".join(texts.get(row[1].id, "").split())
    return table_of(
        "Hardest examples: lowest probability of the gold label",
        [(name, example) for name, one in runs.items() for example in one.hardest[:_HARD]],
        columns,
        text_columns=(0, 1, 2, 3, *([5] if texts else [])),
    )


def _shared(shared: Mapping[str, WrongInAll]) -> ReportTable:
    return table_of(
        "Wrong in all runs of a task",
        shared.items(),
        {
            "task": lambda row: row[0],
            "runs": lambda row: f"{row[1].runs:,}",
            "examples": lambda row: f"{row[1].examples:,}",
            "wrong in all": lambda row: f"{len(row[1].ids):,}",
            "by chance": lambda row: f"{row[1].by_chance:.1f}",
            "same answer": lambda row: f"{row[1].same_answer:,}",
            "gold labels": lambda row: ", ".join(f"{k} {n}" for k, n in row[1].by_gold.items()),
            "ids": lambda row: _listed(row[1].ids),
        },
        text_columns=(0, 6, 7),
    )


def _listed(ids: Sequence[str]) -> str:
    more = len(ids) - _IDS
    return ", ".join(ids[:_IDS]) + (f" and {more:,} more" if more > 0 else "")


def _interval_text(found: Interval) -> str:
    return percent_with_ends(found.value, found.low, found.high)


_DRAWN = ("length", "position", "history")


def error_section(runs: Sequence[ReportedRun], options: ReportConfig) -> Report | None:
    """Return the section on the runs' errors; ``None`` where no answer is wrong.

    Raises:
        ConfigError: For a column of ``by`` that no example has.
    """
    if all(p.label == p.gold for run in runs for p in run.all_predictions):
        return None
    examples, fault = read_examples_again(runs)
    found = {run.name: errors_of(run, examples, options) for run in runs}
    accuracies = [one.overall.accuracy for one in found.values()]
    broken_down = [pair for one in found.values() for pair in one.breakdowns.items()]
    shared = _wrong_in_all(runs)
    texts = (
        {key: example.response for key, example in examples.items()}
        if options.privacy.include_text
        else {}
    )
    return Report(
        action="errors",
        title="Errors: who, where, which, and how sure",
        figures={
            **options.given,
            "by": list(options.by),
            "data_read_again": fault is None,
            "runs": {name: asdict(one) for name, one in found.items()},
            "wrong_in_all": {task: asdict(one) for task, one in shared.items()},
        },
        sheets=error_tables({run.title: found[run.name] for run in runs}, shared, texts=texts),
        notes=render_notes(
            "report/notes.yaml",
            "errors",
            fault=fault,
            options=options,
            over=[{"said": clustered(a.cluster, a.clusters)} for a in accuracies],
            missing=[
                {"said": why, "runs": name}
                for name, one in found.items()
                for why in reasons(_shown(one))
            ],
            hidden=[
                {"by": by, "n": n}
                for by, n in {by: b.n_groups for by, b in broken_down}.items()
                if n > MOST_GROUPS
            ],
            most_groups=MOST_GROUPS,
            positions=any(by == "position" for by, _ in broken_down),
            wordings=any(one.resistance_missed_by_wording for one in found.values()),
            patterns=any(one.patterns is not None for one in found.values()),
        ),
        rows=[row for name, one in found.items() for row in _rows(name, one)],
        charts=_charts(found),
    )


def _shown(one: RunErrors) -> dict[str, Interval]:
    """Return the accuracy of groups, and the shares of kinds of errors, by their names."""
    named = {
        f"{found.title} {group.group}": group.accuracy
        for found in one.breakdowns.values()
        for group in found.groups
    }
    kinds = {**one.kinds, **one.resistance_missed_by_wording}
    return named | {name: kind.share for name, kind in kinds.items()}


def _wrong_in_all(runs: Sequence[ReportedRun]) -> dict[str, WrongInAll]:
    found = {
        task: wrong_in_all([run.all_predictions for run in own])
        for task, own in by_task(runs).items()
    }
    return {task: one for task, one in found.items() if one is not None}


def _rows(run: str, one: RunErrors) -> Iterator[dict[str, Any]]:
    groups = [("all", one.overall)]
    groups += [(by, group) for by, found in one.breakdowns.items() for group in found.groups]
    for by, group in groups:
        yield {
            "run": run,
            "by": by,
            "group": group.group,
            "n": group.n,
            "sessions": group.sessions,
            **_interval(group, "macro_f1"),
            **_interval(group, "accuracy"),
            **_interval(group, "overconfidence"),
        }


def _interval(group: GroupScores, name: str) -> dict[str, float | None]:
    found = getattr(group, name)
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _charts(runs: ByRun) -> dict[str, Callable[[], Figure]]:
    """Return the figures of the best run of each task; those of all would bury the page."""
    best: dict[str, tuple[str, RunErrors]] = {}
    for name, one in runs.items():
        if one.task not in best or _macro_f1(one) > _macro_f1(best[one.task][1]):
            best[one.task] = name, one
    charts: dict[str, Callable[[], Figure]] = {}
    for name, one in best.values():
        charts[f"errors_confusion_{name}"] = partial(_matrix, one.confusion, one.labels, of="label")
        if one.patterns is not None:
            charts[f"errors_patterns_{name}"] = partial(
                _matrix, one.patterns.scores.confusion, one.patterns.patterns, of="pattern"
            )
        panels = {
            found.title: {
                f"{group.group} (n={group.n:,})": group.accuracy
                for group in found.groups
                if group.accuracy.value is not None
            }
            for found in (one.breakdowns[by] for by in _DRAWN if by in one.breakdowns)
        }
        if panels:
            overall = one.overall.accuracy.value
            charts[f"errors_groups_{name}"] = partial(_group_chart, panels, overall)
    return charts


def _macro_f1(one: RunErrors) -> float:
    return one.overall.macro_f1.value or 0.0


def _matrix(counts: Sequence[Sequence[int]], names: Sequence[str], *, of: str) -> Figure:
    return matrix_chart(
        counts,
        names,
        [*names, UNPARSED],
        rows=f"gold {of}",
        columns=f"answered {of} (examples; shade: share of the row)",
    )


def _group_chart(panels: Mapping[str, Mapping[str, Interval]], overall: float | None) -> Figure:
    """Return the accuracy of groups, a panel a property; the line is that over all groups."""
    tallest = max(map(len, panels.values()))
    figure, places = open_panels(list(panels), width=3.6, height=1.1 + 0.3 * max(tallest, 2))
    for [axes], groups in zip(places, panels.values(), strict=True):
        name_rows(axes, list(groups))
        for y, found in enumerate(groups.values()):
            draw_interval(axes, found, y, color=PLAIN_COLOR)
        if overall is not None:
            axes.axvline(100 * overall, color="#777777", linewidth=0.8, linestyle="--")
        axes.set_xlim(-2, 102)
        axes.set_xlabel("accuracy, %", fontsize=8)
    return figure
