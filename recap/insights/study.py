"""``action=study``: what a study with two groups and two phases has shown, or will need.

Results come as tables, as sentences for a paper, and as mean ± SD of both groups in both phases
(paper, Figure 2, right).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recap.data.issues import IssueLog
from recap.errors import ConfigError
from recap.insights.options import InsightsConfig, StudyOptions
from recap.insights.study_statistics import (
    GroupComparison,
    Planning,
    ScoreTable,
    Study,
    analyse_study,
    arrange_scores,
    plan_study,
    read_scores,
)
from recap.output.charts import open_axes
from recap.output.format import DASH, degrees, ends, interval, number, p_cell, p_value, share
from recap.output.report import Report
from recap.output.tables import ReportTable
from recap.statistics.effect_sizes import EffectSize, InteractionDesign
from recap.statistics.hypothesis_tests import Check, Effect

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_TESTS = {"shapiro_wilk": "Shapiro–Wilk, W", "levene": "Levene, F", "box_m": "Box's M, χ²"}


def study_sheets(study: Study, confidence: float) -> tuple[ReportTable, ...]:
    """Return means, analysis of variance, follow-up tests, effect sizes and checks."""
    return (
        _means(study),
        _anova(study),
        _tests(study, confidence),
        _effect_sizes(study, confidence),
        _checks(study),
    )


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


def _means(study: Study) -> ReportTable:
    return ReportTable(
        title="Scores",
        header=("group, phase", "n", "mean", "SD"),
        rows=tuple(
            (f"{c.group}, {c.phase}", f"{c.n}", number(c.mean, 3), number(c.sd, 3))
            for c in study.cells
        ),
    )


def _anova(study: Study) -> ReportTable:
    anova = study.anova
    effects = [("group", anova.group), ("phase", anova.phase), ("group × phase", anova.interaction)]
    if len({cell.n for cell in study.cells}) > 1:
        effects.insert(2, ("phase, Type III", anova.phase_unweighted))
    return ReportTable(
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


def _name(comparison: GroupComparison, study: Study) -> str:
    if comparison.kind == "changes":
        return f"change, {study.groups[1]} − {study.groups[0]}"
    first, second = study.phases if comparison.kind == "phases" else study.groups
    return f"{comparison.within}: {second} − {first}"


def _tests(study: Study, confidence: float) -> ReportTable:
    rows = []
    for comparison in study.comparisons:
        test = comparison.test
        figures = (
            number(test.difference, 3),
            ends(test.low, test.high),
            number(test.t),
            degrees(test.df),
        )
        cells = (*figures, p_cell(test.p), p_cell(comparison.p_holm))
        rows.append((_name(comparison, study), *cells))
    return ReportTable(
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


def _effect_sizes(study: Study, confidence: float) -> ReportTable:
    level = f"{100 * confidence:g}% CI"
    rows = []
    for comparison in study.comparisons:
        for name, size in _sizes(comparison):
            d_ends = ends(size.low, size.high)
            g_ends = ends(size.g_low, size.g_high)
            cells = (name, number(size.d, 3), d_ends, number(size.g, 3), g_ends)
            rows.append((_name(comparison, study), *cells))
    return ReportTable(
        title="Effect sizes",
        header=("comparison", "which", "d", level, "Hedges' g", level),
        rows=tuple(rows),
    )


def _checks(study: Study) -> ReportTable:
    rows = [(_TESTS[c.test], c.of, *_check(c.check)) for c in study.checks]
    rows.append(("sphericity", "two phases", DASH, DASH, "holds"))
    return ReportTable(
        title="Assumptions",
        header=("test", "of", "statistic", "df", "p"),
        rows=tuple(rows),
    )


def _check(check: Check) -> tuple[str, str, str]:
    df = DASH if check.df is None else ", ".join(map(degrees, check.df))
    return number(check.statistic, 3), df, p_cell(check.p)


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
    table, left_out = _table(path, options, config.data.on_error)
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
        sheets=(*study_sheets(study, config.confidence), planning_sheet(planning, study)),
        notes=(*sentences, *_notes(study, table, planning, options, left_out)),
        rows=_rows(study),
        charts={"study": partial(study_chart, study, score=options.score)},
    )


def _table(path: Path, options: StudyOptions, on_error: str) -> tuple[ScoreTable, int]:
    issues = IssueLog(str(path))
    rows = read_scores(path, options, issues=issues)
    if issues.issues and on_error == "fail":
        raise issues.error()
    table = arrange_scores(
        rows,
        file=str(path),
        groups=options.groups,
        phases=options.phases,
        repeated=options.repeated,
    )
    return table, issues.rows_rejected


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
    notes.append(f"Comparisons of groups: {_test_name(options.welch)}. {_FOLLOW_UPS}")
    notes += [_ASSUMPTIONS, _planning_note(planning)]
    return [*notes, _POST_HOC] if study.post_hoc is not None else notes


def _test_name(welch: bool) -> str:
    return "Welch's t test" if welch else "Student's t test (study.welch=true: Welch's)"


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
    for name in ("group", "phase", "phase_unweighted", "interaction"):
        effect = getattr(study.anova, name)
        figures["anova"][name]["mean_square"] = effect.mean_square
        figures["anova"][name]["error_mean_square"] = effect.error_mean_square
    figures["planning"] = {**_planning(planning), "power_with_n": figures.pop("planned_power")}
    return figures


def _rows(study: Study) -> Sequence[dict[str, Any]]:
    """Return the analysis of variance for the CSV file."""
    return [
        {"effect": name, **asdict(effect)}
        for name, effect in (
            ("group", study.anova.group),
            ("phase", study.anova.phase),
            ("phase_unweighted", study.anova.phase_unweighted),
            ("interaction", study.anova.interaction),
        )
    ]
