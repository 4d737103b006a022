"""Repeated cross-validation, and the two protocols side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from recap.analysis.comparison import Comparison, compare
from recap.analysis.repeats import RepeatSpread, repeat_spread
from recap.report_sections.options import ReportConfig
from recap.report_sections.repeated import Repeats, as_compared
from recap.report_sections.spread_words import ends, percent, points
from recap.reporting.apa import DASH, p_cell
from recap.reporting.sheets import Sheet

METRICS = {"macro_f1": "Macro-F1", "accuracy": "Accuracy"}
"""Metrics whose spread is shown."""


def spread_of_repeats(group: Repeats) -> dict[str, RepeatSpread]:
    """Return the spread of each metric over repetitions and folds."""
    return {
        metric: repeat_spread(
            [[float(value or 0.0) for value in run.summary.metrics[metric].values] for run in group]
        )
        for metric in METRICS
    }


def protocol_gap(pair: tuple[Repeats, Repeats], options: ReportConfig) -> Comparison:
    """Return the comparison of ``(paper, nested)`` over their common folds."""
    paper, nested = map(as_compared, pair)
    return compare(
        paper,
        nested,
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


def repeats_sheet(repeats: Mapping[str, Mapping[str, RepeatSpread]]) -> Sheet:
    """Return mean and SD within and between repetitions, a row a system and metric."""
    rows = [
        (
            name,
            METRICS[metric],
            f"{spread.n_repeats}",
            percent(spread.mean),
            percent(spread.std_within),
            percent(spread.std_between),
        )
        for name, found in repeats.items()
        for metric, spread in found.items()
    ]
    return Sheet(
        title="Repeated cross-validation",
        header=("run", "metric", "repeats", "mean", "SD within a repeat", "SD between repeats"),
        rows=tuple(rows),
        text_columns=(0, 1),
    )


def gaps_sheet(gaps: Sequence[Comparison], options: ReportConfig) -> Sheet:
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
    return Sheet(
        title="Protocols side by side: macro-F1, paper minus nested",
        header=(
            *("paper", "nested", "folds", "mean", f"{100 * options.confidence:g} %"),
            "p, corrected t",
        ),
        rows=tuple(rows),
        text_columns=(0, 1),
    )
