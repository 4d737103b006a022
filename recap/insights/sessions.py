"""``action=sessions``: how often clients resist, session by session.

Prevalence can be corrected for misclassification, with the confusion of a run's folds. Figures are
two donuts as in Figure 2 of the paper, the development over sessions, and one session's line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recap.data.names import identity, is_missing
from recap.data.utterances import Utterance
from recap.errors import ConfigError, DataError, quote_id
from recap.insights.options import InsightsConfig
from recap.insights.source import AnnotatedSource, notes_of, read_source
from recap.metrics.files import scores_from_dict
from recap.output.charts import open_axes
from recap.output.format import DASH, percent, percent_with_ends, with_ends
from recap.output.report import Report
from recap.output.tables import ReportTable, table_of
from recap.statistics.clusters import Clusters, Interval, clustered, reasons
from recap.statistics.sessions import (
    CorrectedShares,
    Part,
    Prevalence,
    SessionCounts,
    after_acts,
    correct_shares,
    count_sessions,
    development,
    prevalence,
)
from recap.taxonomy import Taxonomy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _overview(overall: Prevalence, groups: Mapping[str, Prevalence], marked: str) -> ReportTable:
    lines: dict[str, Callable[[Prevalence], str]] = {
        "sessions": lambda p: f"{p.n_sessions:,}",
        "labeled client utterances": lambda p: f"{p.n_utterances:,}",
        "resistant utterances": lambda p: f"{p.n_resistant:,}",
        "share of utterances, %": lambda p: _percent(p.share_of_utterances),
        "mean share per session, %": lambda p: _percent(p.mean_session_share),
        "sessions with any, %": lambda p: _percent(p.share_of_sessions),
        "distinct behaviors": lambda p: with_ends(
            p.distinct_behaviors.value, p.distinct_behaviors.low, p.distinct_behaviors.high
        ),
    }
    columns = {"all": overall, **groups}
    return ReportTable(
        title=f"Resistance per session{marked}",
        header=("what", *columns),
        rows=tuple((name, *map(line, columns.values())) for name, line in lines.items()),
    )


def _labels(overall: Prevalence, source: AnnotatedSource, marked: str) -> ReportTable:
    n_resistant, behaviors = overall.n_resistant, source.behaviors
    shares = dict(zip(source.labels, overall.label_shares, strict=True))
    counts = {label: round((i.value or 0) * overall.n_utterances) for label, i in shares.items()}

    def of_resistant(label: str) -> str:
        counted = label in behaviors and n_resistant
        return percent(counts[label] / n_resistant, 1) if counted else DASH

    return table_of(
        f"Labels{marked}",
        source.labels,
        {
            "label": source.taxonomy.written,
            "utterances": lambda label: f"{counts[label]:,}",
            "of all, %": lambda label: _percent(shares[label]),
            "of resistant, %": of_resistant,
        },
    )


def _development(parts: Sequence[Part], marked: str) -> ReportTable:
    return table_of(
        f"Development over the session, in {len(parts)} equal parts{marked}",
        enumerate(parts, start=1),
        {
            "part": lambda row: f"{row[0]}",
            "utterances": lambda row: f"{row[1].n:,}",
            "resistant, %": lambda row: _percent(row[1].share),
        },
    )


def _acts(acts: Mapping[str, Part], source: AnnotatedSource, marked: str) -> ReportTable:

    def most(part: Part) -> str:
        counts = dict(zip(source.labels, part.counts, strict=True))
        often = max(source.behaviors, key=lambda label: counts[label], default="")
        return f"{often} ({counts[often]})" if counts.get(often) else DASH

    return table_of(
        f"After the counselor's act{marked}",
        acts.items(),
        {
            "act": lambda row: row[0],
            "utterances": lambda row: f"{row[1].n:,}",
            "resistant": lambda row: f"{row[1].resistant:,}",
            "resistant, %": lambda row: _percent(row[1].share),
            "most often": lambda row: most(row[1]),
        },
    )


def _corrected_shares(found: CorrectedShares) -> ReportTable:
    return table_of(
        "Shares corrected for misclassification, %",
        found.labels.items(),
        {
            "label": lambda row: row[0],
            "as answered": lambda row: percent(row[1].observed, 1),
            "corrected (EM)": lambda row: _percent(row[1].em),
            "matrix inverse": lambda row: percent(row[1].inverse, 1),
        },
    )


def _percent(interval: Interval) -> str:
    return percent_with_ends(interval.value, interval.low, interval.high)


def read_confusion(path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Return labels and confusion of a ``scores.json``, or of a run's folds, added up.

    Raises:
        DataError: When there is none, or folds differ in their labels.
    """
    files = [path] if path.is_file() else sorted(path.glob("fold*/scores.json"))
    if not files:
        raise DataError(
            f"sessions.confusion={path}: is no scores.json, and no run folder with "
            "fold*/scores.json; name one"
        )
    scores = []
    for file in files:
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{file}: is not JSON; name a run, or its scores.json") from error
        if not isinstance(data, dict):
            raise DataError(f"{file}: is no scores.json; name a run, or its scores.json")
        scores.append(scores_from_dict(data, source=str(file)))
    if any(score.labels != scores[0].labels for score in scores):
        raise DataError(f"{path}: its folds have different labels; name one run")
    return scores[0].labels, np.sum([score.confusion for score in scores], axis=0)


def _correct(config: InsightsConfig, source: AnnotatedSource) -> tuple[CorrectedShares, int]:
    """Return the shares of a run's labels, corrected for the errors of its folds.

    Labels of the utterances count as the run's label at or above them, so that the confusion of a
    binary run corrects a cascade's answers too. Utterances under none of the run's labels are left
    out, and counted.
    """
    path = Path(str(config.sessions.confusion))
    if not source.annotated.predicted:
        raise ConfigError(
            "sessions.confusion: these labels are annotated, not predicted, so there is no "
            "misclassification to correct; leave it out, or name what recap.predict wrote"
        )
    labels, confusion = read_confusion(path)
    strangers = [label for label in labels if label not in source.taxonomy]
    if strangers:
        raise DataError(
            f"{path}: its label {strangers[0]!r} is not in taxonomy {source.taxonomy.name!r}; "
            "name the task of the predictions with task=…"
        )
    utterances = source.annotated.utterances
    answers, kind = _answers(utterances, labels, source.taxonomy)
    try:
        found = correct_shares(answers, confusion, labels, kind=kind, confidence=config.level)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return found, len(utterances) - int(answers.sum())


def _answers(
    utterances: Sequence[Utterance], labels: Sequence[str], taxonomy: Taxonomy
) -> tuple[np.ndarray, str]:
    """Return counts ``(clusters, n_labels + 1)``, and what clusters are.

    Answers without a label stand in the last column.
    """
    clusters, places, answers = Clusters(), [], []
    for utterance in utterances:
        above = () if utterance.label is None else taxonomy.lineage(utterance.label)
        place = next((labels.index(label) for label in above if label in labels), None)
        if place is None and utterance.label is not None:
            continue
        people = utterance.client, utterance.counselor
        places.append(clusters.place(utterance.id, utterance.session, people))
        answers.append(len(labels) if place is None else place)
    return clusters.count(places, answers, shape=(len(labels) + 1,)), clusters.kind


@dataclass(frozen=True, kw_only=True)
class SessionReport:
    """All that the action computes."""

    sessions: tuple[SessionCounts, ...]
    overall: Prevalence
    by_group: Mapping[str, Prevalence]
    over_time: tuple[Part, ...]
    acts: Mapping[str, Part]
    corrected: CorrectedShares | None
    left_out: int
    """Utterances whose labels the confusion does not know."""
    timeline: str
    """The session that is drawn."""
    marks: list[dict[str, Any]]
    """``turn``, ``label`` and ``resistant`` of each of its utterances."""


def find_sessions(config: InsightsConfig) -> Report:
    """Return the prevalence of every behavior in annotated or predicted sessions.

    Raises:
        DataError: When a file cannot be used.
        ConfigError: When an option does not fit the data.
    """
    source = read_source(config)
    found = _compute(config, source)
    predicted = " (predicted labels)" if source.annotated.predicted else ""
    note = predicted.strip()
    sheets = [
        _overview(found.overall, found.by_group, predicted),
        _labels(found.overall, source, predicted),
        _development(found.over_time, predicted),
    ]
    if found.acts:
        sheets.append(_acts(found.acts, source, predicted))
    if found.corrected is not None:
        sheets.append(_corrected_shares(found.corrected))
    some = found.overall.mean_session_share
    notes = notes_of(
        "sessions_notes",
        config=config,
        behaviors=source.behaviors,
        over=clustered(some.cluster, some.clusters),
        missing=reasons(_named(found, source)),
        corrected=found.corrected,
        left_out=found.left_out,
    )
    title = f"session {found.timeline}{predicted}"
    return Report(
        action="sessions",
        title=f"Resistance in the sessions of {source.annotated.name}{predicted}",
        figures=_figures(config, source, found),
        sheets=tuple(sheets),
        notes=(*source.annotated.notes(), *notes),
        rows=[_session_row(session, source) for session in found.sessions],
        private=True,
        charts={
            "sessions": partial(donut_chart, source, found.overall, note=note),
            "sessions_development": partial(development_chart, found.over_time, note=note),
            "sessions_timeline": partial(timeline_chart, found.marks, source, title=title),
        },
    )


def _compute(config: InsightsConfig, source: AnnotatedSource) -> SessionReport:
    utterances, labels = source.annotated.utterances, source.labels
    resistant, options = source.is_resistant, {"confidence": config.level}
    sessions = count_sessions(utterances, labels, resistant)
    chosen = [resistant(label) for label in labels]
    groups = _groups(config, source, sessions)
    asked = config.sessions.confusion is not None
    corrected, left_out = _correct(config, source) if asked else (None, 0)
    timeline = _timeline(config, sessions)
    drawn = enumerate(u for u in utterances if u.session == timeline)
    return SessionReport(
        sessions=sessions,
        overall=prevalence(sessions, chosen, **options),
        by_group={name: prevalence(group, chosen, **options) for name, group in groups.items()},
        over_time=development(utterances, labels, resistant, bins=config.sessions.bins, **options),
        acts=after_acts(utterances, labels, resistant, **options),
        corrected=corrected,
        left_out=left_out,
        timeline=timeline,
        marks=[
            {
                "turn": index if u.turn is None else u.turn,
                "label": u.label,
                "resistant": resistant(u.label),
            }
            for index, u in drawn
            if u.label is not None
        ],
    )


def _named(found: SessionReport, source: AnnotatedSource) -> dict[str, Interval]:
    """Return every interval by what notes call it."""
    named = {"all utterances": found.overall.share_of_utterances}
    named |= dict(zip(source.labels, found.overall.label_shares, strict=True))
    named |= {group: of.share_of_utterances for group, of in found.by_group.items()}
    named |= {f"part {n}": part.share for n, part in enumerate(found.over_time, start=1)}
    named |= {f"after {act}": part.share for act, part in found.acts.items()}
    if found.corrected is not None:
        named |= {f"{name}, corrected": s.em for name, s in found.corrected.labels.items()}
    return named


def _groups(
    config: InsightsConfig, source: AnnotatedSource, sessions: tuple[SessionCounts, ...]
) -> dict[str, list[SessionCounts]]:
    key = config.sessions.by
    if key is None:
        return {}
    value_of: dict[str, str] = {}
    for u in source.annotated.utterances:
        fields = {"client": u.client, "counselor": u.counselor, **u.meta}
        if fields.get(key) is not None and not is_missing(str(fields[key])):
            value_of.setdefault(u.session, identity(str(fields[key])))
    missing = [session.session for session in sessions if session.session not in value_of]
    if missing:
        raise ConfigError(
            f"sessions.by={key}: {len(missing)} of {len(sessions)} sessions have no such field, "
            f"such as session {quote_id(missing[0])}; name one that every session has "
            "(in a table, data.options.meta=[…] says which columns to carry along)"
        )
    groups: dict[str, list[SessionCounts]] = {}
    for session in sessions:
        groups.setdefault(value_of[session.session], []).append(session)
    if len(groups) > _MOST_GROUPS:
        raise ConfigError(
            f"sessions.by={key}: has {len(groups)} different values; name a field with at most "
            f"{_MOST_GROUPS}"
        )
    return dict(sorted(groups.items()))


_MOST_GROUPS = 20


def _timeline(config: InsightsConfig, sessions: tuple[SessionCounts, ...]) -> str:
    if config.sessions.timeline is None:
        return max(sessions, key=lambda session: session.resistant).session
    wanted = identity(config.sessions.timeline)
    if wanted not in {session.session for session in sessions}:
        raise ConfigError(
            f"sessions.timeline: no session {quote_id(wanted)} has labeled utterances"
        )
    return wanted


def _figures(
    config: InsightsConfig, source: AnnotatedSource, found: SessionReport
) -> dict[str, Any]:
    labels = source.labels

    def named(values: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(labels, values, strict=True))

    def shares(prevalence: Prevalence) -> dict[str, Any]:
        figures = asdict(prevalence)
        return figures | {"label_shares": named(figures["label_shares"])}

    groups = {name: shares(p) for name, p in found.by_group.items()}
    by = {"field": config.sessions.by, "groups": groups}
    return {
        "data": source.annotated.name,
        "predicted": source.annotated.predicted,
        "labels": list(labels),
        "resistant_labels": list(source.behaviors),
        "counts": dict(source.annotated.counts),
        **shares(found.overall),
        "by": by if by["field"] is not None else None,
        "development": [
            {
                "part": index,
                "n_utterances": part.n,
                "share": asdict(part.share),
                "label_shares": named([count / max(part.n, 1) for count in part.counts]),
            }
            for index, part in enumerate(found.over_time, start=1)
        ],
        "after_acts": [
            {
                "act": act,
                "n": part.n,
                "n_resistant": part.resistant,
                "share": asdict(part.share),
                "counts": named(part.counts),
            }
            for act, part in found.acts.items()
        ],
        "corrected": None if found.corrected is None else asdict(found.corrected),
        "timeline": {"session": found.timeline, "utterances": found.marks},
        **config.given,
    }


def _session_row(session: SessionCounts, source: AnnotatedSource) -> dict[str, Any]:
    chosen = set(source.behaviors)
    counts = dict(zip(source.labels, session.counts, strict=True))
    return {
        "session": session.session,
        "client": session.client,
        "n_utterances": session.n,
        "n_resistant": session.resistant,
        "share": session.share,
        "distinct_behaviors": sum(n > 0 for label, n in counts.items() if label in chosen),
        "predicted": source.annotated.predicted,
        **counts,
    }


LINE_COLOR = "#b2452c"


def donut_chart(source: AnnotatedSource, overall: Prevalence, *, note: str = "") -> Figure:
    """Return resistance among all utterances, and the behaviors among resistant ones."""
    from matplotlib.figure import Figure

    shares = dict(zip(source.labels, (i.value or 0.0 for i in overall.label_shares), strict=True))
    behaviors, marked = source.behaviors, source.resistance
    resistant = sum(shares[label] for label in behaviors)
    whole = [(marked[0] if len(marked) == 1 else "Resistance", resistant, source.color(marked[0]))]
    whole += [(x, shares[x], source.color(x)) for x in source.labels if x not in behaviors]
    parts = [(b, shares[b] / resistant, source.color(b)) for b in behaviors if shares[b]]
    figure = Figure(figsize=(8.6, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
    _donut(left, whole, title="client utterances")
    _donut(right, parts, title="resistant utterances")
    if note:
        figure.suptitle(note, fontsize=8, color="#666666")
    return figure


def development_chart(parts: Sequence[Part], *, note: str = "") -> Figure:
    """Return the share of resistance, with its interval, in each part of the sessions."""
    figure, axes = open_axes(6.4, 3.2)
    known = {n: p.share for n, p in enumerate(parts, start=1) if p.share.value is not None}
    values = np.array([share.value for share in known.values()], dtype=float)
    ends = [share.interval or (share.value, share.value) for share in known.values()]
    lows, highs = np.array(ends, dtype=float).reshape(-1, 2).T
    axes.plot(list(known), 100 * values, color=LINE_COLOR, marker="o", markersize=4)
    shade: dict[str, Any] = {"color": LINE_COLOR, "alpha": 0.18, "linewidth": 0}
    axes.fill_between(list(known), 100 * lows, 100 * highs, **shade)
    axes.set_ylim(bottom=0)
    axes.set_xticks(range(1, len(parts) + 1))
    axes.set_xlabel(f"part of the session{', ' + note.strip('()') if note else ''}")
    axes.set_ylabel("resistant utterances, %")
    return figure


def timeline_chart(
    marks: Sequence[Mapping[str, Any]], source: AnnotatedSource, *, title: str
) -> Figure:
    """Return one session's utterances along its turns, a row for each label that occurs."""
    labels = list(dict.fromkeys(m["label"] for m in sorted(marks, key=itemgetter("resistant"))))
    figure, axes = open_axes(8, 1 + 0.3 * max(len(labels), 1))
    for mark in marks:
        marker, size = ("s", 34) if mark["resistant"] else ("o", 14)
        row, color = labels.index(mark["label"]), source.color(mark["label"])
        axes.scatter(mark["turn"], row, color=color, marker=marker, s=size)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("turn")
    axes.set_title(title, fontsize=9, loc="left")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure


def _donut(axes: Axes, slices: Sequence[tuple[str, float, str]], *, title: str) -> None:
    """Draw slices, each a name, a share and a color."""
    shown = [(name, share, color) for name, share, color in slices if share > 0]
    axes.set_title(title, fontsize=9)
    if not shown:
        axes.text(0.5, 0.5, "none", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    wedges, *_ = axes.pie(
        [share for _, share, _ in shown],
        colors=[color for _, _, color in shown],
        startangle=90,
        counterclock=False,
        wedgeprops={"width": 0.42, "edgecolor": "white", "linewidth": 0.8},
    )
    axes.legend(
        wedges,
        [f"{name} {100 * share:.1f} %" for name, share, _ in shown],
        loc="center left",
        bbox_to_anchor=(0.98, 0.5),
        fontsize=7,
        frameon=False,
    )
