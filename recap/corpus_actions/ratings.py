"""``action=ratings``: sheets on which rationales are rated, and what the filled ones say."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from recap.analysis.ratings import CriterionRatings, summarize_ratings
from recap.corpus_actions.annotations import named_path, several
from recap.corpus_actions.batches import check_file_name, read_predictions, read_utterances
from recap.corpus_actions.options import CorpusConfig
from recap.corpus_actions.overwriting import keep_filled_in
from recap.corpus_actions.rating_sheets import blank_sheet, read_ratings
from recap.data.safe_cells import sheet_to_csv
from recap.errors import ConfigError, DataError
from recap.records import Example
from recap.reporting.charts import Bar, bar_chart
from recap.reporting.findings import Findings
from recap.reporting.sheets import Sheet
from recap.reporting.workbooks import NO_OPENPYXL, fill_in_workbook

_DASH = "–"
_AGREEMENT = ("alpha_ordinal", "weighted_kappa", "icc_single", "icc_mean")


def ratings(config: CorpusConfig) -> Findings:
    """Return blank sheets, or what filled ones say.

    Raises:
        ConfigError: When the folder for blank sheets is missing.
        DataError: When data or sheets cannot be used.
    """
    return _blank(config) if config.ratings.path is None else _filled(config)


def _blank(config: CorpusConfig) -> Findings:
    options = config.ratings
    if config.out is None:
        raise ConfigError(
            "action=ratings: needs out=FOLDER for blank sheets, or ratings.path=[A,B] with filled "
            "ones"
        )
    read = read_utterances(config)
    examples = _drawn(_explained(config, read.examples), options.size, options.seed)
    sheet = blank_sheet(examples, criteria=options.criteria, language=config.data.language)
    book = fill_in_workbook(sheet.header, sheet.rows, scale=options.criteria, points=options.points)
    pages: dict[str, str | bytes] = {}
    for rater in options.raters:
        check_file_name("ratings.raters", rater)
        pages[f"ratings_{rater}.csv"] = sheet_to_csv(sheet.header, sheet.rows)
        if book is not None:
            pages[f"ratings_{rater}.xlsx"] = book
    keep_filled_in(config, pages)
    notes = [
        *read.notes,
        f"rate each rationale from 1 to {options.points} on: {', '.join(options.criteria)}",
        "give the filled sheets back with ratings.path=[ratings_A.csv,ratings_B.csv] (or .xlsx)",
        *([] if book is not None else [NO_OPENPYXL]),
    ]
    return Findings(
        action="ratings",
        title=f"Blank sheets of {len(examples):,} rationales for {len(options.raters)} raters",
        figures={
            "examples": [example.id for example in examples],
            "raters": options.raters,
            "criteria": options.criteria,
            "points": options.points,
            "seed": options.seed,
        },
        sheets=(_drawn_labels(examples),),
        notes=tuple(notes),
        private_pages=pages,
    )


def _filled(config: CorpusConfig) -> Findings:
    options = config.ratings
    paths = [named_path("ratings.path", part) for part in several(options.path or [])]
    read = read_ratings(paths, criteria=options.criteria, points=options.points)
    found = summarize_ratings(read.ratings, criteria=options.criteria, points=options.points)
    raters = tuple(dict.fromkeys(rating.rater for rating in read.ratings))
    coefficients = (
        "alpha: Krippendorff's for ranks; kappa: Cohen's with quadratic weights, mean over pairs "
        "of raters; ICC(2,1), ICC(2,k): absolute agreement, two-way random, over what all rated"
    )
    notes = ["mean and SD (ddof 1) over all ratings; –: undefined", coefficients]
    if read.empty:
        notes.append(f"{read.empty:,} cells are empty and are no rating")
    return Findings(
        action="ratings",
        title=f"Ratings of {len(raters)} raters from 1 to {options.points}",
        figures={
            "points": options.points,
            "raters": list(raters),
            "criteria": {one.criterion: _figures(one) for one in found},
        },
        sheets=(_means(found), _agreement(found), _raters(found, raters)),
        notes=tuple(notes),
        rows=[
            {
                key: value
                for key, value in asdict(one).items()
                if not isinstance(value, tuple | list)
            }
            for one in found
        ],
        charts={"ratings": partial(_chart, found)} if read.ratings else {},
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


def _drawn_labels(examples: Sequence[Example]) -> Sheet:
    counts = Counter(example.label or "without a label" for example in examples)
    return Sheet(
        title="Rationales on the sheets",
        header=("label", "examples"),
        rows=tuple((label, f"{n:,}") for label, n in counts.most_common()),
    )


def _drawn(examples: Sequence[Example], size: int, seed: int) -> list[Example]:
    return random.Random(f"rating sample {seed}").sample(examples, min(size, len(examples)))


def _figures(one: CriterionRatings) -> Mapping[str, Any]:
    return {key: value for key, value in asdict(one).items() if key != "criterion"}


def _means(found: Sequence[CriterionRatings]) -> Sheet:
    return Sheet(
        title="Points",
        header=("criterion", "examples", "ratings", "mean", "SD"),
        rows=tuple(
            (
                _shown(one.criterion),
                f"{one.examples:,}",
                f"{one.n:,}",
                _number(one.mean),
                _number(one.std),
            )
            for one in found
        ),
    )


def _agreement(found: Sequence[CriterionRatings]) -> Sheet:
    header = ("criterion", "alpha", "weighted kappa", "ICC(2,1)", "ICC(2,k)", "equal", "within 1")
    return Sheet(
        title="Agreement between raters",
        header=header,
        rows=tuple(
            (
                _shown(one.criterion),
                *(_number(getattr(one, name), 3) for name in _AGREEMENT),
                _number(one.exact_agreement),
                _number(one.within_one),
            )
            for one in found
        ),
    )


def _raters(found: Sequence[CriterionRatings], raters: Sequence[str]) -> Sheet:
    rows = []
    for one in found:
        means = {rater.rater: rater for rater in one.raters}
        cells = [
            f"{means[name].mean:.2f} ± {_number(means[name].std)}" if name in means else _DASH
            for name in raters
        ]
        rows.append((_shown(one.criterion), *cells))
    return Sheet(title="Mean ± SD of each rater", header=("criterion", *raters), rows=tuple(rows))


def _chart(found: Sequence[CriterionRatings]) -> Any:
    bars = [
        Bar(name=_shown(one.criterion), value=round(one.mean, 2))
        for one in found
        if one.mean is not None
    ]
    return bar_chart(bars, axis="mean points")


def _shown(criterion: str) -> str:
    return criterion.replace("_", " ")


def _number(value: float | None, digits: int = 2) -> str:
    return _DASH if value is None else f"{value:.{digits}f}"
