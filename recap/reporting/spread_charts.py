"""Values over folds with intervals, and differences with intervals (extra ``plot``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recap.reporting.category_chart import COLORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
    return _finished(figure, axes, rows, axis)


def difference_chart(rows: Sequence[SpreadRow], *, axis: str) -> Figure:
    """Return a forest plot: a line a comparison, its differences by fold, and the interval."""
    figure, axes = _axes(rows)
    axes.axvline(0, color="#444444", lw=0.8)
    for y, row in enumerate(rows):
        _dots(axes, row, y - 0.15, "a fold" if y == 0 else None)
        _interval(axes, row, y + 0.15, "all predictions, with interval" if y == 0 else None)
    return _finished(figure, axes, rows, axis)


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


def _finished(figure: Figure, axes: Axes, rows: Sequence[SpreadRow], axis: str) -> Figure:
    axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(axis)
    axes.grid(axis="x", linewidth=0.4)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure
