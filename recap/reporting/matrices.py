"""A table of counts as a figure (extra ``plot``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
