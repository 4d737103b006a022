from __future__ import annotations

import numpy as np
import pandas as pd
import pingouin
import pytest
from statsmodels.regression.linear_model import OLS

from recap.statistics.hypothesis_tests import mixed_anova


def long_table(scores: np.ndarray, group: np.ndarray) -> pd.DataFrame:
    n, phases = scores.shape
    return pd.DataFrame(
        {
            "participant": np.repeat(np.arange(n), phases),
            "group": np.repeat(group, phases),
            "phase": np.tile(np.arange(phases), n),
            "score": scores.ravel(),
        }
    )


def test_three_hundred_random_studies_are_as_in_pingouin() -> None:
    generator = np.random.default_rng(5)
    for case in range(300):
        sizes = generator.integers(2, 25, size=2)  # mostly unbalanced
        group = generator.permutation(np.repeat([0, 1], sizes))
        scores = generator.normal(size=(sizes.sum(), 1)) + generator.normal(size=(sizes.sum(), 2))
        scores += generator.normal(size=(2, 2))[group] + 10 * (case % 3)
        table = long_table(scores, group)
        size = "np2" if case % 2 else "ng2"
        expected = pingouin.mixed_anova(
            table, dv="score", within="phase", subject="participant", between="group", effsize=size
        ).set_index("Source")
        found = mixed_anova(scores, group)
        for name, effect in (
            ("group", found.group),
            ("phase", found.phase),
            ("Interaction", found.interaction),
        ):
            row = expected.loc[name]
            assert (effect.df, effect.df_error) == (row["DF1"], row["DF2"])
            assert [effect.sum_of_squares, effect.mean_square, effect.f] == pytest.approx(
                [row["SS"], row["MS"], row["F"]], rel=1e-8, abs=1e-10
            )
            share = effect.partial_eta_squared if case % 2 else effect.generalized_eta_squared
            assert [effect.p, share] == pytest.approx([row["p_unc"], row[size]], abs=1e-8)


def test_the_unweighted_phase_is_statsmodels_type_iii() -> None:
    # Of two phases: the intercept of the changes on groups coded by sums.
    generator = np.random.default_rng(12)
    for _ in range(300):
        sizes = generator.integers(2, 20, size=2)
        group = np.repeat([0, 1], sizes)
        scores = generator.normal(size=(sizes.sum(), 2)) + generator.normal(size=(2, 2))[group]
        design = np.stack([np.ones(len(group)), 2.0 * group - 1], axis=1)
        expected = OLS(scores[:, 1] - scores[:, 0], design).fit()
        found = mixed_anova(scores, group).phase_unweighted
        assert found.f == pytest.approx(expected.tvalues[0] ** 2, rel=1e-8)
        assert found.p == pytest.approx(expected.pvalues[0], abs=1e-8)


def test_groups_of_one_size_have_one_phase() -> None:
    generator = np.random.default_rng(13)
    found = mixed_anova(generator.normal(size=(12, 3)), np.repeat([0, 1, 2], 4))
    assert found.phase_unweighted.sum_of_squares == pytest.approx(found.phase.sum_of_squares)


def test_a_study_computed_by_hand() -> None:
    # Group means 2 and 4, phase means 2 and 4; cells 1, 3 and 3, 5 without interaction.
    scores = np.array([[0.0, 3.0], [2.0, 3.0], [2.0, 5.0], [4.0, 5.0]])
    found = mixed_anova(scores, np.array([0, 0, 1, 1]))
    assert found.group.sum_of_squares == pytest.approx(8)
    assert found.phase.sum_of_squares == pytest.approx(8)
    assert found.interaction.sum_of_squares == pytest.approx(0)
    # Participants' means 1.5, 2.5, 3.5, 4.5: 2 * 4 * .25; the rest of the cells' 4 is within.
    assert found.group.error_sum_of_squares == pytest.approx(2)
    assert found.phase.error_sum_of_squares == pytest.approx(2)
    assert found.group.f == pytest.approx(8)
    assert found.phase.partial_eta_squared == pytest.approx(0.8)
    assert found.phase.generalized_eta_squared == pytest.approx(8 / 12)


def test_sums_of_squares_add_up_to_the_total() -> None:
    generator = np.random.default_rng(1)
    group = np.repeat([0, 1], [5, 9])
    scores = generator.normal(size=(14, 2))
    found = mixed_anova(scores, group)
    parts = [e.sum_of_squares for e in (found.group, found.phase, found.interaction)]
    parts += [found.group.error_sum_of_squares, found.phase.error_sum_of_squares]
    assert sum(parts) == pytest.approx(((scores - scores.mean()) ** 2).sum())


def test_scores_that_do_not_vary_have_no_f() -> None:
    found = mixed_anova(np.ones((4, 2)), np.array([0, 0, 1, 1]))
    assert (found.interaction.f, found.interaction.p) == (None, None)
    assert found.interaction.partial_eta_squared is None
    # Everybody of a group changes by as much, but for the last digits.
    scores = np.array([[0.2, 0.3], [0.1, 0.2], [0.6, 0.7], [0.2, 0.5], [0.4, 0.7]])
    changed = mixed_anova(scores, np.array([0, 0, 0, 1, 1]))
    assert (changed.interaction.f, changed.phase.f) == (None, None)
    assert changed.group.f is not None
    # Phases and groups that differ by rounding alone, beside errors that are there.
    scores = np.array([[0.3, 0.1 + 0.2], [0.1, 0.1], [0.1 + 0.2, 0.3], [0.1, 0.1]])
    assert mixed_anova(scores, np.array([0, 0, 1, 1])).group.sum_of_squares == 0
