"""Which behaviors a rationale names, and whether they fit the label beside it.

Quotes in a rationale, and whether the dialogue holds them (grounding).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from recap.records import Example
from recap.tasks.answer import LabelReader, fold_text
from recap.taxonomy import Taxonomy

_SUFFIXES = ("ation", "ness", "ance", "ence", "ing", "ism", "ion")
_SHORTEST_STEM = 4
_DENIED_BEFORE = re.compile(
    r"(?:(?<![a-z])(?:not|no|never|without|neither|nor|rather than|instead of)|n['’]t)"
    r"(?!\s+(?:only|just|merely))(?:\s+[a-z]+){0,2}\s+[\"'“‘*]*$"
    r"|(?:不属于|(?:不(?![仅但断过])|没|未|非)[^，。；、,.;]{0,2}|毫?无)[“「‘\"]?$"
)
_REACH = 48
MASK = "⟨label⟩"
"""What :meth:`NameFinder.masked` puts in place of a name; no letter of it is a word."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mention:
    """One place where a text names a category."""

    category: str
    start: int
    end: int
    spelled: bool
    """Whether it is a spelling that the taxonomy knows; otherwise a word of the same family."""
    denied: bool
    """Whether the words right before it deny it (``not Blaming``, ``而非悲观``)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Naming:
    """What a rationale names, held against the label that was answered."""

    own: bool
    """The label itself, a category below it, or a word of their families."""
    own_spelled: bool
    """The same, in a spelling that the taxonomy knows."""
    above: bool
    """A category above the label, such as its pattern."""
    others: tuple[str, ...]
    """Categories that are none of these, as the taxonomy spells them, each once."""
    other_families: tuple[str, ...]
    """Further ones of which only a word of the family occurs."""


@dataclass(frozen=True)
class NameFinder:
    """Finds the names of a taxonomy's categories in running text, in every language it has.

    Beside the taxonomy's spellings it knows, for each English name of one word with one of the
    endings -ing, -ism, -ion, -ation, -ness, -ance and -ence, the words that begin with the rest of
    it: *disagrees* and *disagreement* for Disagreeing, *pessimistic* for Pessimism. A rest of fewer
    than four letters, or one that two categories share, is left out. Such words are ordinary words
    as well, hence they are told apart from spellings everywhere.
    """

    taxonomy: Taxonomy

    def mentions(self, text: str) -> tuple[Mention, ...]:
        """Return every mention in order; positions are those of :func:`fold_text`'s text."""
        folded = fold_text(text)
        found = [
            (span.category, span.start, span.end, True)
            for span in self._reader.spans(folded)
            if span.category is not None
        ]
        taken = [(start, end) for _, start, end, _ in found]
        for match in self._families.finditer(folded) if self._stems else ():
            if all(match.end() <= start or end <= match.start() for start, end in taken):
                found.append((self._stems[match["stem"]], match.start(), match.end(), False))
        return tuple(
            Mention(
                category=category,
                start=start,
                end=end,
                spelled=spelled,
                denied=bool(_DENIED_BEFORE.search(folded[max(0, start - _REACH) : start])),
            )
            for category, start, end, spelled in sorted(found, key=lambda one: one[1])
        )

    def naming(self, text: str, label: str) -> Naming:
        """Return what a text names that is not denied, seen from ``label``, a canonical name."""
        mentions = [mention for mention in self.mentions(text) if not mention.denied]
        own = [m for m in mentions if label in self.taxonomy.lineage(m.category)]
        above = set(self.taxonomy.lineage(label)[1:])
        others = [m for m in mentions if m not in own and m.category not in above]
        spelled = tuple(dict.fromkeys(m.category for m in others if m.spelled))
        return Naming(
            own=bool(own),
            own_spelled=any(m.spelled for m in own),
            above=any(m.category in above for m in mentions),
            others=spelled,
            other_families=tuple(
                dict.fromkeys(m.category for m in others if m.category not in spelled)
            ),
        )

    def masked(self, text: str) -> str:
        """Return the text in folded case with :data:`MASK` for every mention, denied ones too."""
        folded = fold_text(text)
        parts, place = [], 0
        for mention in self.mentions(text):
            parts += [folded[place : mention.start], MASK]
            place = mention.end
        return "".join([*parts, folded[place:]])

    def is_name(self, text: str) -> bool:
        """Whether a text is nothing but a spelling of a category."""
        return self.taxonomy.find(text) is not None

    @cached_property
    def _reader(self) -> LabelReader:
        return LabelReader(self.taxonomy, ())

    @cached_property
    def _families(self) -> re.Pattern[str]:
        stems = "|".join(sorted(map(re.escape, self._stems), key=len, reverse=True))
        return re.compile(rf"(?<![a-z0-9])(?P<stem>{stems})[a-z]*(?![a-z0-9])")

    @cached_property
    def _stems(self) -> dict[str, str]:
        found: dict[str, set[str]] = {}
        for spelling in self.taxonomy.spellings():
            category = self.taxonomy.find(spelling)
            for stem in _stem(fold_text(spelling)):
                found.setdefault(stem, set()).add(category or "")
        return {
            stem: categories.pop() for stem, categories in found.items() if len(categories) == 1
        }


def _stem(word: str) -> Iterator[str]:
    if not (word.isascii() and word.isalpha()):
        return
    for suffix in _SUFFIXES:
        rest = word.removesuffix(suffix)
        if rest != word and len(rest) >= _SHORTEST_STEM:
            yield rest
            return


def names_another(naming: Naming) -> bool:
    """Whether a rationale names a category that the label does not entail, spelled or by family."""
    return bool(naming.others or naming.other_families)


def shares_of_naming(namings: Sequence[Naming]) -> dict[str, float | None]:
    """Return the shares of rationales that name the label, its pattern alone, another, nothing."""
    if not namings:
        return dict.fromkeys(NAMING_SHARES)
    n = len(namings)
    return {name: sum(map(holds, namings)) / n for name, holds in NAMING_SHARES.items()}


NAMING_SHARES = {
    "own": lambda naming: naming.own,
    "own_spelled": lambda naming: naming.own_spelled,
    "only_above": lambda naming: naming.above and not naming.own,
    "another": names_another,
    "another_spelled": lambda naming: bool(naming.others),
    "another_and_not_own": lambda naming: names_another(naming) and not naming.own,
    "nothing": lambda naming: not (naming.own or naming.above or names_another(naming)),
}
"""Names of shares, and what a rationale has to be like to count."""


QuotePlace = Literal["response", "client_before", "counselor"]

FUZZY_THRESHOLD = 0.8
"""Least similarity at which a quote counts as grounded though it is not verbatim."""

SHORTEST_QUOTE = 2
"""Letters and digits of the shortest quote that is looked for."""

_LONGEST_QUOTE = 300
_LATIN = "0-9A-Za-z\u00c0-\u024f"
_OPEN_SINGLE = rf"(?<![{_LATIN}’'])['‘](?=\S)"
_CLOSE_SINGLE = rf"(?<=\S)['’](?![{_LATIN}])"
_QUOTE = re.compile(
    rf"“([^“”]{{1,{_LONGEST_QUOTE}}})”"
    rf"|\"([^\"]{{1,{_LONGEST_QUOTE}}})\""
    rf"|「([^「」]{{1,{_LONGEST_QUOTE}}})」"
    rf"|『([^『』]{{1,{_LONGEST_QUOTE}}})』"
    rf"|{_OPEN_SINGLE}(.{{1,{_LONGEST_QUOTE}}}?){_CLOSE_SINGLE}"
)
_ELLIPSIS = re.compile(r"\.{3,}|…+|⋯+|[\[(（]\s*(?:\.{3,}|…+)\s*[\])）]")
_CHINESE = "\u3001-\u9fff\uf900-\ufaff\uff01-\uff0f\uff1a-\uff20"
_SPACE_BESIDE_CHINESE = re.compile(f"(?<=[{_CHINESE}]) | (?=[{_CHINESE}])")
_APOSTROPHES = str.maketrans("’‘“”„", '\'\'"""')


@dataclass(frozen=True, kw_only=True, slots=True)
class Quote:
    """One quote of a rationale; figures, never its words."""

    characters: int
    exact: bool
    """Whether a turn of the dialogue holds it, width, case, white space and outer marks apart."""
    similarity: float
    """Of the best local match, from 0 to 1 (see :func:`local_similarity`), which knows no words."""
    place: QuotePlace | None
    """Where it stands verbatim: in the response rather than in earlier turns; ``None``: nowhere."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grounding:
    """The shares of quotes, and of rationales, that the dialogue bears out."""

    rationales: int
    with_quotes: int
    quotes: int
    exact: float | None
    """Share of quotes."""
    fuzzy: float | None
    """Share of quotes that are exact or at least as similar as the threshold."""
    rationales_exact: float | None
    """Share of the rationales with quotes in which every quote is exact."""
    rationales_fuzzy: float | None
    """Share of the rationales with quotes in which every quote is exact or similar enough."""
    in_response: float | None
    """Share of the exact quotes that stand in the response itself."""


def find_quotes(text: str) -> list[str]:
    """Return what stands in “…”, "…", 「…」, 『…』, ‘…’ and '…', in order, outermost ones alone.

    A single quotation mark opens one only where no Latin letter stands before it, and closes one
    only where none follows, so that apostrophes inside words do neither. Quotes longer than 300
    characters are taken for a mark that was never closed.

    >>> find_quotes("The client says ‘I don’t know’ and “so be it”; the counselor's idea fails.")
    ['I don’t know', 'so be it']
    """
    return [next(filter(None, groups)) for groups in _QUOTE.findall(text.replace("＂", '"'))]


def comparable(text: str) -> str:
    """Return the form in which quotes and turns are compared.

    NFKC (one width), folded case, one kind of apostrophe and quotation mark, single spaces, and
    none beside Chinese characters and punctuation, which write none.
    """
    # Before widths go: a full-width comma needs no space behind it, another one does.
    closed = _SPACE_BESIDE_CHINESE.sub("", " ".join(text.split()))
    return unicodedata.normalize("NFKC", closed).translate(_APOSTROPHES).casefold()


def ground_quotes(
    rationale: str, example: Example, *, is_name: Callable[[str], bool] = lambda text: False
) -> tuple[Quote, ...]:
    """Return the quotes of a rationale, looked for in the dialogue of its example.

    A quote with an ellipsis is exact where each of its pieces is. Quoted names of categories, and
    quotes of fewer than two letters or digits, are not looked for.

    Args:
        rationale: Its text.
        example: The utterance and the turns before it.
        is_name: Tells that a quote is the name of a category.
    """
    turns = _turns(example)
    quotes = []
    for text in find_quotes(rationale):
        if is_name(text):
            continue
        pieces = [piece for piece in map(_bare, _ELLIPSIS.split(text)) if _letters(piece)]
        if sum(map(_letters, pieces)) >= SHORTEST_QUOTE:
            quotes.append(_look_for(pieces, turns))
    return tuple(quotes)


def summarize_grounding(
    grounded: Sequence[Sequence[Quote]], *, threshold: float = FUZZY_THRESHOLD
) -> Grounding:
    """Return the shares over the quotes of each rationale; ``None`` where there is no quote."""
    every = [quote for quotes in grounded for quote in quotes]
    quoting = [quotes for quotes in grounded if quotes]
    exact = [quote for quote in every if quote.exact]
    return Grounding(
        rationales=len(grounded),
        with_quotes=len(quoting),
        quotes=len(every),
        exact=_share([quote.exact for quote in every]),
        fuzzy=_share([quote.similarity >= threshold for quote in every]),
        rationales_exact=_share([all(q.exact for q in quotes) for quotes in quoting]),
        rationales_fuzzy=_share(
            [all(q.similarity >= threshold for q in quotes) for quotes in quoting]
        ),
        in_response=_share([quote.place == "response" for quote in exact]),
    )


def local_similarity(piece: str, text: str) -> float:
    """Return how much of a piece the best matching stretch of a text bears out, from 0 to 1.

    1 - d / m, where m is the piece's length and d the least edit distance (insertions, deletions,
    substitutions) between the piece and any stretch of the text, the empty one included (Sellers
    1980). 1: the text holds the piece; 0: nothing of it.

    >>> local_similarity("kitten", "the sitting cat")
    0.6666666666666667
    """
    if not piece:
        return 1.0
    codes = np.array([ord(character) for character in text], dtype=np.int64)
    steps = np.arange(len(codes) + 1)
    # Row i: the least distance of the first i characters to a stretch that ends at each place.
    row = np.zeros(len(codes) + 1, dtype=np.int64)
    for i, character in enumerate(piece, start=1):
        cost = row[:-1] + (codes != ord(character))
        new = np.concatenate([[i], np.minimum(cost, row[1:] + 1)])
        row = np.minimum.accumulate(new - steps) + steps
    return 1 - int(row.min()) / len(piece)


def _look_for(pieces: Sequence[str], turns: Sequence[tuple[QuotePlace, str]]) -> Quote:
    characters = sum(map(len, pieces))
    places = [_place(piece, turns) for piece in pieces]
    if None not in places:
        return Quote(characters=characters, exact=True, similarity=1.0, place=places[0])
    # No stretch is worth taking that runs from one turn into the next: the line end costs.
    text = "\n".join(turn for _, turn in turns)
    near = sum(len(piece) * local_similarity(piece, text) for piece in pieces)
    return Quote(characters=characters, exact=False, similarity=near / characters, place=None)


def _turns(example: Example) -> list[tuple[QuotePlace, str]]:
    turns: list[tuple[QuotePlace, str]] = [("response", comparable(example.response))]
    for turn in reversed(example.history):
        place: QuotePlace = "counselor" if turn.speaker == "counselor" else "client_before"
        turns.append((place, comparable(turn.text)))
    return turns


def _place(piece: str, turns: Sequence[tuple[QuotePlace, str]]) -> QuotePlace | None:
    return next((place for place, text in turns if _holds(text, piece)), None)


def _holds(text: str, piece: str) -> bool:
    """Whether a text holds a piece as whole words, where it begins or ends with ASCII letters."""
    if piece not in text:
        return False
    before = r"(?<![a-z0-9])" if _is_word(piece[0]) else ""
    after = r"(?![a-z0-9])" if _is_word(piece[-1]) else ""
    return re.search(f"{before}{re.escape(piece)}{after}", text) is not None


def _bare(text: str) -> str:
    """Return a quote in comparable form without the marks around it."""
    shown = comparable(text)
    inner = [i for i, character in enumerate(shown) if character.isalnum()]
    return shown[inner[0] : inner[-1] + 1] if inner else ""


def _letters(text: str) -> int:
    return sum(map(str.isalnum, text))


def _is_word(character: str) -> bool:
    return character.isascii() and character.isalnum()


def _share(holds: Sequence[bool]) -> float | None:
    return sum(holds) / len(holds) if holds else None
