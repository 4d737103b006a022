"""A study's results as tables and as sentences for a paper."""

from __future__ import annotations

from collections.abc import Iterator

from recap.analysis.anova import Effect
from recap.analysis.assumptions import Check
from recap.analysis.effect_sizes import EffectSize
from recap.analysis.study import Comparison, Planning, Study
from recap.reporting.apa import DASH, degrees, interval, number, p_cell, p_value, share
from recap.reporting.sheets import Sheet

_TESTS = {"shapiro_wilk": "Shapiro–Wilk, W", "levene": "Levene, F", "box_m": "Box's M, χ²"}


def study_sheets(study: Study, confidence: float) -> tuple[Sheet, ...]:
    """Return means, analysis of variance, follow-up tests, effect sizes and checks."""
    return (
        _means(study),
        _anova(study),
        _tests(study, confidence),
        _effect_sizes(study, confidence),
        _checks(study),
    )


def planning_sheet(planning: Planning, study: Study | None) -> Sheet:
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
    return Sheet(title="Power of the interaction", header=("what", "figure"), rows=tuple(rows))


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


def _comparison(comparison: Comparison, study: Study, alpha: float, confidence: float) -> str:
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


def _sizes(comparison: Comparison) -> Iterator[tuple[str, EffectSize]]:
    for name in ("d_s", "d_z", "d_av"):
        size: EffectSize | None = getattr(comparison, name)
        if size is not None:
            yield name, size


def _means(study: Study) -> Sheet:
    return Sheet(
        title="Scores",
        header=("group, phase", "n", "mean", "SD"),
        rows=tuple(
            (f"{c.group}, {c.phase}", f"{c.n}", number(c.mean, 3), number(c.sd, 3))
            for c in study.cells
        ),
    )


def _anova(study: Study) -> Sheet:
    anova = study.anova
    effects = [("group", anova.group), ("phase", anova.phase), ("group × phase", anova.interaction)]
    if len({cell.n for cell in study.cells}) > 1:
        effects.insert(2, ("phase, Type III", anova.phase_unweighted))
    return Sheet(
        title="2 × 2 mixed analysis of variance",
        header=("effect", "SS", "df", "error SS", "error df", "F", "p", "ηp²", "ηG²"),
        rows=tuple(
            (
                name,
                number(effect.sum_of_squares, 3),
                f"{effect.df}",
                number(effect.error_sum_of_squares, 3),
                f"{effect.df_error}",
                number(effect.f),
                p_cell(effect.p),
                share(effect.partial_eta_squared, 3),
                share(effect.generalized_eta_squared, 3),
            )
            for name, effect in effects
        ),
    )


def _name(comparison: Comparison, study: Study) -> str:
    if comparison.kind == "changes":
        return f"change, {study.groups[1]} − {study.groups[0]}"
    first, second = study.phases if comparison.kind == "phases" else study.groups
    return f"{comparison.within}: {second} − {first}"


def _tests(study: Study, confidence: float) -> Sheet:
    rows = []
    for comparison in study.comparisons:
        test = comparison.test
        ends = f"[{number(test.low)}, {number(test.high)}]"
        figures = (number(test.difference, 3), ends, number(test.t), degrees(test.df))
        cells = (*figures, p_cell(test.p), p_cell(comparison.p_holm))
        rows.append((_name(comparison, study), *cells))
    return Sheet(
        title="Follow-up t tests",
        header=(
            "comparison",
            "difference",
            f"{100 * confidence:g}% CI",
            "t",
            "df",
            "p",
            "p (Holm)",
        ),
        rows=tuple(rows),
    )


def _effect_sizes(study: Study, confidence: float) -> Sheet:
    level = f"{100 * confidence:g}% CI"
    rows = []
    for comparison in study.comparisons:
        for name, size in _sizes(comparison):
            d_ends = f"[{number(size.low)}, {number(size.high)}]"
            g_ends = f"[{number(size.g_low)}, {number(size.g_high)}]"
            cells = (name, number(size.d, 3), d_ends, number(size.g, 3), g_ends)
            rows.append((_name(comparison, study), *cells))
    return Sheet(
        title="Effect sizes",
        header=("comparison", "which", "d", level, "Hedges' g", level),
        rows=tuple(rows),
    )


def _checks(study: Study) -> Sheet:
    rows = [(_TESTS[c.test], c.of, *_check(c.check)) for c in study.checks]
    rows.append(("sphericity", "two phases", DASH, DASH, "holds"))
    return Sheet(
        title="Assumptions",
        header=("test", "of", "statistic", "df", "p"),
        rows=tuple(rows),
    )


def _check(check: Check) -> tuple[str, str, str]:
    df = DASH if check.df is None else ", ".join(map(degrees, check.df))
    return number(check.statistic, 3), df, p_cell(check.p)
