"""``action=lexicon``: the words and pairs of words that set each category apart.

That is log-odds with an informative Dirichlet prior.

Monroe, Colaresi and Quinn (2008), "Fightin' Words: Lexical Feature Selection and Evaluation for
Identifying the Content of Political Conflict", Political Analysis 16(4): 372-403. For a term w
with counts y in the category i and in its contrast j, sizes n (the sums of y over all terms) and
prior counts a with sum a0 (their section 3, on the log-odds ratio under a Dirichlet prior)::

    delta_w =   log((y_wi + a_w) / (n_i + a0 - y_wi - a_w))
              - log((y_wj + a_w) / (n_j + a0 - y_wj - a_w))
    var(delta_w) = 1 / (y_wi + a_w) + 1 / (y_wj + a_w)
    z_w = delta_w / sqrt(var(delta_w))
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recap.corpus.describe import content_digest
from recap.corpus.options import CorpusConfig, LexiconOptions
from recap.corpus.sources import CorpusSource, find_task, find_taxonomy, open_source
from recap.data.examples import client_turns
from recap.data.words import segmenter
from recap.errors import ConfigError, DataError, did_you_mean
from recap.output.charts import Bar, BarPanel, panel_chart
from recap.output.report import Report
from recap.output.tables import ReportTable, table_of
from recap.records import Example

PriorKind = Literal["corpus", "uniform"]
Order = Literal["unigram", "bigram"]
Segment = Callable[[str], Sequence[Sequence[str]]]
"""Turns a text into stretches of tokens; no bigram reaches from one stretch into the next."""
Counts = NDArray[np.float64]
"""A number for each term."""

UNIFORM_WEIGHT = 0.01
"""Prior count of every term under the uniform prior, unless its size is given."""


@dataclass(frozen=True, kw_only=True)
class Prior:
    """Prior counts of the terms.

    ``corpus`` takes the terms' counts in all categories together (the informative prior of Monroe
    et al.), scaled to ``size`` where that is given; ``uniform`` gives every term the same count,
    ``size`` in all, or :data:`UNIFORM_WEIGHT` each.
    """

    kind: PriorKind = "corpus"
    size: float | None = None

    def counts(self, corpus: Counts) -> Counts:
        """Return a prior count for every term, given their counts in the whole corpus."""
        shape = corpus if self.kind == "corpus" else np.full_like(corpus, UNIFORM_WEIGHT)
        return shape if self.size is None else shape * (self.size / shape.sum())


@dataclass(frozen=True, kw_only=True)
class LogOdds:
    """Log-odds of every term: ``delta``, its standard deviation, and their ratio ``z``."""

    delta: Counts
    std: Counts
    z: Counts


@dataclass(frozen=True, kw_only=True)
class TermScore:
    """A term that a category uses more than its contrast does."""

    term: str
    order: Order
    z: float
    delta: float
    """Difference of log-odds, in nats."""
    std: float
    n: int
    """Times in the category."""
    n_contrast: int
    """Times in the contrast."""


@dataclass(frozen=True, kw_only=True)
class CategoryTerms:
    """The terms of one category, highest z first."""

    name: str
    utterances: int
    tokens: int
    contrast_tokens: int
    terms: tuple[TermScore, ...]


def log_odds(counts: Counts, contrast: Counts, prior: Counts) -> LogOdds:
    """Return the z-scored log-odds of every term, as the head of this module defines them.

    All are of shape ``(terms,)``: how often the category uses each term, how often the contrast
    does, and prior counts, all above zero.
    """
    a0 = prior.sum()
    inside, outside = counts + prior, contrast + prior
    delta = np.log(inside / (counts.sum() + a0 - inside))
    delta = delta - np.log(outside / (contrast.sum() + a0 - outside))
    std = np.sqrt(1 / inside + 1 / outside)
    return LogOdds(delta=delta, std=std, z=delta / std)


class LexiconCounter:
    """Adds up the terms of labeled utterances; unigrams and bigrams are two vocabularies."""

    def __init__(
        self, segment: Segment, *, orders: Sequence[Order] = ("unigram", "bigram")
    ) -> None:
        self._segment = segment
        self._counts: dict[Order, dict[str, Counter[str]]] = {
            order: defaultdict(Counter) for order in orders
        }
        self._utterances: Counter[str] = Counter()
        self._session_of: dict[str, object] = {}
        self._shared: set[str] = set()

    def add(self, text: str, label: str, session: str | None = None) -> None:
        """Count the terms of one utterance; one without a session is a session of its own."""
        self._utterances[label] += 1
        where: object = object() if session is None else session
        stretches = self._segment(text)
        for order, by_label in self._counts.items():
            terms = list(_terms(stretches, order))
            by_label[label].update(terms)
            for term in set(terms).difference(self._shared):
                if self._session_of.setdefault(term, where) != where:
                    self._shared.add(term)

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels that were met, in order of their first utterance."""
        return tuple(self._utterances)

    def result(
        self,
        labels: Sequence[str],
        *,
        prior: Prior,
        contrast: str = "rest",
        minimum_count: int = 5,
        top_k: int = 10,
        shared_only: bool = True,
    ) -> tuple[CategoryTerms, ...]:
        """Return each label's terms with the highest z, unigrams and bigrams ranked together.

        All terms count towards sizes and prior; the limits decide only which are listed. Labels
        without utterances are left out. ``contrast`` is ``rest`` (all other labels) or one label,
        which is then not listed itself. Listed are at most ``top_k`` terms of a label with z above
        zero that stand ``minimum_count`` times or more in category and contrast together, and, with
        ``shared_only``, in more than one session: names are left out, above all.

        Raises:
            ConfigError: For a contrast that has no utterances.
        """
        met = [label for label in labels if self._utterances[label]]
        if contrast != "rest" and not self._utterances[contrast]:
            raise ConfigError(
                f"lexicon.contrast={contrast}: no utterance has that label"
                f"{did_you_mean(contrast, met)}; name rest, or one of: {', '.join(met)}"
            )
        found: dict[str, list[TermScore]] = {label: [] for label in met if label != contrast}
        sizes = dict.fromkeys(found, (0, 0))
        for order, by_label in self._counts.items():
            vocabulary = sorted(set().union(*by_label.values()))
            table = {
                label: np.array([by_label[label][term] for term in vocabulary], dtype=float)
                for label in self._utterances
            }
            corpus = np.sum(list(table.values()), axis=0)
            listed = np.array([not shared_only or term in self._shared for term in vocabulary])
            for label, scores in found.items():
                rest = corpus - table[label] if contrast == "rest" else table[contrast]
                if order == "unigram":
                    sizes[label] = (int(table[label].sum()), int(rest.sum()))
                # A single term, or none, has no odds.
                if len(vocabulary) > 1:
                    odds = log_odds(table[label], rest, prior.counts(corpus))
                    keep = listed & (table[label] + rest >= minimum_count) & (odds.z > 0)
                    best = [n for n in np.argsort(-odds.z, kind="stable") if keep[n]][:top_k]
                    scores += _scores(best, odds, vocabulary, order, table[label], rest)
        return tuple(
            CategoryTerms(
                name=label,
                utterances=self._utterances[label],
                tokens=sizes[label][0],
                contrast_tokens=sizes[label][1],
                terms=tuple(sorted(scores, key=lambda s: (-s.z, s.term))[:top_k]),
            )
            for label, scores in found.items()
        )


def _scores(
    best: Iterable[int],
    odds: LogOdds,
    vocabulary: Sequence[str],
    order: Order,
    counts: Counts,
    contrast: Counts,
) -> list[TermScore]:
    return [
        TermScore(
            term=vocabulary[place],
            order=order,
            z=float(odds.z[place]),
            delta=float(odds.delta[place]),
            std=float(odds.std[place]),
            n=int(counts[place]),
            n_contrast=int(contrast[place]),
        )
        for place in best
    ]


def _terms(stretches: Iterable[Sequence[str]], order: Order) -> Iterable[str]:
    for stretch in stretches:
        if order == "unigram":
            yield from stretch
        else:
            yield from (f"{left} {right}" for left, right in pairwise(stretch))


_ORDERS: dict[str, tuple[Order, ...]] = {
    "unigrams": ("unigram",),
    "bigrams": ("bigram",),
    "both": ("unigram", "bigram"),
}


def lexicon(config: CorpusConfig) -> Report:
    """Return each label's terms of highest z-scored log-odds; a ``DataError`` for one label."""
    options = config.lexicon
    contrast = _contrast(config)
    name, segment = segmenter(options.segmenter)
    source = open_source(config)
    counter = LexiconCounter(segment, orders=_ORDERS[options.terms])
    for example, label in _labeled(config, source):
        counter.add(example.response, label, example.session)
    if len(counter.labels) < 2:
        raise DataError(
            f"{source.file}: {len(counter.labels)} of the labels have utterances; a contrast needs "
            "two (task=NAME chooses the labels)"
        )
    found = counter.result(
        find_task(config).labels if config.labels == "canonical" else sorted(counter.labels),
        prior=Prior(kind=options.prior, size=options.prior_tokens),
        contrast=contrast,
        minimum_count=options.minimum_count,
        top_k=options.top_k,
        shared_only=options.shared_only,
    )
    size = "" if options.prior_tokens is None else f" of {options.prior_tokens:g} tokens"
    against = "the rest" if options.contrast == "rest" else options.contrast
    settings = (
        f"z of log-odds against {against}, {options.prior} prior{size}, "
        f"tokens: {name}, at least {options.minimum_count} times"
    )
    return Report(
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


def _labeled(config: CorpusConfig, source: CorpusSource) -> Iterator[tuple[Example, str]]:
    task = find_task(config) if config.labels == "canonical" else None
    seen = set[bytes]()
    for example in (turn for record in source.records for turn in client_turns(record)):
        if example.label is None or (task is not None and not task.select(example)):
            continue
        if config.data.duplicates == "drop":
            digest = content_digest(example)
            if digest in seen:
                continue
            seen.add(digest)
        yield example, example.label if task is None else task.gold(example)


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


def _notes(options: LexiconOptions) -> Iterator[str]:
    of_corpus = "holds the counts of all categories together"
    prior = of_corpus if options.prior == "corpus" else "is the same for every term"
    source = "Monroe, Colaresi & Quinn 2008"
    yield f"log-odds with a Dirichlet prior, z-scored ({source}); the prior {prior}"
    yield "unigrams and bigrams have sizes of their own and are ranked together"
    if options.shared_only:
        yield "terms of a single session are left out (lexicon.shared_only=false lists them)"


def _sheet(found: tuple[CategoryTerms, ...], settings: str) -> ReportTable:
    return table_of(
        f"Words by category: {settings}",
        found,
        {
            "category": lambda own: own.name,
            "utterances": lambda own: f"{own.utterances:,}",
            "tokens": lambda own: f"{own.tokens:,}",
            "terms (z)": lambda own: ", ".join(f"{t.term} ({t.z:.2f})" for t in own.terms),
        },
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
