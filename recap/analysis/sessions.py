"""How often clients resist: per session, per behaviour, over a session, after what.

The quantities of Section 7 of the paper and the left of its Figure 2, with intervals that resample
whole sessions, since utterances of one session resemble each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from recap.analysis.intervals import Floats, Interval, resampled, with_intervals
from recap.analysis.utterances import Utterance


@dataclass(frozen=True, kw_only=True)
class SessionCounts:
    """The labelled utterances of one session, counted."""

    session: str
    client: str | None
    counts: tuple[int, ...]
    """Utterances of each label, in the order of ``labels``."""
    resistant: int

    @property
    def n(self) -> int:
        """Labelled utterances."""
        return sum(self.counts)

    @property
    def share(self) -> float:
        """Share of the utterances that are resistant."""
        return self.resistant / self.n


@dataclass(frozen=True, kw_only=True)
class Prevalence:
    """How often resistance occurs, over all utterances and over sessions."""

    n_sessions: int
    n_utterances: int
    n_resistant: int
    share_of_utterances: Interval
    """Resistant utterances among all."""
    mean_session_share: Interval
    """Mean over sessions of their share of resistant utterances."""
    share_of_sessions: Interval
    """Sessions with at least one resistant utterance."""
    distinct_behaviors: Interval
    """Mean over sessions of the number of different resistant labels."""
    distinct_where_any: float | None
    """The same over sessions with at least one."""
    label_shares: tuple[Interval, ...]
    """Utterances of each label among all, in the order of ``labels``."""


@dataclass(frozen=True, kw_only=True)
class Development:
    """Resistance in each part of a session, parts of equal length, all sessions together."""

    n_utterances: tuple[int, ...]
    share: tuple[Interval, ...]
    label_shares: tuple[tuple[float, ...], ...]
    """Of each part, the share of each label in it."""


@dataclass(frozen=True, kw_only=True)
class AfterAct:
    """What clients do right after one act of the counsellor."""

    act: str
    n: int
    resistant: int
    share: Interval
    counts: tuple[int, ...]


def count_sessions(
    utterances: Sequence[Utterance], labels: Sequence[str], is_resistant: Callable[[str], bool]
) -> tuple[SessionCounts, ...]:
    """Return the counts of each session that has a labelled utterance, in order of appearance."""
    place = {label: index for index, label in enumerate(labels)}
    counts: dict[str, Counter[str]] = {}
    clients: dict[str, str | None] = {}
    for utterance in utterances:
        if utterance.label is not None:
            counts.setdefault(utterance.session, Counter())[utterance.label] += 1
            clients.setdefault(utterance.session, utterance.client)
    return tuple(
        SessionCounts(
            session=session,
            client=clients[session],
            counts=tuple(count[label] for label in place),
            resistant=sum(n for label, n in count.items() if is_resistant(label)),
        )
        for session, count in counts.items()
    )


def prevalence(
    sessions: Sequence[SessionCounts],
    resistant_labels: Sequence[bool],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Prevalence:
    """Return how often resistance occurs, with percentile intervals that resample sessions.

    Args:
        sessions: At least one.
        resistant_labels: Of each label, whether it is resistant.
        resamples: Of the bootstrap; with 0, or one session, there are no intervals.
        confidence: Level of the intervals.
        seed: Of the bootstrap.
    """
    table = np.array([s.counts for s in sessions], dtype=np.float64)
    resistant = np.array([s.resistant for s in sessions], dtype=np.float64)
    totals = table.sum(axis=1)
    distinct = (table[:, np.asarray(resistant_labels, dtype=bool)] > 0).sum(axis=1)
    columns = np.column_stack(
        [resistant / totals, resistant > 0, distinct, resistant, totals, table]
    )

    def figures(weights: Floats) -> Floats:
        sums = weights @ columns
        size = weights.sum(axis=1, keepdims=True)
        return np.hstack(
            [sums[:, :3] / size, sums[:, [3]] / sums[:, [4]], sums[:, 5:] / sums[:, [4]]]
        )

    values = figures(np.ones((1, len(sessions))))[0]
    intervals = with_intervals(
        values,
        lambda rng, size: figures(resampled(rng, len(sessions), size)),
        resamples=resamples if len(sessions) > 1 else 0,
        confidence=confidence,
        seed=seed,
    )
    some = distinct[resistant > 0]
    return Prevalence(
        n_sessions=len(sessions),
        n_utterances=int(totals.sum()),
        n_resistant=int(resistant.sum()),
        mean_session_share=intervals[0],
        share_of_sessions=intervals[1],
        distinct_behaviors=intervals[2],
        distinct_where_any=float(some.mean()) if len(some) else None,
        share_of_utterances=intervals[3],
        label_shares=tuple(intervals[4:]),
    )


def development(
    utterances: Sequence[Utterance],
    labels: Sequence[str],
    is_resistant: Callable[[str], bool],
    *,
    bins: int = 10,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Development:
    """Return the share of resistance in each of ``bins`` parts of the sessions.

    Utterance ``k`` of a session's ``n`` labelled ones, from 0, fills ``k / n`` to ``(k + 1) / n``
    of it and belongs to the part that holds the middle of that; sessions of fewer utterances than
    parts leave some empty.
    """
    by_session: dict[str, list[str]] = {}
    for utterance in utterances:
        if utterance.label is not None:
            by_session.setdefault(utterance.session, []).append(utterance.label)
    place = {label: index for index, label in enumerate(labels)}
    counts = np.zeros((len(by_session), bins, len(place)))
    for row, said in enumerate(by_session.values()):
        for k, label in enumerate(said):
            counts[row, bins * (2 * k + 1) // (2 * len(said)), place[label]] += 1
    chosen = np.array([is_resistant(label) for label in labels], dtype=np.float64)
    resistant, totals = counts @ chosen, counts.sum(axis=2)

    def shares(weights: Floats) -> Floats:
        return _share(weights @ resistant, weights @ totals)

    n = len(by_session)
    intervals = with_intervals(
        shares(np.ones((1, n)))[0],
        lambda rng, size: shares(resampled(rng, n, size)),
        resamples=resamples if n > 1 else 0,
        confidence=confidence,
        seed=seed,
    )
    summed = counts.sum(axis=0)
    return Development(
        n_utterances=tuple(int(total) for total in totals.sum(axis=0)),
        share=tuple(intervals),
        label_shares=tuple(
            tuple(float(x) for x in (row / row.sum() if row.sum() else row)) for row in summed
        ),
    )


def after_acts(
    utterances: Sequence[Utterance],
    labels: Sequence[str],
    is_resistant: Callable[[str], bool],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[AfterAct, ...]:
    """Return how clients answer each act of the counsellor, most frequent acts first.

    Only utterances that directly follow a counsellor turn whose act is annotated count.
    """
    known = [u for u in utterances if u.act is not None and u.label is not None]
    acts = [act for act, _ in Counter(str(u.act) for u in known).most_common()]
    sessions = {session: row for row, session in enumerate(dict.fromkeys(u.session for u in known))}
    place = {label: index for index, label in enumerate(labels)}
    counts = np.zeros((len(sessions), len(acts), len(place)))
    at = {act: index for index, act in enumerate(acts)}
    for u in known:
        counts[sessions[u.session], at[str(u.act)], place[str(u.label)]] += 1
    chosen = np.array([is_resistant(label) for label in labels], dtype=np.float64)
    resistant, totals = counts @ chosen, counts.sum(axis=2)

    def shares(weights: Floats) -> Floats:
        return _share(weights @ resistant, weights @ totals)

    n = len(sessions)
    if n == 0:
        return ()
    intervals = with_intervals(
        shares(np.ones((1, n)))[0],
        lambda rng, size: shares(resampled(rng, n, size)),
        resamples=resamples if n > 1 else 0,
        confidence=confidence,
        seed=seed,
    )
    return tuple(
        AfterAct(
            act=act,
            n=int(totals[:, index].sum()),
            resistant=int(resistant[:, index].sum()),
            share=intervals[index],
            counts=tuple(int(x) for x in counts[:, index].sum(axis=0)),
        )
        for act, index in at.items()
    )


def _share(part: Floats, whole: Floats) -> Floats:
    none = np.full(whole.shape, np.nan)
    shares: Floats = np.divide(part, whole, out=none, where=whole > 0)
    return shares
