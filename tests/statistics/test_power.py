from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from statsmodels.stats.power import FTestAnovaPower

from recap.statistics.effect_sizes import (
    InteractionDesign,
    interaction_power,
    interaction_sample_size,
)
from recap.statistics.hypothesis_tests import mixed_anova

PAPER = InteractionDesign(rho=0.5)  # 2 groups, 2 phases, alpha .05


def test_the_papers_sample_size_is_found() -> None:
    # Appendix D.2: G*Power 3.1 gives 34 for f = .25, alpha .05, power .80.
    found = interaction_sample_size(0.25, 0.80, PAPER)
    assert found is not None
    assert found.n == 34
    assert found.power == pytest.approx(0.807, abs=5e-4)
    assert interaction_power(0.25, 33, PAPER) == pytest.approx(0.795, abs=5e-4)


def test_the_papers_post_hoc_power_is_one() -> None:
    assert interaction_power(0.565, 62, PAPER) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(("phases", "f"), [(2, 0.3), (3, 0.25)])
def test_power_is_the_share_of_simulated_studies_that_are_significant(
    phases: int, f: float
) -> None:
    # f is the SD of the interaction's cell effects over the SD of one phase (Cohen 1988).
    generator = np.random.default_rng(21)
    rho, n = 0.4, 30
    design = InteractionDesign(n_phases=phases, rho=rho)
    effects = np.linspace(-1, 1, phases)
    effects *= f / np.sqrt((effects**2).mean())
    group = np.repeat([0, 1], n // 2)
    covariance = np.full((phases, phases), rho) + (1 - rho) * np.eye(phases)
    noise = generator.multivariate_normal(np.zeros(phases), covariance, size=(2000, n))
    found = [mixed_anova(z + np.outer(2 * group - 1, effects), group) for z in noise]
    significant = sum(float(anova.interaction.p or 1) < 0.05 for anova in found)
    expected = interaction_power(f, n, design)
    assert 0.5 < expected < 0.95
    assert binomtest(significant, 2000, expected).pvalue > 0.01


def test_random_sample_sizes_are_those_of_statsmodels() -> None:
    generator = np.random.default_rng(22)
    oracle = FTestAnovaPower()
    for _ in range(60):
        groups = int(generator.integers(2, 4))
        rho, power = generator.uniform(0, 0.9), generator.uniform(0.5, 0.95)
        f = generator.uniform(0.1, 0.5)
        exact = oracle.solve_power(
            f * np.sqrt(2 / (1 - rho)), nobs=None, alpha=0.05, power=power, k_groups=groups
        )
        found = interaction_sample_size(f, power, InteractionDesign(n_groups=groups, rho=rho))
        assert found is not None
        assert found.n == groups * np.ceil(float(exact) / groups)


def test_random_designs_of_two_phases_are_as_in_statsmodels() -> None:
    # The interaction with two phases is a one-way analysis of the differences.
    generator = np.random.default_rng(8)
    oracle = FTestAnovaPower()
    for _ in range(300):
        groups = int(generator.integers(2, 5))
        rho, alpha = generator.uniform(-0.5, 0.95), generator.uniform(0.001, 0.2)
        f, n = generator.uniform(0.02, 0.8), int(generator.integers(groups + 2, 200))
        design = InteractionDesign(n_groups=groups, rho=rho, alpha=alpha)
        expected = oracle.power(f * np.sqrt(2 / (1 - rho)), n, alpha, k_groups=groups)
        assert interaction_power(f, n, design) == pytest.approx(expected, abs=1e-8)


def test_a_sample_is_the_smallest_that_has_the_power() -> None:
    generator = np.random.default_rng(9)
    for _ in range(50):
        design = InteractionDesign(rho=generator.uniform(0, 0.9))
        f, power = generator.uniform(0.05, 1), generator.uniform(0.3, 0.99)
        found = interaction_sample_size(f, power, design)
        assert found is not None
        assert found.n % 2 == 0
        assert found.power >= power
        assert found.n == 4 or interaction_power(f, found.n - 2, design) < power


def test_an_effect_too_small_for_any_sample_has_none() -> None:
    assert interaction_sample_size(1e-6, 0.8, PAPER) is None
