"""Reliability diagrams and risk-coverage curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recap.reporting.charts import PANELS_A_ROW, PLAIN_COLOR
from recap.scoring.abstention import RiskCoverage
from recap.scoring.calibration import Bin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCALED_COLOR = "#b2452c"
"""Of probabilities after temperature scaling."""

LINES = ("-", "--", ":", "-.")
COLORS = ("#3b6ea5", "#b2452c", "#4a8f5c", "#8a5ca5", "#b58900", "#555555", "#2aa198")
"""With :data:`LINES` enough to tell 28 curves apart."""


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """One run's bins, all folds together; ``scaled``: at the fitted temperature."""

    title: str
    given: Sequence[Bin]
    scaled: Sequence[Bin] | None


@dataclass(frozen=True, kw_only=True)
class CurvePanel:
    """The risk-coverage curves of runs of one task, by name."""

    title: str
    curves: Sequence[tuple[str, RiskCoverage]]


def reliability_chart(panels: Sequence[Reliability]) -> Figure:
    """Return a reliability diagram a run, and below each how many examples its bins hold."""
    from matplotlib.figure import Figure

    columns = min(PANELS_A_ROW, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.3 * columns + 0.4, 4.0 * rows), layout="constrained")
    places = figure.subplots(
        2 * rows, columns, squeeze=False, sharex=True, height_ratios=(3, 1) * rows
    )
    for index in range(rows * columns):
        row, column = divmod(index, columns)
        upper, lower = places[2 * row, column], places[2 * row + 1, column]
        if index < len(panels):
            _shares(upper, panels[index])
            _counts(lower, panels[index])
        else:
            upper.set_axis_off()
            lower.set_axis_off()
    return figure


def risk_coverage_chart(panels: Sequence[CurvePanel]) -> Figure:
    """Return a panel a task: share of wrong answers among the surest, against their number."""
    from matplotlib.figure import Figure

    columns = min(PANELS_A_ROW, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.9 * columns + 0.4, 3.6 * rows), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in zip(places, panels, strict=False):
        _curves(axes, panel)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    return figure


def _shares(axes: Axes, panel: Reliability) -> None:
    filled = [one for one in panel.given if one.share is not None]
    axes.bar(
        [100 * one.low for one in filled],
        [100 * (one.share or 0.0) for one in filled],
        width=[100 * (one.high - one.low) for one in filled],
        align="edge",
        color=PLAIN_COLOR,
        edgecolor="white",
        linewidth=0.6,
        label="as given",
    )
    axes.plot([0, 100], [0, 100], color="#555555", linestyle="--", linewidth=0.9)
    if panel.scaled is not None:
        after = [one for one in panel.scaled if one.share is not None]
        axes.plot(
            [100 * (one.mean_probability or 0.0) for one in after],
            [100 * (one.share or 0.0) for one in after],
            color=SCALED_COLOR,
            marker="o",
            markersize=3.5,
            linewidth=1.2,
            label="at the fitted temperature",
        )
        axes.legend(frameon=False, fontsize=7, loc="upper left")
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_title(panel.title, fontsize=8, loc="left")
    axes.set_ylabel("answers that are right, %", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _counts(axes: Axes, panel: Reliability) -> None:
    drawn = axes.bar(
        [100 * one.low for one in panel.given],
        [one.n for one in panel.given],
        width=[100 * (one.high - one.low) for one in panel.given],
        align="edge",
        color="#9a9a9a",
        edgecolor="white",
        linewidth=0.6,
    )
    labels = [f"{one.n}" if one.n else "" for one in panel.given]
    axes.bar_label(drawn, labels, fontsize=5, padding=1)
    axes.margins(y=0.25)
    axes.set_xlabel("probability of the likeliest label, %", fontsize=8)
    axes.set_ylabel("examples", fontsize=8)
    # Shared axes would show them in the last row alone.
    axes.tick_params(labelsize=7, labelbottom=True)
    axes.spines[["top", "right"]].set_visible(False)


def _curves(axes: Axes, panel: CurvePanel) -> None:
    for index, (name, curve) in enumerate(panel.curves):
        line, color = divmod(index, len(COLORS))
        axes.plot(
            [100 * share for share in curve.coverage],
            [100 * share for share in curve.risk],
            color=COLORS[color],
            linestyle=LINES[line % len(LINES)],
            linewidth=1.3,
            label=name,
            # Where every confidence is the same there is a point and no line.
            marker="o" if len(curve.coverage) == 1 else None,
        )
    axes.set_xlim(0, 100)
    axes.set_ylim(bottom=0)
    axes.set_title(panel.title, fontsize=9, loc="left")
    axes.set_xlabel("answered, the surest first, %", fontsize=8)
    axes.set_ylabel("wrong among these, %", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(frameon=False, fontsize=6)
    axes.spines[["top", "right"]].set_visible(False)
