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
    group_name,
    group_repeats,
    partitions,
    protocol_twins,
)
from recap.report.significance import TESTS, Comparison, with_holm
from recap.report.templates import notes_of
from recap.report.variance import compared, ends, points
from recap.statistics.bootstrap import FEW_SESSIONS

_TEST_NAMES = {"corrected_t": "corrected t", "mcnemar": "McNemar", "bootstrap": "bootstrap"}


@dataclass(frozen=True, kw_only=True)
class Family:
    """The comparisons of one task; Holm's rule is applied within it."""

    task: str
    comparisons: tuple[Comparison, ...]
    pairs: tuple[dict[str, Any], ...]
    """What has to be known of the systems that are set side by side."""


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
    comparisons = [each for family in families for each in family.comparisons]
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
        notes=notes_of(
            "comparison",
            options=options,
            repeated=any(each.n_repeats > 1 for each in comparisons),
            few=options.resamples and any(e.pooled.n_units < FEW_SESSIONS for e in comparisons),
            few_sessions=FEW_SESSIONS,
            without_p=[
                {"test": _TEST_NAMES[test], "pair": pair, "reason": reason}
                for test, pair, reason in sorted(
                    (test, _pair(e), why) for e in comparisons for test, why in e.reasons.items()
                )
            ],
            pairs=[pair for family in found for pair in family.pairs],
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
    known = protocol_twins(runs)
    twins = [pair in known or pair[::-1] in known for pair in pairs]
    comparable = [
        (first, second)
        for (first, second), alike in zip(pairs, twins, strict=True)
        if not alike and partitions(first) & partitions(second)
    ]
    comparisons = [compared(first, second, options) for first, second in comparable]
    return Family(
        task=task,
        comparisons=with_holm(comparisons),
        pairs=tuple(
            {
                "twins": alike,
                "names": f"{group_name(first)} and {group_name(second)}",
                "shared": partitions(first) & partitions(second),
                "uneven": partitions(first) != partitions(second),
                "protocols": [group[0].config.cv.protocol for group in (first, second)],
            }
            for (first, second), alike in zip(pairs, twins, strict=True)
        ),
    )


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
