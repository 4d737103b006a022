"""A heat map of correlations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DARK = 0.62
"""Part of the scale from which numbers are written in white."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One correlation; ``survives`` draws a frame around it."""

    value: float | None
    mark: str
    survives: bool


def heat_map(
    rows: Sequence[str], columns: Sequence[str], cells: Sequence[Cell], *, note: str
) -> Figure:
    """Return correlations as colours and numbers, row by row; blue negative, red positive."""
    import numpy as np
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(
        figsize=(2.2 + 1.1 * len(columns), 1.1 + 0.32 * len(rows)), layout="constrained"
    )
    axes = figure.subplots()
    values = np.array([np.nan if cell.value is None else cell.value for cell in cells])
    known = np.abs(values[~np.isnan(values)])
    most = float(known.max()) if known.size and known.max() > 0 else 1.0
    image = axes.imshow(
        values.reshape(len(rows), len(columns)), cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto"
    )
    for index, cell in enumerate(cells):
        y, x = divmod(index, len(columns))
        text = "–" if cell.value is None else f"{cell.value:.2f}{cell.mark}"
        dark = cell.value is not None and abs(cell.value) > _DARK * most
        axes.text(x, y, text, ha="center", va="center", fontsize=7, color="w" if dark else "k")
        if cell.survives:
            axes.add_patch(
                Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, fill=False, edgecolor="k", linewidth=1)
            )
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.tick_params(length=0)
    axes.set_xlabel(note, fontsize=7, color="#555555")
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, shrink=0.8).set_label("Pearson's r", fontsize=8)
    return figure
