"""The figure of a study: mean ± SD of both groups in both phases (paper, Figure 2, right)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recap.analysis.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLES = (("#7a7a7a", "o", "--"), ("#3b6ea5", "s", "-"))
_APART = 0.03


def study_chart(study: Study, *, score: str) -> Figure:
    """Return a line a group, the means of its phases with bars of one SD.

    Args:
        study: Its results.
        score: Title of the vertical axis.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 3.4), layout="constrained")
    axes = figure.subplots()
    for place, group in enumerate(study.groups):
        color, marker, line = _STYLES[place]
        cells = [cell for cell in study.cells if cell.group == group]
        shift = _APART * (2 * place - 1)
        axes.errorbar(
            [index + shift for index in range(len(cells))],
            [cell.mean for cell in cells],
            yerr=[cell.sd for cell in cells],
            label=f"{group} (n = {cells[0].n})",
            color=color,
            marker=marker,
            linestyle=line,
            capsize=4,
        )
    axes.set_xticks(range(len(study.phases)), study.phases)
    axes.set_xlim(-0.4, len(study.phases) - 0.6)
    axes.set_ylabel(f"{score} (mean ± SD)")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
