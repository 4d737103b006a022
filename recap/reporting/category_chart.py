"""F1 by category with its spread over folds (extra ``plot``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlim(-2, 102)
    axes.set_xlabel("F1, percent; a dot a fold, a bar the mean")
    axes.grid(axis="x", linewidth=0.4)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure
