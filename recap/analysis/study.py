"""What a study with two groups and two phases has shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from recap.analysis.anova import Effect, MixedAnova, mixed_anova
from recap.analysis.assumptions import Check, box_m, levene, shapiro
from recap.analysis.correlation import holm
from recap.analysis.effect_sizes import EffectSize, d_av, d_s, d_z
from recap.analysis.power import (
    InteractionDesign,
    SampleSize,
    interaction_noncentrality,
    interaction_power,
    interaction_sample_size,
    power_of_noncentrality,
)
from recap.analysis.spread import vanishes
from recap.analysis.study_table import ScoreTable
from recap.analysis.t_tests import TTest, independent_t_test, paired_t_test


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """The scores of one group in one phase; the SD is that of the sample (ddof 1)."""

    group: str
    phase: str
    n: int
    mean: float
    sd: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A follow-up test, second minus first.

    ``phases`` compares the phases within the group named ``within``; ``groups`` the groups within a
    phase; ``changes`` the groups' changes from phase to phase (its t squared is the interaction's
    F, unless it is Welch's).
    """

    kind: Literal["phases", "groups", "changes"]
    within: str | None
    test: TTest
    p_holm: float | None
    """p adjusted for the four tests of kinds ``phases`` and ``groups`` (Holm 1979)."""
    d_s: EffectSize | None = None
    d_z: EffectSize | None = None
    d_av: EffectSize | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedCheck:
    """A check of an assumption: which test, of which scores."""

    test: Literal["shapiro_wilk", "levene", "box_m"]
    of: str
    check: Check


@dataclass(frozen=True, kw_only=True, slots=True)
class Planning:
    """What was expected of the interaction before the study."""

    f: float
    """Cohen's f, in G*Power's convention."""
    power: float
    """Wanted power."""
    design: InteractionDesign
    sample_size: SampleSize | None
    """What that takes; ``None`` where no sample of ten million is enough."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PostHocPower:
    """Power computed from the effect that was found.

    It says nothing that p does not (Hoenig & Heisey 2001), and is here because journals ask for it.
    """

    f: float
    """Cohen's f of the partial eta-squared, ``sqrt(eta2 / (1 - eta2))``."""
    noncentrality: float
    power: float
    """Under the noncentrality that this f stands for: F times its degrees of freedom, which is
    G*Power's effect size "as in SPSS"."""
    f_gpower: float
    """The f that stands for the same noncentrality in G*Power's own convention, at ``rho``."""
    noncentrality_of_partial_f: float
    power_of_partial_f: float
    """Under G*Power's own convention fed with the f of the partial eta-squared, as the paper does
    (Appendix D.2). Too high: this f has the correlation in it already, which counts twice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """All results of a study."""

    groups: tuple[str, str]
    phases: tuple[str, str]
    n: int
    cells: tuple[Cell, ...]
    anova: MixedAnova
    comparisons: tuple[Comparison, ...]
    checks: tuple[NamedCheck, ...]
    correlation: float | None
    """Correlation of the phases, pooled within the groups."""
    planned_power: float
    """Power of the planned effect with as many participants as there were."""
    post_hoc: PostHocPower | None
    """``None`` where the interaction has no F."""


def plan_study(f: float, power: float, design: InteractionDesign) -> Planning:
    """Return the sample that an expected interaction asks for.

    Args:
        f: Cohen's f, in G*Power's convention.
        power: Wanted power.
        design: Groups, phases, their correlation and alpha.
    """
    return Planning(
        f=f,
        power=power,
        design=design,
        sample_size=interaction_sample_size(f, power, design),
    )


def analyse_study(
    table: ScoreTable, planning: Planning, *, welch: bool = False, confidence: float = 0.95
) -> Study:
    """Return the analysis of variance, follow-up tests, checks and power of a study.

    Args:
        table: Its scores.
        planning: What was expected; its design gives rho and alpha.
        welch: Whether comparisons of groups allow for unequal variances.
        confidence: Of all intervals.
    """
    anova = mixed_anova(table.scores, table.group)
    n, design = len(table.participants), planning.design
    return Study(
        groups=table.groups,
        phases=table.phases,
        n=n,
        cells=_cells(table),
        anova=anova,
        comparisons=_comparisons(table, welch, confidence),
        checks=_checks(table),
        correlation=_pooled_correlation(table),
        planned_power=interaction_power(planning.f, n, design),
        post_hoc=_post_hoc(anova.interaction, n, design),
    )


def _cells(table: ScoreTable) -> tuple[Cell, ...]:
    return tuple(
        Cell(
            group=group,
            phase=phase,
            n=len(scores),
            mean=float(scores[:, j].mean()),
            sd=float(scores[:, j].std(ddof=1)),
        )
        for i, group in enumerate(table.groups)
        for scores in (table.of_group(i),)
        for j, phase in enumerate(table.phases)
    )


def _comparisons(table: ScoreTable, welch: bool, confidence: float) -> tuple[Comparison, ...]:
    first, second = table.of_group(0), table.of_group(1)
    followed: list[Comparison] = []
    for name, scores in zip(table.groups, (first, second), strict=True):
        before, after = scores.T
        followed.append(
            Comparison(
                kind="phases",
                within=name,
                test=paired_t_test(after, before, confidence),
                p_holm=None,
                d_z=d_z(after, before, confidence),
                d_av=d_av(after, before, confidence),
            )
        )
    for name, control, treated in zip(table.phases, first.T, second.T, strict=True):
        followed.append(
            Comparison(
                kind="groups",
                within=name,
                test=independent_t_test(treated, control, welch=welch, confidence=confidence),
                p_holm=None,
                d_s=d_s(treated, control, confidence),
            )
        )
    change, treated_change = first[:, 1] - first[:, 0], second[:, 1] - second[:, 0]
    of_changes = Comparison(
        kind="changes",
        within=None,
        test=independent_t_test(treated_change, change, welch=welch, confidence=confidence),
        p_holm=None,
        d_s=d_s(treated_change, change, confidence),
    )
    return (*_with_holm(followed), of_changes)


def _with_holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    adjusted = holm([comparison.test.p for comparison in comparisons])
    return [replace(c, p_holm=p) for c, p in zip(comparisons, adjusted, strict=True)]


def _checks(table: ScoreTable) -> tuple[NamedCheck, ...]:
    both = [table.of_group(0), table.of_group(1)]
    checks = [
        NamedCheck(test="shapiro_wilk", of=f"{group}, {phase}", check=shapiro(scores[:, j]))
        for group, scores in zip(table.groups, both, strict=True)
        for j, phase in enumerate(table.phases)
    ]
    checks += [
        NamedCheck(
            test="shapiro_wilk", of=f"{group}, change", check=shapiro(scores[:, 1] - scores[:, 0])
        )
        for group, scores in zip(table.groups, both, strict=True)
    ]
    checks += [
        NamedCheck(test="levene", of=phase, check=levene([scores[:, j] for scores in both]))
        for j, phase in enumerate(table.phases)
    ]
    checks.append(NamedCheck(test="box_m", of="both phases", check=box_m(both)))
    return tuple(checks)


def _pooled_correlation(table: ScoreTable) -> float | None:
    centred = np.concatenate(
        [scores - scores.mean(axis=0) for scores in (table.of_group(0), table.of_group(1))]
    )
    products = centred.T @ centred
    if vanishes(math.sqrt(min(products[0, 0], products[1, 1])), table.scores):
        return None
    return float(products[0, 1]) / math.sqrt(products[0, 0] * products[1, 1])


def _post_hoc(interaction: Effect, n: int, design: InteractionDesign) -> PostHocPower | None:
    eta2 = interaction.partial_eta_squared
    if interaction.f is None or eta2 is None or eta2 >= 1:
        return None
    f = math.sqrt(eta2 / (1 - eta2))
    noncentrality = interaction.f * interaction.df
    return PostHocPower(
        f=f,
        noncentrality=noncentrality,
        power=power_of_noncentrality(noncentrality, n, design),
        f_gpower=math.sqrt(noncentrality * (1 - design.rho) / (n * design.n_phases)),
        noncentrality_of_partial_f=interaction_noncentrality(f, n, design),
        power_of_partial_f=interaction_power(f, n, design),
    )
