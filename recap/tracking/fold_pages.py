"""Pages for W&B: box plots over folds, and the confusion matrix with its spread.

W&B has no box plot that needs no account, hence HTML with drawings of its own: no library, no
network, sharp at any size, and fonts for every script that the reader's browser has. A page is
light whatever the reader's theme, for it cannot know that of W&B.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from recap.records import Spread, Summary
from recap.scoring.confusion_spread import CellSpread

_PLOT, _RIGHT, _ROW = 460, 120, 26
"""Pixels: the scale, room for mean and deviation, and the height of a row."""

_STYLE = """
:root { color-scheme: light; }
body { background: #fff; color: #222; font: 13px system-ui, sans-serif; margin: 12px; }
h1 { font-size: 15px; } h2 { font-size: 13px; margin: 14px 0 2px; }
p { color: #555; max-width: 62em; }
svg { max-width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: #222; }
.grid { stroke: #e3e3e3; } .whisker { stroke: #3b6ea5; }
.box { fill: #d5e2f0; stroke: #3b6ea5; } .median { stroke: #1d4068; stroke-width: 2.5; }
.fold { fill: #b4470e; fill-opacity: 0.75; }
table { border-collapse: collapse; } th { font-weight: 600; padding: 3px 6px; }
td { text-align: center; padding: 3px 6px; border: 1px solid #fff; white-space: nowrap; }
td small { display: block; font-size: 11px; } tbody th { text-align: right; white-space: nowrap; }
"""


@dataclass(frozen=True, kw_only=True)
class BoxPanel:
    """Box plots that share a scale: a name and its figure over folds each."""

    title: str
    unit: str
    """What the scale counts."""
    rows: Sequence[tuple[str, Spread]]
    scale: float = 100.0
    """Figures are multiplied by it."""
    digits: int = 2
    """Of mean and deviation behind the point."""


def box_page(title: str, panels: Sequence[BoxPanel], summary: Summary) -> str:
    """Return a page of box plots over folds; figures that any fold lacks are left out.

    A box spans the quartiles (linear interpolation, as numpy and matplotlib draw them).
    """
    said = (
        f"Over folds {_listed(summary.folds)}. Box: quartiles; line: median; whiskers: lowest and "
        f"highest fold; dots: folds. Right: {_spread_said(summary)}."
    )
    body = [f"<p>{said}</p>"]
    for panel in panels:
        shown = [(name, figure) for name, figure in panel.rows if figure.mean is not None]
        if shown:
            body += [f"<h2>{escape(panel.title)}</h2>", _boxes(panel, shown, summary.folds)]
    return _page(title, body)


def confusion_page(cells: Sequence[CellSpread], summary: Summary) -> str:
    """Return the confusion matrix, each cell with mean and deviation of its share and its count.

    Args:
        cells: As :func:`recap.scoring.confusion_spread.confusion_spread` gives them.
        summary: That of their folds.
    """
    n_columns = len(dict.fromkeys(cell.predicted for cell in cells))
    head = "".join(f"<th>{escape(cell.predicted)}</th>" for cell in cells[:n_columns])
    rows = [
        f"<tr><th>{escape(row[0].gold)}</th>{''.join(map(_heat_cell, row))}</tr>"
        for row in (cells[i : i + n_columns] for i in range(0, len(cells), n_columns))
    ]
    said = (
        f"Rows: annotated; columns: answered. Over folds {_listed(summary.folds)}; "
        f"{_spread_said(summary)}. Upper figure: share of the row's examples in percent, "
        "over the folds that have any; lower figure: examples a fold."
    )
    table = f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return _page("Confusion over folds", [f"<p>{said}</p>", table])


def _page(title: str, body: Sequence[str]) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>{''.join(body)}</body></html>"
    )


def _listed(folds: Sequence[int]) -> str:
    return ", ".join(map(str, folds))


def _spread_said(summary: Summary) -> str:
    if len(summary.folds) == 1:
        return "one fold, hence no standard deviation"
    return f"mean ± sample standard deviation (ddof = {summary.ddof})"


def _heat_cell(cell: CellSpread) -> str:
    share = cell.share.mean or 0.0
    ink = "#fff" if share > 0.66 else "#222"
    style = f"background:rgba(29,64,104,{share:.3f});color:{ink}"
    shares, counts = _said(cell.share, 100.0, digits=1), _said(cell.count, 1.0, digits=1)
    return f'<td style="{style}">{shares}<small>{counts}</small></td>'


def _said(figure: Spread, scale: float, *, digits: int) -> str:
    if figure.mean is None:
        return "–"
    said = f"{scale * figure.mean:.{digits}f}"
    return said if figure.std is None else f"{said} ± {scale * figure.std:.{digits}f}"


def _boxes(panel: BoxPanel, rows: Sequence[tuple[str, Spread]], folds: Sequence[int]) -> str:
    found = [panel.scale * value for _, figure in rows for value in _known(figure)]
    ticks = _ticks(min(found), max(found))
    left = 12 + max(_width(name) for name, _ in rows)
    scale = _Scale(left=left, low=ticks[0], high=ticks[-1], factor=panel.scale)
    height = _ROW * len(rows)
    drawn = []
    for tick in ticks:
        place = scale.of(tick)
        drawn.append(f'<line class="grid" x1="{place:.1f}" x2="{place:.1f}" y2="{height}"/>')
        drawn.append(_text(place, height + 16, f"{tick:g}", "middle"))
    drawn.append(_text(left + _PLOT / 2, height + 34, panel.unit, "middle"))
    for number, (name, figure) in enumerate(rows):
        middle = _ROW * (number + 0.5)
        drawn.append(_text(left - 8, middle + 4, name, "end"))
        drawn.append(_box(figure, scale, middle, folds))
        said = _said(figure, panel.scale, digits=panel.digits)
        drawn.append(_text(left + _PLOT + 10, middle + 4, said, "start"))
    width = left + _PLOT + _RIGHT
    box = f"0 0 {width} {height + 42}"
    return f'<svg role="img" viewBox="{box}" width="{width}">{"".join(drawn)}</svg>'


@dataclass(frozen=True, kw_only=True)
class _Scale:
    left: int
    low: float
    high: float
    factor: float

    def of(self, value: float) -> float:
        """Return the place of a value that is multiplied already."""
        return self.left + _PLOT * (value - self.low) / (self.high - self.low)


def _box(figure: Spread, scale: _Scale, middle: float, folds: Sequence[int]) -> str:
    values = [scale.factor * value for value in _known(figure)]
    low, first, median, third, high = map(scale.of, np.quantile(values, (0, 0.25, 0.5, 0.75, 1)))
    dots = [
        # A little apart, so that equal folds do not hide each other.
        f'<circle class="fold" cx="{scale.of(value):.1f}" r="2.8" '
        f'cy="{middle + 2.5 * (number - (len(values) - 1) / 2) * min(1, 6 / len(values)):.1f}">'
        f"<title>fold {fold}: {value:.4g}</title></circle>"
        for number, (fold, value) in enumerate(zip(folds, values, strict=True))
    ]
    return (
        f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>'
        f'<rect class="box" x="{first:.1f}" y="{middle - 8}" width="{third - first:.1f}" '
        f'height="16"/><line class="median" x1="{median:.1f}" x2="{median:.1f}" '
        f'y1="{middle - 8}" y2="{middle + 8}"/>{"".join(dots)}'
    )


def _known(figure: Spread) -> list[float]:
    return [value for value in figure.values if value is not None]


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


def _text(x: float, y: float, said: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'
