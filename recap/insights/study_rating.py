"""The later steps of ``action=study_materials``: blind rating sheets, and scores from them."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from recap.data.annotations import MISSING, AnnotatorLabel, tabulate
from recap.data.issues import IssueLog
from recap.errors import DataError
from recap.insights.options import InsightsConfig
from recap.insights.study_sheets import (
    KEY,
    KEY_COLUMNS,
    RATING_COLUMNS,
    RATINGS,
    SCALE,
    SHEETS,
    BlindRating,
    Response,
    StudyKey,
    blind,
    find_sheet,
    own_sheet,
    read_groups,
    read_key,
    read_ratings,
    read_responses,
    read_scenarios,
    refuse_existing,
)
from recap.output.excel import sheet_file
from recap.output.format import number, share
from recap.output.report import Report
from recap.output.tables import ReportTable
from recap.statistics.agreement import (
    Agreement,
    krippendorff_alpha,
    mean_weighted_kappa,
    measure_agreement,
    pair_confusions,
)


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


def phase_scores(
    ratings: Sequence[BlindRating], keys: Mapping[str, StudyKey]
) -> tuple[PhaseScore, ...]:
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
    ratings: Sequence[BlindRating],
    keys: Mapping[str, StudyKey],
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
    annotations = [
        AnnotatorLabel(
            id=rating.rating_id,
            annotator=rating.rater,
            label=str(rating.value),
            session=keys[rating.rating_id].participant,
        )
        for rating in ratings
    ]
    table = tabulate(annotations, labels=SCALE)
    # Values that nobody gave are no labels of the table; the scale has them all the same.
    places = np.array([SCALE.index(label) for label in table.labels])
    codes = np.where(table.codes == MISSING, MISSING, places[table.codes])
    alpha = krippendorff_alpha(table.counts(), "ordinal")
    return RaterAgreement(
        nominal=measure_agreement(table, replicates=resamples, level=confidence, seed=seed),
        weighted_kappa=mean_weighted_kappa(pair_confusions(codes, len(SCALE))),
        ordinal_alpha=alpha if np.isfinite(alpha) else None,
    )


def make_rating_sheets(config: InsightsConfig, folder: Path) -> Report:
    """Return one rating sheet a rater, of all responses, that show neither group nor phase.

    Raises:
        ConfigError: When there are rating sheets already.
        DataError: When response sheets are missing or have faults.
    """
    refuse_existing(folder / RATINGS, "rating sheets")
    options, phases = config.study_materials, _phases(folder)
    responses, groups, left_out = _responses(config, folder, phases)
    scenarios = own_sheet(read_scenarios, find_sheet(folder / KEY, "scenarios"))
    coded = blind(responses, seed=config.seed)
    ending = "xlsx" if options.excel else "csv"
    files: dict[str, str | bytes] = {}
    for rater in range(1, options.raters + 1):
        order = list(coded)
        random.Random(f"{config.seed}:rater{rater}").shuffle(order)
        rows = [
            (rating_id, *scenarios[coded[rating_id].scenario], coded[rating_id].text, "", "")
            for rating_id in order
        ]
        name = f"{RATINGS}/rater{rater}.{ending}"
        files[name] = sheet_file(RATING_COLUMNS, rows, excel=options.excel)
    key = [
        (rating_id, r.participant, groups[r.participant], r.phase, r.scenario)
        for rating_id, r in coded.items()
    ]
    files[f"{KEY}/ratings.csv"] = sheet_file(KEY_COLUMNS, key, excel=False)
    counts = {phase: sum(r.phase == phase for r in responses) for phase in phases}
    return Report(
        action="study_materials_rate",
        title=f"Rating sheets of {len(coded)} responses",
        figures={
            "seed": config.seed,
            "responses": len(coded),
            "responses_by_phase": counts,
            "rows_left_out": left_out,
            "raters": options.raters,
        },
        sheets=(
            ReportTable(
                title="Responses to rate",
                header=("phase", "responses"),
                rows=tuple((phase, str(n)) for phase, n in counts.items()),
            ),
        ),
        notes=(
            *_left_out(left_out),
            "Raters write -1 (increases resistance), 0 (neutral) or 1 (reduces resistance).",
            f"{KEY}/ratings.csv says whose response is whose: keep it from raters.",
        ),
        private_pages=files,
    )


def make_scores(config: InsightsConfig, folder: Path) -> Report:
    """Return the scores of every participant and phase, and how far the raters agree.

    Raises:
        DataError: When rating sheets are missing or have faults.
    """
    keys = own_sheet(read_key, find_sheet(folder / KEY, "ratings"))
    stems = sorted({p.stem for p in (folder / RATINGS).glob("rater*") if p.is_file()})
    if not stems:
        raise DataError(
            f"{folder / RATINGS}: holds no rating sheets; make them with study_materials.step=rate"
        )
    ratings: list[BlindRating] = []
    logs = []
    for stem in stems:
        path = find_sheet(folder / RATINGS, stem)
        logs.append(IssueLog(str(path)))
        ratings += read_ratings(path, rater=stem, keys=keys, issues=logs[-1])
    left_out = _rows_left_out(folder / RATINGS, logs, config)
    if not ratings:
        raise DataError(f"{folder / RATINGS}: nothing is rated yet; fill the column rating")
    scores = phase_scores(ratings, keys)
    agreement = None
    if len(stems) > 1:
        agreement = rater_agreement(
            ratings,
            keys,
            confidence=config.confidence,
            resamples=config.resamples,
            seed=config.seed,
        )
    return Report(
        action="study_materials_score",
        title=f"Scores from {len(ratings)} ratings of {len(stems)} raters",
        figures={
            "ratings": len(ratings),
            "raters": list(stems),
            "rows_left_out": left_out,
            "distribution": _distribution(ratings, stems),
            "agreement": None if agreement is None else _agreement_figures(agreement),
        },
        sheets=tuple(_sheets(ratings, stems, scores, agreement, config.confidence)),
        notes=(
            *_left_out(left_out),
            "A score is the mean over responses of the mean over raters, from -1 to 1.",
            f"Analyse them: action=study data.path={folder / 'study_materials_score.csv'}",
        ),
        rows=[asdict(score) for score in scores],
    )


def _responses(
    config: InsightsConfig, folder: Path, phases: Sequence[str]
) -> tuple[list[Response], dict[str, str], int]:
    groups = own_sheet(read_groups, find_sheet(folder / KEY, "participants"))
    codes = list(own_sheet(read_scenarios, find_sheet(folder / KEY, "scenarios")))
    logs = []
    responses: list[Response] = []
    for participant in groups:
        for phase in phases:
            path = find_sheet(folder / SHEETS / participant, phase)
            logs.append(IssueLog(str(path)))
            responses += read_responses(
                path, participant=participant, phase=phase, scenarios=codes, issues=logs[-1]
            )
    left_out = _rows_left_out(folder / SHEETS, logs, config)
    if not responses:
        raise DataError(f"{folder / SHEETS}: nobody has responded; fill the column response")
    return responses, groups, left_out


def _phases(folder: Path) -> list[str]:
    """Return the phases as they were when the materials were drawn."""
    path = folder / "study_materials.json"
    try:
        phases = json.loads(path.read_text(encoding="utf-8"))["phases"]
    except (OSError, ValueError, LookupError, TypeError):
        raise DataError(
            f"{path}: cannot be read; name the folder that study_materials.step=draw wrote with "
            "out=FOLDER"
        ) from None
    return [str(phase) for phase in phases]


def _rows_left_out(folder: Path, logs: Sequence[IssueLog], config: InsightsConfig) -> int:
    """Return how many rows are left out, or raise the error that lists them."""
    issues = [issue for log in logs for issue in log.issues]
    n = len({(issue.file, issue.line) for issue in issues})
    if n and config.data.on_error == "fail":
        listed = "\n".join(f"  {issue}" for issue in issues[:20])
        more = f"\n  and {len(issues) - 20} more" if len(issues) > 20 else ""
        raise DataError(
            f"{folder}: {n} of {sum(log.rows_read for log in logs)} rows cannot be used:\n"
            f"{listed}{more}\nmend them, or leave them out with data.on_error=skip"
        )
    return n


def _left_out(n: int) -> list[str]:
    return [f"{n} rows were left out for faults."] if n else []


def _distribution(
    ratings: Sequence[BlindRating], raters: Sequence[str]
) -> dict[str, dict[str, int]]:
    return {
        rater: {
            value: sum(r.rater == rater and r.value == int(value) for r in ratings)
            for value in SCALE
        }
        for rater in raters
    }


def _agreement_figures(agreement: RaterAgreement) -> dict[str, object]:
    nominal = agreement.nominal
    return {
        **{name: asdict(estimate) for name, estimate in nominal.coefficients.items()},
        "weighted_kappa": agreement.weighted_kappa,
        "ordinal_alpha": agreement.ordinal_alpha,
        "responses": nominal.examples,
        "responses_rated_twice": nominal.paired_examples,
        "pairs": [asdict(pair) for pair in nominal.pairs],
    }


def _sheets(
    ratings: Sequence[BlindRating],
    raters: Sequence[str],
    scores: Sequence[PhaseScore],
    agreement: RaterAgreement | None,
    confidence: float,
) -> list[ReportTable]:
    counts = _distribution(ratings, raters)
    sheets = [
        ReportTable(
            title="Ratings",
            header=("rater", *SCALE),
            rows=tuple((rater, *map(str, counts[rater].values())) for rater in raters),
        ),
        _means(scores),
    ]
    if agreement is not None:
        named = agreement.nominal.coefficients
        rows = [
            (
                title,
                share(named[name].value, 3),
                f"[{share(named[name].low, 3)}, {share(named[name].high, 3)}]",
            )
            for title, name in (
                ("Cohen's kappa, mean over pairs", "mean_pairwise_cohen_kappa"),
                ("Fleiss' kappa", "fleiss_kappa"),
                ("Krippendorff's alpha, nominal", "krippendorff_alpha"),
                ("share of pairs that agree", "percent_agreement"),
            )
        ]
        rows.append(("Cohen's kappa, squared weights", share(agreement.weighted_kappa, 3), ""))
        rows.append(("Krippendorff's alpha, ordinal", share(agreement.ordinal_alpha, 3), ""))
        level = f"{100 * confidence:g}% CI, by participant"
        title = "Agreement of the raters"
        sheets.append(ReportTable(title=title, header=("figure", "value", level), rows=tuple(rows)))
    return sheets


def _means(scores: Sequence[PhaseScore]) -> ReportTable:
    cells: dict[tuple[str, str], list[float]] = {}
    for score in scores:
        cells.setdefault((score.group, score.phase), []).append(score.score)
    return ReportTable(
        title="Mean scores",
        header=("group, phase", "participants", "mean"),
        rows=tuple(
            (f"{group}, {phase}", str(len(values)), number(sum(values) / len(values), 3))
            for (group, phase), values in cells.items()
        ),
    )
