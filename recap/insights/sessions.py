"""``action=sessions``: how often clients resist, session by session.

Prevalence can be corrected for misclassification, with the confusion of a run's folds. Figures are
two donuts as in Figure 2 of the paper, the development over sessions, and one session's line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recap.data.names import identity, is_missing
from recap.data.utterances import Utterance
from recap.errors import ConfigError, DataError, quote_id
from recap.insights.options import FEW_UNITS, InsightsConfig
from recap.insights.source import AnnotatedSource, read_source
from recap.metrics.files import scores_from_dict
from recap.output.charts import open_axes
from recap.output.format import DASH, percent, percent_with_ends, with_ends
from recap.output.report import Report
from recap.output.tables import ReportTable, table_of
from recap.statistics.bootstrap import Interval
from recap.statistics.sessions import (
    AfterAct,
    CorrectedShares,
    Development,
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
    """Return how often resistance occurs, one column for all and one for each group."""
    lines: dict[str, Callable[[Prevalence], str]] = {
        "sessions": lambda p: f"{p.n_sessions:,}",
        "labeled client utterances": lambda p: f"{p.n_utterances:,}",
        "resistant utterances": lambda p: f"{p.n_resistant:,}",
        "share of utterances, %": lambda p: _percent(p.share_of_utterances),
        "mean share per session, %": lambda p: _percent(p.mean_session_share),
        "sessions with any, %": lambda p: _percent(p.share_of_sessions),
        "distinct behaviors": lambda p: with_ends(*_ends(p.distinct_behaviors)),
    }
    columns = {"all": overall, **groups}
    return ReportTable(
        title=f"Resistance per session{marked}",
        header=("what", *columns),
        rows=tuple((name, *map(line, columns.values())) for name, line in lines.items()),
    )


def _labels(overall: Prevalence, source: AnnotatedSource, marked: str) -> ReportTable:
    """Return the share of each label, and that of each behavior among resistant utterances."""
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


def _development(found: Development, marked: str) -> ReportTable:
    """Return the share of resistance in each part of the sessions."""
    parts = range(len(found.share))
    return table_of(
        f"Development over the session, in {len(parts)} equal parts{marked}",
        parts,
        {
            "part": lambda i: f"{i + 1}",
            "utterances": lambda i: f"{found.n_utterances[i]:,}",
            "resistant, %": lambda i: _percent(found.share[i]),
        },
    )


def _acts(acts: Sequence[AfterAct], source: AnnotatedSource, marked: str) -> ReportTable:
    """Return what clients do right after each act of the counselor."""

    def most(act: AfterAct) -> str:
        counts = dict(zip(source.labels, act.counts, strict=True))
        ranked = sorted((b for b in source.behaviors if counts[b]), key=lambda b: -counts[b])
        return f"{ranked[0]} ({counts[ranked[0]]})" if ranked else DASH

    return table_of(
        f"After the counselor's act{marked}",
        acts,
        {
            "act": lambda act: act.act,
            "utterances": lambda act: f"{act.n:,}",
            "resistant": lambda act: f"{act.resistant:,}",
            "resistant, %": lambda act: _percent(act.share),
            "most often": most,
        },
    )


def _corrected_shares(found: CorrectedShares) -> ReportTable:
    """Return shares as answered and as corrected for misclassification."""
    inverse = found.inverse
    return table_of(
        "Shares corrected for misclassification, %",
        range(len(found.labels)),
        {
            "label": lambda i: found.labels[i],
            "as answered": lambda i: percent(found.observed[i], 1),
            "corrected (EM)": lambda i: _percent(found.em[i]),
            "matrix inverse": lambda i: DASH if inverse is None else percent(inverse[i], 1),
        },
    )


def _ends(interval: Interval) -> tuple[float | None, float | None, float | None]:
    return interval.value, interval.low, interval.high


def _percent(interval: Interval) -> str:
    return percent_with_ends(*_ends(interval))


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
            raise DataError(f"{file}: cannot be read as JSON ({type(error).__name__})") from error
        if not isinstance(data, dict):
            raise DataError(f"{file}: is no scores.json")
        scores.append(scores_from_dict(data, source=str(file)))
    if any(score.labels != scores[0].labels for score in scores):
        raise DataError(f"{path}: its folds have different labels; name one run")
    return scores[0].labels, np.sum([score.confusion for score in scores], axis=0)


def _correct(config: InsightsConfig, source: AnnotatedSource) -> CorrectedShares:
    """Return the shares of a run's labels, corrected for the errors of its folds.

    Labels of the utterances count as the run's label at or above them, so that the confusion of a
    binary run corrects a cascade's answers too. Utterances under none of the run's labels are left
    out.

    Raises:
        ConfigError: When labels were annotated, not predicted.
        DataError: When the confusion does not fit.
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
    seen = confusion.sum(axis=1) > 0
    if not seen.all():
        missing = ", ".join(label for label, there in zip(labels, seen, strict=True) if not there)
        raise DataError(
            f"{path}: counts no example of {missing}; use a run that has all its labels"
        )
    answers = _answers(source.annotated.utterances, labels, source.taxonomy)
    if not answers.sum():
        raise DataError(
            f"{path}: none of the predicted labels is, or lies below, one of its labels: "
            f"{', '.join(labels)}"
        )
    unseen = (answers.sum(axis=0) > 0) & (confusion.sum(axis=0) == 0)
    if unseen.any():
        names = [*labels, "no readable label"]
        unknown = ", ".join(name for name, is_new in zip(names, unseen, strict=True) if is_new)
        raise DataError(
            f"{path}: never saw the model answer {unknown}, as it does here; use a confusion over "
            "more examples, from answers that were decoded in the same way"
        )
    return correct_shares(
        answers,
        confusion,
        labels,
        resamples=config.resamples,
        confidence=config.confidence,
        seed=config.seed,
    )


def _correction_notes(
    config: InsightsConfig, source: AnnotatedSource, found: CorrectedShares
) -> list[str]:
    """Return what the correction rests on."""
    answers = _answers(source.annotated.utterances, found.labels, source.taxonomy)
    left_out = len(source.annotated.utterances) - int(answers.sum())
    how = (
        "Corrected shares: the shares under which the answers are most likely given the errors in "
        f"{config.sessions.confusion} (EM; Saerens et al. 2002, Vucetic and Obradovic 2001), and "
        "the adjusted count by the inverse of the confusion matrix (Rogan and Gladen 1978, Forman "
        "2008). They hold if the model errs here as it did in its folds, decoded in the same way. "
        "Intervals resample sessions and the examples of the confusion."
    )
    notes = [how]
    if found.condition is not None and found.condition > _ILL_CONDITIONED:
        notes.append(
            f"The confusion matrix is nearly singular (condition number {found.condition:.0f}): "
            "the model confuses labels so much that corrected shares are uncertain."
        )
    if found.inverse is None:
        notes.append("The confusion matrix has no inverse: labels are not told apart.")
    if left_out:
        notes.append(
            f"{left_out} utterances have labels that the confusion does not know: corrected shares "
            "are among the others, as if that part of the labeling were right."
        )
    return notes


_ILL_CONDITIONED = 30
"""A rule of thumb for condition numbers (Belsley, Kuh and Welsch 1980, Regression diagnostics)."""


def _answers(
    utterances: Sequence[Utterance], labels: Sequence[str], taxonomy: Taxonomy
) -> np.ndarray:
    """Return counts ``(sessions, n_labels + 1)``, answers without a label in the last column."""
    rows: dict[str, np.ndarray] = {}
    for utterance in utterances:
        above = () if utterance.label is None else taxonomy.lineage(utterance.label)
        place = next((labels.index(label) for label in above if label in labels), None)
        if place is None and utterance.label is not None:
            continue
        row = rows.setdefault(utterance.session, np.zeros(len(labels) + 1))
        row[len(labels) if place is None else place] += 1
    return np.array(list(rows.values())).reshape(-1, len(labels) + 1)


@dataclass(frozen=True, kw_only=True)
class SessionReport:
    """All that the action computes."""

    overall: Prevalence
    by_group: Mapping[str, Prevalence]
    over_time: Development
    acts: tuple[AfterAct, ...]
    sessions: tuple[SessionCounts, ...]
    corrected: CorrectedShares | None
    timeline: str


def find_sessions(config: InsightsConfig) -> Report:
    """Return the prevalence of every behavior in annotated or predicted sessions.

    Raises:
        DataError: When a file cannot be used.
        ConfigError: When an option does not fit the data.
    """
    source = read_source(config)
    found = _compute(config, source)
    predicted = " (predicted labels)" if source.annotated.predicted else ""
    sheets = [
        _overview(found.overall, found.by_group, predicted),
        _labels(found.overall, source, predicted),
        _development(found.over_time, predicted),
    ]
    if found.acts:
        sheets.append(_acts(found.acts, source, predicted))
    if found.corrected is not None:
        sheets.append(_corrected_shares(found.corrected))
    return Report(
        action="sessions",
        title=f"Resistance in the sessions of {source.annotated.name}{predicted}",
        figures=_figures(config, source, found),
        sheets=tuple(sheets),
        notes=tuple(_notes(config, source, found)),
        rows=[_session_row(session, source) for session in found.sessions],
        private=True,
        charts={
            "sessions": partial(
                donut_chart, *donuts(source, found.overall), note=predicted.strip()
            ),
            "sessions_development": partial(
                development_chart,
                list(map(_ends, found.over_time.share)),
                note=predicted.strip(),
            ),
            "sessions_timeline": partial(
                timeline_chart,
                timeline_marks(source, found.timeline),
                title=f"session {found.timeline}{predicted}",
            ),
        },
    )


def _compute(config: InsightsConfig, source: AnnotatedSource) -> SessionReport:
    utterances, labels = source.annotated.utterances, source.labels
    resistant = source.is_resistant
    options: dict[str, Any] = {
        "resamples": config.resamples,
        "confidence": config.confidence,
        "seed": config.seed,
    }
    sessions = count_sessions(utterances, labels, resistant)
    chosen = [resistant(label) for label in labels]
    groups = _groups(config, source, sessions)
    return SessionReport(
        overall=prevalence(sessions, chosen, **options),
        by_group={name: prevalence(group, chosen, **options) for name, group in groups.items()},
        over_time=development(utterances, labels, resistant, bins=config.sessions.bins, **options),
        acts=after_acts(utterances, labels, resistant, **options),
        sessions=sessions,
        corrected=_correct(config, source) if config.sessions.confusion is not None else None,
        timeline=_timeline(config, sessions),
    )


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
    return {
        "data": source.annotated.name,
        "predicted": source.annotated.predicted,
        "labels": list(labels),
        "resistant_labels": list(source.behaviors),
        "counts": dict(source.annotated.counts),
        **_prevalence(found.overall, labels),
        "by": None
        if config.sessions.by is None
        else {
            "field": config.sessions.by,
            "groups": {name: _prevalence(p, labels) for name, p in found.by_group.items()},
        },
        "development": [
            {
                "part": index + 1,
                "n_utterances": found.over_time.n_utterances[index],
                "share": asdict(share),
                "label_shares": dict(zip(labels, found.over_time.label_shares[index], strict=True)),
            }
            for index, share in enumerate(found.over_time.share)
        ],
        "after_acts": [
            {
                "act": act.act,
                "n": act.n,
                "n_resistant": act.resistant,
                "share": asdict(act.share),
                "counts": dict(zip(labels, act.counts, strict=True)),
            }
            for act in found.acts
        ],
        "corrected": None if found.corrected is None else _corrected(found.corrected),
        "timeline": {
            "session": found.timeline,
            "utterances": [
                {"turn": mark.place, "label": mark.label, "resistant": mark.resistant}
                for mark in timeline_marks(source, found.timeline)
            ],
        },
        "resamples": config.resamples,
        "confidence": config.confidence,
        "seed": config.seed,
    }


def _prevalence(found: Prevalence, labels: tuple[str, ...]) -> dict[str, Any]:
    figures = asdict(found)
    shares = figures.pop("label_shares")
    return {**figures, "label_shares": dict(zip(labels, shares, strict=True))}


def _corrected(found: CorrectedShares) -> dict[str, Any]:
    return {
        "condition": found.condition,
        "labels": {
            label: {
                "observed": found.observed[i],
                "em": asdict(found.em[i]),
                "inverse": None if found.inverse is None else found.inverse[i],
            }
            for i, label in enumerate(found.labels)
        },
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


def _notes(config: InsightsConfig, source: AnnotatedSource, found: SessionReport) -> list[str]:
    notes = source.annotated.notes()
    level = f"{100 * config.confidence:g} %"
    if config.resamples and len(found.sessions) > 1:
        notes.append(
            f"Intervals: {level}, percentiles of {config.resamples} bootstrap resamples of whole "
            f"sessions, seed {config.seed}."
        )
        if len(found.sessions) < FEW_UNITS:
            notes.append(f"With so few sessions ({len(found.sessions)}) the intervals are rough.")
    notes.append(
        f"Resistant: {', '.join(source.behaviors) or 'no label'}. Distinct behaviors: different "
        "resistant labels in a session, its mean over all sessions."
    )
    if found.corrected is not None:
        notes += _correction_notes(config, source, found.corrected)
    return notes


LINE_COLOR = "#b2452c"


Slice = tuple[str, float, str]
"""One part of a donut: its name, its share and its color."""


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


def donuts(source: AnnotatedSource, overall: Prevalence) -> tuple[list[Slice], list[Slice]]:
    """Return the parts of both donuts: resistance among all, behaviors among resistant ones."""
    shares = dict(zip(source.labels, (i.value or 0.0 for i in overall.label_shares), strict=True))
    behaviors = source.behaviors
    resistant = sum(shares[label] for label in behaviors)
    others = [label for label in source.labels if label not in behaviors]
    name = source.resistance[0] if len(source.resistance) == 1 else "Resistance"
    whole = [(name, resistant, source.color(source.resistance[0]))]
    whole += [(other, shares[other], source.color(other)) for other in others]
    parts = [(b, shares[b] / resistant, source.color(b)) for b in behaviors if shares[b]]
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
