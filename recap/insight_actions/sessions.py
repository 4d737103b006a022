"""``action=sessions``: how often clients resist, session by session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from recap.analysis.correction import CorrectedShares
from recap.analysis.sessions import (
    AfterAct,
    Development,
    Prevalence,
    SessionCounts,
    after_acts,
    count_sessions,
    development,
    prevalence,
)
from recap.errors import ConfigError, quote_id
from recap.insight_actions.correction import corrected, correction_notes
from recap.insight_actions.options import FEW_UNITS, InsightsConfig
from recap.insight_actions.session_pictures import donuts, timeline_marks
from recap.insight_actions.session_tables import (
    acts_sheet,
    corrected_sheet,
    development_sheet,
    labels_sheet,
    overview_sheet,
)
from recap.insight_actions.source import Source, read_source
from recap.reporting.findings import Findings
from recap.reporting.session_charts import development_chart, donut_chart, timeline_chart


@dataclass(frozen=True, kw_only=True)
class SessionFindings:
    """All that the action computes."""

    overall: Prevalence
    by_group: Mapping[str, Prevalence]
    over_time: Development
    acts: tuple[AfterAct, ...]
    sessions: tuple[SessionCounts, ...]
    corrected: CorrectedShares | None
    timeline: str


def find_sessions(config: InsightsConfig) -> Findings:
    """Return the prevalence of every behaviour in annotated or predicted sessions.

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
    return Findings(
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


def _compute(config: InsightsConfig, source: Source) -> SessionFindings:
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
    return SessionFindings(
        overall=prevalence(sessions, chosen, **options),
        by_group={name: prevalence(group, chosen, **options) for name, group in groups.items()},
        over_time=development(utterances, labels, resistant, bins=config.sessions.bins, **options),
        acts=after_acts(utterances, labels, resistant, **options),
        sessions=sessions,
        corrected=corrected(config, source) if config.sessions.confusion is not None else None,
        timeline=_timeline(config, sessions),
    )


def _groups(
    config: InsightsConfig, source: Source, sessions: tuple[SessionCounts, ...]
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
            f"sessions.timeline: no session {quote_id(wanted)} has labelled utterances"
        )
    return wanted


def _figures(config: InsightsConfig, source: Source, found: SessionFindings) -> dict[str, Any]:
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


def _session_row(session: SessionCounts, source: Source) -> dict[str, Any]:
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


def _notes(config: InsightsConfig, source: Source, found: SessionFindings) -> list[str]:
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
        f"Resistant: {', '.join(source.behaviors) or 'no label'}. Distinct behaviours: different "
        "resistant labels in a session, its mean over all sessions."
    )
    if found.corrected is not None:
        notes += correction_notes(config, source, found.corrected)
    return notes
