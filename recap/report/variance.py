"""How scores vary: over folds, over sessions, over repetitions, and between protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from recap.metrics.scalar import metric_of
from recap.metrics.scores import DDOF, session_confusions, unit_of
from recap.output.format import DASH, p_cell, percent
from recap.output.report import Report
from recap.output.tables import ReportTable
from recap.report.charts import SpreadRow, fold_chart
from recap.report.options import ReportConfig
from recap.report.runs import (
    Repeats,
    ReportedRun,
    as_compared,
    group_name,
    group_repeats,
    protocol_twins,
)
from recap.report.significance import Comparison, RepeatSpread, compare, repeat_spread
from recap.report.templates import notes_of
from recap.statistics.bootstrap import FEW_SESSIONS, ScoreIntervals, score_intervals
from recap.statistics.hypothesis_tests import corrected_t_test


def points(value: float | None) -> str:
    """Return a difference of shares in percentage points with its sign."""
    text = percent(value)
    return f"+{text}" if value is not None and value > 0 and text != "0.00" else text


def ends(low: float | None, high: float | None) -> str:
    """Return ``"[61.20, 70.45]"`` in percent, a dash where an end is missing."""
    if low is None or high is None:
        return DASH
    return f"[{percent(low)}, {percent(high)}]"


METRICS = ("macro_f1", "accuracy")
"""Metrics whose spread is shown."""


def spread_of_repeats(group: Repeats) -> dict[str, RepeatSpread]:
    """Return the spread of each metric over repetitions and folds."""
    return {
        metric: repeat_spread(
            [[float(value or 0.0) for value in run.summary.metrics[metric].values] for run in group]
        )
        for metric in METRICS
    }


def compared(first: Repeats, second: Repeats, options: ReportConfig) -> Comparison:
    """Return the comparison of two systems over the folds that both have finished."""
    return compare(
        as_compared(first),
        as_compared(second),
        resamples=options.resamples,
        confidence=options.confidence,
        seed=options.seed,
    )


def gap_figures(gap: Comparison) -> dict[str, Any]:
    """Return a gap as plain values."""
    return {
        "paper": gap.first,
        "nested": gap.second,
        "folds": list(gap.folds),
        "differences": list(gap.differences),
        "mean": float(np.mean(gap.differences)),
        "corrected_t": asdict(gap.t_test) if gap.t_test else None,
        "pooled_macro_f1": asdict(gap.pooled.macro_f1),
    }


def repeats_sheet(repeats: Mapping[str, Mapping[str, RepeatSpread]]) -> ReportTable:
    """Return mean and SD within and between repetitions, a row a system and metric."""
    rows = [
        (
            name,
            metric_of(metric).title,
            f"{spread.n_repeats}",
            percent(spread.mean),
            percent(spread.std_within),
            percent(spread.std_between),
        )
        for name, found in repeats.items()
        for metric, spread in found.items()
    ]
    return ReportTable(
        title="Repeated cross-validation",
        header=("run", "metric", "repeats", "mean", "SD within a repeat", "SD between repeats"),
        rows=tuple(rows),
        text_columns=(0, 1),
    )


def gaps_sheet(gaps: Sequence[Comparison], options: ReportConfig) -> ReportTable:
    """Return the gap between protocols, a row a system."""
    rows = []
    for gap in gaps:
        test = gap.t_test
        rows.append(
            (
                gap.first,
                gap.second,
                " ".join(points(each) for each in gap.differences),
                points(float(np.mean(gap.differences))),
                DASH if test is None else ends(test.low, test.high),
                p_cell(test.p if test else None),
            )
        )
    return ReportTable(
        title="Protocols side by side: macro-F1, paper minus nested",
        header=(
            *("paper", "nested", "folds", "mean", f"{100 * options.confidence:g} %"),
            "p, corrected t",
        ),
        rows=tuple(rows),
        text_columns=(0, 1),
    )


_RUNS_A_SHEET = 3


@dataclass(frozen=True, kw_only=True)
class FoldSpread:
    """One metric of one run over its folds."""

    values: Mapping[int, float]
    """By fold."""
    mean: float
    std: float | None
    """Sample standard deviation (ddof 1), ``None`` for one fold."""
    minimum: float
    maximum: float
    low: float | None
    """Lower end of the corrected interval of the mean over folds."""
    high: float | None


def variance_section(runs: Sequence[ReportedRun], options: ReportConfig) -> Report:
    """Return the spread of every run's scores, by task."""
    spreads = {run.name: _fold_spreads(run, options.confidence) for run in runs}
    pooled = {run.name: _pooled(run, options) for run in runs}
    tasks = list(dict.fromkeys(run.task.name for run in runs))
    repeats = {
        group_name(group): spread_of_repeats(group)
        for group in group_repeats(runs)
        if len(group) > 1
    }
    gaps = [compared(*pair, options) for pair in protocol_twins(runs)]
    sheets = [
        sheet
        for task in tasks
        for of_task in [[run for run in runs if run.task.name == task]]
        for sheet in (
            *(_folds_sheet(of_task, metric, spreads, pooled, options) for metric in METRICS),
            *_label_sheets(of_task, pooled, options),
        )
    ]
    if repeats:
        sheets.append(repeats_sheet(repeats))
    if gaps:
        sheets.append(gaps_sheet(gaps, options))
    return Report(
        action="variance",
        title="Variance",
        figures={
            "ddof": DDOF,
            "confidence": options.confidence,
            "resamples": options.resamples,
            "seed": options.seed,
            "runs": {run.name: _figures(run, spreads, pooled) for run in runs},
            "repeats": {
                name: {metric: asdict(spread) for metric, spread in found.items()}
                for name, found in repeats.items()
            },
            "protocol_gaps": [gap_figures(gap) for gap in gaps],
        },
        sheets=tuple(sheets),
        notes=notes_of(
            "variance",
            options=options,
            without_sessions=[run.name for run in runs if _unit(run) != "session"],
            few=[run.name for run in runs if pooled[run.name].n_units < FEW_SESSIONS],
            few_sessions=FEW_SESSIONS,
            repeats=repeats,
            gaps=gaps,
        ),
        charts={
            f"variance_{task}": partial(
                fold_chart,
                [_chart_row(run, spreads, pooled) for run in runs if run.task.name == task],
                axis=f"macro-F1 of {task}, percent",
            )
            for task in tasks
        },
    )


def _fold_spreads(run: ReportedRun, confidence: float) -> dict[str, FoldSpread]:
    found = {}
    for metric in METRICS:
        spread = run.summary.metrics[metric]
        values = [float(value or 0.0) for value in spread.values]
        ends_of_mean: tuple[float | None, float | None] = (None, None)
        if len(values) > 1:
            alone = corrected_t_test(
                np.array(values),
                np.zeros(len(values)),
                test_to_train=1 / (run.config.cv.folds - 1),
                confidence=confidence,
            )
            ends_of_mean = (alone.low, alone.high)
        found[metric] = FoldSpread(
            values=dict(zip(run.summary.folds, values, strict=True)),
            mean=float(np.mean(values)),
            std=spread.std,
            minimum=min(values),
            maximum=max(values),
            low=ends_of_mean[0],
            high=ends_of_mean[1],
        )
    return found


def _pooled(run: ReportedRun, options: ReportConfig) -> ScoreIntervals:
    confusions = session_confusions(run.all_predictions, task=run.task.name, labels=run.task.labels)
    return score_intervals(
        np.stack(list(confusions.values())),
        run.task.labels,
        resamples=options.resamples,
        confidence=options.confidence,
        seed=options.seed,
    )


def _figures(
    run: ReportedRun,
    spreads: Mapping[str, Mapping[str, FoldSpread]],
    pooled: Mapping[str, ScoreIntervals],
) -> dict[str, Any]:
    found = pooled[run.name]
    return {
        "task": run.task.name,
        "protocol": run.config.cv.protocol,
        "folds": {
            metric: {**asdict(spread), "values": list(spread.values.values())}
            for metric, spread in spreads[run.name].items()
        },
        "fold_indices": list(run.summary.folds),
        "pooled": {
            "macro_f1": asdict(found.macro_f1),
            "accuracy": asdict(found.accuracy),
            "per_label_f1": {label: asdict(each) for label, each in found.per_label.items()},
        },
        "resampled_by": _unit(run),
        "n_resampled": found.n_units,
    }


def _folds_sheet(
    runs: Sequence[ReportedRun],
    metric: str,
    spreads: Mapping[str, Mapping[str, FoldSpread]],
    pooled: Mapping[str, ScoreIntervals],
    options: ReportConfig,
) -> ReportTable:
    level = f"{100 * options.confidence:g} %"
    rows = []
    for run in runs:
        spread, interval = spreads[run.name][metric], getattr(pooled[run.name], metric)
        rows.append(
            (
                run.name,
                " ".join(percent(value) for value in spread.values.values()),
                percent(spread.mean),
                percent(spread.std),
                ends(spread.low, spread.high),
                percent(interval.value),
                ends(interval.low, interval.high),
            )
        )
    return ReportTable(
        title=f"{metric_of(metric).title} of {runs[0].task.name} over folds",
        header=("run", "folds", "mean", "SD", f"{level} of mean", "pooled", f"{level} of pooled"),
        rows=tuple(rows),
    )


def _label_sheets(
    runs: Sequence[ReportedRun], pooled: Mapping[str, ScoreIntervals], options: ReportConfig
) -> list[ReportTable]:
    task = runs[0].task
    sheets = []
    for start in range(0, len(runs), _RUNS_A_SHEET):
        part = runs[start : start + _RUNS_A_SHEET]
        rows = []
        for label in task.labels:
            found = [pooled[run.name].per_label[label] for run in part]
            cells = [f"{percent(each.value)} {ends(each.low, each.high)}" for each in found]
            rows.append((label, *cells))
        sheets.append(
            ReportTable(
                title=f"F1 of each category of {task.name}, pooled, with intervals of "
                f"{100 * options.confidence:g} %",
                header=("category", *(run.name for run in part)),
                rows=tuple(rows),
            )
        )
    return sheets


def _chart_row(
    run: ReportedRun,
    spreads: Mapping[str, Mapping[str, FoldSpread]],
    pooled: Mapping[str, ScoreIntervals],
) -> SpreadRow:
    interval = pooled[run.name].macro_f1
    return SpreadRow(
        name=run.name,
        values=list(spreads[run.name]["macro_f1"].values.values()),
        value=float(interval.value or 0.0),
        low=interval.low,
        high=interval.high,
    )


def _unit(run: ReportedRun) -> str:
    kinds = {unit_of(prediction)[0] for prediction in run.all_predictions}
    return kinds.pop() if len(kinds) == 1 else "session, else example"
