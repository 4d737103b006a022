"""Figures as .png and .svg, with the optional matplotlib."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recap.errors import ConfigError

ENDINGS = (".png", ".svg")


def draw(fill: Callable[[Any], None], stem: Path, size: tuple[float, float]) -> list[Path]:
    """Write a figure as ``<stem>.png`` and ``<stem>.svg``; equal input gives equal files.

    Args:
        fill: Draws into the empty matplotlib figure that it gets.
        stem: The files' path without ending.
        size: Width and height in inches.

    Raises:
        ConfigError: When matplotlib is missing.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError(
            "figures need matplotlib: pip install 'recap-counseling[plot]'; "
            "or leave out=… away to have the tables on the console alone"
        ) from None
    style = {"svg.hashsalt": "recap", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context({**style, "font.sans-serif": _FONTS, "axes.unicode_minus": False}):
        figure = Figure(figsize=size, layout="constrained", dpi=150)
        fill(figure)
        paths = [stem.with_name(stem.name + ending) for ending in ENDINGS]
        for path in paths:
            temporary = path.with_name(f".{os.getpid()}.{path.name}")
            dates: dict[str, Any] = {"Date": None} if path.suffix == ".svg" else {}
            figure.savefig(temporary, format=path.suffix[1:], metadata=dates)
            temporary.replace(path)
    return paths


_FONTS = ["DejaVu Sans", "Noto Sans CJK SC", "Noto Sans SC", "SimHei", "PingFang SC"]
