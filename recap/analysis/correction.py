"""Prevalence corrected for a classifier's errors, from its confusion matrix.

A classifier that errs gives each label a share that is mixed from the true shares: with ``M[i, j]``
the probability that it answers ``j`` where ``i`` is right, the observed shares are ``q = p M``.
Solving for ``p`` needs no gold label of the sessions at hand; it assumes that the classifier errs
there as it did where the matrix was counted (only the shares may differ: prior-probability shift).
Two solutions are given:

* ``inverse``: ``p = q M^-1``, the adjusted count (Rogan & Gladen 1978, Estimating prevalence from
  the results of a screening test, for two labels; Forman 2008, Quantifying counts and costs via
  classification, for many), with the column of unreadable answers left out of ``q`` and ``M``. It
  may leave the range 0 to 1.
* ``em``: the shares of largest likelihood, found by expectation-maximisation, which stay in the
  range (Saerens, Latinne & Decaestecker 2002, Adjusting the outputs of a classifier to new a priori
  probabilities, applied to answered labels in place of posteriors; the multinomial likelihood of
  Vucetic & Obradovic 2001, Classification on data with biased class distribution). Both agree
  wherever the inverse lies inside the range and no answer is unreadable.

The interval resamples sessions and, each time, the examples behind every row of the matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recap.analysis.intervals import Floats, Interval, with_intervals

EM_STEPS = 5000
"""Most steps of expectation-maximisation."""

EM_TOLERANCE = 1e-10
"""It ends when no share moves further than this in one step."""


@dataclass(frozen=True, kw_only=True)
class CorrectedShares:
    """Shares of labels as observed and as corrected, in the order of ``labels``."""

    labels: tuple[str, ...]
    observed: tuple[float, ...]
    """Among all answers, unreadable ones included."""
    em: tuple[Interval, ...]
    inverse: tuple[float, ...] | None
    """``None`` where the matrix has no inverse."""
    condition: float | None
    """Condition number of the matrix: errors of it grow by up to this factor."""


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
        answers: Counts ``(sessions, n_labels + 1)`` of what the classifier said, unreadable answers
            in the last column; at least one answer a session.
        confusion: Counts ``(n_labels gold, n_labels + 1 answered)`` over labelled examples, as in
            ``scores.json``, summed over folds.
        labels: Their names.
        resamples: Of the bootstrap; 0 gives no intervals.
        confidence: Level of the intervals.
        seed: Of the bootstrap.

    Raises:
        ValueError: For shapes that do not fit, no answers, a label that the matrix never had, or an
            answer that it never saw.
    """
    said, counts = np.asarray(answers, dtype=np.float64), np.asarray(confusion, dtype=np.float64)
    n = len(labels)
    if counts.shape != (n, n + 1) or said.ndim != 2 or said.shape[1] != n + 1:
        raise ValueError(f"{n} labels do not fit shapes {said.shape} and {counts.shape}")
    support = counts.sum(axis=1)
    if not said.sum() or not support.all():
        raise ValueError("no answers to correct, or a label without an example in the confusion")
    if ((said.sum(axis=0) > 0) & (counts.sum(axis=0) == 0)).any():
        raise ValueError("an answer that the confusion never saw")
    rates = counts / support[:, None]
    observed = said.sum(axis=0) / said.sum()
    sessions = len(said)

    def draw(rng: np.random.Generator, size: int) -> Floats:
        weights = rng.multinomial(sessions, np.full(sessions, 1 / sessions), size=size)
        drawn = weights @ said
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
    square = rates[:, :-1]
    condition = float(np.linalg.cond(square))
    # A product with more than about 13 digits lost is noise, not a solution.
    invertible = condition < 1e13
    return CorrectedShares(
        labels=tuple(labels),
        observed=tuple(float(x) for x in observed[:-1]),
        em=tuple(em),
        inverse=_inverse(square, observed[:-1]) if invertible else None,
        condition=condition if invertible else None,
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


def _inverse(square: Floats, observed: Floats) -> tuple[float, ...]:
    # Unreadable answers are no label: shares are of those that could be read, under rates of the
    # same kind, which together need not add up to one before they are scaled.
    solved = np.linalg.solve(square.T, observed)
    total = solved.sum()
    return tuple(float(x) for x in (solved / total if total else solved))
