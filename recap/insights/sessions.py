"""``action=sessions``: how often clients resist, session by session.

Prevalence can be corrected for misclassification, with the confusion of a run's folds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from recap.data.utterances import Utterance
from recap.errors import ConfigError, DataError, quote_id
from recap.insights.options import FEW_UNITS, InsightsConfig
from recap.insights.session_charts import (
    development_chart,
    donut_chart,
    donuts,
    timeline_chart,
    timeline_marks,
)
from recap.insights.source import AnnotatedSource, read_source
from recap.metrics.files import scores_from_dict
from recap.output.format import DASH, percent, percent_with_ends, with_ends
from recap.output.report import Report
from recap.output.tables import ReportTable
from recap.records import Scores
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


def overview_sheet(
    overall: Prevalence, groups: Mapping[str, Prevalence], marked: str
) -> ReportTable:
    """Return how often resistance occurs, one column for all and one for each group."""
    columns = {"all": overall, **groups}
    lines = [
        ("sessions", [f"{p.n_sessions:,}" for p in columns.values()]),
        ("labeled client utterances", [f"{p.n_utterances:,}" for p in columns.values()]),
        ("resistant utterances", [f"{p.n_resistant:,}" for p in columns.values()]),
        ("share of utterances, %", [_percent(p.share_of_utterances) for p in columns.values()]),
        ("mean share per session, %", [_percent(p.mean_session_share) for p in columns.values()]),
        ("sessions with any, %", [_percent(p.share_of_sessions) for p in columns.values()]),
        ("distinct behaviors", [_figure(p.distinct_behaviors) for p in columns.values()]),
    ]
    return ReportTable(
        title=f"Resistance per session{marked}",
        header=("what", *columns),
        rows=tuple((name, *cells) for name, cells in lines),
    )


def labels_sheet(
    overall: Prevalence,
    labels: Sequence[str],
    behaviors: Sequence[str],
    taxonomy: Taxonomy,
    marked: str,
) -> ReportTable:
    """Return the share of each label, and that of each behavior among resistant utterances."""
    resistant = overall.n_resistant
    rows = []
    for label, share in zip(labels, overall.label_shares, strict=True):
        n = round((share.value or 0) * overall.n_utterances)
        among = percent(n / resistant, 1) if label in behaviors and resistant else DASH
        rows.append((taxonomy.written(label), f"{n:,}", _percent(share), among))
    return ReportTable(
        title=f"Labels{marked}",
        header=("label", "utterances", "of all, %", "of resistant, %"),
        rows=tuple(rows),
    )


def development_sheet(found: Development, marked: str) -> ReportTable:
    """Return the share of resistance in each part of the sessions."""
    rows = [
        (f"{index + 1}", f"{n:,}", _percent(share))
        for index, (n, share) in enumerate(zip(found.n_utterances, found.share, strict=True))
    ]
    return ReportTable(
        title=f"Development over the session, in {len(rows)} equal parts{marked}",
        header=("part", "utterances", "resistant, %"),
        rows=tuple(rows),
    )


def acts_sheet(
    acts: Sequence[AfterAct], labels: Sequence[str], behaviors: Sequence[str], marked: str
) -> ReportTable:
    """Return what clients do right after each act of the counselor."""
    rows = []
    for act in acts:
        counts = dict(zip(labels, act.counts, strict=True))
        ranked = sorted((b for b in behaviors if counts[b]), key=lambda b: -counts[b])
        most = f"{ranked[0]} ({counts[ranked[0]]})" if ranked else DASH
        rows.append((act.act, f"{act.n:,}", f"{act.resistant:,}", _percent(act.share), most))
    return ReportTable(
        title=f"After the counselor's act{marked}",
        header=("act", "utterances", "resistant", "resistant, %", "most often"),
        rows=tuple(rows),
    )


def corrected_sheet(found: CorrectedShares) -> ReportTable:
    """Return shares as answered and as corrected for misclassification."""
    rows = [
        (
            label,
            percent(found.observed[i], 1),
            _percent(found.em[i]),
            DASH if found.inverse is None else percent(found.inverse[i], 1),
        )
        for i, label in enumerate(found.labels)
    ]
    return ReportTable(
        title="Shares corrected for misclassification, %",
        header=("label", "as answered", "corrected (EM)", "matrix inverse"),
        rows=tuple(rows),
    )


def _figure(interval: Interval) -> str:
    return with_ends(interval.value, interval.low, interval.high)


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
    scores = [_scores(file) for file in files]
    if any(score.labels != scores[0].labels for score in scores):
        raise DataError(f"{path}: its folds have different labels; name one run")
    return scores[0].labels, np.sum([score.confusion for score in scores], axis=0)


def corrected(config: InsightsConfig, source: AnnotatedSource) -> CorrectedShares:
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


def correction_notes(
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


def _scores(file: Path) -> Scores:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read as JSON ({type(error).__name__})") from error
    if not isinstance(data, dict):
        raise DataError(f"{file}: is no scores.json")
    return scores_from_dict(data, source=str(file))


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
        overview_sheet(found.overall, found.by_group, predicted),
        labels_sheet(found.overall, source.labels, source.behaviors, source.taxonomy, predicted),
        development_sheet(found.over_time, predicted),
    ]
    if found.acts:
        sheets.append(acts_sheet(found.acts, source.labels, source.behaviors, predicted))
    if found.corrected is not None:
        sheets.append(corrected_sheet(found.corrected))
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
                [(i.value, i.low, i.high) for i in found.over_time.share],
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
        corrected=corrected(config, source) if config.sessions.confusion is not None else None,
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
        if fields.get(key) is not None:
            value_of.setdefault(u.session, str(fields[key]))
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
    wanted = config.sessions.timeline
    if wanted is None:
        return max(sessions, key=lambda session: session.resistant).session
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
                "n_utterances": n,
                "share": asdict(share),
                "label_shares": dict(zip(labels, shares, strict=True)),
            }
            for index, (n, share, shares) in enumerate(
                zip(
                    found.over_time.n_utterances,
                    found.over_time.share,
                    found.over_time.label_shares,
                    strict=True,
                )
            )
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
        notes += correction_notes(config, source, found.corrected)
    return notes
