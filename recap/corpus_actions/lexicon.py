"""``action=lexicon``: the words and pairs of words that set each category apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial

from recap.analysis.describe import content_digest
from recap.analysis.lexicon import CategoryTerms, LexiconCounter, Order, Prior
from recap.analysis.segment import segmenter
from recap.corpus_actions.options import CorpusConfig, LexiconOptions
from recap.corpus_actions.sources import Source, find_task, find_taxonomy, open_source
from recap.data.examples import examples_of
from recap.errors import ConfigError, DataError
from recap.records import Dialogue, Example
from recap.reporting.charts import Bar, BarPanel, panel_chart
from recap.reporting.findings import Findings
from recap.reporting.sheets import Sheet

_ORDERS: dict[str, tuple[Order, ...]] = {
    "unigrams": ("unigram",),
    "bigrams": ("bigram",),
    "both": ("unigram", "bigram"),
}


def lexicon(config: CorpusConfig) -> Findings:
    """Return the terms with the highest z-scored log-odds of each label of the task.

    Raises:
        ConfigError: For a segmenter that is not installed, or a contrast that is no label.
        DataError: When rows are at fault, or fewer than two labels have utterances.
    """
    options = config.lexicon
    contrast = _contrast(config)
    name, segment = segmenter(options.segmenter)
    source = open_source(config, find_taxonomy(config))
    counter = LexiconCounter(segment, orders=_ORDERS[options.terms])
    for example, label in _labelled(config, source):
        counter.add(example.response, label, example.session)
    if len(counter.labels) < 2:
        raise DataError(
            f"{source.file}: {len(counter.labels)} of the labels have utterances; a contrast needs "
            "two (task=NAME chooses the labels)"
        )
    prior = Prior(kind=options.prior, size=options.prior_tokens)
    found = counter.result(
        _labels(config, counter),
        prior=prior,
        contrast=contrast,
        minimum_count=options.minimum_count,
        top_k=options.top_k,
        shared_only=options.shared_only,
    )
    settings = _settings(options, name)
    return Findings(
        action="lexicon",
        title=f"Words of {config.data.name} by category",
        figures={
            "data": config.data.name,
            "task": config.task.name if config.labels == "canonical" else None,
            "options": {**asdict(options), "segmenter": name},
            "categories": [asdict(category) for category in found],
        },
        sheets=(_sheet(found, settings),),
        notes=(*source.notes(), *_notes(options)),
        rows=[
            {"category": category.name, "rank": rank, **asdict(term)}
            for category in found
            for rank, term in enumerate(category.terms, start=1)
        ],
        charts={"lexicon": partial(panel_chart, _panels(config, found), axis="z")},
    )


def _labelled(config: CorpusConfig, source: Source) -> Iterator[tuple[Example, str]]:
    task = find_task(config) if config.labels == "canonical" else None
    drop, seen = config.data.duplicates == "drop", set[bytes]()
    for record in source.records:
        for example in _utterances(record):
            if example.label is None or (task is not None and not task.select(example)):
                continue
            if drop:
                digest = content_digest(example)
                if digest in seen:
                    continue
                seen.add(digest)
            yield example, example.label if task is None else task.gold(example)


def _utterances(record: Dialogue | Example) -> Iterator[Example]:
    if isinstance(record, Example):
        yield record
    else:
        yield from examples_of(record, merge_adjacent=False, no_intervention="keep")


def _labels(config: CorpusConfig, counter: LexiconCounter) -> tuple[str, ...]:
    if config.labels == "canonical":
        return find_task(config).labels
    return tuple(sorted(counter.labels))


def _contrast(config: CorpusConfig) -> str:
    contrast = config.lexicon.contrast
    if contrast == "rest" or config.labels == "raw":
        return contrast
    task = find_task(config)
    found = task.taxonomy.find(contrast)
    if found not in task.labels:
        raise ConfigError(
            f"lexicon.contrast={contrast}: is no label of task {task.name!r}; name rest, or one "
            f"of: {', '.join(task.labels)}"
        )
    return found


def _settings(options: LexiconOptions, segmenter_name: str) -> str:
    size = "" if options.prior_tokens is None else f" of {options.prior_tokens:g} tokens"
    contrast = "the rest" if options.contrast == "rest" else options.contrast
    return (
        f"z of log-odds against {contrast}, {options.prior} prior{size}, "
        f"tokens: {segmenter_name}, at least {options.minimum_count} times"
    )


def _notes(options: LexiconOptions) -> Iterator[str]:
    yield (
        "log-odds with a Dirichlet prior, z-scored (Monroe, Colaresi & Quinn 2008); the prior "
        + (
            "holds the counts of all categories together"
            if options.prior == "corpus"
            else "is the same for every term"
        )
    )
    yield "unigrams and bigrams have sizes of their own and are ranked together"
    if options.shared_only:
        yield "terms of a single session are left out (lexicon.shared_only=false lists them)"


def _sheet(found: tuple[CategoryTerms, ...], settings: str) -> Sheet:
    rows = []
    for category in found:
        terms = ", ".join(f"{term.term} ({term.z:.2f})" for term in category.terms)
        rows.append((category.name, f"{category.utterances:,}", f"{category.tokens:,}", terms))
    return Sheet(
        title=f"Words by category: {settings}",
        header=("category", "utterances", "tokens", "terms (z)"),
        rows=tuple(rows),
        text_columns=(0, 3),
    )


def _panels(config: CorpusConfig, found: tuple[CategoryTerms, ...]) -> list[BarPanel]:
    taxonomy = find_taxonomy(config)
    return [
        BarPanel(
            title=category.name,
            bars=[Bar(name=term.term, value=term.z) for term in category.terms],
            color=None if taxonomy is None else taxonomy[category.name].color,
        )
        for category in found
        if category.terms
    ]
