"""``action=study``: what a study with two groups and two phases has shown, or will need.

Results are computed from a long table of scores. They come as tables, as sentences for a paper, and
as mean ± SD of both groups in both phases (paper, Figure 2, right).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from recap.data.issues import IssueLog
from recap.errors import ConfigError
from recap.insights.options import InsightsConfig, StudyOptions
from recap.insights.study_scores import ScoreTable, arrange_scores, read_scores
from recap.output.charts import open_axes
from recap.output.format import DASH, degrees, ends, interval, number, p_cell, p_value, share
from recap.output.report import Report
from recap.output.tables import ReportTable, table_of
from recap.statistics.correlation import holm
from recap.statistics.effect_sizes import (
    EffectSize,
    InteractionDesign,
    SampleSize,
    d_av,
    d_s,
    d_z,
    interaction_noncentrality,
    interaction_power,
    interaction_sample_size,
    power_of_noncentrality,
)
from recap.statistics.hypothesis_tests import (
    Check,
    Effect,
    MixedAnova,
    TTest,
    box_m,
    independent_t_test,
    levene,
    mixed_anova,
    paired_t_test,
    shapiro,
    vanishes,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupCell:
    """The scores of one group in one phase; the SD is that of the sample (ddof 1)."""

    group: str
    phase: str
    n: int
    mean: float
    sd: float


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupComparison:
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
    cells: tuple[GroupCell, ...]
    anova: MixedAnova
    comparisons: tuple[GroupComparison, ...]
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


def _cells(table: ScoreTable) -> tuple[GroupCell, ...]:
    return tuple(
        GroupCell(
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


def _comparisons(table: ScoreTable, welch: bool, confidence: float) -> tuple[GroupComparison, ...]:
    first, second = table.of_group(0), table.of_group(1)
    followed: list[GroupComparison] = []
    for name, scores in zip(table.groups, (first, second), strict=True):
        before, after = scores.T
        followed.append(
            GroupComparison(
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
            GroupComparison(
                kind="groups",
                within=name,
                test=independent_t_test(treated, control, welch=welch, confidence=confidence),
                p_holm=None,
                d_s=d_s(treated, control, confidence),
            )
        )
    change, treated_change = first[:, 1] - first[:, 0], second[:, 1] - second[:, 0]
    of_changes = GroupComparison(
        kind="changes",
        within=None,
        test=independent_t_test(treated_change, change, welch=welch, confidence=confidence),
        p_holm=None,
        d_s=d_s(treated_change, change, confidence),
    )
    adjusted = holm([comparison.test.p for comparison in followed])
    return (*(replace(c, p_holm=p) for c, p in zip(followed, adjusted, strict=True)), of_changes)


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
    centered = np.concatenate(
        [scores - scores.mean(axis=0) for scores in (table.of_group(0), table.of_group(1))]
    )
    products = centered.T @ centered
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


_TESTS = {"shapiro_wilk": "Shapiro–Wilk, W", "levene": "Levene, F", "box_m": "Box's M, χ²"}


def planning_sheet(planning: Planning, study: Study | None) -> ReportTable:
    """Return sample size and, where there are scores, the power that the study had."""
    design, size = planning.design, planning.sample_size
    rows = [
        ("expected f (G*Power's convention)", number(planning.f, 3)),
        ("correlation of the phases, assumed", share(design.rho)),
        ("alpha", share(design.alpha, 3)),
        ("wanted power", share(planning.power)),
        ("participants needed in all", DASH if size is None else f"{size.n}"),
        ("power with these", DASH if size is None else share(size.power, 3)),
    ]
    if study is not None:
        rows += [
            ("participants there were", f"{study.n}"),
            ("power for the expected f with these", share(study.planned_power, 3)),
            ("correlation of the phases, found", share(study.correlation)),
        ]
    if study is not None and study.post_hoc is not None:
        found = study.post_hoc
        rows += [
            ("f of the partial eta-squared found", number(found.f, 3)),
            ("post-hoc power (noncentrality F × df)", share(found.power, 3)),
            ("the same effect as f in G*Power's convention", number(found.f_gpower, 3)),
            ("post-hoc power as the paper computes it", share(found.power_of_partial_f, 3)),
        ]
    return ReportTable(
        title="Power of the interaction", header=("what", "figure"), rows=tuple(rows)
    )


def study_sentences(study: Study, *, alpha: float, confidence: float) -> tuple[str, ...]:
    """Return a sentence in the style of the APA for each result.

    Args:
        study: The results.
        alpha: What is significant.
        confidence: Of the intervals.
    """
    group = f"group ({study.groups[0]}, {study.groups[1]})"
    phase = f"phase ({study.phases[0]}, {study.phases[1]})"
    effects = (
        ("interaction of group and phase", study.anova.interaction),
        ("main effect of group", study.anova.group),
        ("main effect of phase", study.anova.phase),
    )
    design = (
        f"Scores of {study.n} participants were put to a 2 × 2 mixed analysis of variance with "
        f"{group} between and {phase} within participants."
    )
    sentences = [
        f"The {name} was {_verdict(effect.p, alpha)}, {_effect(effect)}."
        for name, effect in effects
    ]
    sentences += [_comparison(c, study, alpha, confidence) for c in study.comparisons]
    return (design, *sentences)


def _effect(effect: Effect) -> str:
    return (
        f"F({effect.df}, {effect.df_error}) = {number(effect.f)}, {p_value(effect.p)}, "
        f"ηp² = {share(effect.partial_eta_squared)}, ηG² = {share(effect.generalized_eta_squared)}"
    )


def _verdict(p: float | None, alpha: float) -> str:
    if p is None:
        return "not testable"
    return "significant" if p < alpha else "not significant"


def _comparison(comparison: GroupComparison, study: Study, alpha: float, confidence: float) -> str:
    test = comparison.test
    cells = {(cell.group, cell.phase): cell for cell in study.cells}
    first, second = study.phases if comparison.kind == "phases" else study.groups

    def mean(name: str) -> str:
        within = comparison.within or ""
        cell = cells[(within, name) if comparison.kind == "phases" else (name, within)]
        return f"{name} (M = {number(cell.mean)}, SD = {number(cell.sd)})"

    if comparison.kind == "changes":
        begin = (
            f"From {study.phases[0]} to {study.phases[1]}, {second} changed by "
            f"{number(test.difference)} more than {first}"
        )
    else:
        where = "In group" if comparison.kind == "phases" else "In phase"
        begin = f"{where} {comparison.within}, {mean(second)} was compared with {mean(first)}"
    sizes = ", ".join(
        f"{name} = {number(size.d)}, {interval(size.low, size.high, confidence)}, "
        f"g = {number(size.g)}"
        for name, size in _sizes(comparison)
    )
    verdict = (
        "" if comparison.kind == "changes" else f"; the difference was {_verdict(test.p, alpha)}"
    )
    t = f"t({degrees(test.df)}) = {number(test.t)}, {p_value(test.p)}"
    return f"{begin}{verdict}, {t}, {sizes}."


def _sizes(comparison: GroupComparison) -> Iterator[tuple[str, EffectSize]]:
    for name in ("d_s", "d_z", "d_av"):
        size: EffectSize | None = getattr(comparison, name)
        if size is not None:
            yield name, size


def _study_sheets(study: Study, confidence: float) -> tuple[ReportTable, ...]:
    """Return means, analysis of variance, follow-up tests, effect sizes and checks."""
    level = f"{100 * confidence:g}% CI"
    means = table_of(
        "Scores",
        study.cells,
        {
            "group, phase": lambda cell: f"{cell.group}, {cell.phase}",
            "n": lambda cell: f"{cell.n}",
            "mean": lambda cell: number(cell.mean, 3),
            "SD": lambda cell: number(cell.sd, 3),
        },
    )
    tests = table_of(
        "Follow-up t tests",
        study.comparisons,
        {
            "comparison": lambda c: _name(c, study),
            "difference": lambda c: number(c.test.difference, 3),
            level: lambda c: ends(c.test.low, c.test.high),
            "t": lambda c: number(c.test.t),
            "df": lambda c: degrees(c.test.df),
            "p": lambda c: p_cell(c.test.p),
            "p (Holm)": lambda c: p_cell(c.p_holm),
        },
    )
    sizes = [
        (
            *(_name(comparison, study), name, number(size.d, 3), ends(size.low, size.high)),
            *(number(size.g, 3), ends(size.g_low, size.g_high)),
        )
        for comparison in study.comparisons
        for name, size in _sizes(comparison)
    ]
    effect_sizes = ReportTable(
        title="Effect sizes",
        header=("comparison", "which", "d", level, "Hedges' g", level),
        rows=tuple(sizes),
    )
    return means, _anova(study), tests, effect_sizes, _assumptions(study)


def _anova(study: Study) -> ReportTable:
    anova = study.anova
    effects = {"group": anova.group, "phase": anova.phase}
    if len({cell.n for cell in study.cells}) > 1:
        effects["phase, Type III"] = anova.phase_unweighted
    effects["group × phase"] = anova.interaction
    return table_of(
        "2 × 2 mixed analysis of variance",
        effects.items(),
        {
            "effect": lambda item: item[0],
            "SS": lambda item: number(item[1].sum_of_squares, 3),
            "df": lambda item: f"{item[1].df}",
            "error SS": lambda item: number(item[1].error_sum_of_squares, 3),
            "error df": lambda item: f"{item[1].df_error}",
            "F": lambda item: number(item[1].f),
            "p": lambda item: p_cell(item[1].p),
            "ηp²": lambda item: share(item[1].partial_eta_squared, 3),
            "ηG²": lambda item: share(item[1].generalized_eta_squared, 3),
        },
    )


def _assumptions(study: Study) -> ReportTable:
    rows = []
    for named in study.checks:
        df = DASH if named.check.df is None else ", ".join(map(degrees, named.check.df))
        figures = (number(named.check.statistic, 3), df, p_cell(named.check.p))
        rows.append((_TESTS[named.test], named.of, *figures))
    rows.append(("sphericity", "two phases", DASH, DASH, "holds"))
    header = ("test", "of", "statistic", "df", "p")
    return ReportTable(title="Assumptions", header=header, rows=tuple(rows))


def _name(comparison: GroupComparison, study: Study) -> str:
    if comparison.kind == "changes":
        return f"change, {study.groups[1]} − {study.groups[0]}"
    first, second = study.phases if comparison.kind == "phases" else study.groups
    return f"{comparison.within}: {second} − {first}"


_STYLES = (("#7a7a7a", "o", "--"), ("#3b6ea5", "s", "-"))
_APART = 0.03


def study_chart(study: Study, *, score: str) -> Figure:
    """Return a line a group, the means of its phases with bars of one SD.

    Args:
        study: Its results.
        score: Title of the vertical axis.
    """
    figure, axes = open_axes(4.2, 3.4)
    for place, group in enumerate(study.groups):
        color, marker, line = _STYLES[place]
        cells = [cell for cell in study.cells if cell.group == group]
        shift = _APART * (2 * place - 1)
        axes.errorbar(
            [index + shift for index in range(len(cells))],
            [cell.mean for cell in cells],
            yerr=[cell.sd for cell in cells],
            label=f"{group} (n = {cells[0].n})",
            color=color,
            marker=marker,
            linestyle=line,
            capsize=4,
        )
    axes.set_xticks(range(len(study.phases)), study.phases)
    axes.set_xlim(-0.4, len(study.phases) - 0.6)
    axes.set_ylabel(f"{score} (mean ± SD)")
    axes.legend(frameon=False)
    return figure


_UNBALANCED = (
    "The groups differ in size: phase is tested on means weighted by it (as in pingouin); the line "
    "of Type III counts both groups alike (as in SPSS and R's afex). All else is the same in both."
)
_FOLLOW_UPS = (
    "p (Holm) is adjusted for the four comparisons of phases and groups. Intervals of d_s and d_z "
    "are exact (noncentral t), that of d_av is Algina and Keselman's."
)
_ASSUMPTIONS = (
    "With two phases sphericity holds by itself. Shapiro–Wilk of the changes and Levene matter "
    "most for the interaction; Box's M is read at p < .001."
)
_POST_HOC = (
    "Post-hoc power follows from F and n and adds nothing to p. The paper (Appendix D.2) enters "
    "the f of a partial eta-squared into G*Power's own convention, which is meant for Cohen's f of "
    "single measurements: with positive correlations its power is too high."
)


_EFFECTS = ("group", "phase", "phase_unweighted", "interaction")


def find_study(config: InsightsConfig) -> Report:
    """Return the statistics of the table of scores; without a table, the sample size alone.

    Raises:
        DataError: When the table has faults or is no complete 2 x 2 study.
    """
    options = config.study
    if options.power <= options.alpha:
        raise ConfigError("study.power: must be above study.alpha; 0.8 is usual")
    design = InteractionDesign(rho=options.rho, alpha=options.alpha)
    planning = plan_study(options.f, options.power, design)
    if config.data.path is None:
        return Report(
            action="study",
            title="Sample size of a 2 × 2 study",
            figures={"planning": _planning(planning)},
            sheets=(planning_sheet(planning, None),),
            notes=("No scores: name their table with data.path=FILE.", _planning_note(planning)),
        )
    path = Path(config.data.path)
    issues = IssueLog(str(path))
    rows = read_scores(path, options, issues=issues)
    if issues.issues and config.data.on_error == "fail":
        raise issues.error()
    table = arrange_scores(
        rows,
        file=str(path),
        groups=options.groups,
        phases=options.phases,
        repeated=options.repeated,
    )
    left_out = issues.rows_rejected
    study = analyse_study(table, planning, welch=options.welch, confidence=config.confidence)
    sentences = study_sentences(study, alpha=options.alpha, confidence=config.confidence)
    return Report(
        action="study",
        title=f"Study of {path.name}",
        figures={
            **_figures(study, planning),
            "welch": options.welch,
            "confidence": config.confidence,
            "rows_left_out": left_out,
            "sentences": list(sentences),
        },
        sheets=(*_study_sheets(study, config.confidence), planning_sheet(planning, study)),
        notes=(*sentences, *_notes(study, table, planning, options, left_out)),
        rows=[{"effect": name, **asdict(getattr(study.anova, name))} for name in _EFFECTS],
        charts={"study": partial(study_chart, study, score=options.score)},
    )


def _notes(
    study: Study, table: ScoreTable, planning: Planning, options: StudyOptions, left_out: int
) -> list[str]:
    notes = [f"{left_out} rows were left out for faults."] if left_out else []
    if table.rows_a_score > 1:
        notes.append(f"A score is the mean of up to {table.rows_a_score} rows.")
    sizes = [cell.n for cell in study.cells[::2]]
    if sizes[0] != sizes[1]:
        notes.append(_UNBALANCED)
    notes.append(
        f"Differences are {study.groups[1]} − {study.groups[0]} and {study.phases[1]} − "
        f"{study.phases[0]}; study.groups and study.phases set another order."
    )
    test = "Welch's t test" if options.welch else "Student's t test (study.welch=true: Welch's)"
    notes.append(f"Comparisons of groups: {test}. {_FOLLOW_UPS}")
    notes += [_ASSUMPTIONS, _planning_note(planning)]
    return [*notes, _POST_HOC] if study.post_hoc is not None else notes


def _planning_note(planning: Planning) -> str:
    return (
        f"Sample size in G*Power's convention, f² × n × 2 / (1 − rho), at rho = "
        f"{planning.design.rho:g}: it depends on rho (study.rho) as much as on f (study.f)."
    )


def _planning(planning: Planning) -> dict[str, Any]:
    size = planning.sample_size
    return {
        "f": planning.f,
        "wanted_power": planning.power,
        **asdict(planning.design),
        "n": None if size is None else size.n,
        "power": None if size is None else size.power,
    }


def _figures(study: Study, planning: Planning) -> dict[str, Any]:
    figures = asdict(study)
    figures["checks"] = [{"test": c.test, "of": c.of, **asdict(c.check)} for c in study.checks]
    figures["sphericity"] = "holds with two phases"
    for name in _EFFECTS:
        effect = getattr(study.anova, name)
        figures["anova"][name]["mean_square"] = effect.mean_square
        figures["anova"][name]["error_mean_square"] = effect.error_mean_square
    figures["planning"] = {**_planning(planning), "power_with_n": figures.pop("planned_power")}
    return figures
