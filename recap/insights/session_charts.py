"""Figures of sessions: two donuts as in Figure 2 of the paper, development, one session's line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recap.insights.source import AnnotatedSource
from recap.output.charts import open_axes
from recap.statistics.sessions import Prevalence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


LINE_COLOR = "#b2452c"


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One part of a donut."""

    name: str
    share: float
    color: str


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One utterance on a session's line; ``place`` is the index of its turn."""

    place: int
    label: str
    color: str
    resistant: bool


def donut_chart(whole: Sequence[Slice], parts: Sequence[Slice], *, note: str = "") -> Figure:
    """Return resistance among all utterances, and the behaviors among resistant ones."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
    _donut(left, whole, title="client utterances")
    _donut(right, parts, title="resistant utterances")
    if note:
        figure.suptitle(note, fontsize=8, color="#666666")
    return figure


def development_chart(
    shares: Sequence[tuple[float | None, float | None, float | None]], *, note: str = ""
) -> Figure:
    """Return the share of resistance, with its interval, in each part of the sessions."""
    figure, axes = open_axes(6.4, 3.2)
    known = [(i + 1, v, low, high) for i, (v, low, high) in enumerate(shares) if v is not None]
    places = [place for place, *_ in known]
    axes.plot(places, [100 * v for _, v, _, _ in known], color=LINE_COLOR, marker="o", markersize=4)
    lows = [100 * (v if low is None else low) for _, v, low, _ in known]
    highs = [100 * (v if high is None else high) for _, v, _, high in known]
    axes.fill_between(places, lows, highs, color=LINE_COLOR, alpha=0.18, linewidth=0)
    axes.set_ylim(bottom=0)
    axes.set_xticks(range(1, len(shares) + 1))
    axes.set_xlabel(f"part of the session{', ' + note.strip('()') if note else ''}")
    axes.set_ylabel("resistant utterances, %")
    return figure


def timeline_chart(marks: Sequence[Mark], *, title: str) -> Figure:
    """Return one session's utterances along its turns, a row for each label that occurs."""
    labels = list(dict.fromkeys(m.label for m in sorted(marks, key=lambda m: m.resistant)))
    figure, axes = open_axes(8, 1 + 0.3 * max(len(labels), 1))
    row = {label: index for index, label in enumerate(labels)}
    for mark in marks:
        axes.scatter(
            mark.place,
            row[mark.label],
            color=mark.color,
            marker="s" if mark.resistant else "o",
            s=34 if mark.resistant else 14,
        )
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("turn")
    axes.set_title(title, fontsize=9, loc="left")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure


def _donut(axes: Axes, slices: Sequence[Slice], *, title: str) -> None:
    shown = [s for s in slices if s.share > 0]
    axes.set_title(title, fontsize=9)
    if not shown:
        axes.text(0.5, 0.5, "none", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    wedges, *_ = axes.pie(
        [s.share for s in shown],
        colors=[s.color for s in shown],
        startangle=90,
        counterclock=False,
        wedgeprops={"width": 0.42, "edgecolor": "white", "linewidth": 0.8},
    )
    axes.legend(
        wedges,
        [f"{s.name} {100 * s.share:.1f} %" for s in shown],
        loc="center left",
        bbox_to_anchor=(0.98, 0.5),
        fontsize=7,
        frameon=False,
    )


def donuts(source: AnnotatedSource, overall: Prevalence) -> tuple[list[Slice], list[Slice]]:
    """Return the parts of both donuts: resistance among all, behaviors among resistant ones."""
    shares = dict(zip(source.labels, (i.value or 0.0 for i in overall.label_shares), strict=True))
    behaviors = source.behaviors
    resistant = sum(shares[label] for label in behaviors)
    others = [label for label in source.labels if label not in behaviors]
    name = source.resistance[0] if len(source.resistance) == 1 else "Resistance"
    whole = [Slice(name=name, share=resistant, color=source.color(source.resistance[0]))]
    whole += [Slice(name=o, share=shares[o], color=source.color(o)) for o in others]
    parts = [
        Slice(name=label, share=shares[label] / resistant, color=source.color(label))
        for label in behaviors
        if shares[label]
    ]
    return whole, parts


def timeline_marks(source: AnnotatedSource, session: str) -> list[Mark]:
    """Return the labeled utterances of one session."""
    utterances = [u for u in source.annotated.utterances if u.session == session]
    resistant = source.is_resistant
    return [
        Mark(
            place=u.turn if u.turn is not None else index,
            label=u.label,
            color=source.color(u.label),
            resistant=resistant(u.label),
        )
        for index, u in enumerate(utterances)
        if u.label is not None
    ]
