"""Figures with their intervals, group by group (extra ``plot``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recap.reporting.charts import PLAIN_COLOR

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
