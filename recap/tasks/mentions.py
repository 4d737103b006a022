"""Which label of a task a piece of text names, without ever guessing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from recap.taxonomy import Taxonomy, normalize_label

LONGEST_LABEL = 120
"""A line with more characters is a sentence, never a label on its own."""

WIDE_TO_ASCII = {
    **{code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)},
    0x3000: 0x20,
    0xFE55: 0x3A,
    0x2236: 0x3A,
}
"""Full-width forms to ASCII, one character to one, so that positions in the text are kept."""

_EDGE = " \t\r\n<>{}|#~•*-–—>\\"
_NEGATION_BEFORE = re.compile(
    r"(?:(?<![a-z])(?:not|no|non|never|neither|nor|none|without|cannot|lacks?|lacking"
    r"|little|few|less|scarcely|minimal(?! talk)|absen\w+|unlikely|hardly|barely"
    r"|rather than|instead of|rul\w+ out|exclud\w+|except|free (?:of|from))(?![a-z])"
    r"|n['’]t(?![a-z])|很少|几乎|不|没|未|无|非(?!常)|并非|否定|排除|缺乏)"
)
_NEGATION_AFTER = re.compile(
    r"[\s\"'”’*)\]]{0,4}(?:\?|？|(?:(?:is|was|are|does|do|did|can|could|would|seems|has)\s?)?"
    r"(?:not(?![a-z])|n['’]t|never(?![a-z])|no(?![a-z])|absent|cannot|ruled out|excluded)"
    r"|(?:is|was)\s(?:absent|unlikely|ruled out|excluded)|-free|不|没有|并不)"
)
_CLAUSE_END = re.compile(r"[.,;:!?\n。，；：！？、]")
_REACH_BEFORE = 48
_REACH_AFTER = 32


@dataclass(frozen=True, kw_only=True)
class Named:
    """What a text names: one ``label``, nothing (``None``), or something unclear (``doubtful``)."""

    label: str | None = None
    doubtful: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A spelling of a category, where it stands in a text that :func:`fold_text` gave."""

    category: str | None
    """Canonical name; ``None`` for a form that the taxonomy does not resolve."""
    start: int
    end: int


NOTHING = Named()
DOUBTFUL = Named(doubtful=True)


@dataclass(frozen=True)
class LabelReader:
    """Reads the labels of a task out of text, by every spelling that the taxonomy knows.

    A category below a label stands for that label (``Arguing - Challenging`` is Resistance in the
    binary task). One above a label is no answer; one beside it, which the task does not offer, is a
    doubt.
    """

    taxonomy: Taxonomy
    labels: tuple[str, ...]

    def label_at_or_above(self, name: str) -> str | None:
        """Return the label that covers a category (canonical name), ``None`` where none does."""
        return self._label_of.get(name)

    def whole(self, text: str) -> str | None:
        """Return the label when ``text`` is nothing but a spelling of it, else ``None``."""
        if len(text) > LONGEST_LABEL:
            return None
        found = self.taxonomy.find(text.strip(_EDGE))
        return None if found is None else self._label_of.get(found)

    def named(self, text: str) -> Named:
        """Return the one label that ``text`` names; two of them, or a denied one, are doubtful.

        Linear in the length of ``text``; the longest spelling at a place counts.
        """
        folded = fold_text(text)
        label: str | None = None
        above: set[str] = set()
        for span in self.spans(folded):
            if span.category is None or _denied(folded, span.start, span.end):
                return DOUBTFUL
            found = self._label_of.get(span.category)
            if found is not None:
                if label not in (None, found):
                    return DOUBTFUL
                label = found
            elif span.category in self._ancestors:
                above.add(span.category)
            else:
                return DOUBTFUL
        if label is None:
            return NOTHING
        if above.difference(self.taxonomy.lineage(label)):
            return DOUBTFUL
        return Named(label=label)

    def spans(self, folded: str) -> Iterator[Span]:
        """Yield every spelling of a category in a text that :func:`fold_text` gave, in order.

        Spellings in ASCII stand between characters that are neither letters nor digits; Chinese
        ones stand anywhere. The longest at a place counts, and none overlap.
        """
        for match in self._pattern.finditer(folded):
            category = self.taxonomy.find(match.group())
            yield Span(category=category, start=match.start(), end=match.end())

    @cached_property
    def _label_of(self) -> dict[str, str]:
        wanted = set(self.labels)
        pairs = {}
        for category in self.taxonomy.categories:
            above = [name for name in self.taxonomy.lineage(category.name) if name in wanted]
            if above:
                pairs[category.name] = above[0]
        return pairs

    @cached_property
    def _ancestors(self) -> frozenset[str]:
        return frozenset(name for label in self.labels for name in self.taxonomy.lineage(label)[1:])

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        keys = sorted(
            {normalize_label(s) for s in self.taxonomy.spellings()}, key=len, reverse=True
        )
        return re.compile("|".join(_alternatives(keys)))


def fold_text(text: str) -> str:
    """Return a text in half width and folded case, in which spellings are looked for."""
    return text.translate(WIDE_TO_ASCII).casefold()


def _alternatives(keys: Sequence[str]) -> Iterable[str]:
    """Yield one expression for spellings that start with an ASCII letter, one for the rest."""
    ascii_keys = [key for key in keys if _is_word(key[:1])]
    other_keys = [key for key in keys if key and not _is_word(key[:1])]
    if ascii_keys:
        # The look-ahead on the first letter spares the alternation at most places of a long text.
        first = "".join(sorted({key[0] for key in ascii_keys}))
        yield rf"(?<![a-z0-9])(?=[{first}])(?:{'|'.join(map(_expression, ascii_keys))})"
    if other_keys:
        yield f"(?:{'|'.join(map(_expression, other_keys))})"


def _expression(key: str) -> str:
    between = {"-": r"\s{0,3}[-–—−_/]\s{0,3}", " ": r"\s{1,3}"}
    body = "".join(between.get(character) or re.escape(character) for character in key)
    return body + (r"(?![a-z0-9])" if _is_word(key[-1:]) else "")


def _is_word(character: str) -> bool:
    return character.isascii() and character.isalnum()


def _denied(folded: str, start: int, end: int) -> bool:
    before = folded[max(0, start - _REACH_BEFORE) : start]
    clause = _CLAUSE_END.split(before)[-1]
    if _NEGATION_BEFORE.search(clause):
        return True
    return _NEGATION_AFTER.match(folded[end : end + _REACH_AFTER]) is not None
