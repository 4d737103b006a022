"""How far scores can be trusted: their spread, and tests of which system is better.

Scores vary over folds, over sessions, over repetitions and between protocols. Systems are compared
by three tests that answer three questions, each corrected for the number of comparisons:

* The corrected t-test over folds
  (:func:`recap.statistics.hypothesis_tests.corrected_t_test`): would training
  again, on other data of this kind, favor the same system?
* McNemar's test over examples: are these answers right more often than those? Exact, and only where
  examples are independent.
* The test over clients, else sessions, of the difference of pooled macro-F1
  (:mod:`recap.statistics.clusters`): do these models differ on those that the data are a sample of?
  Neither of the last two knows that another training would give other models.

With too few clients or sessions there is no interval and no p of any of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import combinations
from math import sqrt
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from recap.errors import ConfigError, DataError, did_you_mean, quote_id
from recap.metrics.scalar import metric_of
from recap.metrics.scores import DDOF, score
from recap.output.charts import (
    COLORS,
    add_legend,
    draw_interval,
    draw_mean,
    draw_values,
    name_rows,
    open_axes,
    row_inches,
)
from recap.output.format import DASH, number, p_cell, percent
from recap.output.report import Report
from recap.output.tables import ReportTable, table_of
from recap.output.templates import render_notes
from recap.report.options import ReportConfig
from recap.report.runs import (
    Repeats,
    ReportedRun,
    by_task,
    distinct,
    group_name,
    group_repeats,
    group_title,
    partitions,
    protocol_twins,
)
from recap.report.tables import few_by_task
from recap.statistics.clusters import Clusters, Interval, clustered, reasons, too_few
from recap.statistics.correlation import holm
from recap.statistics.hypothesis_tests import McNemar, TTest, corrected_t_test, mcnemar
from recap.statistics.score_intervals import (
    ScoreDifferences,
    ScoreIntervals,
    difference_intervals,
    score_intervals,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TEST_NAMES = {"corrected_t": "corrected t", "mcnemar": "McNemar", "bootstrap": "clusters"}
TESTS = tuple(_TEST_NAMES)
"""Names of the tests in files, the last from when it was one; each is corrected by itself."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two systems, first minus second."""

    first: str
    second: str
    titles: tuple[str, str]
    """What tables and figures call them."""
    n_repeats: int
    """Partitions that both were run over."""
    folds: tuple[int, ...]
    """The fold of each difference, partition after partition."""
    differences: tuple[float, ...]
    """Of macro-F1, a fold each; repetitions over one partition are averaged."""
    t_test: TTest | None
    """Corrected; ``None`` for a single fold."""
    mcnemar: McNemar | None
    """``None`` where one of them was run several times over these folds."""
    pooled: ScoreDifferences
    """Of the predictions of all folds together."""
    reasons: Mapping[str, str]
    """Why a test has no p, by its name."""
    p_holm: Mapping[str, float | None] = field(default_factory=dict)
    """p values by test, adjusted over the family of comparisons."""

    @property
    def mean_difference(self) -> float:
        """Over folds."""
        return float(np.mean(self.differences))

    @property
    def p(self) -> dict[str, float | None]:
        """The p values by test."""
        return {
            "corrected_t": self.t_test.p if self.t_test else None,
            "mcnemar": self.mcnemar.p if self.mcnemar else None,
            "bootstrap": self.pooled.macro_f1_p,
        }


def with_holm(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Return comparisons with p values adjusted by Holm's rule, every test over all of them."""
    adjusted = {test: holm([each.p[test] for each in comparisons]) for test in TESTS}
    return tuple(
        replace(each, p_holm={test: adjusted[test][i] for test in TESTS})
        for i, each in enumerate(comparisons)
    )


def compare(first: Repeats, second: Repeats, options: ReportConfig) -> Comparison:
    """Return one comparison of two systems, over the folds that all their runs have finished.

    Args:
        first: A run, or its repetitions under other seeds.
        second: Likewise; at least one of them has the partition of one of the first.
        options: Level of intervals, and whether there are to be any over clusters.

    Raises:
        ConfigError: When tasks differ, or no fold of one partition is finished in both.
        DataError: When a fold holds other examples, or other gold labels, in one of the runs.
    """
    _refuse_other_task(first[0], second[0])
    shared = [one for run in first for one in partitions((run,)) if one in partitions(second)]
    matched = [_matched(first, second, one) for one in dict.fromkeys(shared)]
    differences, folds = [], []
    for sides in matched:
        for fold in sides[0][0].predictions:
            one, other = (np.mean([_macro_f1(run, fold) for run in side]) for side in sides)
            differences.append(float(one - other))
            folds.append(fold)
    single = len(matched) == 1 and all(len(side) == 1 for side in matched[0])
    pooled = _pooled(matched, options.level)
    few = too_few(pooled.n_units, pooled.kind)
    t_test = _t_test(differences, first[0], options.confidence, few)
    counted = None
    if single:
        right = ([p.label == p.gold for p in run.all_predictions] for [run] in matched[0])
        counted = mcnemar(*right)
        counted = replace(counted, p=None) if few else counted
    return Comparison(
        first=group_name(first),
        second=group_name(second),
        titles=(group_title(first), group_title(second)),
        n_repeats=len(matched),
        folds=tuple(folds),
        differences=tuple(differences),
        t_test=t_test,
        mcnemar=counted,
        pooled=pooled,
        reasons=dict.fromkeys(TESTS, few) if few else _reasons(t_test, pooled, single=single),
    )


_Sides = tuple[Repeats, Repeats]
"""The runs of two systems over one partition; predictions of shared folds, ordered by id."""


def _refuse_other_task(here: ReportedRun, there: ReportedRun) -> None:
    if here.task.labels != there.task.labels:
        raise ConfigError(
            f"{here.name} tells {len(here.task.labels)} labels apart (task {here.task.name!r}), "
            f"{there.name} {len(there.task.labels)} (task {there.task.name!r}); compare runs of "
            "one task"
        )


def _matched(first: Repeats, second: Repeats, partition: str) -> _Sides:
    ours, theirs = (
        [run for run in group if partitions((run,)) == {partition}] for group in (first, second)
    )
    runs = [*ours, *theirs]
    folds = sorted(set.intersection(*(set(run.predictions) for run in runs)))
    if not folds:
        raise ConfigError(
            f"{group_name(first)} and {group_name(second)} have no finished fold in common; finish "
            "the folds of both (the same command goes on where it was)"
        )
    ordered = tuple(
        replace(
            run,
            predictions={k: tuple(sorted(run.predictions[k], key=attrgetter("id"))) for k in folds},
        )
        for run in runs
    )
    for run in ordered[1:]:
        _refuse_other_examples(ordered[0], run)
    return ordered[: len(ours)], ordered[len(ours) :]


def _refuse_other_examples(here: ReportedRun, there: ReportedRun) -> None:
    for fold, predictions in here.predictions.items():
        expected = {p.id: p for p in predictions}
        found = {p.id: p for p in there.predictions[fold]}
        strangers = sorted(expected.keys() ^ found.keys()) or sorted(
            key
            for key, p in found.items()
            if (p.gold, p.session) != (expected[key].gold, expected[key].session)
        )
        if strangers:
            raise DataError(
                f"fold {fold} of {here.name} and of {there.name} does not hold the same examples: "
                f"example {quote_id(strangers[0])} is in one alone, or has another gold label or "
                f"session ({len(strangers)} such); run both on the same data"
            )


def _macro_f1(run: ReportedRun, fold: int) -> float:
    found = score(run.predictions[fold], task=run.task.name, labels=run.task.labels)
    return float(found.metrics["macro_f1"] or 0.0)


def _t_test(
    values: Sequence[float], run: ReportedRun, confidence: float, few: str | None
) -> TTest | None:
    """Return the test of values over a run's folds against 0; ``None`` for a single one.

    Without interval and p where there are too few clusters (``few``).
    """
    if len(values) < 2:
        return None
    found = corrected_t_test(
        np.array(values),
        np.zeros(len(values)),
        test_to_train=1 / (run.config.cv.folds - 1),
        confidence=confidence,
    )
    return replace(found, low=None, high=None, p=None) if few else found


def _pooled(matched: Sequence[_Sides], level: float | None) -> ScoreDifferences:
    clusters = Clusters(matched[0][0][0].people)
    counted = [
        [
            clusters.confusions(run.all_predictions, task=run.task.name, labels=run.task.labels)
            for sides in matched
            for run in sides[side]
        ]
        for side in (0, 1)
    ]
    ours, theirs = ([count() for count in side] for side in counted)
    return difference_intervals(ours, theirs, kind=clusters.kind, confidence=level)


def _reasons(t_test: TTest | None, pooled: ScoreDifferences, *, single: bool) -> dict[str, str]:
    reasons = {}
    if t_test is None:
        reasons["corrected_t"] = "one fold has no variance"
    elif t_test.p is None:
        reasons["corrected_t"] = "the difference is the same in every fold"
    if not single:
        reasons["mcnemar"] = "several runs of a system answer each example several times"
    if pooled.macro_f1.reason is not None:
        reasons["bootstrap"] = pooled.macro_f1.reason
    return reasons


def spread_chart(
    rows: Sequence[tuple[str, Sequence[float], Interval]], *, axis: str, differences: bool = False
) -> Figure:
    """Return a line a row: a dot a fold, and below them the pooled value in its interval.

    Scores of runs have a bar at the mean over folds; differences have a line at 0 (forest plot).

    Args:
        rows: Name, value of each fold, and value of all predictions together, as fractions.
        axis: What the figures are.
        differences: Whether they are differences.
    """
    names = [name for name, _, _ in rows]
    figure, axes = open_axes(7.2, 1.3 + row_inches(names) * len(rows))
    name_rows(axes, names)
    if differences:
        axes.axvline(0, color="#444444", lw=0.8)
    drawn = {}
    for y, (_, values, pooled) in enumerate(rows):
        drawn["a fold"] = draw_values(axes, values, y - 0.15, color=COLORS[0], s=16)
        if not differences:
            drawn["mean over folds"] = draw_mean(axes, values, y - 0.15, 0.17, color=COLORS[0])
        whole = draw_interval(axes, pooled, y + 0.2, color=COLORS[1])
        drawn["all predictions, with interval"] = whole
    axes.set_xlabel(axis)
    axes.grid(axis="x", linewidth=0.4)
    add_legend(figure, drawn)
    return figure


def points(value: float | None) -> str:
    """Return a difference of shares in percentage points with its sign."""
    text = percent(value)
    return f"+{text}" if value is not None and value > 0 and text != "0.00" else text


def ends(found: Interval | TTest | FoldSpread | None) -> str:
    """Return ``"[61.20, 70.45]"`` in percent, a dash where an end is missing."""
    if found is None or found.low is None or found.high is None:
        return DASH
    return f"[{percent(found.low)}, {percent(found.high)}]"


def comparison_section(runs: Sequence[ReportedRun], options: ReportConfig) -> Report | None:
    """Return the comparisons of all systems of each task; ``None`` where no two can be compared.

    Raises:
        ConfigError: When ``compare_to`` names no run.
        DataError: When two runs over one partition hold other examples.
    """
    if options.compare_to is not None:
        names = [run.name for run in runs]
        if options.compare_to not in names:
            raise ConfigError(
                f"compare_to={options.compare_to}: no such run among {', '.join(names)}"
                f"{did_you_mean(options.compare_to, names)}"
            )
    found = {task: _family(own, options) for task, own in by_task(runs).items()}
    families = {task: family for task, (family, _) in found.items() if family}
    if not families:
        return None
    comparisons = [each for family in families.values() for each in family]
    return Report(
        action="comparison",
        title="Comparison",
        figures={
            **options.given,
            "compare_to": options.compare_to,
            "families": {
                task: [_comparison_figures(each) for each in family]
                for task, family in families.items()
            },
        },
        sheets=tuple(
            sheet
            for task, family in families.items()
            for sheet in (_effects(task, family, options), _p_values(task, family))
        ),
        notes=render_notes(
            "report/notes.yaml",
            "comparison",
            options=options,
            repeated=any(each.n_repeats > 1 for each in comparisons),
            over=[{"said": clustered(e.pooled.kind, e.pooled.n_units)} for e in comparisons],
            unread=any(run.people is None for run in runs),
            few=few_by_task(runs),
            without_p=[
                {"test": _TEST_NAMES[test], "pair": pair, "reason": reason}
                for test, pair, reason in sorted(
                    (test, _pair(e), why) for e in comparisons for test, why in e.reasons.items()
                )
            ],
            pairs=[pair for _, pairs in found.values() for pair in pairs],
        ),
        charts={
            f"comparison_{task}": partial(
                spread_chart,
                [
                    ("\n− ".join(each.titles), each.differences, each.pooled.macro_f1)
                    for each in family
                ],
                differences=True,
                axis=f"difference of macro-F1 of {task}, percentage points",
            )
            for task, family in families.items()
        },
    )


def _family(
    runs: Sequence[ReportedRun], options: ReportConfig
) -> tuple[tuple[Comparison, ...], list[dict[str, Any]]]:
    """Return the comparisons of one task, and what has to be known of the pairs of systems."""
    groups = group_repeats(runs)
    if options.compare_to is None:
        pairs = list(combinations(groups, 2))
    else:
        reference = [g for g in groups if any(run.name == options.compare_to for run in g)]
        pairs = [(group, ref) for ref in reference for group in groups if group != ref]
    known = protocol_twins(runs)
    comparisons, described = [], []
    for first, second in pairs:
        twins = (first, second) in known or (second, first) in known
        ours, theirs = partitions(first), partitions(second)
        if ours & theirs and not twins:
            comparisons.append(compare(first, second, options))
        described.append(
            {
                "twins": twins,
                "names": f"{group_title(first)} and {group_title(second)}",
                "shared": ours & theirs,
                "uneven": ours != theirs,
                "protocols": [group[0].config.cv.protocol for group in (first, second)],
            }
        )
    return with_holm(comparisons), described


def _comparison_figures(each: Comparison) -> dict[str, Any]:
    return {
        "first": each.first,
        "second": each.second,
        "n_repeats": each.n_repeats,
        "folds": list(each.folds),
        "differences": list(each.differences),
        "mean_difference": each.mean_difference,
        "corrected_t": asdict(each.t_test) if each.t_test else None,
        "mcnemar": asdict(each.mcnemar) if each.mcnemar else None,
        "pooled": asdict(each.pooled),
        "p": each.p,
        "p_holm": dict(each.p_holm),
        "no_p_because": dict(each.reasons),
    }


def _effects(task: str, family: Sequence[Comparison], options: ReportConfig) -> ReportTable:
    level = f"{100 * options.confidence:g} %"
    return ReportTable(
        title=f"Differences on {task}, percentage points",
        header=(
            *("first minus second", "macro-F1, mean over folds", level, "macro-F1, pooled", level),
            *("accuracy, pooled", "right alone"),
        ),
        rows=tuple(
            (
                _pair(each),
                points(each.mean_difference),
                ends(each.t_test),
                points(each.pooled.macro_f1.value),
                ends(each.pooled.macro_f1),
                points(each.pooled.accuracy.value),
                f"{each.mcnemar.first_only:,} : {each.mcnemar.second_only:,}"
                if each.mcnemar
                else DASH,
            )
            for each in family
        ),
    )


def _p_values(task: str, family: Sequence[Comparison]) -> ReportTable:
    n = len(family)
    return ReportTable(
        title=f"Tests on {task}, p values, each test corrected over "
        f"{'one comparison' if n == 1 else f'{n} comparisons'}",
        header=(
            *("first minus second", "t"),
            *(head for name in _TEST_NAMES.values() for head in (f"p, {name}", "Holm")),
        ),
        rows=tuple(
            (
                _pair(each),
                number(each.t_test.t if each.t_test else None),
                *(p_cell(p) for test in TESTS for p in (each.p[test], each.p_holm[test])),
            )
            for each in family
        ),
    )


def _pair(each: Comparison) -> str:
    return " − ".join(each.titles)


METRICS = ("macro_f1", "accuracy")
"""Metrics whose spread is shown."""


@dataclass(frozen=True, kw_only=True)
class RepeatSpread:
    """Mean and sample standard deviations (ddof 1) of one figure over repeats and folds."""

    n_repeats: int
    mean: float
    """Of all repeats' means."""
    means: tuple[float, ...]
    """Of each repeat over its folds."""
    std_within: float | None
    """Over the folds of a repeat, pooled over repeats; ``None`` where each has one fold."""
    std_between: float | None
    """Of the repeats' means; ``None`` for one repeat."""


def repeat_spread(values: Sequence[Sequence[float]]) -> RepeatSpread:
    """Return how a figure varies from fold to fold and from repeat to repeat.

    Args:
        values: Of every repeat its folds' values, at least one of each.

    >>> found = repeat_spread([[0.5, 0.7], [0.7, 0.9]])
    >>> round(found.mean, 6), round(found.std_within or 0, 6), round(found.std_between or 0, 6)
    (0.7, 0.141421, 0.141421)
    """
    means = tuple(statistics.fmean(folds) for folds in values)
    freedom = sum(len(folds) - 1 for folds in values)
    squares = sum(
        (value - mean) ** 2 for folds, mean in zip(values, means, strict=True) for value in folds
    )
    return RepeatSpread(
        n_repeats=len(values),
        mean=statistics.fmean(means),
        means=means,
        std_within=sqrt(squares / freedom) if freedom else None,
        std_between=statistics.stdev(means) if len(means) > 1 else None,
    )


def _repeats_sheet(repeats: Mapping[str, Mapping[str, RepeatSpread]]) -> ReportTable:
    return table_of(
        "Repeated cross-validation",
        [(name, metric, of) for name, found in repeats.items() for metric, of in found.items()],
        {
            "system": lambda row: row[0],
            "metric": lambda row: metric_of(row[1]).title,
            "repeats": lambda row: f"{row[2].n_repeats}",
            "mean": lambda row: percent(row[2].mean),
            "SD within a repeat": lambda row: percent(row[2].std_within),
            "SD between repeats": lambda row: percent(row[2].std_between),
        },
        text_columns=(0, 1),
    )


def _gaps_sheet(gaps: Sequence[Comparison], options: ReportConfig) -> ReportTable:
    return table_of(
        "Protocols side by side: macro-F1, paper minus nested",
        gaps,
        {
            "paper": lambda gap: gap.titles[0],
            "nested": lambda gap: gap.titles[1],
            "folds": lambda gap: " ".join(points(each) for each in gap.differences),
            "mean": lambda gap: points(gap.mean_difference),
            f"{100 * options.confidence:g} %": lambda gap: ends(gap.t_test),
            "p, corrected t": lambda gap: p_cell(gap.p["corrected_t"]),
        },
        text_columns=(0, 1),
    )


_RUNS_A_SHEET = 3


@dataclass(frozen=True, kw_only=True)
class FoldSpread:
    """One metric of one run over its folds, as the figures have it."""

    values: tuple[float, ...]
    mean: float
    std: float | None
    """Sample standard deviation (ddof 1), ``None`` for one fold."""
    minimum: float
    maximum: float
    low: float | None
    """Lower end of the corrected interval of the mean over folds."""
    high: float | None


@dataclass(frozen=True, kw_only=True)
class RunSpread:
    """How the scores of one run vary."""

    run: ReportedRun
    folds: Mapping[str, FoldSpread]
    """By metric."""
    pooled: ScoreIntervals
    """Of all predictions together."""


def variance_section(runs: Sequence[ReportedRun], options: ReportConfig) -> Report:
    """Return the spread of every run's scores, by task."""
    found = [_spread_of(run, options) for run in runs]
    spread = {task: [one for one in found if one.run.task.name == task] for task in by_task(runs)}
    repeated = [group for group in group_repeats(runs) if len(group) > 1]
    spreads = [
        {m: repeat_spread([fold_values(run, m) for run in group]) for m in METRICS}
        for group in repeated
    ]
    repeats = dict(zip(map(group_name, repeated), spreads, strict=True))
    gaps = [compare(*pair, options) for pair in protocol_twins(runs)]
    without = {one.run.title: " ".join(reasons(_named(one.pooled))) for one in found}
    sheets = []
    for of_task in spread.values():
        sheets += [_folds_sheet(of_task, metric, options) for metric in METRICS]
        sheets += _label_sheets(of_task, options)
    titled = dict(zip(map(group_title, repeated), spreads, strict=True))
    sheets += [_repeats_sheet(titled), _gaps_sheet(gaps, options)]
    return Report(
        action="variance",
        title="Variance",
        figures={
            "ddof": DDOF,
            **options.given,
            "runs": {one.run.name: _spread_figures(one) for one in found},
            "repeats": {
                name: {metric: asdict(spread) for metric, spread in own.items()}
                for name, own in repeats.items()
            },
            "protocol_gaps": [_gap_figures(gap) for gap in gaps],
        },
        sheets=tuple(sheet for sheet in sheets if sheet.rows),
        notes=render_notes(
            "report/notes.yaml",
            "variance",
            options=options,
            without_sessions=[one.run.title for one in found if "example" in one.pooled.kind],
            over=[{"said": clustered(one.pooled.kind, one.pooled.n_units)} for one in found],
            missing=[
                {"said": why, "runs": ", ".join(names)} for why, names in distinct(without).items()
            ],
            unread=any(run.people is None for run in runs),
            repeats=repeats,
            gaps=gaps,
        ),
        charts={
            f"variance_{task}": partial(
                spread_chart,
                [
                    (one.run.title, one.folds["macro_f1"].values, one.pooled.macro_f1)
                    for one in of_task
                ],
                axis=f"macro-F1 of {task}, percent",
            )
            for task, of_task in spread.items()
        },
    )


def _spread_of(run: ReportedRun, options: ReportConfig) -> RunSpread:
    labels, clusters = run.task.labels, Clusters(run.people)
    counts = clusters.confusions(run.all_predictions, task=run.task.name, labels=labels)()
    pooled = score_intervals(counts, labels, kind=clusters.kind, confidence=options.level)
    few = too_few(pooled.n_units, pooled.kind)
    return RunSpread(
        run=run,
        folds={metric: _fold_spread(run, metric, options.confidence, few) for metric in METRICS},
        pooled=pooled,
    )


def _named(pooled: ScoreIntervals) -> dict[str, Interval]:
    return {"macro-F1": pooled.macro_f1, "accuracy": pooled.accuracy, **pooled.per_label}


def fold_values(run: ReportedRun, metric: str) -> list[float]:
    """Return a metric of each finished fold."""
    return [float(value or 0.0) for value in run.summary.metrics[metric].values]


def _fold_spread(run: ReportedRun, metric: str, confidence: float, few: str | None) -> FoldSpread:
    values = fold_values(run, metric)
    alone = _t_test(values, run, confidence, few)
    return FoldSpread(
        values=tuple(values),
        mean=float(np.mean(values)),
        std=run.summary.metrics[metric].std,
        minimum=min(values),
        maximum=max(values),
        low=alone.low if alone else None,
        high=alone.high if alone else None,
    )


def _spread_figures(one: RunSpread) -> dict[str, Any]:
    run, found = one.run, one.pooled
    return {
        "task": run.task.name,
        "protocol": run.config.cv.protocol,
        "folds": {metric: asdict(spread) for metric, spread in one.folds.items()},
        "fold_indices": list(run.summary.folds),
        "pooled": {
            "macro_f1": asdict(found.macro_f1),
            "accuracy": asdict(found.accuracy),
            "per_label_f1": {label: asdict(each) for label, each in found.per_label.items()},
        },
        "resampled_by": found.kind,
        "n_resampled": found.n_units,
    }


def _gap_figures(gap: Comparison) -> dict[str, Any]:
    return {
        "paper": gap.first,
        "nested": gap.second,
        "folds": list(gap.folds),
        "differences": list(gap.differences),
        "mean": gap.mean_difference,
        "corrected_t": asdict(gap.t_test) if gap.t_test else None,
        "pooled_macro_f1": asdict(gap.pooled.macro_f1),
    }


def _folds_sheet(found: Sequence[RunSpread], metric: str, options: ReportConfig) -> ReportTable:
    level = f"{100 * options.confidence:g} %"
    return table_of(
        f"{metric_of(metric).title} of {found[0].run.task.name} over folds",
        [(one.run.title, one.folds[metric], getattr(one.pooled, metric)) for one in found],
        {
            "system": lambda row: row[0],
            "folds": lambda row: " ".join(map(percent, row[1].values)),
            "mean": lambda row: percent(row[1].mean),
            "SD": lambda row: percent(row[1].std),
            f"{level} of mean": lambda row: ends(row[1]),
            "pooled": lambda row: percent(row[2].value),
            f"{level} of pooled": lambda row: ends(row[2]),
        },
    )


def _label_sheets(found: Sequence[RunSpread], options: ReportConfig) -> Iterator[ReportTable]:
    task = found[0].run.task
    for start in range(0, len(found), _RUNS_A_SHEET):
        part = found[start : start + _RUNS_A_SHEET]
        rows = []
        for label in task.labels:
            intervals = [one.pooled.per_label[label] for one in part]
            rows.append((label, *(f"{percent(i.value)} {ends(i)}" for i in intervals)))
        yield ReportTable(
            title=f"F1 of each category of {task.name}, pooled, with intervals of "
            f"{100 * options.confidence:g} %",
            header=("category", *(one.run.title for one in part)),
            rows=tuple(rows),
        )
