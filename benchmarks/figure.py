"""The figure of docs/performance.md, drawn from what benchmarks/training.py wrote.

python benchmarks/figure.py REPORT.json FIGURE.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

OURS, OTHERS, UNCLAIMED = "#1b6ca8", "#9aa5b1", "#dfe3e8"


def draw(report: dict[str, Any], path: Path) -> None:
    """Write two panels: seconds a step of every system, and cost an example by examples a row."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "recap", "font.size": 9, "svg.fonttype": "none"})
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), width_ratios=(3, 2))
    _bars(left, report)
    _line(right, report)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def _bars(axes: Any, report: dict[str, Any]) -> None:
    steps = [row for row in report["rows"] if row["part"] == "step"]
    rows = [row for row in reversed(steps) if row["shape"] == "zero_shot"]
    colors = [
        OURS if row["system"] == "trunk" else UNCLAIMED if row["note"] else OTHERS for row in rows
    ]
    bars = axes.barh(
        [row["system"] for row in rows], [row["seconds"] for row in rows], color=colors
    )
    axes.bar_label(bars, fmt="%.1f", padding=2)
    axes.set_xlabel("seconds an optimiser step of 16 examples, zero-shot")
    axes.spines[["top", "right"]].set_visible(False)


def _line(axes: Any, report: dict[str, Any]) -> None:
    rows = [row for row in report["rows"] if row["part"] == "group"]
    sizes = [row["micro_batch"] for row in rows]
    axes.plot(sizes, [row["seconds_per_example"] for row in rows], "o-", color=OURS)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, map(str, sizes))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("examples that share a row")
    axes.set_ylabel("seconds an example")
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    draw(json.loads(source.read_text(encoding="utf-8")), target)
