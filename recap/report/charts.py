"""Charts of the report: F1 by category, values over folds, differences, groups (``plot``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recap.output.charts import PLAIN_COLOR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


COLORS = ("#3b6ea5", "#c8553d", "#4f8f54", "#8a5fa8", "#b8860b", "#5a6b73")
"""Told apart by most eyes, on white."""


def category_chart(
    labels: Sequence[str], systems: Mapping[str, Sequence[Sequence[float]]]
) -> Figure:
    """Return a row a category: a dot a fold, a bar at the mean.

    Args:
        labels: Categories, the first on top.
        systems: Name to F1 as fractions ``(category, fold)``; at most as many as
            :data:`COLORS`.
    """
    from matplotlib.figure import Figure

    step = 0.8 / max(len(systems), 1)
    height = 1.0 + len(labels) * max(0.3, 0.11 * len(systems))
    figure = Figure(figsize=(7.2, height), layout="constrained")
    axes = figure.subplots()
    for place, ((name, rows), color) in enumerate(zip(systems.items(), COLORS, strict=False)):
        offset = -0.4 + step * (place + 0.5)
        for y, values in enumerate(rows):
            axes.scatter(
                [100 * value for value in values],
                [y + offset] * len(values),
                s=14,
                color=color,
                alpha=0.55,
                linewidths=0,
                label=name if y == 0 else None,
            )
            mean = 100 * sum(values) / len(values)
            axes.plot(
                [mean, mean], [y + offset - step / 2, y + offset + step / 2], color=color, lw=2
            )
    axes.set_xlim(-2, 102)
    axis = "F1, percent; a dot a fold, a bar the mean"
    return _finished(figure, axes, labels, axis, legend_columns=2)


DOT_COLOR, INTERVAL_COLOR, *_ = COLORS


@dataclass(frozen=True, kw_only=True)
class SpreadRow:
    """One line of a chart; all figures are fractions."""

    name: str
    values: Sequence[float]
    """A dot each."""
    value: float
    """What the interval is of."""
    low: float | None = None
    high: float | None = None


def fold_chart(rows: Sequence[SpreadRow], *, axis: str) -> Figure:
    """Return a line a run: a dot a fold, a bar at their mean, the pooled value in its interval."""
    figure, axes = _axes(rows)
    for y, row in enumerate(rows):
        _dots(axes, row, y - 0.15, "a fold" if y == 0 else None)
        mean = 100 * sum(row.values) / len(row.values)
        axes.plot(
            [mean, mean],
            [y - 0.32, y + 0.02],
            color=DOT_COLOR,
            lw=2,
            label="mean over folds" if y == 0 else None,
        )
        _interval(axes, row, y + 0.2, "all predictions, with interval" if y == 0 else None)
    return _finished(figure, axes, [row.name for row in rows], axis)


def difference_chart(rows: Sequence[SpreadRow], *, axis: str) -> Figure:
    """Return a forest plot: a line a comparison, its differences by fold, and the interval."""
    figure, axes = _axes(rows)
    axes.axvline(0, color="#444444", lw=0.8)
    for y, row in enumerate(rows):
        _dots(axes, row, y - 0.15, "a fold" if y == 0 else None)
        _interval(axes, row, y + 0.15, "all predictions, with interval" if y == 0 else None)
    return _finished(figure, axes, [row.name for row in rows], axis)


def _axes(rows: Sequence[SpreadRow]) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 1.3 + 0.42 * len(rows)), layout="constrained")
    return figure, figure.subplots()


def _dots(axes: Axes, row: SpreadRow, y: float, label: str | None) -> None:
    axes.scatter(
        [100 * value for value in row.values],
        [y] * len(row.values),
        s=16,
        color=DOT_COLOR,
        alpha=0.6,
        linewidths=0,
        label=label,
    )


def _interval(axes: Axes, row: SpreadRow, y: float, label: str | None) -> None:
    if row.low is not None and row.high is not None:
        axes.plot([100 * row.low, 100 * row.high], [y, y], color=INTERVAL_COLOR, lw=1.6)
    axes.scatter([100 * row.value], [y], s=26, marker="D", color=INTERVAL_COLOR, label=label)


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


@dataclass(frozen=True, kw_only=True)
class Point:
    """One group's figure as a share, with the ends of its interval where they are known."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    """Examples behind it, written beside the group's name."""


@dataclass(frozen=True, kw_only=True)
class PointPanel:
    """The groups of one breakdown."""

    title: str
    points: Sequence[Point]
    line: float | None = None
    """The figure over all groups, drawn as a line."""


def interval_panels(panels: Sequence[PointPanel], *, axis: str) -> Figure:
    """Return panels side by side, in percent: groups from top to bottom, bars from low to high."""
    from matplotlib.figure import Figure

    tallest = max((len(panel.points) for panel in panels), default=1)
    columns = max(len(panels), 1)
    figure = Figure(
        figsize=(PANEL_WIDTH * columns, 1.1 + 0.3 * max(tallest, 2)), layout="constrained"
    )
    for axes, panel in zip(figure.subplots(1, columns, squeeze=False)[0], panels, strict=False):
        for place, point in enumerate(panel.points):
            if point.low is not None and point.high is not None:
                ends = [100 * point.low, 100 * point.high]
                axes.plot(ends, [place, place], color=PLAIN_COLOR, linewidth=2.4, alpha=0.45)
            axes.plot(100 * point.value, place, "o", color=PLAIN_COLOR, markersize=5)
        if panel.line is not None:
            axes.axvline(100 * panel.line, color="#777777", linewidth=0.8, linestyle="--")
        names = [p.name if p.n is None else f"{p.name} (n={p.n:,})" for p in panel.points]
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
        axes.set_xlim(-2, 102)
        axes.set_title(panel.title, fontsize=9, loc="left")
        axes.set_xlabel(axis, fontsize=8)
        axes.tick_params(axis="x", labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
