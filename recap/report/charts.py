"""Charts of the report: categories, spread, groups, reliability, risk and coverage (``plot``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recap.metrics.calibration import Bin, RiskCoverage
from recap.output.charts import PANELS_A_ROW, PLAIN_COLOR
from recap.statistics.bootstrap import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


COLORS = ("#3b6ea5", "#c8553d", "#4f8f54", "#8a5fa8", "#b8860b", "#5a6b73")
"""Told apart by most eyes, on white."""

DOT_COLOR, INTERVAL_COLOR, *_ = COLORS


def category_chart(
    labels: Sequence[str], systems: Mapping[str, Sequence[Sequence[float]]]
) -> Figure:
    """Return a row a category: a dot a fold, a bar at the mean.

    Args:
        labels: Categories, the first on top.
        systems: Name to F1 as fractions ``(category, fold)``; at most as many as
            :data:`COLORS`.
    """
    step = 0.8 / max(len(systems), 1)
    height = 1.0 + len(labels) * max(0.3, 0.11 * len(systems))
    figure, axes = _figure(7.2, height)
    for place, ((name, rows), color) in enumerate(zip(systems.items(), COLORS, strict=False)):
        offset = -0.4 + step * (place + 0.5)
        for y, values in enumerate(rows):
            label = name if y == 0 else None
            _dots(axes, values, y + offset, color=color, s=14, alpha=0.55, label=label)
            _bar(axes, values, (y + offset - step / 2, y + offset + step / 2), color=color)
    axes.set_xlim(-2, 102)
    axis = "F1, percent; a dot a fold, a bar the mean"
    return _finished(figure, axes, labels, axis, legend_columns=2)


@dataclass(frozen=True, kw_only=True)
class SpreadRow:
    """One line of a chart; all figures are fractions."""

    name: str
    values: Sequence[float]
    """A dot each."""
    pooled: Interval
    """Of all predictions together."""


_SPREAD_NAMES = ("a fold", "mean over folds", "all predictions, with interval")


def spread_chart(rows: Sequence[SpreadRow], *, axis: str, differences: bool = False) -> Figure:
    """Return a line a row: a dot a fold, and below them the pooled value in its interval.

    Scores of runs have a bar at the mean over folds; differences have a line at 0 (forest plot).
    """
    figure, axes = _figure(7.2, 1.3 + 0.42 * len(rows))
    if differences:
        axes.axvline(0, color="#444444", lw=0.8)
    for y, row in enumerate(rows):
        # Named once in the legend.
        dots, bar, pooled = _SPREAD_NAMES if y == 0 else (None, None, None)
        _dots(axes, row.values, y - 0.15, color=DOT_COLOR, s=16, alpha=0.6, label=dots)
        if not differences:
            _bar(axes, row.values, (y - 0.32, y + 0.02), color=DOT_COLOR, label=bar)
        below = y + (0.15 if differences else 0.2)
        found = row.pooled
        if found.low is not None and found.high is not None:
            ends = [100 * found.low, 100 * found.high]
            axes.plot(ends, [below, below], color=INTERVAL_COLOR, lw=1.6)
        value = [100 * (found.value or 0.0)]
        axes.scatter(value, [below], s=26, marker="D", color=INTERVAL_COLOR, label=pooled)
    return _finished(figure, axes, [row.name for row in rows], axis)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _dots(axes: Axes, values: Sequence[float], y: float, **drawn: Any) -> None:
    axes.scatter([100 * value for value in values], [y] * len(values), linewidths=0, **drawn)


def _bar(axes: Axes, values: Sequence[float], ends: tuple[float, float], **drawn: Any) -> None:
    """Draw a bar at the mean of values."""
    mean = 100 * sum(values) / len(values)
    axes.plot([mean, mean], ends, lw=2, **drawn)


def _finished(
    figure: Figure, axes: Axes, names: Sequence[str], axis: str, *, legend_columns: int = 3
) -> Figure:
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(axis)
    axes.grid(axis="x", linewidth=0.4)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=legend_columns, fontsize=8, frameon=False)
    return figure


PANEL_WIDTH = 3.6
"""Inches."""


def group_chart(
    panels: Mapping[str, Mapping[str, Interval]], *, line: float | None, axis: str
) -> Figure:
    """Return panels side by side, in percent: groups from top to bottom, bars from low to high.

    Args:
        panels: Title to the groups of one breakdown: name to a share and its interval.
        line: The share over all groups.
        axis: What the shares are.
    """
    from matplotlib.figure import Figure

    tallest, columns = max(map(len, panels.values()), default=1), max(len(panels), 1)
    figure = Figure(
        figsize=(PANEL_WIDTH * columns, 1.1 + 0.3 * max(tallest, 2)), layout="constrained"
    )
    places = figure.subplots(1, columns, squeeze=False)[0]
    for axes, (title, groups) in zip(places, panels.items(), strict=False):
        for place, found in enumerate(groups.values()):
            if found.low is not None and found.high is not None:
                ends = [100 * found.low, 100 * found.high]
                axes.plot(ends, [place, place], color=PLAIN_COLOR, linewidth=2.4, alpha=0.45)
            axes.plot(100 * (found.value or 0.0), place, "o", color=PLAIN_COLOR, markersize=5)
        if line is not None:
            axes.axvline(100 * line, color="#777777", linewidth=0.8, linestyle="--")
        axes.set_yticks(range(len(groups)), list(groups), fontsize=8)
        axes.set_ylim(max(len(groups), 1) - 0.5, -0.5)
        axes.set_xlim(-2, 102)
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xlabel(axis, fontsize=8)
        axes.tick_params(axis="x", labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


SCALED_COLOR = "#b2452c"
"""Of probabilities after temperature scaling."""

LINES = ("-", "--", ":", "-.")
CURVE_COLORS = ("#3b6ea5", "#b2452c", "#4a8f5c", "#8a5ca5", "#b58900", "#555555", "#2aa198")
"""With :data:`LINES` enough to tell 28 curves apart."""


Reliability = Mapping[str, Sequence[Bin]]
"""The bins of one run, all folds together: ``given``, and ``scaled`` at a fitted temperature."""


def reliability_chart(panels: Mapping[str, Reliability]) -> Figure:
    """Return a reliability diagram a run, and below each how many examples its bins hold."""
    from matplotlib.figure import Figure

    columns = min(PANELS_A_ROW, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.3 * columns + 0.4, 4.0 * rows), layout="constrained")
    places = figure.subplots(
        2 * rows, columns, squeeze=False, sharex=True, height_ratios=(3, 1) * rows
    )
    upper, lower = places[::2].ravel(), places[1::2].ravel()
    for above, below, (title, bins) in zip(upper, lower, panels.items(), strict=False):
        _shares(above, title, bins)
        _counts(below, bins["given"])
    for axes in (*upper[len(panels) :], *lower[len(panels) :]):
        axes.set_axis_off()
    return figure


def risk_coverage_chart(panels: Mapping[str, Mapping[str, RiskCoverage]]) -> Figure:
    """Return a panel a task: share of wrong answers among the surest, against their number."""
    from matplotlib.figure import Figure

    columns = min(PANELS_A_ROW, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.9 * columns + 0.4, 3.6 * rows), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (title, curves) in zip(places, panels.items(), strict=False):
        _curves(axes, title, curves)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    return figure


def _shares(axes: Axes, title: str, bins: Reliability) -> None:
    filled = [one for one in bins["given"] if one.share is not None]
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
    if "scaled" in bins:
        after = [one for one in bins["scaled"] if one.share is not None]
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
    axes.set_title(title, fontsize=8, loc="left")
    axes.set_ylabel("answers that are right, %", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _counts(axes: Axes, bins: Sequence[Bin]) -> None:
    drawn = axes.bar(
        [100 * one.low for one in bins],
        [one.n for one in bins],
        width=[100 * (one.high - one.low) for one in bins],
        align="edge",
        color="#9a9a9a",
        edgecolor="white",
        linewidth=0.6,
    )
    labels = [f"{one.n}" if one.n else "" for one in bins]
    axes.bar_label(drawn, labels, fontsize=5, padding=1)
    axes.margins(y=0.25)
    axes.set_xlabel("probability of the likeliest label, %", fontsize=8)
    axes.set_ylabel("examples", fontsize=8)
    # Shared axes would show them in the last row alone.
    axes.tick_params(labelsize=7, labelbottom=True)
    axes.spines[["top", "right"]].set_visible(False)


def _curves(axes: Axes, title: str, curves: Mapping[str, RiskCoverage]) -> None:
    for index, (name, curve) in enumerate(curves.items()):
        line, color = divmod(index, len(CURVE_COLORS))
        axes.plot(
            [100 * share for share in curve.coverage],
            [100 * share for share in curve.risk],
            color=CURVE_COLORS[color],
            linestyle=LINES[line % len(LINES)],
            linewidth=1.3,
            label=name,
            # Where every confidence is the same there is a point and no line.
            marker="o" if len(curve.coverage) == 1 else None,
        )
    axes.set_xlim(0, 100)
    axes.set_ylim(bottom=0)
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlabel("answered, the surest first, %", fontsize=8)
    axes.set_ylabel("wrong among these, %", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(frameon=False, fontsize=6)
    axes.spines[["top", "right"]].set_visible(False)
