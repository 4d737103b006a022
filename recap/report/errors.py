"""Where systems err: by metadata, length and position, by kind and pattern, example by example."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from recap.errors import ConfigError, did_you_mean
from recap.metrics.scores import confusion_of
from recap.output.charts import matrix_chart
from recap.output.format import percent, percent_with_ends
from recap.output.report import Report
from recap.output.tables import ReportTable
from recap.records import Example, Prediction
from recap.report.charts import Point, PointPanel, interval_panels
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
from recap.report.runs import ReportedRun, read_examples_again
from recap.report.templates import notes_of
from recap.statistics.bootstrap import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MOST_GROUPS = 20
"""Groups of a column that are shown: those with the most examples."""

MOST_HARD = 20
"""Hardest examples that are listed."""


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """Scores by one property of the examples."""

    by: str
    """Metadata column, ``length``, ``position``, ``history`` or ``negation``."""
    title: str
    groups: tuple[GroupScores, ...]
    n_groups: int
    """Groups that there are, shown or not."""


@dataclass(frozen=True, kw_only=True)
class RunErrors:
    """All that was found of one run's errors."""

    run: str
    task: str
    labels: tuple[str, ...]
    overall: GroupScores
    confusion: tuple[tuple[int, ...], ...]
    """Of all folds together."""
    confusions: tuple[Confusion, ...]
    kinds: tuple[KindCount, ...]
    missed_by_negation: Mapping[str, KindCount]
    """The first kind, resistance read as collaboration, by whether the response holds an overt
    negation."""
    patterns: PatternErrors | None
    breakdowns: tuple[Breakdown, ...]
    hardest: tuple[HardExample, ...]


def errors_of(
    run: ReportedRun, examples: Mapping[str, Example], options: ReportConfig
) -> RunErrors:
    """Return all that is found of a run's errors, over the predictions of all folds together.

    Args:
        run: The run.
        examples: By id; empty where the data could not be read, which leaves out what needs them.
        options: Columns to break scores down by; resamples, level and seed of intervals.

    Raises:
        ConfigError: For a column of ``by`` that no example has.
    """
    predictions, labels = run.all_predictions, run.task.labels
    counts = confusion_of(predictions, task=run.task.name, labels=labels)
    drawn: dict[str, Any] = {
        "resamples": options.resamples,
        "confidence": options.confidence,
        "seed": options.seed,
    }
    everything = {p.id: "all" for p in predictions}
    kinds = named_kinds(run.task.taxonomy, labels)
    return RunErrors(
        run=run.name,
        task=run.task.name,
        labels=labels,
        overall=scores_by_group(predictions, everything, labels=labels, **drawn)[0],
        confusion=tuple(tuple(int(n) for n in row) for row in counts),
        confusions=rank_confusions(counts, labels),
        kinds=tuple(count_kind(predictions, kind, **drawn) for kind in kinds),
        missed_by_negation=_missed_by_negation(predictions, kinds, examples, drawn),
        patterns=roll_up(counts, labels, run.task.taxonomy, task=run.task.name),
        breakdowns=tuple(
            Breakdown(
                by=by,
                title=title,
                groups=scores_by_group(
                    predictions, largest_groups(group_of, most=MOST_GROUPS), labels=labels, **drawn
                ),
                n_groups=len(set(group_of.values())),
            )
            for by, title, group_of in _groupings(predictions, examples, options.by)
            if group_of
        ),
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
        names = dict.fromkeys(["session", "client", *(k for e in examples for k in e.meta)])
        columns = [name for name in names if by_column(examples, name)]
        raise ConfigError(
            f"by={column}: no example has a short text or a number there"
            f"{did_you_mean(column, columns)}; known: {', '.join(columns) or 'none'} (in a table, "
            "data.options.meta=[…] says which columns are carried along)"
        )
    return group_of


def _missed_by_negation(
    predictions: Sequence[Prediction],
    kinds: Sequence[ErrorKind],
    examples: Mapping[str, Example],
    drawn: Mapping[str, Any],
) -> dict[str, KindCount]:
    subtle = next((kind for kind in kinds if kind.name == SUBTLE), None)
    if subtle is None:
        return {}
    wording = by_negation(examples[p.id] for p in predictions if p.id in examples)
    return {
        group: count_kind((p for p in predictions if wording.get(p.id) == group), subtle, **drawn)
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
    runs: Sequence[RunErrors],
    shared: Mapping[str, WrongInAll],
    *,
    texts: Mapping[str, str],
) -> tuple[ReportTable, ...]:
    """Return the tables; those with nothing in them are left out.

    Args:
        runs: The runs.
        shared: What all runs of a task got wrong, by the task's name.
        texts: Responses by id, to stand beside ids; empty: ids alone.
    """
    tables = [
        _overall(runs),
        _confusions(runs),
        _kinds(runs),
        _patterns(runs),
        *_breakdowns(runs),
        _hardest(runs, texts),
        _shared(shared),
    ]
    return tuple(table for table in tables if table.rows)


def _overall(runs: Sequence[RunErrors]) -> ReportTable:
    return ReportTable(
        title="All examples, %",
        header=("run", *_GROUP_HEADER[1:]),
        rows=tuple((one.run, *_group_cells(one.overall)) for one in runs),
    )


_GROUP_HEADER = ("group", "n", "sessions", "macro-F1", "accuracy", "overconfidence")


def _group_cells(group: GroupScores) -> tuple[str, ...]:
    return (
        f"{group.n:,}",
        f"{group.sessions:,}",
        _interval_text(group.macro_f1),
        _interval_text(group.accuracy),
        _interval_text(group.overconfidence),
    )


def _confusions(runs: Sequence[RunErrors]) -> ReportTable:
    rows = [
        (
            one.run,
            confusion.gold,
            confusion.predicted or UNPARSED,
            f"{confusion.count:,}",
            percent(confusion.share_of_gold, 1),
            percent(confusion.share_of_errors, 1),
        )
        for one in runs
        for confusion in one.confusions[:_RANKED]
    ]
    return ReportTable(
        title="Most frequent confusions",
        header=("run", "gold", "answered", "examples", "% of gold", "% of errors"),
        rows=tuple(rows),
        text_columns=(0, 1, 2),
    )


def _kinds(runs: Sequence[RunErrors]) -> ReportTable:
    rows: list[tuple[str, ...]] = []
    for one in runs:
        for count in one.kinds:
            rows.append((one.run, count.kind.name, *_kind_cells(count)))
        for wording, count in one.missed_by_negation.items():
            rows.append((one.run, f"… {wording}", *_kind_cells(count)))
    return ReportTable(
        title="The two kinds of errors that the paper names (Section 6.3)",
        header=("run", "kind", "gold", "errors", "% of gold", "% of their errors", "ids"),
        rows=tuple(rows),
        text_columns=(0, 1, 6),
    )


def _kind_cells(count: KindCount) -> tuple[str, ...]:
    return (
        f"{count.n:,}",
        f"{count.count:,}",
        _interval_text(count.share),
        percent(count.share_of_errors, 1),
        _listed(count.ids),
    )


def _patterns(runs: Sequence[RunErrors]) -> ReportTable:
    rows = []
    for one in runs:
        found = one.patterns
        if found is not None:
            f1 = [f"{name} {percent(row.f1, 1)}" for name, row in found.scores.per_label.items()]
            rows.append(
                (
                    one.run,
                    percent(found.scores.metrics["macro_f1"], 1),
                    percent(found.scores.metrics["accuracy"], 1),
                    f"{found.errors:,}",
                    percent(found.within, 1),
                    percent(found.within_by_chance, 1),
                    ", ".join(f1),
                )
            )
    return ReportTable(
        title="Labels rolled up to patterns, %",
        header=(
            *("run", "macro-F1", "accuracy", "readable errors", "within the pattern"),
            *("by chance", "F1 of each pattern"),
        ),
        rows=tuple(rows),
        text_columns=(0, 6),
    )


def _breakdowns(runs: Sequence[RunErrors]) -> Iterator[ReportTable]:
    """Yield a table for each property, all runs in it."""
    titles = {b.by: b.title for one in runs for b in one.breakdowns}
    for by, title in titles.items():
        yield ReportTable(
            title=f"By {title}, %",
            header=("run", *_GROUP_HEADER),
            rows=tuple(
                (one.run, group.group, *_group_cells(group))
                for one in runs
                for breakdown in one.breakdowns
                if breakdown.by == by
                for group in breakdown.groups
            ),
            text_columns=(0, 1),
        )


def _hardest(runs: Sequence[RunErrors], texts: Mapping[str, str]) -> ReportTable:
    rows = [
        (
            one.run,
            example.id,
            example.gold,
            example.label or UNPARSED,
            "" if example.gold_probability is None else f"{example.gold_probability:.2g}",
            *([" ".join(texts.get(example.id, "").split())] if texts else []),
        )
        for one in runs
        for example in one.hardest[:_HARD]
    ]
    header = ("run", "id", "gold", "answered", "probability of gold")
    return ReportTable(
        title="Hardest examples: lowest probability of the gold label",
        header=(*header, *(["response"] if texts else [])),
        rows=tuple(rows),
        text_columns=(0, 1, 2, 3, *([5] if texts else [])),
    )


def _shared(shared: Mapping[str, WrongInAll]) -> ReportTable:
    rows = [
        (
            task,
            f"{found.runs:,}",
            f"{found.examples:,}",
            f"{len(found.ids):,}",
            f"{found.by_chance:.1f}",
            f"{found.same_answer:,}",
            ", ".join(f"{gold} {n}" for gold, n in found.by_gold.items()),
            _listed(found.ids),
        )
        for task, found in shared.items()
    ]
    return ReportTable(
        title="Wrong in all runs of a task",
        header=(
            *("task", "runs", "examples", "wrong in all", "by chance", "same answer"),
            *("gold labels", "ids"),
        ),
        rows=tuple(rows),
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
    read = read_examples_again(runs)
    found = [errors_of(run, read.examples, options) for run in runs]
    shared = _wrong_in_all(runs)
    texts = (
        {key: example.response for key, example in read.examples.items()}
        if options.privacy.include_text
        else {}
    )
    return Report(
        action="errors",
        title="Errors: who, where, which, and how sure",
        figures={
            "resamples": options.resamples,
            "confidence": options.confidence,
            "seed": options.seed,
            "by": list(options.by),
            "data_read_again": read.fault is None,
            "runs": {one.run: _figures(one) for one in found},
            "wrong_in_all": {task: asdict(found) for task, found in shared.items()},
        },
        sheets=error_tables(found, shared, texts=texts),
        notes=notes_of(
            "errors",
            fault=read.fault,
            options=options,
            hidden=[
                {"by": by, "n": n}
                for by, n in {b.by: b.n_groups for one in found for b in one.breakdowns}.items()
                if n > MOST_GROUPS
            ],
            most_groups=MOST_GROUPS,
            positions=any(b.by == "position" for one in found for b in one.breakdowns),
            wordings=any(one.missed_by_negation for one in found),
            patterns=any(one.patterns is not None for one in found),
        ),
        rows=[row for one in found for row in _rows(one)],
        charts=_charts(found),
    )


def _wrong_in_all(runs: Sequence[ReportedRun]) -> dict[str, WrongInAll]:
    """Return what all runs of one task got wrong, by the task's name."""
    by_task: dict[str, list[ReportedRun]] = defaultdict(list)
    for run in runs:
        by_task[run.task.name].append(run)
    found = {task: wrong_in_all([r.all_predictions for r in own]) for task, own in by_task.items()}
    return {task: one for task, one in found.items() if one is not None}


def _figures(one: RunErrors) -> dict[str, Any]:
    return {
        "task": one.task,
        "labels": list(one.labels),
        "overall": asdict(one.overall),
        "confusion": [list(row) for row in one.confusion],
        "confusions": [asdict(confusion) for confusion in one.confusions],
        "kinds": {count.kind.name: asdict(count) for count in one.kinds},
        "resistance_missed_by_wording": {
            wording: asdict(count) for wording, count in one.missed_by_negation.items()
        },
        "patterns": None if one.patterns is None else asdict(one.patterns),
        "breakdowns": {
            breakdown.by: {
                "title": breakdown.title,
                "n_groups": breakdown.n_groups,
                "groups": [asdict(group) for group in breakdown.groups],
            }
            for breakdown in one.breakdowns
        },
        "hardest": [asdict(example) for example in one.hardest],
    }


def _rows(one: RunErrors) -> list[dict[str, Any]]:
    groups = [("all", one.overall)]
    groups += [(b.by, group) for b in one.breakdowns for group in b.groups]
    return [
        {
            "run": one.run,
            "by": by,
            "group": group.group,
            "n": group.n,
            "sessions": group.sessions,
            **_interval(group, "macro_f1"),
            **_interval(group, "accuracy"),
            **_interval(group, "overconfidence"),
        }
        for by, group in groups
    ]


def _interval(group: GroupScores, name: str) -> dict[str, float | None]:
    found = getattr(group, name)
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _charts(runs: Sequence[RunErrors]) -> dict[str, Callable[[], Figure]]:
    """Return the figures of the best run of each task; those of all would bury the page."""
    best: dict[str, RunErrors] = {}
    for one in runs:
        if one.task not in best or _macro_f1(one) > _macro_f1(best[one.task]):
            best[one.task] = one
    charts: dict[str, Callable[[], Figure]] = {}
    for one in best.values():
        charts[f"errors_confusion_{one.run}"] = partial(
            _matrix, one.confusion, one.labels, of="label"
        )
        if one.patterns is not None:
            charts[f"errors_patterns_{one.run}"] = partial(
                _matrix, one.patterns.scores.confusion, one.patterns.patterns, of="pattern"
            )
        if panels := _panels(one.breakdowns, one.overall):
            charts[f"errors_groups_{one.run}"] = partial(
                interval_panels, panels, axis="accuracy, %"
            )
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


def _panels(breakdowns: Sequence[Breakdown], overall: GroupScores) -> list[PointPanel]:
    by: Mapping[str, Breakdown] = {breakdown.by: breakdown for breakdown in breakdowns}
    return [
        PointPanel(
            title=by[name].title,
            line=overall.accuracy.value,
            points=[
                Point(
                    name=group.group,
                    value=group.accuracy.value,
                    low=group.accuracy.low,
                    high=group.accuracy.high,
                    n=group.n,
                )
                for group in by[name].groups
                if group.accuracy.value is not None
            ],
        )
        for name in _DRAWN
        if name in by
    ]
