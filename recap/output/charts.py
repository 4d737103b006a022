"""Figures of the commands, drawn with matplotlib (extra ``plot``) when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


PLAIN_COLOR = "#3b6ea5"
"""Where a category has no color of its own."""

PANELS_A_ROW = 3

CHINESE_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN"),
    *("Microsoft YaHei", "PingFang SC", "Hiragino Sans GB", "Heiti SC", "STHeiti", "SimHei"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Noto Sans CJK JP", "Arial Unicode MS"),
    *("Droid Sans Fallback", "SimSun"),
)
"""Fonts with Chinese characters that Linux, Windows and macOS have, the first one found counts."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar."""

    name: str
    value: float
    color: str | None = None


@dataclass(frozen=True, kw_only=True)
class BarPanel:
    """One of several bar charts in a figure."""

    title: str
    bars: Sequence[Bar]
    color: str | None = None


def font_families() -> list[str]:
    """Return matplotlib's own font, and a Chinese one where the machine has one."""
    from matplotlib import font_manager

    there = {entry.name for entry in font_manager.fontManager.ttflist}
    chinese = [name for name in CHINESE_FONTS if name in there]
    return ["DejaVu Sans", *chinese[:1]]


def open_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of so many inches, and its axes without lines on top and on the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def bar_chart(bars: Sequence[Bar], *, axis: str) -> Figure:
    """Return horizontal bars, the first on top, each with its value at its end."""
    figure, axes = open_axes(6.4, 0.8 + 0.26 * max(len(bars), 1))
    _bars(axes, bars, PLAIN_COLOR, "{:,g}")
    axes.set_xlabel(axis)
    return figure


def panel_chart(panels: Sequence[BarPanel], *, axis: str) -> Figure:
    """Return one bar chart a panel, :data:`PANELS_A_ROW` in a row."""
    from matplotlib.figure import Figure

    rows = -(-len(panels) // PANELS_A_ROW) or 1
    tallest = max((len(panel.bars) for panel in panels), default=1)
    height = rows * (0.75 + 0.2 * tallest)
    figure = Figure(figsize=(3.1 * PANELS_A_ROW, height), layout="constrained")
    places = figure.subplots(rows, PANELS_A_ROW, squeeze=False).ravel()
    for axes, panel in zip(places, panels, strict=False):
        _bars(axes, panel.bars, panel.color or PLAIN_COLOR, "{:.1f}")
        axes.set_title(panel.title, fontsize=9, loc="left")
        axes.set_ylim(tallest - 0.5, -0.5)
        axes.set_xlabel(axis, fontsize=7)
        axes.tick_params(labelsize=7)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    return figure


def _bars(axes: Axes, bars: Sequence[Bar], color: str, form: str) -> None:
    drawn = axes.barh(
        range(len(bars)),
        [bar.value for bar in bars],
        color=[bar.color or color for bar in bars],
    )
    axes.bar_label(drawn, [form.format(bar.value) for bar in bars], padding=3, fontsize=7)
    axes.set_yticks(range(len(bars)), [bar.name for bar in bars])
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)


def matrix_chart(
    counts: Sequence[Sequence[int]],
    row_names: Sequence[str],
    column_names: Sequence[str],
    *,
    rows: str,
    columns: str,
) -> Figure:
    """Return a matrix of counts, each cell shaded by its share of its row.

    Args:
        counts: A row a name of ``row_names``.
        row_names: Names of the rows.
        column_names: Names of the columns.
        rows: What the rows are.
        columns: What the columns are.
    """
    from matplotlib.figure import Figure

    shares = [[cell / max(sum(row), 1) for cell in row] for row in counts]
    side = 1.6 + 0.5 * len(column_names)
    figure = Figure(figsize=(side + 1.2, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(column_names)), column_names, rotation=45, ha="right")
    axes.set_yticks(range(len(row_names)), row_names)
    axes.set_xlabel(columns)
    axes.set_ylabel(rows)
    for y, row in enumerate(counts):
        for x, cell in enumerate(row):
            ink = "white" if shares[y][x] > 0.5 else "black"
            axes.text(x, y, f"{cell:,}", ha="center", va="center", color=ink, fontsize=8)
    axes.spines[:].set_visible(False)
    return figure
