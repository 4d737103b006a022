"""Which system is better: tests over folds, examples and sessions, corrected for their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from recap.errors import ConfigError, did_you_mean
from recap.output.format import DASH, number, p_cell
from recap.output.report import Report
from recap.output.tables import ReportTable
from recap.report.charts import SpreadRow, difference_chart
from recap.report.options import ReportConfig
from recap.report.runs import (
    Repeats,
    ReportedRun,
    as_compared,
    group_name,
    group_repeats,
    partitions,
    protocol_twins,
)
from recap.report.significance import TESTS, Comparison, compare, with_holm
from recap.report.variance import ends, points
from recap.statistics.bootstrap import FEW_SESSIONS

_TEST_NAMES = {
    "corrected_t": "corrected t",
    "mcnemar": "McNemar",
    "bootstrap": "bootstrap",
}

_NOT_COMPARED = (
    "are not compared: their partitions differ, so that one tests what the other trains on; run "
    "both with the same data and cv options."
)
_ABOUT_CORRECTED_T = (
    "Corrected t: the corrected resampled t-test of macro-F1 over folds (Nadeau and Bengio 2003; "
    "over r × k folds Bouckaert and Frank 2004), the one test here that is about training again. "
    "McNemar (exact) and the bootstrap are about these very models: they reject more often than "
    "training again would bear out."
)
_ABOUT_THE_OTHERS = (
    "Right alone: examples that only the first, and only the second, answers rightly. McNemar "
    "takes examples for independent, the bootstrap whole sessions, the same ones drawn for both"
)
_ABOUT_TWINS = "Systems that differ in cv.protocol alone are compared under Variance, not here."
_ABOUT_NOTHING_FOUND = (
    "A difference that is not significant is not a proof that there is none: look at the interval."
)


@dataclass(frozen=True, kw_only=True)
class Family:
    """The comparisons of one task; Holm's rule is applied within it."""

    task: str
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]


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
    tasks = dict.fromkeys(run.task.name for run in runs)
    found = [_family(task, [r for r in runs if r.task.name == task], options) for task in tasks]
    families = [family for family in found if family.comparisons]
    if not families:
        return None
    return Report(
        action="comparison",
        title="Comparison",
        figures={
            "confidence": options.confidence,
            "resamples": options.resamples,
            "seed": options.seed,
            "compare_to": options.compare_to,
            "families": {
                family.task: [_figures(each) for each in family.comparisons] for family in families
            },
        },
        sheets=tuple(
            sheet for family in families for sheet in (_effects(family, options), _p_values(family))
        ),
        notes=tuple(
            dict.fromkeys([*_notes(families, options), *(n for f in found for n in f.notes)])
        ),
        charts={
            f"comparison_{family.task}": partial(
                difference_chart,
                [_chart_row(each) for each in family.comparisons],
                axis=f"difference of macro-F1 of {family.task}, percentage points",
            )
            for family in families
        },
    )


def _family(task: str, runs: Sequence[ReportedRun], options: ReportConfig) -> Family:
    groups = group_repeats(runs)
    pairs: list[tuple[Repeats, Repeats]]
    if options.compare_to is None:
        pairs = list(combinations(groups, 2))
    else:
        reference = [g for g in groups if any(run.name == options.compare_to for run in g)]
        pairs = [(group, ref) for ref in reference for group in groups if group != ref]
    twins = protocol_twins(runs)
    comparable, notes = [], []
    for first, second in pairs:
        if (first, second) in twins or (second, first) in twins:
            notes.append(_ABOUT_TWINS)
            continue
        notes += _about_pair(first, second)
        if partitions(first) & partitions(second):
            comparable.append((first, second))
    comparisons = [
        compare(
            as_compared(first),
            as_compared(second),
            resamples=options.resamples,
            confidence=options.confidence,
            seed=options.seed,
        )
        for first, second in comparable
    ]
    return Family(
        task=task,
        comparisons=with_holm(comparisons),
        notes=tuple(notes),
    )


def _about_pair(first: Repeats, second: Repeats) -> list[str]:
    """Return what has to be known of two systems that are set side by side."""
    names = f"{group_name(first)} and {group_name(second)}"
    shared = partitions(first) & partitions(second)
    if not shared:
        return [f"{names} {_NOT_COMPARED}"]
    notes = []
    if partitions(first) != partitions(second):
        notes.append(f"{names}: only the partitions that both were run over count ({len(shared)}).")
    protocols = [group[0].config.cv.protocol for group in (first, second)]
    if protocols[0] != protocols[1]:
        notes.append(
            f"{names} were selected under cv.protocol={protocols[0]} and {protocols[1]}: part of "
            "their difference is the protocol's."
        )
    return notes


def _figures(each: Comparison) -> dict[str, Any]:
    return {
        "first": each.first,
        "second": each.second,
        "n_repeats": each.n_repeats,
        "folds": list(each.folds),
        "differences": list(each.differences),
        "mean_difference": float(np.mean(each.differences)),
        "corrected_t": asdict(each.t_test) if each.t_test else None,
        "mcnemar": asdict(each.mcnemar) if each.mcnemar else None,
        "pooled": asdict(each.pooled),
        "p": each.p,
        "p_holm": dict(each.p_holm),
        "no_p_because": dict(each.reasons),
    }


def _effects(family: Family, options: ReportConfig) -> ReportTable:
    level = f"{100 * options.confidence:g} %"
    rows = []
    for each in family.comparisons:
        test, pooled, counts = each.t_test, each.pooled.macro_f1, each.mcnemar
        rows.append(
            (
                _pair(each),
                points(float(np.mean(each.differences))),
                DASH if test is None else ends(test.low, test.high),
                points(pooled.value),
                ends(pooled.low, pooled.high),
                points(each.pooled.accuracy.value),
                DASH if counts is None else f"{counts.first_only:,} : {counts.second_only:,}",
            )
        )
    return ReportTable(
        title=f"Differences on {family.task}, percentage points",
        header=(
            "first minus second",
            "macro-F1, mean over folds",
            level,
            "macro-F1, pooled",
            level,
            "accuracy, pooled",
            "right alone",
        ),
        rows=tuple(rows),
    )


def _p_values(family: Family) -> ReportTable:
    rows = [
        (
            _pair(each),
            number(each.t_test.t if each.t_test else None),
            *(p_cell(p) for test in TESTS for p in (each.p[test], each.p_holm[test])),
        )
        for each in family.comparisons
    ]
    names = [head for test in TESTS for head in (f"p, {_TEST_NAMES[test]}", "Holm")]
    return ReportTable(
        title=f"Tests on {family.task}, p values, each test corrected over "
        f"{_counted(len(family.comparisons))}",
        header=("first minus second", "t", *names),
        rows=tuple(rows),
    )


def _counted(n: int) -> str:
    return "one comparison" if n == 1 else f"{n} comparisons"


def _pair(each: Comparison) -> str:
    return f"{each.first} − {each.second}"


def _chart_row(each: Comparison) -> SpreadRow:
    pooled = each.pooled.macro_f1
    return SpreadRow(
        name=f"{each.first}\n− {each.second}",
        values=each.differences,
        value=float(pooled.value or 0.0),
        low=pooled.low,
        high=pooled.high,
    )


def _notes(families: Sequence[Family], options: ReportConfig) -> list[str]:
    comparisons = [each for family in families for each in family.comparisons]
    notes = [
        _ABOUT_CORRECTED_T,
        f"{_ABOUT_THE_OTHERS} ({options.resamples} resamples, seed {options.seed}).",
        _ABOUT_NOTHING_FOUND,
    ]
    if any(each.n_repeats > 1 for each in comparisons):
        notes.append(
            "Over repeated cross-validation the corrected test keeps its level for stable learners "
            "only; for unstable ones it rejects too often (docs/significance.md)."
        )
    if options.resamples and any(each.pooled.n_units < FEW_SESSIONS for each in comparisons):
        notes.append(
            f"Fewer than {FEW_SESSIONS} sessions: bootstrap intervals may cover less than stated "
            "(docs/significance.md)."
        )
    reasons = {
        f"No p of {_TEST_NAMES[test]} for {_pair(each)}: {why}."
        for each in comparisons
        for test, why in each.reasons.items()
    }
    return [*notes, *sorted(reasons)]
