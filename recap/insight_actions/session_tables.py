"""Tables of ``action=sessions``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recap.analysis.correction import CorrectedShares
from recap.analysis.intervals import Interval
from recap.analysis.sessions import AfterAct, Development, Prevalence
from recap.reporting.sheets import Sheet
from recap.taxonomy import Taxonomy

_DASH = "–"


def overview_sheet(overall: Prevalence, groups: Mapping[str, Prevalence], marked: str) -> Sheet:
    """Return how often resistance occurs, one column for all and one for each group."""
    columns = {"all": overall, **groups}
    lines: list[tuple[str, list[str]]] = [
        ("sessions", [f"{p.n_sessions:,}" for p in columns.values()]),
        ("labelled client utterances", [f"{p.n_utterances:,}" for p in columns.values()]),
        ("resistant utterances", [f"{p.n_resistant:,}" for p in columns.values()]),
        ("share of utterances, %", [percent(p.share_of_utterances) for p in columns.values()]),
        ("mean share per session, %", [percent(p.mean_session_share) for p in columns.values()]),
        ("sessions with any, %", [percent(p.share_of_sessions) for p in columns.values()]),
        ("distinct behaviours", [plain(p.distinct_behaviors) for p in columns.values()]),
    ]
    return Sheet(
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
) -> Sheet:
    """Return the share of each label, and that of each behaviour among resistant utterances."""
    resistant = overall.n_resistant
    rows = []
    for label, share in zip(labels, overall.label_shares, strict=True):
        n = round((share.value or 0) * overall.n_utterances)
        among = f"{100 * n / resistant:.1f}" if label in behaviors and resistant else _DASH
        rows.append((taxonomy.written(label), f"{n:,}", percent(share), among))
    return Sheet(
        title=f"Labels{marked}",
        header=("label", "utterances", "of all, %", "of resistant, %"),
        rows=tuple(rows),
    )


def development_sheet(found: Development, marked: str) -> Sheet:
    """Return the share of resistance in each part of the sessions."""
    rows = [
        (f"{index + 1}", f"{n:,}", percent(share))
        for index, (n, share) in enumerate(zip(found.n_utterances, found.share, strict=True))
    ]
    return Sheet(
        title=f"Development over the session, in {len(rows)} equal parts{marked}",
        header=("part", "utterances", "resistant, %"),
        rows=tuple(rows),
    )


def acts_sheet(
    acts: Sequence[AfterAct], labels: Sequence[str], behaviors: Sequence[str], marked: str
) -> Sheet:
    """Return what clients do right after each act of the counsellor."""
    rows = []
    for act in acts:
        counts = dict(zip(labels, act.counts, strict=True))
        ranked = sorted((b for b in behaviors if counts[b]), key=lambda b: -counts[b])
        most = f"{ranked[0]} ({counts[ranked[0]]})" if ranked else _DASH
        rows.append((act.act, f"{act.n:,}", f"{act.resistant:,}", percent(act.share), most))
    return Sheet(
        title=f"After the counsellor's act{marked}",
        header=("act", "utterances", "resistant", "resistant, %", "most often"),
        rows=tuple(rows),
    )


def corrected_sheet(found: CorrectedShares) -> Sheet:
    """Return shares as answered and as corrected for misclassification."""
    rows = [
        (
            label,
            f"{100 * found.observed[i]:.1f}",
            percent(found.em[i]),
            _DASH if found.inverse is None else f"{100 * found.inverse[i]:.1f}",
        )
        for i, label in enumerate(found.labels)
    ]
    return Sheet(
        title="Shares corrected for misclassification, %",
        header=("label", "as answered", "corrected (EM)", "matrix inverse"),
        rows=tuple(rows),
    )


def percent(interval: Interval) -> str:
    """Return a share in per cent with its interval."""
    return _with_ends(interval, 100, 1)


def plain(interval: Interval) -> str:
    """Return a figure with its interval."""
    return _with_ends(interval, 1, 2)


def _with_ends(interval: Interval, scale: int, digits: int) -> str:
    if interval.value is None:
        return _DASH
    value = f"{scale * interval.value:.{digits}f}"
    if interval.low is None or interval.high is None:
        return value
    return f"{value} [{scale * interval.low:.{digits}f}, {scale * interval.high:.{digits}f}]"
