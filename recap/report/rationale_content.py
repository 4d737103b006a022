"""What rationales say: which behaviors they name, what they quote, how they differ, what they tell.

chrF and BLEU over characters equal sacrebleu's (2.6: ``CHRF(eps_smoothing=True)``, and ``BLEU``
over characters with spaces between them) and, but for one fault, torchmetrics' (1.9:
``CHRFScore(n_word_order=0)``, ``BLEUScore``); the tests hold them to it. torchmetrics forgets the
reference of a pair that has no character in common, so that its chrF of all pairs comes out too
high; and it counts n-grams in tensors, one at a time, which takes 25 ms a pair of 80 characters and
125 ms a pair of 300 on one core: a run of 10,000 rationales would cost the better part of an hour.

Simulatability: a classifier learns labels from the rationales of the other folds and is asked about
those of one. Rationales that state the label in so many words make that easy and prove nothing, so
it is done a second time with every name of a category masked. Hase et al. (2020, Leakage-Adjusted
Simulatability) split explanations by whether the label can be told from the explanation alone: that
is what is measured here, without their second step, which shows the explained input as well.
"""

from __future__ import annotations

import math
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Literal

import numpy as np

from recap.data.words import Lengths, is_chinese, segmenter, summarize
from recap.metrics.scores import scores_from_confusion, spread_over_folds
from recap.records import Example, Spread
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


QuotePlace = Literal["response", "client_before", "counselor", "other"]

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
    places = [
        next((place for place, text in turns if _holds(text, piece)), None) for piece in pieces
    ]
    if None not in places:
        return Quote(characters=characters, exact=True, similarity=1.0, place=places[0])
    # No stretch is worth taking that runs from one turn into the next: the line end costs.
    text = "\n".join(turn for _, turn in turns)
    near = sum(len(piece) * local_similarity(piece, text) for piece in pieces)
    return Quote(characters=characters, exact=False, similarity=near / characters, place=None)


def _turns(example: Example) -> list[tuple[QuotePlace, str]]:
    turns: list[tuple[QuotePlace, str]] = [("response", comparable(example.response))]
    for turn in reversed(example.history):
        place: QuotePlace = "client_before" if turn.speaker == "client" else turn.speaker
        turns.append((place, comparable(turn.text)))
    return turns


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


CHRF_ORDER = 6
"""Longest n-grams of chrF (Popović 2015)."""

CHRF_BETA = 2.0
"""Weight of recall in chrF."""

BLEU_ORDER = 4
"""Longest n-grams of BLEU (Papineni et al. 2002)."""


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Scores from 0 to 1 over all pairs of texts, and chrF of each pair."""

    n: int
    chrf: float
    """n-grams of all pairs counted together; the mean over orders of the F score."""
    bleu: float
    """BLEU over characters, not smoothed, brevity penalty included."""
    chrf_of_pair: tuple[float, ...]


def text_overlap(texts: Sequence[str], references: Sequence[str]) -> Overlap:
    """Return the overlap of texts with one reference each, white space apart.

    An order of n-grams that texts or references are too short for counts with 0 in chrF, as in
    chrF++.py and in sacrebleu with ``eps_smoothing=True``.

    Args:
        texts: At least one.
        references: One for each of them.
    """
    pairs = [
        _matches("".join(text.split()), "".join(reference.split()))
        for text, reference in zip(texts, references, strict=True)
    ]
    summed = [tuple(map(sum, zip(*column, strict=True))) for column in zip(*pairs, strict=True)]
    return Overlap(
        n=len(pairs),
        chrf=_chrf(summed),
        bleu=_bleu(summed[:BLEU_ORDER]),
        chrf_of_pair=tuple(map(_chrf, pairs)),
    )


_Counts = Sequence[tuple[int, ...]]


def _matches(text: str, reference: str) -> list[tuple[int, ...]]:
    """Return for each order the n-grams in common, those of the text and of the reference."""
    rows: list[tuple[int, ...]] = []
    for order in range(1, CHRF_ORDER + 1):
        own, wanted = _grams(text, order), _grams(reference, order)
        rows.append(((own & wanted).total(), own.total(), wanted.total()))
    return rows


def _grams(text: str, order: int) -> Counter[str]:
    return Counter(text[i : i + order] for i in range(len(text) - order + 1))


def _chrf(rows: _Counts) -> float:
    weight = CHRF_BETA**2
    total = 0.0
    for common, own, wanted in rows:
        if common:
            precision, recall = common / own, common / wanted
            total += (1 + weight) * precision * recall / (weight * precision + recall)
    return total / CHRF_ORDER


def _bleu(rows: _Counts) -> float:
    if not all(common for common, _, _ in rows):
        return 0.0
    mean = sum(math.log(common / own) for common, own, _ in rows) / BLEU_ORDER
    _, own, wanted = rows[0]
    return math.exp(mean + min(0.0, 1 - wanted / own))


@dataclass(frozen=True, kw_only=True)
class Distinctness:
    """How much rationales differ; all of it falls as their number grows."""

    distinct_1: float | None
    """Different tokens among all tokens (Li et al. 2016)."""
    distinct_2: float | None
    """Different pairs of neighboring tokens among all pairs."""
    duplicates: float
    """Share of rationales that are word for word another one's, white space and width apart."""
    different: int
    """Rationales that are left when each is counted once."""
    most_common: float
    """Share of the rationale that occurs most often."""


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """How much rationales repeat those of annotators, on a scale from 0 to 1."""

    n: int
    chrf: float
    bleu: float
    chrf_same_label: float | None
    """chrF against the annotators' rationale of another example with the same gold label: what the
    label alone gives; ``None`` where no label has two."""
    chrf_of: Mapping[str, float]
    """Of each example, by its id."""


def length_in_characters(rationales: Sequence[str]) -> Lengths:
    """Return the lengths of all rationales in characters."""
    return summarize(map(len, rationales))


def length_in_words(rationales: Sequence[str]) -> Lengths:
    """Return the lengths in words between white space of those that are not Chinese."""
    return summarize(len(text.split()) for text in rationales if not is_chinese(text))


def distinctness(rationales: Sequence[str]) -> Distinctness:
    """Return how much rationales, at least one, differ; tokens are words or Chinese characters."""
    _, split = segmenter("characters")
    stretches = [stretch for text in rationales for stretch in split(text)]
    tokens = [token for stretch in stretches for token in stretch]
    pairs = [pair for stretch in stretches for pair in pairwise(stretch)]
    counts = Counter(map(comparable, rationales))
    return Distinctness(
        distinct_1=len(set(tokens)) / len(tokens) if tokens else None,
        distinct_2=len(set(pairs)) / len(pairs) if pairs else None,
        duplicates=sum(n for n in counts.values() if n > 1) / len(rationales),
        different=len(counts),
        most_common=max(counts.values()) / len(rationales),
    )


def likeness(
    rationales: Mapping[str, str], annotated: Mapping[str, str], gold: Mapping[str, str]
) -> Likeness | None:
    """Return how much rationales repeat the annotators'; ``None`` where no example has both.

    Args:
        rationales: Of the run, by example id.
        annotated: Of the annotators, by example id.
        gold: Gold labels, by example id.
    """
    ids = [key for key in rationales if annotated.get(key, "").strip()]
    if not ids:
        return None
    own = text_overlap([rationales[key] for key in ids], [annotated[key] for key in ids])
    other = _next_of_label(ids, gold)
    same_label = None
    if other:
        texts, references = [rationales[k] for k in other], [annotated[k] for k in other.values()]
        same_label = text_overlap(texts, references).chrf
    return Likeness(
        n=own.n,
        chrf=own.chrf,
        bleu=own.bleu,
        chrf_same_label=same_label,
        chrf_of=dict(zip(ids, own.chrf_of_pair, strict=True)),
    )


def draw_by_label(labels: Mapping[str, str], *, size: int, seed: int) -> list[str]:
    """Return ids drawn so that every label comes as often as the others, while it lasts.

    Ids keep the order of ``labels``; the same arguments give the same ids.

    Args:
        labels: The label of each id.
        size: Ids wanted, at most.
        seed: Of the draw.
    """
    rng = random.Random(f"rationale sample {seed}")
    waiting: dict[str, list[str]] = {}
    for key, label in labels.items():
        waiting.setdefault(label, []).append(key)
    for own in waiting.values():
        rng.shuffle(own)
    drawn: set[str] = set()
    while len(drawn) < min(size, len(labels)):
        # Which labels get one more when not all can is drawn anew in each round.
        for label in rng.sample(sorted(waiting), len(waiting)):
            if waiting[label] and len(drawn) < size:
                drawn.add(waiting[label].pop())
    return [key for key in labels if key in drawn]


def _next_of_label(ids: Sequence[str], gold: Mapping[str, str]) -> dict[str, str]:
    """Return for each id the next one with the same label, the first for the last."""
    by_label: dict[str, list[str]] = {}
    for key in ids:
        by_label.setdefault(gold[key], []).append(key)
    return {
        key: own[(place + 1) % len(own)]
        for own in by_label.values()
        if len(own) > 1
        for place, key in enumerate(own)
    }


Classifier = Callable[[Sequence[str], Sequence[str], Sequence[str]], Sequence[Mapping[str, float]]]
"""Training texts, their labels, texts to label; returns a probability for each training label."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Explained:
    """A rationale and the label that it was given for."""

    fold: int
    label: str
    rationale: str


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """How often labels were recovered: mean, sample SD (ddof 1) and values over folds."""

    folds: tuple[int, ...]
    n: int
    accuracy: Spread
    macro_f1: Spread


@dataclass(frozen=True, kw_only=True)
class Simulatability:
    """What rationales alone give away of their labels."""

    unmasked: Recovered
    masked: Recovered
    """With the names of categories masked."""
    majority: Recovered
    """The most frequent label of the other folds, whatever the rationale."""


def simulatability(
    explained: Sequence[Explained],
    *,
    labels: Sequence[str],
    mask: Callable[[str], str],
    classify: Classifier,
) -> Simulatability | None:
    """Return how often a classifier recovers labels from rationales; ``None`` for a single fold.

    Args:
        explained: Rationales and their labels, all from ``labels``.
        labels: The task's labels.
        mask: Returns a rationale without the names of categories.
        classify: Learns from the rationales of all folds but one.
    """
    folds = tuple(sorted({one.fold for one in explained}))
    if len(folds) < 2:
        return None

    recovered = partial(_recovered, explained, folds, labels)
    return Simulatability(
        unmasked=recovered(classify, str),
        masked=recovered(classify, mask),
        majority=recovered(_majority, str),
    )


def _recovered(
    explained: Sequence[Explained],
    folds: Sequence[int],
    labels: Sequence[str],
    classify: Classifier,
    shown: Callable[[str], str],
) -> Recovered:
    texts = [shown(one.rationale) for one in explained]
    place = {label: index for index, label in enumerate(labels)}
    found = []
    for fold in folds:
        tested = [i for i, one in enumerate(explained) if one.fold == fold]
        trained = [i for i, one in enumerate(explained) if one.fold != fold]
        answers = classify(
            [texts[i] for i in trained],
            [explained[i].label for i in trained],
            [texts[i] for i in tested],
        )
        counts = [[0] * (len(labels) + 1) for _ in labels]
        for i, probabilities in zip(tested, answers, strict=True):
            answer = max(probabilities, key=lambda label: probabilities[label])
            counts[place[explained[i].label]][place[answer]] += 1
        found.append(scores_from_confusion("simulatability", labels, counts))
    return Recovered(
        folds=tuple(folds),
        n=len(explained),
        accuracy=spread_over_folds([scores.metrics["accuracy"] for scores in found]),
        macro_f1=spread_over_folds([scores.metrics["macro_f1"] for scores in found]),
    )


def _majority(
    texts: Sequence[str], labels: Sequence[str], asked: Sequence[str]
) -> list[Mapping[str, float]]:
    [(most, _)] = Counter(labels).most_common(1)
    return [{most: 1.0} for _ in asked]
