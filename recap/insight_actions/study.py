"""``action=study``: what a study with two groups and two phases has shown, or will need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from recap.analysis.power import InteractionDesign
from recap.analysis.study import Planning, Study, analyse_study, plan_study
from recap.analysis.study_table import ScoreTable, arrange_scores
from recap.data.faults import FaultLog
from recap.data.scores import ScoreColumns, read_scores
from recap.errors import ConfigError
from recap.insight_actions.options import InsightsConfig
from recap.insight_actions.study_options import StudyOptions
from recap.reporting.findings import Findings
from recap.reporting.study import planning_sheet, study_sentences, study_sheets
from recap.reporting.study_chart import study_chart

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


def find_study(config: InsightsConfig) -> Findings:
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
        return Findings(
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
    return Findings(
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
    faults = FaultLog(str(path))
    columns = ScoreColumns(
        participant=options.participant,
        group=options.group,
        phase=options.phase,
        score=options.score,
    )
    rows = read_scores(path, columns, faults=faults, sheet=options.sheet)
    if faults.faults and on_error == "fail":
        raise faults.error()
    table = arrange_scores(
        rows,
        file=str(path),
        groups=options.groups,
        phases=options.phases,
        repeated=options.repeated,
    )
    return table, faults.rows_rejected


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
