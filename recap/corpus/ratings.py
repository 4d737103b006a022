"""``action=ratings``: sheets on which rationales are rated, and what the filled ones say."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from recap.corpus.assign import check_file_name, read_predictions, read_utterances
from recap.corpus.options import CorpusConfig
from recap.corpus.sources import keep_filled_in, named_path, open_source, several
from recap.data.sheets import Rating, blank_sheet, read_ratings
from recap.errors import ConfigError, DataError
from recap.metrics.scalar import Floats
from recap.output.charts import Bar, bar_chart
from recap.output.excel import NO_OPENPYXL, NoOpenpyxlError, workbook_bytes
from recap.output.format import DASH, mean_sd, number
from recap.output.report import Report
from recap.output.tables import ReportTable, table_of
from recap.records import Example
from recap.statistics.agreement import mean_weighted_kappa, ordinal_alpha, pair_confusions
from recap.system.files import sheet_to_csv


@dataclass(frozen=True, kw_only=True, slots=True)
class RaterMean:
    """The mean of one rater's points."""

    rater: str
    n: int
    mean: float
    std: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class CriterionRatings:
    """The ratings on one criterion; a figure is ``None`` where it is undefined."""

    criterion: str
    examples: int
    n: int
    """Ratings."""
    mean: float | None
    std: float | None
    """Sample standard deviation (ddof 1) over all ratings."""
    counts: tuple[int, ...]
    """Ratings of 1 point, of 2, and so on."""
    raters: tuple[RaterMean, ...]
    rated_by_all: int
    """Examples that every rater rated, over which the intraclass correlations go."""
    alpha_ordinal: float | None
    """Krippendorff's alpha for ranks; missing ratings are allowed."""
    weighted_kappa: float | None
    """Cohen's kappa with quadratic weights, the mean over pairs of raters."""
    icc_single: float | None
    """ICC(2,1): absolute agreement of single raters, two-way random (Shrout & Fleiss 1979)."""
    icc_mean: float | None
    """ICC(2,k): the same of the raters' mean."""
    exact_agreement: float | None
    """Share of pairs of ratings of one example that are equal."""
    within_one: float | None
    """Share of such pairs at most one point apart."""


def summarize_ratings(
    ratings: Sequence[Rating], *, criteria: Sequence[str], points: int = 5
) -> tuple[CriterionRatings, ...]:
    """Return means and agreement on every criterion.

    Points go from 1 to ``points``; a rater gives an example at most one rating on a criterion.
    """
    raters = tuple(dict.fromkeys(rating.rater for rating in ratings))
    return tuple(
        _summary(name, [r for r in ratings if r.criterion == name], raters, points)
        for name in criteria
    )


def intraclass_correlation(values: Floats) -> tuple[float | None, float | None]:
    """Return ICC(2,1) and ICC(2,k) of ratings of shape (examples, raters) without gaps.

    Two-way random effects, absolute agreement (Shrout & Fleiss 1979, formulas for case 2); ``None``
    with fewer than two examples or raters, where all ratings are equal, or where the formula
    divides by zero.
    """
    n, k = values.shape
    if n < 2 or k < 2 or np.ptp(values) == 0:
        return None, None
    grand = values.mean()
    rows = k * ((values.mean(axis=1) - grand) ** 2).sum() / (n - 1)
    columns = n * ((values.mean(axis=0) - grand) ** 2).sum() / (k - 1)
    residual = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + grand
    error = (residual**2).sum() / ((n - 1) * (k - 1))
    single = rows + (k - 1) * error + k * (columns - error) / n
    mean = rows + (columns - error) / n
    return _ratio(rows - error, single), _ratio(rows - error, mean)


def _summary(
    criterion: str, ratings: Sequence[Rating], raters: Sequence[str], points: int
) -> CriterionRatings:
    ids = tuple(dict.fromkeys(rating.id for rating in ratings))
    row = {identifier: place for place, identifier in enumerate(ids)}
    table = np.zeros((len(ids), len(raters)), dtype=np.int64)
    for rating in ratings:
        table[row[rating.id], raters.index(rating.rater)] = rating.points
    given = [rating.points for rating in ratings]
    counts = np.stack([(table == value).sum(axis=1) for value in range(1, points + 1)], axis=1)
    complete = table[(table > 0).all(axis=1)]
    single, mean = intraclass_correlation(complete.astype(np.float64))
    confusions = pair_confusions(table - 1, points)
    distance = np.abs(np.subtract.outer(np.arange(points), np.arange(points)))
    pooled = confusions.sum(axis=0)
    return CriterionRatings(
        criterion=criterion,
        examples=len(ids),
        n=len(given),
        mean=statistics.fmean(given) if given else None,
        std=_std(given),
        counts=tuple(int(n) for n in counts.sum(axis=0)),
        raters=tuple(
            RaterMean(rater=name, n=len(own), mean=statistics.fmean(own), std=_std(own))
            for name in raters
            if (own := [rating.points for rating in ratings if rating.rater == name])
        ),
        rated_by_all=len(complete),
        alpha_ordinal=ordinal_alpha(counts),
        weighted_kappa=mean_weighted_kappa(confusions),
        icc_single=single,
        icc_mean=mean,
        exact_agreement=_ratio(pooled[distance == 0].sum(), pooled.sum()),
        within_one=_ratio(pooled[distance <= 1].sum(), pooled.sum()),
    )


def _std(points: Sequence[int]) -> float | None:
    return statistics.stdev(points) if len(points) > 1 else None


def _ratio(part: float, whole: float) -> float | None:
    # A whole that is nothing but rounding of its parts is none: an ICC is not 6e15.
    return float(part / whole) if abs(whole) > 1e-12 * abs(part) else None


def ratings(config: CorpusConfig) -> Report:
    """Return blank sheets, or what filled ones say."""
    return _blank(config) if config.ratings.path is None else _filled(config)


def _blank(config: CorpusConfig) -> Report:
    options = config.ratings
    if config.out is None:
        raise ConfigError(
            "action=ratings: needs out=FOLDER for blank sheets, or ratings.path=[A,B] with filled "
            "ones"
        )
    source = open_source(config)
    explained = _explained(config, read_utterances(source, config.data))
    draw = random.Random(f"rating sample {options.seed}")
    examples = draw.sample(explained, min(options.size, len(explained)))
    header, cells = blank_sheet(examples, criteria=options.criteria, language=config.data.language)
    try:
        scales = dict.fromkeys(options.criteria, options.points)
        book = workbook_bytes({"Sheet": (header, cells)}, scales=scales)
    except NoOpenpyxlError:
        book = None
    pages: dict[str, str | bytes] = {}
    for rater in options.raters:
        check_file_name("ratings.raters", rater)
        pages[f"ratings_{rater}.csv"] = sheet_to_csv(header, cells)
        if book is not None:
            pages[f"ratings_{rater}.xlsx"] = book
    keep_filled_in(config, pages)
    counts = Counter(example.label or "without a label" for example in examples)
    notes = [
        *source.notes(),
        f"rate each rationale from 1 to {options.points} on: {', '.join(options.criteria)}",
        "give the filled sheets back with ratings.path=[ratings_A.csv,ratings_B.csv] (or .xlsx)",
        *([] if book is not None else [NO_OPENPYXL]),
    ]
    return Report(
        action="ratings",
        title=f"Blank sheets of {len(examples):,} rationales for {len(options.raters)} raters",
        figures={
            "examples": [example.id for example in examples],
            "raters": options.raters,
            "criteria": options.criteria,
            "points": options.points,
            "seed": options.seed,
        },
        sheets=(
            ReportTable(
                title="Rationales on the sheets",
                header=("label", "examples"),
                rows=tuple((label, f"{n:,}") for label, n in counts.most_common()),
            ),
        ),
        notes=tuple(notes),
        private_pages=pages,
    )


def _filled(config: CorpusConfig) -> Report:
    options = config.ratings
    paths = [named_path("ratings.path", part) for part in several(options.path or [])]
    read, empty = read_ratings(paths, criteria=options.criteria, points=options.points)
    found = summarize_ratings(read, criteria=options.criteria, points=options.points)
    raters = tuple(dict.fromkeys(rating.rater for rating in read))
    coefficients = (
        "alpha: Krippendorff's for ranks; kappa: Cohen's with quadratic weights, mean over pairs "
        "of raters; ICC(2,1), ICC(2,k): absolute agreement, two-way random, over what all rated"
    )
    notes = ["mean and SD (ddof 1) over all ratings; –: undefined", coefficients]
    if empty:
        notes.append(f"{empty:,} cells are empty and are no rating")
    return Report(
        action="ratings",
        title=f"Ratings of {len(raters)} raters from 1 to {options.points}",
        figures={
            "points": options.points,
            "raters": list(raters),
            "criteria": {figures.pop("criterion"): figures for figures in map(asdict, found)},
        },
        sheets=(
            table_of("Points", found, {"criterion": _shown, **_MEANS}),
            table_of("Agreement between raters", found, {"criterion": _shown, **_AGREEMENT}),
            _raters(found, raters),
        ),
        notes=tuple(notes),
        rows=[
            {key: value for key, value in figures.items() if not isinstance(value, tuple | list)}
            for figures in map(asdict, found)
        ],
        charts={"ratings": partial(_chart, found)} if read else {},
    )


def _explained(config: CorpusConfig, examples: list[Example]) -> list[Example]:
    """Return the examples that have a rationale, of the data or of predictions."""
    if config.ratings.predictions is not None:
        given = read_predictions("ratings.predictions", config.ratings.predictions)
        examples = [
            replace(e, label=given[e.id].label, rationale=given[e.id].rationale)
            for e in examples
            if e.id in given
        ]
    found = [example for example in examples if example.rationale]
    if not found:
        raise DataError(
            "no example has a rationale to rate; name predictions that have one with "
            "ratings.predictions=FILE"
        )
    return found


_MEANS: Mapping[str, Callable[[CriterionRatings], str]] = {
    "examples": lambda one: f"{one.examples:,}",
    "ratings": lambda one: f"{one.n:,}",
    "mean": lambda one: number(one.mean),
    "SD": lambda one: number(one.std),
}
_AGREEMENT: Mapping[str, Callable[[CriterionRatings], str]] = {
    "alpha": lambda one: number(one.alpha_ordinal, 3),
    "weighted kappa": lambda one: number(one.weighted_kappa, 3),
    "ICC(2,1)": lambda one: number(one.icc_single, 3),
    "ICC(2,k)": lambda one: number(one.icc_mean, 3),
    "equal": lambda one: number(one.exact_agreement),
    "within 1": lambda one: number(one.within_one),
}


def _raters(found: Sequence[CriterionRatings], raters: Sequence[str]) -> ReportTable:
    rows = []
    for one in found:
        means = {rater.rater: rater for rater in one.raters}
        cells = [
            mean_sd(means[name].mean, means[name].std) if name in means else DASH for name in raters
        ]
        rows.append((_shown(one), *cells))
    return ReportTable(
        title="Mean ± SD of each rater", header=("criterion", *raters), rows=tuple(rows)
    )


def _chart(found: Sequence[CriterionRatings]) -> Any:
    bars = [
        Bar(name=_shown(one), value=round(one.mean, 2)) for one in found if one.mean is not None
    ]
    return bar_chart(bars, axis="mean points")


def _shown(one: CriterionRatings) -> str:
    return one.criterion.replace("_", " ")
