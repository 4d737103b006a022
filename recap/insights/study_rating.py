"""The later steps of ``action=study_materials``: blind rating sheets, and scores from them."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Literal, TypeVar

import numpy as np

from recap.data.annotations import MISSING, AnnotatorLabel, tabulate
from recap.data.issues import LISTED_FAULTS, IssueLog, rows_error
from recap.data.sheets import filled_rows, raise_issues
from recap.errors import ConfigError, DataError, quote_id
from recap.insights.options import InsightsConfig
from recap.output.excel import sheet_file
from recap.output.format import number, share
from recap.output.report import Report
from recap.output.tables import ReportTable, table_of
from recap.statistics.agreement import (
    Agreement,
    mean_weighted_kappa,
    measure_agreement,
    ordinal_alpha,
    pair_confusions,
)

KEY_COLUMNS = {
    "participants": ("participant", "group"),
    "scenarios": ("scenario", "context", "client"),
    "ratings": ("rating_id", "participant", "group", "phase", "scenario"),
}
"""Columns that are read of each sheet of the key; the first says what a row is about."""

_RATING_COLUMNS = ("rating_id", "context", "client", "response", "rating", "remark")

SHEETS, RATINGS, KEY = "participants", "ratings", "key"
"""Folders under ``out``: what participants get, what raters get, and what neither may see."""

SCALE = ("-1", "0", "1")
"""Increases resistance, neutral, reduces resistance (paper, Section 7, after Rosengren 2008)."""


Key = Mapping[str, Mapping[str, str]]
"""Participant, group, phase and scenario that a rating id stands for; raters do not see it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """What one participant wrote to one scenario in one phase."""

    participant: str
    phase: str
    scenario: str
    text: str


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


def phase_scores(ratings: Sequence[AnnotatorLabel], keys: Key) -> tuple[PhaseScore, ...]:
    """Return the scores of every participant and phase that has ratings, in the order of names."""
    values: dict[str, list[int]] = {}
    for rating in ratings:
        values.setdefault(rating.id, []).append(int(rating.label))
    cells: dict[tuple[str, ...], list[float]] = {}
    for rating_id, given in values.items():
        cell = tuple(keys[rating_id][name] for name in ("participant", "group", "phase"))
        cells.setdefault(cell, []).append(fmean(given))
    return tuple(
        PhaseScore(
            participant=who, group=group, phase=phase, score=fmean(means), responses=len(means)
        )
        for (who, group, phase), means in sorted(cells.items())
    )


def rater_agreement(
    ratings: Sequence[AnnotatorLabel], *, confidence: float | None = 0.95
) -> RaterAgreement:
    """Return how far raters agree on the responses that two or more of them rated.

    ``ratings`` are at most one a rater and response, their session the participant who responded.
    """
    table = tabulate(ratings, labels=SCALE)
    # Values that nobody gave are no labels of the table; the scale has them all the same.
    places = np.array([SCALE.index(label) for label in table.labels])
    codes = np.where(table.codes == MISSING, MISSING, places[table.codes])
    return RaterAgreement(
        nominal=measure_agreement(table, level=confidence, kind="participant"),
        weighted_kappa=mean_weighted_kappa(pair_confusions(codes, len(SCALE))),
        ordinal_alpha=ordinal_alpha(table.counts()),
    )


def refuse_existing(folder: Path, what: str) -> None:
    """Raise a ``ConfigError`` where a folder holds something that people may have filled in."""
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(
            f"{folder}: holds {what} already, which may be filled in; move it away, or name "
            "another folder with out=FOLDER"
        )


def find_sheet(stem: Path) -> Path:
    """Return ``stem.csv`` or ``stem.xlsx``, the later saved; a ``DataError`` without either."""
    both = [stem.with_name(f"{stem.name}{ending}") for ending in (".csv", ".xlsx")]
    there = [path for path in both if path.is_file()]
    if not there:
        raise DataError(
            f"{stem.parent}: holds no {both[0].name} and no {both[1].name}; put the sheet back "
            "there, or begin with study_materials.step=draw in another folder"
        )
    return max(there, key=lambda path: path.stat().st_mtime)


def read_responses(
    path: Path, *, participant: str, phase: str, scenarios: Container[str], issues: IssueLog
) -> list[Response]:
    """Return the responses of a filled sheet; empty ones and missing scenarios are faults."""
    found: dict[str, Response] = {}
    for line, row in _known_rows(path, ("scenario", "response"), scenarios, found, issues):
        scenario, text = row["scenario"], row["response"]
        if text:
            found[scenario] = Response(
                participant=participant, phase=phase, scenario=scenario, text=text
            )
        else:
            hint = "have it written, or leave it out with data.on_error=skip"
            issues.reject(line, "response", f"to {scenario} is empty", hint)
    return list(found.values())


def read_ratings(path: Path, *, rater: str, keys: Key, issues: IssueLog) -> list[AnnotatorLabel]:
    """Return the ratings of a filled sheet; anything but -1, 0 and 1 is a fault."""
    found: dict[str, AnnotatorLabel] = {}
    for line, row in _known_rows(path, ("rating_id", "rating"), keys, found, issues):
        rating_id = row["rating_id"]
        value = row["rating"].removeprefix("+").removesuffix(".0").replace("−", "-")
        if value in SCALE:
            who = keys[rating_id]["participant"]
            found[rating_id] = AnnotatorLabel(
                id=rating_id, annotator=rater, label=value, session=who
            )
        else:
            reason = "is none of -1, 0 and 1" if value else "is empty"
            issues.reject(line, "rating", reason, "rate it, or leave it out: data.on_error=skip")
    return list(found.values())


def read_rows_by(
    path: Path, columns: Sequence[str], issues: IssueLog, *, optional: Sequence[str] = ()
) -> dict[str, dict[str, str]]:
    """Return rows by what stands in the first of the columns; a second one of it is a fault."""
    found: dict[str, dict[str, str]] = {}
    for _, row in _known_rows(path, columns, None, found, issues, optional):
        found[row[columns[0]]] = row
    return found


def _known_rows(
    path: Path,
    columns: Sequence[str],
    known: Container[str] | None,
    found: Container[str],
    issues: IssueLog,
    optional: Sequence[str] = (),
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows whose first column is known and was not found before; others are faults."""
    hint = "leave the columns as they were"
    for line, row in filled_rows(path, columns, issues, hint=hint, optional=optional):
        key = row[columns[0]]
        if key and key not in found and (known is None or key in known):
            yield line, row
            continue
        unknown = "is there twice" if key in found else "is not in the key of this study"
        reason = f"{quote_id(key)} {unknown}" if key else "is empty"
        issues.reject(line, columns[0], reason, "put the column back as it was")


def blind(responses: Iterable[Response], *, seed: int) -> dict[str, Response]:
    """Return responses in random order under ids that say nothing of who wrote them and when."""
    shuffled = sorted(responses, key=lambda r: (r.participant, r.phase, r.scenario))
    random.Random(f"{seed}:ratings").shuffle(shuffled)
    width = max(3, len(str(len(shuffled))))
    return {f"R{place:0{width}d}": r for place, r in enumerate(shuffled, start=1)}


def all_responses(
    config: InsightsConfig, folder: Path, participants: Iterable[str], scenarios: Container[str]
) -> tuple[list[Response], int]:
    """Return what participants wrote in both phases, and how many rows are left out.

    Raises:
        DataError: As :func:`read_all`, and when there is nothing.
    """
    read = partial(read_responses, scenarios=scenarios)
    phases = drawn_names(folder, "phases")
    sheets = {
        f"{who}/{phase}": partial(read, participant=who, phase=phase)
        for who in participants
        for phase in phases
    }
    responses, left_out = read_all(folder / SHEETS, sheets, config)
    if not responses:
        raise DataError(f"{folder / SHEETS}: nobody has responded; fill the column response")
    return responses, left_out


def make_rating_sheets(config: InsightsConfig, folder: Path) -> Report:
    """Return one rating sheet a rater, of all responses, that show neither group nor phase.

    Raises:
        ConfigError: When there are rating sheets already.
        DataError: When response sheets are missing or have faults.
    """
    refuse_existing(folder / RATINGS, "rating sheets")
    options, phases = config.study_materials, drawn_names(folder, "phases")
    groups = {who: row["group"] for who, row in own_rows(folder, "participants").items()}
    scenarios = own_rows(folder, "scenarios")
    responses, left_out = all_responses(config, folder, groups, scenarios)
    coded = blind(responses, seed=config.seed)
    ending = "xlsx" if options.excel else "csv"
    files: dict[str, str | bytes] = {}
    blank = []
    for rating_id, response in coded.items():
        shown = scenarios[response.scenario]
        blank.append((rating_id, shown["context"], shown["client"], response.text, "", ""))
    for rater in range(1, options.raters + 1):
        rows = blank.copy()
        random.Random(f"{config.seed}:rater{rater}").shuffle(rows)
        name = f"{RATINGS}/rater{rater}.{ending}"
        files[name] = sheet_file(_RATING_COLUMNS, rows, excel=options.excel)
    key = [
        (rating_id, r.participant, groups[r.participant], r.phase, r.scenario)
        for rating_id, r in coded.items()
    ]
    files[f"{KEY}/ratings.csv"] = sheet_file(KEY_COLUMNS["ratings"], key, excel=False)
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
            table_of(
                "Responses to rate",
                counts,
                {"phase": str, "responses": lambda phase: str(counts[phase])},
            ),
        ),
        notes=(
            *left_out_notes(left_out),
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
    keys = own_rows(folder, "ratings")
    stems = sorted({p.stem for p in (folder / RATINGS).glob("rater*") if p.is_file()})
    if not stems:
        raise DataError(
            f"{folder / RATINGS}: holds no rating sheets; make them with study_materials.step=rate"
        )
    sheets = {stem: partial(read_ratings, rater=stem, keys=keys) for stem in stems}
    ratings, left_out = read_all(folder / RATINGS, sheets, config)
    if not ratings:
        raise DataError(f"{folder / RATINGS}: nothing is rated yet; fill the column rating")
    scores = phase_scores(ratings, keys)
    agreement = rater_agreement(ratings, confidence=config.level) if len(stems) > 1 else None
    counts = Counter((rating.annotator, rating.label) for rating in ratings)
    given = {stem: {value: counts[stem, value] for value in SCALE} for stem in stems}
    return Report(
        action="study_materials_score",
        title=f"Scores from {len(ratings)} ratings of {len(stems)} raters",
        figures={
            "ratings": len(ratings),
            "raters": list(stems),
            "rows_left_out": left_out,
            "distribution": given,
            "agreement": None if agreement is None else _agreement_figures(agreement),
        },
        sheets=tuple(_sheets(given, scores, agreement, config.confidence)),
        notes=(
            *left_out_notes(left_out),
            "A score is the mean over responses of the mean over raters, from -1 to 1.",
            f"Analyse them: action=study data.path={folder / 'study_materials_score.csv'}",
        ),
        rows=[asdict(score) for score in scores],
    )


Read = TypeVar("Read")


def read_all(
    folder: Path, sheets: Mapping[str, Callable[..., list[Read]]], config: InsightsConfig
) -> tuple[list[Read], int]:
    """Return what stands in sheets, each read in its way, and how many rows are left out.

    Raises:
        DataError: When a sheet is missing, or has faults that are not to be skipped.
    """
    found: list[Read] = []
    logs = []
    for stem, read in sheets.items():
        path = find_sheet(folder / stem)
        logs.append(IssueLog(str(path)))
        found += read(path, issues=logs[-1])
    issues = [issue for log in logs for issue in log.issues]
    left_out = sum(log.rows_rejected for log in logs)
    if issues and config.data.on_error == "fail":
        raise rows_error(
            str(folder),
            issues[:LISTED_FAULTS],
            n_faults=len(issues),
            rows_rejected=left_out,
            rows_read=sum(log.rows_read for log in logs),
        )
    return found, left_out


def own_rows(folder: Path, stem: str, *more: str) -> dict[str, dict[str, str]]:
    """Return a sheet of the key, which was not handed out, and so has no faults.

    Columns beside those of :data:`KEY_COLUMNS` are empty where it lacks them.
    """
    path = find_sheet(folder / KEY / stem)
    issues = IssueLog(str(path))
    rows = read_rows_by(path, KEY_COLUMNS[stem], issues, optional=more)
    raise_issues(issues)
    return rows


def drawn_names(folder: Path, what: Literal["groups", "phases"]) -> list[str]:
    """Return the groups or the phases, in order, as they were when the materials were drawn."""
    path = folder / "study_materials.json"
    try:
        names = json.loads(path.read_text(encoding="utf-8"))[what]
    except (OSError, ValueError, LookupError, TypeError):
        raise DataError(
            f"{path}: cannot be read; name the folder that study_materials.step=draw wrote with "
            "out=FOLDER"
        ) from None
    return [str(name) for name in names]


def left_out_notes(n: int) -> list[str]:
    """Return the sentence on so many rows at fault, none for none."""
    return [f"{n} rows were left out for faults."] if n else []


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
    given: Mapping[str, Mapping[str, int]],
    scores: Sequence[PhaseScore],
    agreement: RaterAgreement | None,
    confidence: float,
) -> list[ReportTable]:
    cells: dict[str, list[float]] = {}
    for score in scores:
        cells.setdefault(f"{score.group}, {score.phase}", []).append(score.score)
    means = table_of(
        "Mean scores",
        cells,
        {
            "group, phase": str,
            "participants": lambda cell: str(len(cells[cell])),
            "mean": lambda cell: number(fmean(cells[cell]), 3),
        },
    )
    rows = [(rater, *map(str, counts.values())) for rater, counts in given.items()]
    sheets = [ReportTable(title="Ratings", header=("rater", *SCALE), rows=tuple(rows)), means]
    if agreement is not None:
        nominal = agreement.nominal.coefficients
        named = {title: nominal[name] for title, name in _COEFFICIENTS.items()}
        figures = [
            (title, share(of.value, 3), of.reason or f"[{share(of.low, 3)}, {share(of.high, 3)}]")
            for title, of in named.items()
        ]
        figures.append(("Cohen's kappa, squared weights", share(agreement.weighted_kappa, 3), ""))
        figures.append(("Krippendorff's alpha, ordinal", share(agreement.ordinal_alpha, 3), ""))
        header = ("figure", "value", f"{100 * confidence:g}% CI, by participant")
        title = "Agreement of the raters"
        sheets.append(ReportTable(title=title, header=header, rows=tuple(figures)))
    return sheets


_COEFFICIENTS = {
    "Cohen's kappa, mean over pairs": "mean_pairwise_cohen_kappa",
    "Fleiss' kappa": "fleiss_kappa",
    "Krippendorff's alpha, nominal": "krippendorff_alpha",
    "share of pairs that agree": "percent_agreement",
}
