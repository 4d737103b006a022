"""Ratings of a study's responses: how far raters agree, and the score of each participant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from recap.analysis.agreement import Agreement, measure_agreement
from recap.analysis.coefficients import cohen_kappa, krippendorff_alpha
from recap.analysis.judgements import MISSING, Judgement, JudgementTable, tabulate

SCALE = ("-1", "0", "1")
"""Increases resistance, neutral, reduces resistance (paper, Section 7, after Rosengren 2008)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rating:
    """What one rater gave one response."""

    rater: str
    rating_id: str
    value: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """Whose response a rating id stands for; raters do not see it."""

    participant: str
    group: str
    phase: str
    scenario: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseScore:
    """One participant's score in one phase: the mean over responses of the mean over raters."""

    participant: str
    group: str
    phase: str
    score: float
    responses: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RaterAgreement:
    """How far raters agree; figures are ``None`` where they do not exist."""

    nominal: Agreement
    """Of the three values as names, intervals clustered by participant."""
    weighted_kappa: float | None
    """Mean over pairs of raters of Cohen's kappa with squared weights: the scale is one of rank."""
    ordinal_alpha: float | None
    """Krippendorff's alpha of ranks."""


def phase_scores(ratings: Sequence[Rating], keys: Mapping[str, Key]) -> tuple[PhaseScore, ...]:
    """Return the scores of every participant and phase that has ratings, in the order of names."""
    values: dict[str, list[int]] = {}
    for rating in ratings:
        values.setdefault(rating.rating_id, []).append(rating.value)
    cells: dict[tuple[str, str, str], list[float]] = {}
    for rating_id, given in values.items():
        key = keys[rating_id]
        cell = cells.setdefault((key.participant, key.group, key.phase), [])
        cell.append(sum(given) / len(given))
    return tuple(
        PhaseScore(
            participant=participant,
            group=group,
            phase=phase,
            score=sum(means) / len(means),
            responses=len(means),
        )
        for (participant, group, phase), means in sorted(cells.items())
    )


def rater_agreement(
    ratings: Sequence[Rating],
    keys: Mapping[str, Key],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> RaterAgreement:
    """Return how far raters agree on the responses that two or more of them rated.

    Args:
        ratings: At most one a rater and response.
        keys: Whose responses they are.
        confidence: Of the intervals.
        resamples: Draws of the bootstrap; 0: no intervals.
        seed: Of the draws.
    """
    judgements = [
        Judgement(
            id=rating.rating_id,
            annotator=rating.rater,
            label=str(rating.value),
            session=keys[rating.rating_id].participant,
        )
        for rating in ratings
    ]
    table = tabulate(judgements, labels=SCALE)
    alpha = krippendorff_alpha(table.counts(), "ordinal")
    return RaterAgreement(
        nominal=measure_agreement(table, replicates=resamples, level=confidence, seed=seed),
        weighted_kappa=_mean_weighted_kappa(table),
        ordinal_alpha=alpha if np.isfinite(alpha) else None,
    )


def _mean_weighted_kappa(table: JudgementTable) -> float | None:
    n, values = len(SCALE), np.array([SCALE.index(label) for label in table.labels])
    found = []
    for first, second in combinations(table.codes.T, 2):
        both = (first != MISSING) & (second != MISSING)
        confusion = np.zeros((n, n))
        np.add.at(confusion, (values[first[both]], values[second[both]]), 1)
        found.append(float(cohen_kappa(confusion, "quadratic")))
    defined = [kappa for kappa in found if np.isfinite(kappa)]
    return sum(defined) / len(defined) if defined else None
