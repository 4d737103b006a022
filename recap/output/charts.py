"""Figures of the commands, drawn with matplotlib (extra ``plot``) when they are asked for."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from recap.statistics.clusters import Interval
from recap.system.plain_text import printable

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


COLORS = ("#3b6ea5", "#c8553d", "#4f8f54", "#8a5fa8", "#b8860b", "#5a6b73")
"""Told apart by most eyes, on white."""

PLAIN_COLOR = COLORS[0]
"""Where a category has no color of its own."""

_LINES = ("-", "--", ":", "-.")

PANELS_A_ROW = 3

ROW_CHARACTERS = 34
"""Of a line of a row's name; longer names take several."""

_CHARACTERS_AN_INCH = 14
"""Of a legend's letters, on the safe side."""

FIGURE_DPI = 200
"""Dots an inch of the PNG files."""

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


@contextmanager
def drawing(salt: str) -> Iterator[list[warnings.WarningMessage]]:
    """Have text stay text, and the same figure give the same bytes; yields what is warned of.

    No dollar sign opens a formula, and no LaTeX runs, whatever the user's own settings are.

    Raises:
        ImportError: When matplotlib is missing.
    """
    import matplotlib

    settings: Any = {
        "text.parse_math": False,
        "text.usetex": False,
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "font.family": font_families(),
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def picture(figure: Figure, ending: str) -> bytes:
    """Return a figure as a ``png`` or ``svg`` file."""
    file = io.BytesIO()
    metadata: Any = {"Date": None} if ending == "svg" else {}
    figure.savefig(file, format=ending, dpi=FIGURE_DPI, metadata=metadata)
    if ending == "png":
        return file.getvalue()
    # With a control character in a name it would be no XML.
    return printable(file.getvalue().decode()).encode()


def svg_text(draw: Callable[[], Figure], *, salt: str) -> str | None:
    """Return a figure as SVG; ``None`` without matplotlib."""
    # A missing glyph is in the fonts of who looks.
    with suppress(ImportError), drawing(salt):
        return picture(draw(), "svg").decode()
    return None


def line_style(place: int) -> dict[str, Any]:
    """Return color and dashes of the line at a place; those of the first 24 differ."""
    line, color = divmod(place, len(COLORS))
    return {"color": COLORS[color], "linestyle": _LINES[line % len(_LINES)]}


def open_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of so many inches, and its axes without lines on top and on the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def open_panels(
    titles: Sequence[str],
    *,
    width: float,
    height: float,
    columns: int = PANELS_A_ROW,
    parts: Sequence[float] = (1,),
) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure of panels, and the axes of each.

    Args:
        titles: One a panel.
        width: Of a panel, in inches.
        height: Of a panel, in inches.
        columns: Panels in a row, at most.
        parts: Relative heights of a panel's axes, from top to bottom, which share their x axis.
    """
    from matplotlib.figure import Figure

    columns = max(min(columns, len(titles)), 1)
    rows = -(-len(titles) // columns) or 1
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    places = figure.subplots(
        rows * len(parts),
        columns,
        squeeze=False,
        sharex=len(parts) > 1,
        height_ratios=(*parts,) * rows,
    )
    panels = places.reshape(rows, len(parts), columns).swapaxes(1, 2).reshape(-1, len(parts))
    for axes in panels.ravel():
        axes.set_axis_off()
    for panel, title in zip(panels, titles, strict=False):
        panel[0].set_title(wrapped(title, int(12 * width)), fontsize=9, loc="left")
        for axes in panel:
            axes.set_axis_on()
            # Shared axes would show them in the last row alone.
            axes.tick_params(labelsize=7, labelbottom=True)
            axes.spines[["top", "right"]].set_visible(False)
    return figure, [list(panel) for panel in panels[: len(titles)]]


def wrapped(name: str, width: int = ROW_CHARACTERS) -> str:
    """Return a name on lines of so many characters."""
    return "\n".join(line for part in name.split("\n") for line in wrap(part, width) or [""])


def row_inches(names: Sequence[str]) -> float:
    """Return how high a row of a chart has to be for the longest of its names."""
    return max([0.42, *(0.14 * (wrapped(name).count("\n") + 1) + 0.06 for name in names)])


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a chart, the first on top."""
    axes.set_yticks(range(len(names)), [wrapped(name) for name in names], fontsize=8)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)


def add_legend(figure: Figure, drawn: Mapping[str, Artist]) -> None:
    """Name what is drawn, below all axes and inside the figure, however long the names are.

    Args:
        figure: Grows by what the names need.
        drawn: By its name.
    """
    shown = [wrapped(name, int(figure.get_figwidth() * _CHARACTERS_AN_INCH) - 8) for name in drawn]
    longest = max((len(line) for name in shown for line in name.split("\n")), default=1)
    columns = max(1, int(figure.get_figwidth() * _CHARACTERS_AN_INCH) // (longest + 8))
    columns = min(columns, len(shown))
    lines = sum(name.count("\n") + 1 for name in shown)
    figure.set_figheight(figure.get_figheight() + 0.16 * -(-lines // columns))
    legend = figure.legend(
        list(drawn.values()),
        # matplotlib leaves out names that begin with an underscore.
        [f"{place}" for place in range(len(shown))],
        loc="outside lower center",
        ncols=columns,
        fontsize=8,
        frameon=False,
    )
    for text, name in zip(legend.get_texts(), shown, strict=True):
        text.set_text(name)


def draw_values(axes: Axes, values: Sequence[float], y: float, **drawn: Any) -> Artist:
    """Draw a dot for each of some shares, in percent."""
    return axes.scatter(
        [100 * v for v in values], [y] * len(values), linewidths=0, alpha=0.6, **drawn
    )


def draw_mean(axes: Axes, values: Sequence[float], y: float, half: float, **drawn: Any) -> Artist:
    """Draw an upright bar at the mean of some shares, in percent, ``half`` of it on each side."""
    mean = 100 * sum(values) / len(values)
    return axes.plot([mean, mean], [y - half, y + half], lw=2, **drawn)[0]


def draw_interval(axes: Axes, found: Interval, y: float, **drawn: Any) -> Artist:
    """Draw a share in its interval, in percent."""
    if found.low is not None and found.high is not None:
        axes.plot([100 * found.low, 100 * found.high], [y, y], color=drawn["color"], lw=1.6)
    return axes.scatter([100 * (found.value or 0.0)], [y], s=26, marker="D", **drawn)


def bar_chart(bars: Sequence[Bar], *, axis: str) -> Figure:
    """Return horizontal bars, the first on top, each with its value at its end."""
    figure, axes = open_axes(6.4, 0.8 + 0.26 * max(len(bars), 1))
    _bars(axes, bars, PLAIN_COLOR, "{:,g}")
    axes.set_xlabel(axis)
    return figure


def panel_chart(panels: Sequence[BarPanel], *, axis: str) -> Figure:
    """Return one bar chart a panel, :data:`PANELS_A_ROW` in a row."""
    tallest = max((len(panel.bars) for panel in panels), default=1)
    titles = [panel.title for panel in panels]
    figure, places = open_panels(titles, width=3.1, height=0.75 + 0.2 * tallest)
    for [axes], panel in zip(places, panels, strict=True):
        _bars(axes, panel.bars, panel.color or PLAIN_COLOR, "{:.1f}")
        axes.set_ylim(tallest - 0.5, -0.5)
        axes.set_xlabel(axis, fontsize=7)
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
    shares = [[cell / max(sum(row), 1) for cell in row] for row in counts]
    side = 1.6 + 0.5 * len(column_names)
    figure, axes = open_axes(side + 1.2, side)
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
