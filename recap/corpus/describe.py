"""``action=describe``: counts and lengths of a corpus by category, and what its dialogues are.

The paper's Table 3 of any data set.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from recap.corpus.options import CorpusConfig
from recap.corpus.sources import (
    CorpusSource,
    examples_in,
    find_taxonomy,
    open_source,
    token_counter,
)
from recap.data.examples import answers_counselor, client_turns, over_history
from recap.data.folds import content_key
from recap.data.issues import cut_figures
from recap.data.words import _HAN, Lengths, is_chinese, summarize
from recap.output.charts import Bar, bar_chart
from recap.output.format import DASH, number, percent
from recap.output.report import Report
from recap.output.tables import ReportTable, table_of
from recap.records import Dialogue, Example, Turn
from recap.taxonomy import Taxonomy

if TYPE_CHECKING:
    from matplotlib.figure import Figure


WordLanguage = Literal["en", "zh", "both"]


@dataclass(frozen=True, kw_only=True)
class CategoryRow:
    """A category with everything below it: counts of utterances, and how long they are."""

    name: str
    parent: str | None
    level: int
    """Categories above it."""
    n: int
    """Utterances."""
    distinct: int
    """Different pairs of context and response among them."""
    share: float | None
    """Of all labeled utterances."""
    characters: Lengths
    """Of each utterance."""
    distinct_characters: Lengths
    """Of each distinct pair's response."""
    words: Lengths
    """Between white space, of utterances that are not Chinese."""
    without_rationale: int
    """Utterances with a label and no rationale."""


@dataclass(frozen=True, kw_only=True)
class Dialogues:
    """Sessions and turns; figures of turns count whole dialogues alone."""

    sessions: int
    clients: int
    dialogues: int
    """Records that are whole dialogues."""
    single_examples: int
    """Records that are one utterance with its history."""
    client_turns: int
    counselor_turns: int
    counselor_characters: Lengths
    counselor_words: Lengths
    other_turns: int
    """Turns of others than the two."""
    adjacent_same_speaker: int
    """Pairs of neighbouring turns of one speaker."""
    client_begins: int
    """Dialogues whose first turn is the client's."""
    after_counselor: int
    """Utterances directly after a counselor turn."""
    turns_per_dialogue: Lengths


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a corpus holds."""

    categories: tuple[CategoryRow, ...]
    """In the taxonomy's order, parents before children; without a taxonomy by falling count."""
    unlabelled: CategoryRow
    labelled: CategoryRow
    total: CategoryRow
    empty: int
    """Utterances without text, counted like all others."""
    dialogues: Dialogues
    history_turns: Lengths
    history_characters: Lengths
    history_tokens: Lengths | None
    """In tokens of the texts alone, without names of speakers; ``None`` without a tokenizer."""
    label_conflicts: int
    """Distinct pairs of context and response that carry more than one label."""


class CorpusCounter:
    """Adds up a corpus record by record; memory grows with the utterances' number, not their text.

    Args:
        language: Of the utterances: ``"zh"`` counts no words, ``"en"`` those of every utterance,
            ``"both"`` those of utterances that are not Chinese; ``None`` is decided for the whole
            corpus by whether most of its letters are Chinese characters.
        count_tokens: Returns the number of tokens of a text.
    """

    def __init__(
        self,
        *,
        language: WordLanguage | None = None,
        count_tokens: Callable[[str], int] | None = None,
    ) -> None:
        self._language = language
        self._cells: dict[str | None, _Texts] = defaultdict(_Texts)
        self._counts: Counter[str] = Counter()
        self._sessions: set[str | None] = set()
        self._clients: set[str | None] = set()
        self._counselor = _Texts()
        self._turns = array("I")
        self._history = {"turns": array("I"), "characters": array("I"), "tokens": array("I")}
        self._count_tokens = None if count_tokens is None else lru_cache(8192)(count_tokens)

    def add_record(self, record: Dialogue | Example) -> None:
        """Count a record's turns; its utterances are added by :meth:`add_utterance`."""
        if isinstance(record, Example):
            self._counts["singles"] += 1
            return
        turns = record.turns
        self._counts["dialogues"] += 1
        self._counts["client_begins"] += bool(turns) and turns[0].speaker == "client"
        self._counts["adjacent"] += sum(a.voice == b.voice for a, b in pairwise(turns))
        for turn in turns:
            self._counts[turn.speaker] += 1
            if turn.speaker == "counselor":
                self._counselor.add(turn.text, self._words(turn.text))
        self._turns.append(len(turns))

    def add_utterance(self, example: Example) -> None:
        """Count one client utterance with its context."""
        text, history = example.response, example.history
        cell = self._cells[example.label]
        cell.add(text, self._words(text))
        cell.length_of.setdefault(content_digest(example), len(text))
        explained = bool((example.rationale or "").strip())
        cell.without_rationale += example.label is not None and not explained
        self._sessions.add(example.session)
        self._clients.add(example.client)
        self._counts["empty"] += not text.strip()
        self._counts["after_counselor"] += answers_counselor(history)
        self._history["turns"].append(len(history))
        self._history["characters"].append(_characters(history))
        if self._count_tokens is not None:
            count = self._count_tokens
            self._history["tokens"].append(
                over_history(history, "tokens", 0, lambda n, turn: n + count(turn.text))
            )

    def result(self, taxonomy: Taxonomy | None = None) -> Description:
        """Return the description of everything added so far."""
        if self._language is None and 2 * self._counts["han"] >= max(1, self._counts["letters"]):
            for lengths in (self._counselor, *self._cells.values()):
                lengths.words = array("I")
        every, none = list(self._cells.values()), self._cells[None]
        named = {label: cell for label, cell in self._cells.items() if label is not None}
        seen = Counter(digest for cell in named.values() for digest in cell.length_of)
        counts = self._counts
        return Description(
            categories=tuple(_category_rows(named, taxonomy)),
            unlabelled=_row("unlabelled", [none]),
            labelled=_row("labelled", [*named.values()]),
            empty=counts["empty"],
            total=_row("total", every),
            dialogues=Dialogues(
                sessions=len(self._sessions - {None}),
                clients=len(self._clients - {None}),
                dialogues=counts["dialogues"],
                single_examples=counts["singles"],
                client_turns=counts["client"],
                counselor_turns=counts["counselor"],
                other_turns=counts["other"],
                counselor_characters=summarize(self._counselor.characters),
                counselor_words=summarize(self._counselor.words),
                adjacent_same_speaker=counts["adjacent"],
                client_begins=counts["client_begins"],
                after_counselor=counts["after_counselor"],
                turns_per_dialogue=summarize(self._turns),
            ),
            history_turns=summarize(self._history["turns"]),
            history_characters=summarize(self._history["characters"]),
            history_tokens=(
                None if self._count_tokens is None else summarize(self._history["tokens"])
            ),
            label_conflicts=sum(n > 1 for n in seen.values()),
        )

    def _words(self, text: str) -> int | None:
        if self._language == "zh" or (self._language == "both" and is_chinese(text)):
            return None
        if self._language is None:
            self._counts["han"] += len(_HAN.findall(text))
            self._counts["letters"] += sum(map(str.isalpha, text))
        return len(text.split())


def in_tree_order(taxonomy: Taxonomy) -> list[str]:
    """Return all categories, each before those below it, in canonical order within a level."""
    place = {category.name: place for place, category in enumerate(taxonomy.categories)}
    return sorted(place, key=lambda name: [place[up] for up in reversed(taxonomy.lineage(name))])


def content_digest(example: Example) -> bytes:
    """Return 16 bytes of :func:`recap.data.folds.content_key`."""
    return bytes.fromhex(content_key(example))[:16]


def _characters(history: Sequence[Turn]) -> int:
    return over_history(history, "characters", 0, lambda n, turn: n + len(turn.text))


class _Texts:
    """Lengths of texts; of utterances of one label also those that are told apart."""

    def __init__(self) -> None:
        self.characters = array("I")
        self.words = array("I")
        self.length_of: dict[bytes, int] = {}
        self.without_rationale = 0

    def add(self, text: str, words: int | None) -> None:
        self.characters.append(len(text))
        if words is not None:
            self.words.append(words)


def _category_rows(cells: Mapping[str, _Texts], taxonomy: Taxonomy | None) -> Iterable[CategoryRow]:
    counts = {label: len(cell.characters) for label, cell in cells.items()}
    labelled = sum(counts.values())
    if taxonomy is None:
        for label in sorted(counts, key=lambda name: (-counts[name], name)):
            yield _row(label, [cells[label]], labelled=labelled)
        return
    for name in in_tree_order(taxonomy):
        below = [cell for label, cell in cells.items() if name in taxonomy.lineage(label)]
        level = len(taxonomy.lineage(name)) - 1
        yield _row(name, below, parent=taxonomy[name].parent, level=level, labelled=labelled)


def _row(
    name: str,
    cells: Sequence[_Texts],
    *,
    parent: str | None = None,
    level: int = 0,
    labelled: int | None = None,
) -> CategoryRow:
    characters, words = array("I"), array("I")
    distinct: dict[bytes, int] = {}
    for cell in cells:
        characters.extend(cell.characters)
        words.extend(cell.words)
        distinct.update(cell.length_of)
    n = len(characters)
    return CategoryRow(
        name=name,
        parent=parent,
        level=level,
        n=n,
        distinct=len(distinct),
        share=n / labelled if labelled else None,
        characters=summarize(characters),
        distinct_characters=summarize(distinct.values()),
        words=summarize(words),
        without_rationale=sum(cell.without_rationale for cell in cells),
    )


def describe(config: CorpusConfig) -> Report:
    """Return what a corpus holds."""
    taxonomy = find_taxonomy(config)
    source = open_source(config, keep_empty=True)
    counter = CorpusCounter(
        language=config.data.language, count_tokens=token_counter(config.describe.tokenizer)
    )
    as_is = config.describe.unit == "turns"
    for record in source.records:
        counter.add_record(record)
        for example in client_turns(record) if as_is else examples_in(record, config.data):
            counter.add_utterance(example)
    found = counter.result(taxonomy)
    return Report(
        action="describe",
        title=f"What {config.data.name} holds",
        figures={
            "data": config.data.name,
            "unit": config.describe.unit,
            "tokenizer": config.describe.tokenizer,
            "rows_read": source.issues.rows_read,
            "rows_rejected": source.issues.rows_rejected,
            "cut_to_one_label": cut_figures(source.issues.cut),
            **asdict(found),
        },
        sheets=(_categories(found), _dialogues(found)),
        notes=tuple(_notes(config, source, found)),
        rows=[
            _flat(row) for row in (*found.categories, found.labelled, found.unlabelled, found.total)
        ],
        charts={"describe": partial(_chart, found, taxonomy)},
    )


def _flat(row: CategoryRow) -> dict[str, object]:
    return {
        "category": row.name,
        "parent": row.parent,
        "n": row.n,
        "distinct": row.distinct,
        "share": row.share,
        "mean_characters": row.characters.mean,
        "std_characters": row.characters.std,
        "mean_characters_distinct": row.distinct_characters.mean,
        "mean_words": row.words.mean,
        "std_words": row.words.std,
        "without_rationale": row.without_rationale,
    }


def _categories(found: Description) -> ReportTable:
    rows = [*found.categories] if found.labelled.n else []
    if found.labelled.n and found.unlabelled.n:
        rows += [found.labelled, found.unlabelled]
    lengths: dict[str, Callable[[CategoryRow], str]] = {
        "characters": lambda row: number(row.characters.mean)
    }
    if found.total.words.n:
        lengths["words"] = lambda row: number(row.words.mean)
    return table_of(
        f"Client utterances by category, mean length in {' and '.join(lengths)}",
        [*rows, found.total],
        {
            "category": lambda row: "\u2003" * row.level + row.name,
            "n": lambda row: f"{row.n:,}",
            "%": lambda row: percent(row.share),
            "distinct": lambda row: f"{row.distinct:,}",
            **lengths,
            "no rationale": lambda row: f"{row.without_rationale:,}",
        },
    )


def _dialogues(found: Description) -> ReportTable:
    d = found.dialogues
    rows = [("sessions", f"{d.sessions:,}"), ("clients", f"{d.clients:,}" if d.clients else DASH)]
    if d.dialogues:
        rows += [
            ("dialogues", f"{d.dialogues:,}"),
            ("turns a dialogue", _spread(d.turns_per_dialogue)),
            ("client turns", f"{d.client_turns:,}"),
            ("counselor turns", f"{d.counselor_turns:,}"),
            *([("turns of others", f"{d.other_turns:,}")] if d.other_turns else []),
            ("characters of a counselor turn", _spread(d.counselor_characters)),
            ("pairs of turns of one speaker", f"{d.adjacent_same_speaker:,}"),
            ("dialogues that the client begins", f"{d.client_begins:,}"),
        ]
    if d.single_examples:
        rows.append(("utterances with a history of their own", f"{d.single_examples:,}"))
    if found.empty:
        rows.append(("utterances without text", f"{found.empty:,}"))
    rows += [
        ("utterances directly after a counselor turn", f"{d.after_counselor:,}"),
        ("turns of a history", _spread(found.history_turns)),
        ("characters of a history", _spread(found.history_characters)),
    ]
    if found.history_tokens is not None:
        rows.append(("tokens of a history", _spread(found.history_tokens)))
    return ReportTable(title="Dialogues", header=("what", "figure"), rows=tuple(rows))


def _notes(config: CorpusConfig, source: CorpusSource, found: Description) -> Iterable[str]:
    yield from source.notes()
    if config.describe.unit == "turns":
        yield "every client turn counts as it stands (describe.unit=turns)"
    else:
        yield (
            f"turns as training sees them: data.merge_adjacent={config.data.merge_adjacent}, "
            f"data.no_intervention={config.data.no_intervention}"
        )
    yield "distinct: pairs of context and response that differ; SD is the sample's (ddof 1)"
    if found.label_conflicts:
        yield f"{found.label_conflicts} distinct pairs carry more than one label"


def _chart(found: Description, taxonomy: Taxonomy | None) -> Figure:
    bars = [
        Bar(name=row.name, value=row.n, color=taxonomy[row.name].color if taxonomy else None)
        for row in found.categories
        if taxonomy is None or row.name in taxonomy.leaves
    ]
    return bar_chart(bars, axis="client utterances")


def _spread(lengths: Lengths) -> str:
    if lengths.mean is None:
        return DASH
    std = "" if lengths.std is None else f" ± {lengths.std:.1f}"
    return f"{lengths.mean:.2f}{std}, at most {lengths.most:,}"
