"""``action=agreement``: how far annotators agree, over all labels, per label and per pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from statistics import median
from typing import Any

from recap.corpus.options import AgreementOptions, CorpusConfig
from recap.corpus.sources import label_order, open_annotations, reading_notes
from recap.data.annotations import tabulate
from recap.output.charts import matrix_chart
from recap.output.format import DASH, number
from recap.output.report import Report
from recap.output.tables import ReportTable, table_of
from recap.statistics.agreement import OVERALL, PER_LABEL, Agreement, measure_agreement
from recap.statistics.clusters import Interval, clustered, reasons

NAMES = {
    "mean_pairwise_cohen_kappa": "Cohen's kappa, mean over pairs of annotators",
    "weighted_pairwise_cohen_kappa": "Cohen's kappa, pairs weighted by shared examples",
    "fleiss_kappa": "Fleiss' kappa",
    "krippendorff_alpha": "Krippendorff's alpha (nominal)",
    "percent_agreement": "agreeing pairs of annotations",
    "unanimous_share": "examples on which all agree",
}
"""What tables call the coefficients."""

FEW_SHARED = 30
"""Under so many shared examples kappa of a pair is visibly biased; our own line."""

_PAIRS_SHOWN = 20
_MOST_COLUMNS = 6
_SHARES = ("percent_agreement", "unanimous_share")


def agreement(config: CorpusConfig) -> Report:
    """Return how far annotators agree."""
    read = open_annotations(config)
    options = config.agreement
    found = measure_agreement(
        tabulate(read.annotations, labels=label_order(config)),
        level=options.level if options.replicates else None,
    )
    names = {"rows": "one annotator", "columns": "another"}
    chart = partial(matrix_chart, found.confusion, found.labels, found.labels, **names)
    return Report(
        action="agreement",
        title=f"Agreement between {len(found.annotators)} annotators",
        figures=_figures(found, options),
        sheets=_sheets(found),
        notes=(*reading_notes(read), *_notes(found)),
        rows=_rows(found),
        charts={"agreement": chart} if found.pairs else {},
    )


def _figures(found: Agreement, options: AgreementOptions) -> dict[str, Any]:
    every = asdict(found)
    coefficients, per_label = every.pop("coefficients"), every.pop("per_label")
    return {
        **{name: coefficients[name]["value"] for name in OVERALL},
        "intervals": {name: _interval(found.coefficients[name]) for name in OVERALL},
        "per_label": {
            row["label"]: {
                "judgements": row["judgements"],
                **{name: row["coefficients"][name]["value"] for name in PER_LABEL},
                "intervals": {name: _interval(one.coefficients[name]) for name in PER_LABEL},
            }
            for row, one in zip(per_label, found.per_label, strict=True)
        },
        **every,
        "replicates": options.replicates,
        "level": options.level,
        "seed": options.seed,
    }


def kappa_text(value: float | None) -> str:
    """Return a coefficient for a table, ``–`` where it is undefined."""
    return number(value, 4)


def _sheets(found: Agreement) -> tuple[ReportTable, ...]:
    level = "" if found.level is None else f", with {100 * found.level:g} % intervals"
    overall = table_of(
        f"Over {len(found.labels)} labels{level}",
        found.coefficients,
        {
            "coefficient": lambda name: NAMES[name],
            "value": lambda name: _value(found.coefficients[name].value, name in _SHARES),
            "interval": lambda name: _interval_text(found.coefficients[name], name in _SHARES),
        },
    )
    labels = table_of(
        "Each label against the rest",
        found.per_label,
        {
            "label": lambda row: row.label,
            "annotations": lambda row: f"{row.judgements:,}",
            "Cohen's kappa": lambda row: kappa_text(row.coefficients["cohen_kappa"].value),
            "interval": lambda row: _interval_text(row.coefficients["cohen_kappa"]),
            "Fleiss' kappa": lambda row: kappa_text(row.coefficients["fleiss_kappa"].value),
            "alpha": lambda row: kappa_text(row.coefficients["krippendorff_alpha"].value),
        },
    )
    ordered = sorted(found.pairs, key=lambda pair: (pair.cohen_kappa is None, pair.cohen_kappa))
    shown = ordered[:_PAIRS_SHOWN]
    of_all = f", the {len(shown)} lowest of {len(ordered)}" if len(shown) < len(ordered) else ""
    pairs = table_of(
        f"Pairs of annotators{of_all}",
        shown,
        {
            "pair": lambda pair: f"{pair.first}, {pair.second}",
            "examples": lambda pair: f"{pair.examples:,}",
            "agreement": lambda pair: f"{100 * pair.agreement:.2f} %",
            "Cohen's kappa": lambda pair: kappa_text(pair.cohen_kappa),
        },
    )
    wide = len(found.labels) > _MOST_COLUMNS
    return overall, labels, pairs, _most_confused(found) if wide else _confusion(found)


def _confusion(found: Agreement) -> ReportTable:
    return ReportTable(
        title="Pairs of annotations of one example (each counted both ways round)",
        header=("label", *found.labels),
        rows=tuple(
            (label, *(f"{count:,}" for count in row))
            for label, row in zip(found.labels, found.confusion, strict=True)
        ),
    )


def _most_confused(found: Agreement) -> ReportTable:
    """Return the labels that most often stood for one example; a matrix would be too wide."""
    pairs = [
        (n, found.labels[first], found.labels[second])
        for first, row in enumerate(found.confusion)
        for second, n in enumerate(row[:first])
        if n
    ]
    given = {row.label: row.judgements for row in found.per_label}
    return table_of(
        "Labels that most often stood for one example (the whole matrix: agreement.json)",
        sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))[:_PAIRS_SHOWN],
        {
            "labels": lambda pair: f"{pair[1]}, {pair[2]}",
            "pairs of annotations": lambda pair: f"{pair[0]:,}",
            "annotations of each": lambda pair: f"{given[pair[1]]:,}, {given[pair[2]]:,}",
        },
    )


def _notes(found: Agreement) -> list[str]:
    counted = f"{found.examples:,} examples, {found.judgements:,} annotations"
    notes = [f"{counted}; {found.paired_examples:,} examples were annotated twice or more"]
    if not found.paired_examples:
        return [*notes, "no example was annotated by two annotators: nothing can be said"]
    if found.level is not None:
        over = clustered(found.cluster, found.clusters)
        notes += [f"intervals {over}"] if over else []
        notes += reasons(_named(found))
    shared = median(pair.examples for pair in found.pairs)
    if shared < FEW_SHARED:
        notes.append(
            f"pairs of annotators share {shared:g} examples (median): so few that kappas of pairs, "
            "and their means, come out low; take Fleiss' kappa or alpha"
        )
    if found.coefficients["fleiss_kappa"].value is None:
        notes.append("–: undefined, since everybody gave one and the same label")
    return notes


def _named(found: Agreement) -> dict[str, Interval]:
    of_labels = {row.label: row.coefficients["cohen_kappa"] for row in found.per_label}
    return {NAMES[name]: one for name, one in found.coefficients.items()} | of_labels


def _rows(found: Agreement) -> list[Mapping[str, Any]]:
    rows = [("all", name, found.coefficients[name]) for name in OVERALL]
    rows += [
        (row.label, name, row.coefficients[name]) for row in found.per_label for name in PER_LABEL
    ]
    return [
        {"label": label, "coefficient": name, "value": estimate.value, **_interval(estimate)}
        for label, name, estimate in rows
    ]


def _interval(estimate: Interval) -> dict[str, Any]:
    return {name: one for name, one in asdict(estimate).items() if name != "value"}


def _value(value: float | None, percent: bool = False) -> str:
    return f"{100 * value:.2f} %" if percent and value is not None else kappa_text(value)


def _interval_text(estimate: Interval, percent: bool = False) -> str:
    if estimate.low is None:
        return DASH
    return f"{_value(estimate.low, percent)} to {_value(estimate.high, percent)}"
