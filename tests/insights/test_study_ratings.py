from __future__ import annotations

import krippendorff
import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from recap.data.annotations import AnnotatorLabel
from recap.insights.study_rating import phase_scores, rater_agreement


def ratings_of(values: np.ndarray) -> list[AnnotatorLabel]:
    """Return the ratings of a table of responses by raters."""
    return [
        AnnotatorLabel(
            annotator=f"rater{j}", id=f"R{i}", label=f"{int(values[i, j])}", session=f"P{i // 4}"
        )
        for i, j in np.ndindex(values.shape)
    ]


def test_scores_are_means_over_responses_of_means_over_raters() -> None:
    keys = {
        "R1": {"participant": "P1", "group": "c", "phase": "pre", "scenario": "S1"},
        "R2": {"participant": "P1", "group": "c", "phase": "pre", "scenario": "S2"},
        "R3": {"participant": "P1", "group": "c", "phase": "post", "scenario": "S1"},
    }
    given = [("a", "R1", 1), ("b", "R1", 0), ("a", "R2", -1), ("a", "R3", 1), ("b", "R3", 1)]
    ratings = [AnnotatorLabel(annotator=r, id=i, label=str(v)) for r, i, v in given]
    found = {(s.participant, s.phase): (s.score, s.responses) for s in phase_scores(ratings, keys)}
    assert found == {("P1", "pre"): (-0.25, 2), ("P1", "post"): (1.0, 1)}


def test_agreement_is_that_of_scikit_learn_and_krippendorff() -> None:
    generator = np.random.default_rng(4)
    for _ in range(30):
        truth = generator.integers(-1, 2, size=(40, 1))
        noise = generator.integers(-1, 2, size=(40, 2))
        values = np.where(generator.random((40, 2)) < 0.7, truth, noise)
        found = rater_agreement(ratings_of(values), confidence=None)
        one, other = values.T
        plain = found.nominal.coefficients["mean_pairwise_cohen_kappa"].value
        assert plain == pytest.approx(cohen_kappa_score(one, other), abs=1e-10)
        weighted = cohen_kappa_score(one, other, weights="quadratic")
        assert found.weighted_kappa == pytest.approx(weighted, abs=1e-10)
        alpha = krippendorff.alpha(reliability_data=values.T, level_of_measurement="ordinal")
        assert found.ordinal_alpha == pytest.approx(alpha, abs=1e-10)


def test_agreement_on_one_value_alone_has_no_figures() -> None:
    found = rater_agreement(ratings_of(np.ones((8, 2))))
    assert (found.weighted_kappa, found.ordinal_alpha) == (None, None)
