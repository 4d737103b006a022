"""What the reasons that systems give are worth: names, quotes, overlap, simulatability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from recap.analysis.quotes import FUZZY_THRESHOLD
from recap.analysis.rationale_names import names_another
from recap.analysis.rationales import draw_by_label
from recap.analysis.simulatability import Simulatability
from recap.corpus_actions.annotation_options import RatingsOptions
from recap.corpus_actions.rating_sheets import blank_sheet
from recap.data.safe_cells import sheet_to_csv
from recap.records import Example
from recap.report_sections.examples import read_examples_again
from recap.report_sections.judged_rationales import (
    JudgedRationales,
    annotators_simulatability,
    explains,
    judge_rationales,
)
from recap.report_sections.options import ReportConfig
from recap.report_sections.rationale_tables import rationale_notes, rationale_tables
from recap.report_sections.runs import ReportedRun
from recap.reporting.findings import Findings


@dataclass(frozen=True, kw_only=True)
class RationaleOptions:
    """What can be chosen of this section alone."""

    listed: int = 10
    """Examples of each kind on the page of ids."""
    similarity: float = FUZZY_THRESHOLD
    """Least similarity at which a quote counts as grounded though it is not verbatim."""
    ratings: RatingsOptions = field(default_factory=RatingsOptions)
    """Size, seed and criteria of the rating sheets."""


def rationale_section(
    runs: Sequence[ReportedRun], options: ReportConfig, own: RationaleOptions | None = None
) -> Findings | None:
    """Return what is to be said of the runs' rationales; ``None`` where no run gives any.

    Each run has a blank rating sheet among the pages, ``rationales_to_rate_<run>.csv``. With
    ``privacy.include_text`` it holds dialogues and rationales, and is one of the private pages.
    """
    own = own or RationaleOptions()
    explaining = [run for run in runs if any(map(explains, run.all_predictions))]
    if not explaining:
        return None
    read = read_examples_again(explaining)
    references: dict[Any, Simulatability | None] = {}
    judged = []
    for run in explaining:
        # Runs over the same examples and folds have one upper reference.
        key = (run.task.labels, tuple((k, p.id) for k, ps in run.predictions.items() for p in ps))
        if key not in references:
            references[key] = annotators_simulatability(run, read.examples)
        judged.append(
            judge_rationales(
                run, read.examples, similarity=own.similarity, annotators=references[key]
            )
        )
    texts = options.privacy.include_text
    sheets = {
        f"rationales_to_rate_{one.run}.csv": _rating_sheet(
            one, read.examples, own.ratings, language=run.config.data.language, texts=texts
        )
        for one, run in zip(judged, explaining, strict=True)
    }
    return Findings(
        action="rationales",
        title="Rationales: what they name, quote, repeat and give away",
        figures={
            "similarity_threshold": own.similarity,
            "data_read_again": read.fault is None,
            "runs": {one.run: _figures(one, own.ratings) for one in judged},
        },
        sheets=rationale_tables(judged, listed=own.listed, texts=texts),
        notes=(
            *read.notes("what rationales quote, and how they resemble those of annotators"),
            *rationale_notes(judged, own.similarity, own.ratings),
        ),
        rows=[{"run": one.run, **_flat(one)} for one in judged],
        pages={} if texts else sheets,
        private_pages=dict(sheets) if texts else {},
    )


def _rating_sheet(
    judged: JudgedRationales,
    known: Mapping[str, Example],
    ratings: RatingsOptions,
    *,
    language: str | None,
    texts: bool,
) -> str:
    by_id = {p.id: p for p in judged.given}
    examples = [
        replace(
            known.get(key) or Example(id=key, history=(), response=""),
            session=by_id[key].session,
            label=by_id[key].label,
            rationale=by_id[key].rationale,
        )
        for key in _to_rate(judged, ratings)
    ]
    sheet = blank_sheet(examples, criteria=ratings.criteria, language=language, texts=texts)
    return sheet_to_csv(sheet.header, sheet.rows)


def _to_rate(judged: JudgedRationales, ratings: RatingsOptions) -> list[str]:
    labels = {p.id: p.label or "" for p in judged.given}
    return draw_by_label(labels, size=ratings.size, seed=ratings.seed)


def _figures(judged: JudgedRationales, ratings: RatingsOptions) -> dict[str, Any]:
    return {
        "answers": judged.answers,
        "rationales": len(judged.given),
        "names": {
            **judged.naming_shares,
            "gold_where_wrong": judged.gold_named_where_wrong,
            "another_ids": [
                p.id
                for p, naming in zip(judged.given, judged.namings, strict=True)
                if names_another(naming)
            ],
        },
        "grounding": _plain(judged.grounding),
        "grounding_by_chance": _plain(judged.by_chance),
        "characters": asdict(judged.characters),
        "words": asdict(judged.words),
        "distinctness": asdict(judged.distinctness),
        "likeness": _plain(judged.likeness, without=("chrf_of",)),
        "simulatability": _plain(judged.simulatability),
        "simulatability_of_annotators": _plain(judged.annotators),
        "to_rate": _to_rate(judged, ratings),
    }


def _plain(found: Any, *, without: Sequence[str] = ()) -> dict[str, Any] | None:
    if found is None:
        return None
    return {name: value for name, value in asdict(found).items() if name not in without}


def _flat(judged: JudgedRationales) -> dict[str, float | int | None]:
    grounding, like, recovered = judged.grounding, judged.likeness, judged.simulatability
    return {
        "rationales": len(judged.given),
        **{f"names_{name}": share for name, share in judged.naming_shares.items()},
        "names_gold_where_wrong": judged.gold_named_where_wrong,
        "quotes": None if grounding is None else grounding.quotes,
        "quotes_exact": None if grounding is None else grounding.exact,
        "quotes_fuzzy": None if grounding is None else grounding.fuzzy,
        "mean_characters": judged.characters.mean,
        "mean_words": judged.words.mean,
        "distinct_1": judged.distinctness.distinct_1,
        "distinct_2": judged.distinctness.distinct_2,
        "duplicates": judged.distinctness.duplicates,
        "chrf": None if like is None else like.chrf,
        "chrf_same_label": None if like is None else like.chrf_same_label,
        "bleu": None if like is None else like.bleu,
        "recovered": None if recovered is None else recovered.unmasked.accuracy.mean,
        "recovered_masked": None if recovered is None else recovered.masked.accuracy.mean,
        "recovered_by_majority": None if recovered is None else recovered.majority.accuracy.mean,
    }
