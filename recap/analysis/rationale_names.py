"""Which behaviours a rationale names, and whether they fit the label beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from recap.tasks.mentions import LabelReader, fold_text
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
