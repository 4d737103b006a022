"""Figures of the commands, drawn with matplotlib (extra ``plot``) when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLAIN_COLOR = "#3b6ea5"


@dataclass(frozen=True, kw_only=True)
class BarGroup:
    """One bar."""

    name: str
    value: float
    color: str | None = None


def bar_chart(bars: Sequence[BarGroup], *, axis: str) -> Figure:
    """Return horizontal bars, the first on top, each with its value at its end."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 0.8 + 0.26 * max(len(bars), 1)), layout="constrained")
    axes = figure.subplots()
    names = [bar.name for bar in bars]
    drawn = axes.barh(
        range(len(bars)),
        [bar.value for bar in bars],
        color=[bar.color or PLAIN_COLOR for bar in bars],
    )
    axes.bar_label(drawn, [f"{bar.value:,g}" for bar in bars], padding=3, fontsize=8)
    axes.set_yticks(range(len(bars)), names)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(axis)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
