"""How often clients resist: per session, per behavior, over a session, after what.

The quantities of Section 7 of the paper and the left of its Figure 2, with intervals over clients
or sessions (:mod:`recap.statistics.clusters`).

Prevalence is corrected for a classifier's errors from its confusion matrix. A classifier that errs
gives each label a share that is mixed from the true shares: with ``M[i, j]`` the probability that
it answers ``j`` where ``i`` is right, the observed shares are ``q = p M``. Solving for ``p`` needs
no gold label of the sessions at hand; it assumes that the classifier errs there as it did where the
matrix was counted (only the shares may differ: prior-probability shift). Two solutions are given:

* ``inverse``: ``p = q M^-1``, the adjusted count (Rogan & Gladen 1978, Estimating prevalence from
  the results of a screening test, for two labels; Forman 2008, Quantifying counts and costs via
  classification, for many), with the column of unparsed answers left out of ``q`` and ``M``. It
  may leave the range 0 to 1.
* ``em``: the shares of largest likelihood, found by expectation-maximization, which stay in the
  range (Saerens, Latinne & Decaestecker 2002, Adjusting the outputs of a classifier to new a priori
  probabilities, applied to answered labels in place of posteriors; the multinomial likelihood of
  Vucetic & Obradovic 2001, Classification on data with biased class distribution). Both agree
  wherever the inverse lies inside the range and no answer is unparsed.

The interval leaves out each cluster of the sessions and each example of the matrix in turn: the two
are independent samples, and their variances add up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from recap.data.utterances import Utterance
from recap.errors import DataError
from recap.metrics.scalar import Floats
from recap.statistics.clusters import (
    FEWEST_CLUSTERS,
    Clusters,
    Interval,
    from_left_out,
    jackknife,
    share_of,
)


@dataclass(frozen=True, kw_only=True)
class SessionCounts:
    """The labeled utterances of one session, counted."""

    session: str
    client: str | None
    counselor: str | None = None
    counts: tuple[int, ...]
    """Utterances of each label, in the order of ``labels``."""
    resistant: int

    @property
    def n(self) -> int:
        """Labeled utterances."""
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
class Part:
    """Some of the utterances, of all sessions together, and how many of them are resistant."""

    n: int
    resistant: int
    share: Interval
    counts: tuple[int, ...]
    """Utterances of each label, in the order of ``labels``."""


def count_sessions(
    utterances: Sequence[Utterance], labels: Sequence[str], is_resistant: Callable[[str], bool]
) -> tuple[SessionCounts, ...]:
    """Return the counts of each session that has a labeled utterance, in order of appearance."""
    place = {label: index for index, label in enumerate(labels)}
    counts: dict[str, Counter[str]] = {}
    people: dict[str, tuple[str | None, str | None]] = {}
    for utterance in utterances:
        if utterance.label is not None:
            counts.setdefault(utterance.session, Counter())[utterance.label] += 1
            people.setdefault(utterance.session, (utterance.client, utterance.counselor))
    return tuple(
        SessionCounts(
            session=session,
            client=people[session][0],
            counselor=people[session][1],
            counts=tuple(count[label] for label in place),
            resistant=sum(n for label, n in count.items() if is_resistant(label)),
        )
        for session, count in counts.items()
    )


def prevalence(
    sessions: Sequence[SessionCounts],
    resistant_labels: Sequence[bool],
    *,
    confidence: float | None = 0.95,
) -> Prevalence:
    """Return how often resistance occurs, with intervals over clients, else sessions.

    Args:
        sessions: At least one.
        resistant_labels: Of each label, whether it is resistant.
        confidence: Level of the intervals; ``None``: none.
    """
    table = np.array([s.counts for s in sessions], dtype=np.float64)
    resistant = np.array([s.resistant for s in sessions], dtype=np.float64)
    totals = table.sum(axis=1)
    distinct = (table[:, np.asarray(resistant_labels, dtype=bool)] > 0).sum(axis=1)
    possible = max(sum(resistant_labels), 1)
    columns = [resistant / totals, resistant > 0, distinct / possible, np.ones(len(sessions))]
    clusters = Clusters()
    places = [clusters.place(s.session, s.session, (s.client, s.counselor)) for s in sessions]

    def figures(sums: Floats) -> Floats:
        of_sessions, of_utterances = share_of(sums[:, :3], sums[:, [3, 3, 3]]), sums[:, 4:]
        whole = np.broadcast_to(of_utterances[:, [1]], of_utterances.shape)
        return np.delete(np.hstack([of_sessions, share_of(of_utterances, whole)]), 4, axis=1)

    intervals = jackknife(
        clusters.add_up(places, np.column_stack([*columns, resistant, totals, table])),
        figures,
        kind=clusters.kind,
    ).intervals(confidence)
    some = distinct[resistant > 0]
    return Prevalence(
        n_sessions=len(sessions),
        n_utterances=int(totals.sum()),
        n_resistant=int(resistant.sum()),
        mean_session_share=intervals[0],
        share_of_sessions=intervals[1],
        distinct_behaviors=intervals[2].times(possible),
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
    confidence: float | None = 0.95,
) -> tuple[Part, ...]:
    """Return the share of resistance in each of ``bins`` parts of the sessions, of equal length.

    Utterance ``k`` of a session's ``n`` labeled ones, from 0, fills ``k / n`` to ``(k + 1) / n``
    of it and belongs to the part that holds the middle of that; sessions of fewer utterances than
    parts leave some empty.
    """
    by_session: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        if utterance.label is not None:
            by_session.setdefault(utterance.session, []).append(utterance)
    said = [
        (u, bins * (2 * k + 1) // (2 * len(own)))
        for own in by_session.values()
        for k, u in enumerate(own)
    ]
    return _parts(said, bins, labels, is_resistant, confidence)


def after_acts(
    utterances: Sequence[Utterance],
    labels: Sequence[str],
    is_resistant: Callable[[str], bool],
    *,
    confidence: float | None = 0.95,
) -> dict[str, Part]:
    """Return how clients answer each act of the counselor, most frequent acts first.

    Only utterances that directly follow a counselor turn whose act is annotated count.
    """
    known = [u for u in utterances if u.act is not None and u.label is not None]
    acts = [act for act, _ in Counter(str(u.act) for u in known).most_common()]
    place = {act: n for n, act in enumerate(acts)}
    said = [(u, place[str(u.act)]) for u in known]
    return dict(zip(acts, _parts(said, len(acts), labels, is_resistant, confidence), strict=True))


def _parts(
    said: Sequence[tuple[Utterance, int]],
    n: int,
    labels: Sequence[str],
    is_resistant: Callable[[str], bool],
    confidence: float | None,
) -> tuple[Part, ...]:
    """Return each of ``n`` parts, of labeled utterances with the part that they fall in."""
    clusters = Clusters()
    places = [clusters.place(u.id, u.session, (u.client, u.counselor)) for u, _ in said]
    code = {label: place for place, label in enumerate(labels)}
    codes = [part for _, part in said], [code[str(u.label)] for u, _ in said]
    counts = clusters.count(places, *codes, shape=(n, len(labels)))
    chosen = np.array([is_resistant(label) for label in labels], dtype=np.float64)
    part, whole = counts @ chosen, counts.sum(axis=2)
    shares = jackknife(
        np.hstack([part, whole]),
        lambda sums: share_of(sums[:, :n], sums[:, n:]),
        kind=clusters.kind,
        parts=whole > 0,
    ).intervals(confidence)
    return tuple(
        Part(
            n=int(row.sum()),
            resistant=int(row @ chosen),
            share=share,
            counts=tuple(int(x) for x in row),
        )
        for share, row in zip(shares, counts.sum(axis=0), strict=True)
    )


EM_STEPS = 5000
"""Most steps of expectation-maximization."""

EM_TOLERANCE = 1e-10
"""It ends when no share moves further than this in one step."""


@dataclass(frozen=True, kw_only=True)
class CorrectedShare:
    """The share of one label as observed and as corrected."""

    observed: float
    """Among all answers, unparsed ones included."""
    em: Interval
    inverse: float | None
    """``None`` where the matrix has no inverse."""


@dataclass(frozen=True, kw_only=True)
class CorrectedShares:
    """The shares of all labels."""

    condition: float | None
    """Condition number of the matrix: errors of it grow by up to this factor; ``None`` where it has
    no inverse."""
    labels: Mapping[str, CorrectedShare]


def correct_shares(
    answers: npt.ArrayLike,
    confusion: npt.ArrayLike,
    labels: Sequence[str],
    *,
    kind: str = "session",
    confidence: float | None = 0.95,
) -> CorrectedShares:
    """Return the shares of labels corrected for misclassification.

    Args:
        answers: Counts ``(clusters, n_labels + 1)`` of what the classifier said, unparsed answers
            in the last column; at least one answer a cluster.
        confusion: Counts ``(n_labels gold, n_labels + 1 answered)`` over labeled examples, as in
            ``scores.json``, summed over folds.
        labels: Their names.
        kind: What the clusters are.
        confidence: Level of the intervals; ``None``: none.

    Raises:
        DataError: For no answers, labels that the matrix never had, or answers that it never saw.
        ValueError: For shapes that do not fit.
    """
    said, counts = np.asarray(answers, dtype=np.float64), np.asarray(confusion, dtype=np.float64)
    n = len(labels)
    if counts.shape != (n, n + 1) or said.ndim != 2 or said.shape[1] != n + 1:
        raise ValueError(f"{n} labels do not fit shapes {said.shape} and {counts.shape}")
    support = counts.sum(axis=1)
    if missing := [label for label, total in zip(labels, support, strict=True) if not total]:
        raise DataError(
            f"counts no example of {', '.join(missing)}; use a run that has all its labels"
        )
    if not said.sum():
        raise DataError(
            "none of the predicted labels is, or lies below, one of its labels: "
            f"{', '.join(labels)}"
        )
    unseen = (said.sum(axis=0) > 0) & (counts.sum(axis=0) == 0)
    if unseen.any():
        unknown = np.array([*labels, "no readable label"])[unseen]
        raise DataError(
            f"never saw the model answer {', '.join(unknown)}, as it does here; use a confusion "
            "over more examples, from answers that were decoded in the same way"
        )
    rates = counts / support[:, None]
    observed = said.sum(axis=0) / said.sum()
    em = _corrected(said, counts, kind, confidence)
    inverse = inverse_shares(observed[None], rates)[0]
    condition = None if np.isnan(inverse[0]) else float(np.linalg.cond(rates[:, :-1]))
    return CorrectedShares(
        condition=condition,
        labels={
            label: CorrectedShare(
                observed=float(observed[i]),
                em=em[i],
                inverse=None if condition is None else float(inverse[i]),
            )
            for i, label in enumerate(labels)
        },
    )


def _corrected(said: Floats, counts: Floats, kind: str, confidence: float | None) -> list[Interval]:
    """Return the most likely shares; arguments as in :func:`correct_shares`.

    Their intervals reach as far as those of the inverse do, and as those of the most likely shares
    on their own scale: the former hold shares near 0, the latter rare ones of uneven clusters.
    """
    observed, rates = said.sum(axis=0), counts / counts.sum(axis=1, keepdims=True)
    observed /= observed.sum()
    values = np.concatenate(
        [most_likely_shares(observed[None], rates)[0], inverse_shares(observed[None], rates)[0]]
    )
    samples: list[tuple[Floats, Floats]] = []
    if confidence is not None and len(said) >= FEWEST_CLUSTERS:
        left = said.sum(axis=0) - said
        shares = share_of(left, np.broadcast_to(left.sum(axis=1, keepdims=True), left.shape))
        cells = np.argwhere(counts > 0)
        fewer = np.repeat(counts[None], len(cells), axis=0)
        fewer[np.arange(len(cells)), cells[:, 0], cells[:, 1]] -= 1
        fewer = share_of(fewer, np.broadcast_to(fewer.sum(axis=2, keepdims=True), fewer.shape))
        again = np.tile(observed, (len(cells), 1))
        for q, m, often in (
            (shares, rates, np.ones(len(said))),
            (again, fewer, counts[tuple(cells.T)]),
        ):
            samples.append((np.hstack([most_likely_shares(q, m), inverse_shares(q, m)]), often))
    n = len(counts)
    found = from_left_out(
        values, samples, kind, np.full(2 * n, len(said)), ["share"] * n + ["any"] * n
    )
    every = found.intervals(confidence)
    return [_hull(em, inverse) for em, inverse in zip(every[:n], every[n:], strict=True)]


def _hull(em: Interval, inverse: Interval) -> Interval:
    """Return the first figure with what both intervals hold of the range 0 to 1."""
    if inverse.interval is None or em.value is None:
        return replace(em, low=None, high=None, reason=em.reason or inverse.reason)
    ends = [*np.clip(inverse.interval, 0, 1).tolist(), em.value, *(em.interval or ())]
    return replace(em, low=min(ends), high=max(ends), reason=None)


def most_likely_shares(observed: Floats, rates: Floats) -> Floats:
    """Return the shares under which the observed answers are most likely, for many cases at once.

    Args:
        observed: Shares of answers ``(cases, answers)``.
        rates: ``(cases, labels, answers)``: of each gold label, the share of each answer; or
            ``(labels, answers)``, the same ones for all cases.

    Returns:
        Shares ``(cases, labels)`` that add up to 1; NaN where no label can have given any of the
        answers.
    """
    shares = np.full((len(observed), rates.shape[-2]), 1 / rates.shape[-2])
    each = np.broadcast_to(rates, (len(observed), *rates.shape[-2:]))
    for _ in range(EM_STEPS):
        expected = np.einsum("cl,cla->ca", shares, each)
        ratio = np.divide(observed, expected, out=np.zeros_like(expected), where=expected > 0)
        moved = shares * np.einsum("ca,cla->cl", ratio, each)
        total = moved.sum(axis=1, keepdims=True)
        moved = np.divide(moved, total, out=np.full_like(moved, np.nan), where=total > 0)
        done = not bool((np.abs(moved - shares) >= EM_TOLERANCE).any())
        shares = moved
        if done:
            break
    return shares


def inverse_shares(observed: Floats, rates: Floats) -> Floats:
    """Return ``(cases, labels)``: the adjusted count, NaN where there is none.

    Unreadable answers are no label: shares are of those that could be read, under rates of the same
    kind, which together need not add up to one before they are scaled.

    Args:
        observed: Shares of answers ``(cases, answers)``, unparsed ones in the last column.
        rates: As in :func:`most_likely_shares`.
    """
    square = np.broadcast_to(rates, (len(observed), *rates.shape[-2:]))[:, :, :-1]
    # A product with more than about 13 digits lost is noise, not a solution.
    known = np.flatnonzero(np.isfinite(square).all(axis=(1, 2)))
    sound = known[np.linalg.cond(square[known]) < 1e13]
    solved: Floats = np.full(square.shape[:2], np.nan)
    matrices, answers = square[sound].swapaxes(1, 2), observed[sound, :-1, None]
    solved[sound] = np.linalg.solve(matrices, answers)[:, :, 0]
    total = solved.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(solved, total, out=solved, where=total != 0))
