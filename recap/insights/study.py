"""``action=study``: what a study with two groups and two phases has shown, or will need.

Scores are read from a long table and put in order. Results come as tables, as sentences for a paper
(``templates/study_sentences.txt``), and as mean ± SD of both groups in both phases (paper, Figure
2, right).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from recap.data.issues import IssueLog
from recap.data.names import identity, is_missing
from recap.data.readers.registry import require_column
from recap.data.readers.tables import read_sheet
from recap.data.sheets import number_in
from recap.errors import ConfigError, DataError, did_you_mean, quote_id
from recap.insights.options import InsightsConfig, StudyOptions
from recap.insights.participants import find_people, people_figures, people_sheets
from recap.insights.source import notes_of
from recap.output.charts import open_axes
from recap.output.format import DASH, degrees, ends, number, p_cell, share
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
    changes,
    independent_t_test,
    levene,
    mixed_anova,
    paired_t_test,
    shapiro,
    vanishes,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LISTED = 20
_USUAL_ORDERS = tuple(
    tuple(pair.split("/"))
    for pair in (
        *("pre/post", "pretest/posttest", "pre-test/post-test", "before/after", "t0/t1", "t1/t2"),
        *("1/2", "0/1", "first/second", "baseline/follow-up", "前测/后测", "干预前/干预后"),
        *("control/experimental", "control/treatment", "control/intervention", "对照组/实验组"),
    )
)
"""Pairs of names whose order everybody knows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreRow:
    """One row of a long table, found at ``line`` of its file."""

    line: int
    participant: str
    group: str
    phase: str
    score: float


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """The scores of a complete study; differences are second minus first, of groups and phases."""

    participants: tuple[str, ...]
    groups: tuple[str, str]
    phases: tuple[str, str]
    group: NDArray[np.int64]
    """``(participants,)``, each 0 or 1."""
    scores: NDArray[np.float64]
    """``(participants, 2)``, a column a phase."""
    rows_a_score: int
    """Rows that one score is the mean of, at most."""

    def of_group(self, index: int) -> NDArray[np.float64]:
        """Return one group's scores, ``(participants of the group, 2)``."""
        members: NDArray[np.float64] = self.scores[self.group == index]
        return members


def arrange_scores(rows: Sequence[ScoreRow], options: StudyOptions, *, file: str) -> ScoreTable:
    """Return the table of a study, its participants in the order of the rows.

    Options give the groups and phases in order, where it is not that of their usual names or of the
    rows, and say whether several rows of one participant and phase are averaged, as when there is a
    row a scenario, or are a fault. Messages call the table ``file``.

    Raises:
        DataError: When there are not two groups and two phases, someone is in both groups or lacks
            a phase, or a group has fewer than two participants; participants are listed.
        ConfigError: For a chosen group or phase that does not occur.
    """
    if not rows:
        raise DataError(f"{file}: holds no scores; write a row a participant and phase")
    in_order = _two("group", [row.group for row in rows], options.groups, file)
    phase_order = _two("phase", [row.phase for row in rows], options.phases, file)
    groups_of: dict[str, set[str]] = {}
    lines: dict[str, int] = {}
    cells: dict[tuple[str, str], list[ScoreRow]] = {}
    for row in rows:
        groups_of.setdefault(row.participant, set()).add(row.group)
        lines.setdefault(row.participant, row.line)
        cells.setdefault((row.participant, row.phase), []).append(row)
    both = {who: lines[who] for who, found in groups_of.items() if len(found) > 1}
    hint = "give every participant an id and a group of their own"
    _refuse(file, both, "in both groups", hint)
    for phase in phase_order:
        lacking = {who: line for who, line in lines.items() if (who, phase) not in cells}
        hint = "complete the table, or leave these participants out of it"
        _refuse(file, lacking, f"without a score in phase {phase!r}", hint)
    if options.repeated == "refuse":
        again = {who: found[1].line for (who, _), found in cells.items() if len(found) > 1}
        hint = "keep one, or average them with study.repeated=mean (a row a scenario, say)"
        _refuse(file, again, "with several rows for one phase", hint)
    group = np.array([in_order.index(found.pop()) for found in groups_of.values()])
    for index, name in enumerate(in_order):
        if (group == index).sum() < 2:
            raise DataError(
                f"{file}: group {name!r} has one participant; an analysis of variance "
                "needs two at least"
            )
    means = [
        [np.mean([row.score for row in cells[who, phase]]) for phase in phase_order]
        for who in groups_of
    ]
    return ScoreTable(
        participants=tuple(groups_of),
        groups=in_order,
        phases=phase_order,
        group=group,
        scores=np.array(means),
        rows_a_score=max(map(len, cells.values())),
    )


def _two(what: str, found: Sequence[str], chosen: Sequence[str], file: str) -> tuple[str, str]:
    names = list(dict.fromkeys(found))
    chosen = [identity(name) for name in chosen]
    for name in chosen:
        if name not in names:
            raise ConfigError(
                f"study.{what}s: {file} has no {what} {name!r}{did_you_mean(name, names)}"
            )
    if len(names) != 2:
        listed = ", ".join(quote_id(name) for name in names[:5])
        raise DataError(
            f"{file}: has {len(names)} {what}s ({listed}); a 2 x 2 study has two: "
            f"leave the rows of others out, or name another column with study.{what}=COLUMN"
        )
    if chosen:
        if len(set(chosen)) != 2:
            raise ConfigError(f"study.{what}s: name both {what}s in order, as [first,second]")
        return chosen[0], chosen[1]
    folded = {name.strip().casefold().replace(" ", "-"): name for name in names}
    for order in _USUAL_ORDERS:
        if set(folded) == set(order):
            return folded[order[0]], folded[order[1]]
    return names[0], names[1]


def _refuse(file: str, participants: Mapping[str, int], why: str, hint: str) -> None:
    """Raise an error that lists participants, given with the line of a row of theirs."""
    if not participants:
        return
    shown = [
        quote_id(who) if quote_id(who) == repr(who) else f"the one of line {line}"
        for who, line in list(participants.items())[:_LISTED]
    ]
    more = f" and {len(participants) - _LISTED} more" if len(participants) > _LISTED else ""
    count = f"{len(participants)} participants" if len(participants) > 1 else "1 participant"
    raise DataError(f"{file}: {count} {why}: {', '.join(shown)}{more}; {hint}")


def read_scores(path: Path, options: StudyOptions, *, issues: IssueLog) -> tuple[ScoreRow, ...]:
    """Return the sound rows of a CSV or Excel file; columns that options do not name play no part.

    Raises:
        DataError: When the file cannot be read or lacks a column.
    """
    table = read_sheet(path, issues, sheet=options.sheet)
    names: dict[str, str] = {
        role: getattr(options, role) for role in ("participant", "group", "phase", "score")
    }
    for role, column in names.items():
        require_column(path, table.columns, column, f"name it with study.{role}=COLUMN")
    table.texts.update(set(names.values()) - {options.score})
    rows = []
    for line, cells in table.rows:
        values = {role: identity(cells[column]) for role, column in names.items()}
        for role in ("participant", "score"):
            # A group may well be called none.
            values[role] = "" if is_missing(values[role]) else values[role]
        missing = [role for role in names if not values[role]]
        for role in missing:
            issues.reject(line, names[role], "is empty", "complete the row, or remove it")
        score = number_in(values["score"])
        if score is None and "score" not in missing:
            reason = f"is no number but a text of {len(values['score'])} characters"
            issues.reject(line, names["score"], reason, "write a number with a decimal point")
        elif score is not None and not missing:
            rows.append(ScoreRow(line=line, **{**values, "score": score}))  # type: ignore[arg-type]
    return tuple(rows)


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
    p_holm: float | None = None
    """p adjusted for the four tests of kinds ``phases`` and ``groups`` (Holm 1979)."""
    d_s: EffectSize | None = None
    d_z: EffectSize | None = None
    d_av: EffectSize | None = None

    @property
    def sizes(self) -> Iterator[tuple[str, EffectSize]]:
        """The effect sizes that there are, by name."""
        named = (("d_s", self.d_s), ("d_z", self.d_z), ("d_av", self.d_av))
        return ((name, size) for name, size in named if size is not None)


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
    checks: tuple[tuple[str, str, Check], ...]
    """Of assumptions: which test, of which scores, and its result."""
    correlation: float | None
    """Correlation of the phases, pooled within the groups."""
    planned_power: float
    """Power of the planned effect with as many participants as there were."""
    post_hoc: PostHocPower | None
    """``None`` where the interaction has no F."""


def analyse_study(table: ScoreTable, options: StudyOptions, *, confidence: float = 0.95) -> Study:
    """Return the analysis of variance, follow-up tests, checks and power of a study."""
    anova = mixed_anova(table.scores, table.group)
    n, design = len(table.participants), _design(options)
    return Study(
        groups=table.groups,
        phases=table.phases,
        n=n,
        cells=tuple(
            GroupCell(
                group=group,
                phase=phase,
                n=len(scores),
                mean=float(scores.mean()),
                sd=float(scores.std(ddof=1)),
            )
            for i, group in enumerate(table.groups)
            for phase, scores in zip(table.phases, table.of_group(i).T, strict=True)
        ),
        anova=anova,
        comparisons=_comparisons(table, options.welch, confidence),
        checks=_checks(table),
        correlation=_pooled_correlation(table),
        planned_power=interaction_power(options.f, n, design),
        post_hoc=_post_hoc(anova.interaction, n, design),
    )


def _design(options: StudyOptions) -> InteractionDesign:
    return InteractionDesign(rho=options.rho, alpha=options.alpha)


def _comparisons(table: ScoreTable, welch: bool, confidence: float) -> tuple[GroupComparison, ...]:
    first, second = table.of_group(0), table.of_group(1)
    compared = partial(independent_t_test, welch=welch, confidence=confidence)
    followed = [
        GroupComparison(
            kind="phases",
            within=name,
            test=paired_t_test(after, before, confidence),
            d_z=d_z(after, before, confidence),
            d_av=d_av(after, before, confidence),
        )
        for name, (before, after) in zip(table.groups, (first.T, second.T), strict=True)
    ]
    followed += [
        GroupComparison(
            kind="groups",
            within=name,
            test=compared(treated, control),
            d_s=d_s(treated, control, confidence),
        )
        for name, control, treated in zip(table.phases, first.T, second.T, strict=True)
    ]
    both = changes(*second.T), changes(*first.T)
    of_changes = GroupComparison(
        kind="changes", within=None, test=compared(*both), d_s=d_s(*both, confidence)
    )
    adjusted = holm([comparison.test.p for comparison in followed])
    return (*(replace(c, p_holm=p) for c, p in zip(followed, adjusted, strict=True)), of_changes)


def _checks(table: ScoreTable) -> tuple[tuple[str, str, Check], ...]:
    both = [table.of_group(0), table.of_group(1)]
    named = dict(zip(table.groups, both, strict=True))
    normal = [
        (f"{group}, {phase}", scores[:, j])
        for group, scores in named.items()
        for j, phase in enumerate(table.phases)
    ]
    normal += [(f"{group}, change", changes(*s.T)) for group, s in named.items()]
    checks = [("shapiro_wilk", of, shapiro(scores)) for of, scores in normal]
    for j, phase in enumerate(table.phases):
        checks.append(("levene", phase, levene([scores[:, j] for scores in both])))
    return (*checks, ("box_m", "both phases", box_m(both)))


def _pooled_correlation(table: ScoreTable) -> float | None:
    both = (table.of_group(0), table.of_group(1))
    centered = np.concatenate([scores - scores.mean(axis=0) for scores in both])
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


def _power_sheet(
    options: StudyOptions, size: SampleSize | None, study: Study | None
) -> ReportTable:
    rows = [
        ("expected f (G*Power's convention)", number(options.f, 3)),
        ("correlation of the phases, assumed", share(options.rho)),
        ("alpha", share(options.alpha, 3)),
        ("wanted power", share(options.power)),
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
    title, header = "Power of the interaction", ("what", "figure")
    return ReportTable(title=title, header=header, rows=tuple(rows))


def _study_sheets(study: Study, confidence: float) -> tuple[ReportTable, ...]:
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
            *(_name(c, study), name, number(size.d, 3), ends(size.low, size.high)),
            *(number(size.g, 3), ends(size.g_low, size.g_high)),
        )
        for c in study.comparisons
        for name, size in c.sizes
    ]
    header = ("comparison", "which", "d", level, "Hedges' g", level)
    effect_sizes = ReportTable(title="Effect sizes", header=header, rows=tuple(sizes))
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
    for test, of, check in study.checks:
        df = DASH if check.df is None else ", ".join(map(degrees, check.df))
        rows.append((_TESTS[test], of, number(check.statistic, 3), df, p_cell(check.p)))
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
    """Return a line a group, the means of its phases with bars of one SD of the ``score``."""
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


_EFFECTS = ("group", "phase", "phase_unweighted", "interaction")


def find_study(config: InsightsConfig) -> Report:
    """Return the statistics of the table of scores; without a table, the sample size alone.

    Raises:
        DataError: When the table has faults or is no complete 2 x 2 study.
    """
    options = config.study
    if options.power <= options.alpha:
        raise ConfigError("study.power: must be above study.alpha; 0.8 is usual")
    size = interaction_sample_size(options.f, options.power, _design(options))
    planning = {
        "f": options.f,
        "wanted_power": options.power,
        **asdict(_design(options)),
        "n": None if size is None else size.n,
        "power": None if size is None else size.power,
    }
    notes = partial(notes_of, "study_notes", options=options)
    if config.data.path is None:
        people = find_people(config, None)
        return Report(
            action="study",
            title="Sample size of a 2 × 2 study",
            figures={"planning": planning, **people_figures(people)},
            sheets=(*people_sheets(people), _power_sheet(options, size, None)),
            notes=(*notes_of("study_people", people=people), *notes(study=None)),
        )
    path = Path(config.data.path)
    issues = IssueLog(str(path))
    rows = read_scores(path, options, issues=issues)
    if issues.issues and config.data.on_error == "fail":
        raise issues.error()
    table = arrange_scores(rows, options, file=str(path))
    left_out = issues.rows_rejected
    study = analyse_study(table, options, confidence=config.confidence)
    names = [table.groups[index] for index in table.group]
    group_of = dict(zip(table.participants, names, strict=True))
    people = find_people(config, group_of, table.groups)
    sentences = notes_of(
        "study_sentences",
        study=study,
        cells={(cell.group, cell.phase): cell for cell in study.cells},
        alpha=options.alpha,
        confidence=config.confidence,
    )
    return Report(
        action="study",
        title=f"Study of {path.name}",
        figures={
            **_figures(study, planning),
            **people_figures(people),
            "welch": options.welch,
            "confidence": config.confidence,
            "rows_left_out": left_out,
            "sentences": list(sentences),
        },
        sheets=(
            *people_sheets(people),
            *_study_sheets(study, config.confidence),
            _power_sheet(options, size, study),
        ),
        notes=(
            *notes_of("study_people", people=people),
            *sentences,
            *notes(study=study, left_out=left_out, rows_a_score=table.rows_a_score),
        ),
        rows=[{"effect": name, **asdict(getattr(study.anova, name))} for name in _EFFECTS],
        charts={"study": partial(study_chart, study, score=options.score)},
    )


def _figures(study: Study, planning: Mapping[str, Any]) -> dict[str, Any]:
    figures = asdict(study)
    figures["checks"] = [{"test": t, "of": of, **asdict(check)} for t, of, check in study.checks]
    figures["sphericity"] = "holds with two phases"
    for name in _EFFECTS:
        effect = getattr(study.anova, name)
        figures["anova"][name]["mean_square"] = effect.mean_square
        figures["anova"][name]["error_mean_square"] = effect.error_mean_square
    figures["planning"] = {**planning, "power_with_n": figures.pop("planned_power")}
    return figures
