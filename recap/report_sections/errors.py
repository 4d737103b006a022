"""Where systems err: by metadata, length and position, by kind and pattern, example by example."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from recap.analysis.grouped_scores import GroupScores
from recap.analysis.hard_examples import WrongInAll, wrong_in_all
from recap.report_sections.error_tables import UNREADABLE, error_notes, error_tables
from recap.report_sections.examples import read_examples_again
from recap.report_sections.judged_errors import Breakdown, JudgedErrors, judge_errors
from recap.report_sections.options import ReportConfig
from recap.report_sections.runs import ReportedRun
from recap.reporting.findings import Findings
from recap.reporting.intervals_chart import Point, PointPanel, interval_panels
from recap.reporting.matrices import matrix_chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DRAWN = ("length", "position", "history")


def error_section(runs: Sequence[ReportedRun], options: ReportConfig) -> Findings | None:
    """Return what is to be said of the runs' errors; ``None`` where no answer is wrong.

    Raises:
        ConfigError: For a column of ``by`` that no example has.
    """
    if all(p.label == p.gold for run in runs for p in run.all_predictions):
        return None
    read = read_examples_again(runs)
    judged = [judge_errors(run, read.examples, options) for run in runs]
    shared = _wrong_in_all(runs)
    texts = (
        {key: example.response for key, example in read.examples.items()}
        if options.privacy.include_text
        else {}
    )
    return Findings(
        action="errors",
        title="Errors: who, where, which, and how sure",
        figures={
            "resamples": options.resamples,
            "confidence": options.confidence,
            "seed": options.seed,
            "by": list(options.by),
            "data_read_again": read.fault is None,
            "runs": {one.run: _figures(one) for one in judged},
            "wrong_in_all": {task: asdict(found) for task, found in shared.items()},
        },
        sheets=error_tables(judged, shared, texts=texts),
        notes=(
            *read.notes(
                "scores by metadata, length, position, history and wording, and the words of "
                "examples"
            ),
            *error_notes(judged, options),
            "Figures: the run of each task with the highest macro-F1.",
        ),
        rows=[row for one in judged for row in _rows(one)],
        charts=_charts(judged),
    )


def _wrong_in_all(runs: Sequence[ReportedRun]) -> dict[str, WrongInAll]:
    """Return what all runs of one task got wrong, by the task's name."""
    by_task: dict[str, list[ReportedRun]] = defaultdict(list)
    for run in runs:
        by_task[run.task.name].append(run)
    found = {task: wrong_in_all([r.all_predictions for r in own]) for task, own in by_task.items()}
    return {task: one for task, one in found.items() if one is not None}


def _figures(one: JudgedErrors) -> dict[str, Any]:
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


def _rows(one: JudgedErrors) -> list[dict[str, Any]]:
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


def _charts(judged: Sequence[JudgedErrors]) -> dict[str, Callable[[], Figure]]:
    """Return the figures of the best run of each task; those of all would bury the page."""
    best: dict[str, JudgedErrors] = {}
    for one in judged:
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


def _macro_f1(one: JudgedErrors) -> float:
    return one.overall.macro_f1.value or 0.0


def _matrix(counts: Sequence[Sequence[int]], names: Sequence[str], *, of: str) -> Figure:
    return matrix_chart(
        counts,
        names,
        [*names, UNREADABLE],
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
