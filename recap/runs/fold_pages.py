"""Pages for W&B: box plots over folds, and the confusion matrix with its spread.

W&B has no box plot that needs no account, hence HTML with drawings of its own: no library, no
network, sharp at any size, and fonts for every script that the reader's browser has. A page is
light whatever the reader's theme, for it cannot know that of W&B.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recap.metrics.scores import CellSpread, spread_text
from recap.output.templates import render
from recap.records import Spread, Summary

_PLOT, _RIGHT, _ROW = 460, 120, 26
"""Pixels: the scale, room for mean and deviation, and the height of a row."""


@dataclass(frozen=True, kw_only=True)
class BoxPanel:
    """Box plots that share a scale: a name and its figure over folds each."""

    title: str
    unit: str
    """What the scale counts."""
    rows: Sequence[tuple[str, Spread]]
    scale: float = 100.0
    """Figures are multiplied by it."""


def box_page(title: str, panels: Sequence[BoxPanel], summary: Summary) -> str:
    """Return a page of box plots over folds; figures that any fold lacks are left out.

    A box spans the quartiles (linear interpolation, as numpy and matplotlib draw them).
    """
    drawn = [_drawing(panel, summary.folds) for panel in panels]
    return render(
        "runs/templates/boxes.html",
        title=title,
        folds=", ".join(map(str, summary.folds)),
        spread=_spread(summary),
        panels=[panel for panel in drawn if panel["rows"]],
    )


def confusion_page(cells: Sequence[CellSpread], summary: Summary) -> str:
    """Return the confusion matrix, each cell with mean and deviation of its share and its count.

    Args:
        cells: As :func:`recap.metrics.scores.confusion_spread` gives them.
        summary: That of their folds.
    """
    heads = list(dict.fromkeys(cell.predicted for cell in cells))
    shown = [
        {
            "ink": cell.share.mean or 0.0,
            "share": spread_text(cell.share, digits=1),
            "count": spread_text(cell.count, 1.0, digits=1),
        }
        for cell in cells
    ]
    return render(
        "runs/templates/confusion.html",
        title="Confusion over folds",
        folds=", ".join(map(str, summary.folds)),
        spread=_spread(summary),
        heads=heads,
        rows=[
            (cells[start].gold, shown[start : start + len(heads)])
            for start in range(0, len(cells), len(heads))
        ],
    )


def _drawing(panel: BoxPanel, folds: Sequence[int]) -> dict[str, Any]:
    """Return where everything in a panel's drawing stands, in pixels."""
    rows = [(name, figure) for name, figure in panel.rows if figure.mean is not None]
    if not rows:
        return {"rows": []}
    values = panel.scale * np.array([figure.values for _, figure in rows], dtype=np.float64)
    ticks = _ticks(float(values.min()), float(values.max()))
    step = 2.5 * min(1, 6 / len(folds))
    left = 12 + max(_width(name) for name, _ in rows)

    def place(value: float) -> float:
        return round(left + _PLOT * (float(value) - ticks[0]) / (ticks[-1] - ticks[0]), 1)

    return {
        "title": panel.title,
        "unit": panel.unit,
        "left": left,
        "plot": _PLOT,
        "width": left + _PLOT + _RIGHT,
        "height": _ROW * len(rows),
        "ticks": [(place(tick), f"{tick:g}") for tick in ticks],
        "rows": [
            {
                "name": name,
                "middle": _ROW * (number + 0.5),
                "quartiles": [place(end) for end in np.quantile(own, (0, 0.25, 0.5, 0.75, 1))],
                "dots": [(place(value), f"{value:.4g}") for value in own],
                "spread": spread_text(figure, panel.scale),
            }
            for number, ((name, figure), own) in enumerate(zip(rows, values, strict=True))
        ],
        "folds": folds,
        # Dots stand a little apart, so that equal folds do not hide each other.
        "apart": [step * (k - (len(folds) - 1) / 2) for k in range(len(folds))],
    }


def _spread(summary: Summary) -> str:
    if len(summary.folds) == 1:
        return "one fold, hence no standard deviation"
    return f"mean ± sample standard deviation (ddof = {summary.ddof})"


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers, from at most ``low`` to at least ``high``, at most eight of them."""
    room = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(room / 6))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= room / 6)
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    return [round(step * n, 12) for n in range(first, last + 1)]


def _width(name: str) -> int:
    """Return about how many pixels a name takes; characters of East Asia are wider."""
    return sum(13 if ord(character) > 0x2E80 else 7 for character in name)
