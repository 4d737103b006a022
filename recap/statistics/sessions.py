"""How often clients resist: per session, per behavior, over a session, after what.

The quantities of Section 7 of the paper and the left of its Figure 2, with intervals that resample
whole sessions, since utterances of one session resemble each other.

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

The interval resamples sessions and, each time, the examples behind every row of the matrix.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recap.data.utterances import Utterance
from recap.errors import DataError
from recap.metrics.scalar import Floats
from recap.statistics.bootstrap import Interval, bootstrap, resampled, share_of, with_intervals


@dataclass(frozen=True, kw_only=True)
class SessionCounts:
    """The labeled utterances of one session, counted."""

    session: str
    client: str | None
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

    intervals = bootstrap(
        figures, len(sessions), resamples=resamples, confidence=confidence, seed=seed
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
) -> tuple[Part, ...]:
    """Return the share of resistance in each of ``bins`` parts of the sessions, of equal length.

    Utterance ``k`` of a session's ``n`` labeled ones, from 0, fills ``k / n`` to ``(k + 1) / n``
    of it and belongs to the part that holds the middle of that; sessions of fewer utterances than
    parts leave some empty.
    """
    by_session: dict[str, list[str]] = {}
    for utterance in utterances:
        if utterance.label is not None:
            by_session.setdefault(utterance.session, []).append(utterance.label)
    counts = np.zeros((len(by_session), bins, len(labels)))
    for row, said in enumerate(by_session.values()):
        for k, label in enumerate(said):
            counts[row, bins * (2 * k + 1) // (2 * len(said)), labels.index(label)] += 1
    chosen = np.array([is_resistant(label) for label in labels], dtype=np.float64)
    return _parts(counts, chosen, resamples=resamples, confidence=confidence, seed=seed)


def after_acts(
    utterances: Sequence[Utterance],
    labels: Sequence[str],
    is_resistant: Callable[[str], bool],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Part]:
    """Return how clients answer each act of the counselor, most frequent acts first.

    Only utterances that directly follow a counselor turn whose act is annotated count.
    """
    known = [
        (u.session, u.act, u.label) for u in utterances if u.act is not None and u.label is not None
    ]
    acts = [act for act, _ in Counter(act for _, act, _ in known).most_common()]
    rows = {name: row for row, name in enumerate(dict.fromkeys(name for name, _, _ in known))}
    counts = np.zeros((len(rows), len(acts), len(labels)))
    for session, act, label in known:
        counts[rows[session], acts.index(act), labels.index(label)] += 1
    chosen = np.array([is_resistant(label) for label in labels], dtype=np.float64)
    parts = _parts(counts, chosen, resamples=resamples, confidence=confidence, seed=seed)
    return dict(zip(acts, parts, strict=True))


def _parts(
    counts: Floats, chosen: Floats, *, resamples: int, confidence: float, seed: int
) -> tuple[Part, ...]:
    """Return each part of ``counts``, ``(sessions, parts, labels)``; ``chosen`` are resistant."""
    part, whole = counts @ chosen, counts.sum(axis=2)
    shares = bootstrap(
        lambda weights: share_of(weights @ part, weights @ whole),
        len(counts),
        resamples=resamples,
        confidence=confidence,
        seed=seed,
    )
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
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> CorrectedShares:
    """Return the shares of labels corrected for misclassification.

    Args:
        answers: Counts ``(sessions, n_labels + 1)`` of what the classifier said, unparsed answers
            in the last column; at least one answer a session.
        confusion: Counts ``(n_labels gold, n_labels + 1 answered)`` over labeled examples, as in
            ``scores.json``, summed over folds.
        labels: Their names.
        resamples: Of the bootstrap; 0 gives no intervals.
        confidence: Level of the intervals.
        seed: Of the bootstrap.

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
    sessions = len(said)

    def draw(rng: np.random.Generator, size: int) -> Floats:
        drawn = resampled(rng, sessions, size) @ said
        errors = np.stack(
            [
                rng.multinomial(int(total), row, size=size) / total
                for total, row in zip(support, rates, strict=True)
            ],
            axis=1,
        )
        return most_likely_shares(drawn / drawn.sum(axis=1, keepdims=True), errors)

    em = with_intervals(
        most_likely_shares(observed[None], rates[None])[0],
        draw,
        resamples=resamples,
        confidence=confidence,
        seed=seed,
    )
    square, readable = rates[:, :-1], observed[:-1]
    condition = float(np.linalg.cond(square))
    # A product with more than about 13 digits lost is noise, not a solution.
    invertible = condition < 1e13
    inverse = _inverse(square, readable) if invertible else [None] * n
    return CorrectedShares(
        condition=condition if invertible else None,
        labels={
            label: CorrectedShare(observed=float(readable[i]), em=em[i], inverse=inverse[i])
            for i, label in enumerate(labels)
        },
    )


def most_likely_shares(observed: Floats, rates: Floats) -> Floats:
    """Return the shares under which the observed answers are most likely, for many cases at once.

    Args:
        observed: Shares of answers ``(cases, answers)``.
        rates: ``(cases, labels, answers)``: of each gold label, the share of each answer.

    Returns:
        Shares ``(cases, labels)`` that add up to 1; NaN where no label can have given any of the
        answers.
    """
    shares = np.full(rates.shape[:2], 1 / rates.shape[1])
    for _ in range(EM_STEPS):
        expected = np.einsum("cl,cla->ca", shares, rates)
        ratio = np.divide(observed, expected, out=np.zeros_like(expected), where=expected > 0)
        moved = shares * np.einsum("ca,cla->cl", ratio, rates)
        total = moved.sum(axis=1, keepdims=True)
        moved = np.divide(moved, total, out=np.full_like(moved, np.nan), where=total > 0)
        done = not bool((np.abs(moved - shares) >= EM_TOLERANCE).any())
        shares = moved
        if done:
            break
    return shares


def _inverse(square: Floats, observed: Floats) -> list[float | None]:
    # Unreadable answers are no label: shares are of those that could be read, under rates of the
    # same kind, which together need not add up to one before they are scaled.
    solved = np.linalg.solve(square.T, observed)
    total = solved.sum()
    return list((solved / total if total else solved).tolist())
