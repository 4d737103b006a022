"""The answer format, written and read: ``Behavior: <label>`` and ``Reason: <rationale>``.

A label is read out of text by the spellings of the taxonomy, without ever guessing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from recap.config import LabelForm, Language
from recap.errors import DataError
from recap.records import Answer
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

_OPENING = " \t\r\n<*\"'“‘`_["
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
class NamedLabel:
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


NOTHING = NamedLabel()
DOUBTFUL = NamedLabel(doubtful=True)


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

    def named(self, text: str) -> NamedLabel:
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
        return NamedLabel(label=label)

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


_KEYS = {"en": ("Behavior: ", "Reason: "), "zh": ("行为：", "理由：")}

_CLOSING = r"[\s\"'”’`*_]{0,5}:"
_BEHAVIOR_WORDS = (
    r"(?<![a-z])(?:behaviou?rs?|labels?|categor(?:y|ies)|classification|answer"
    r"|行为类别|行为|类别|标签|分类|答案)"
)
_REASON_WORDS = (
    r"(?<![a-z])(?:reason(?:s|ing)?|rationale|explanation|justification|理由|原因|解释|依据)"
)
_LINE_START = r"^[ \t>*#\"'“‘`_\-\d.)]{0,8}"
# Every repetition is bounded, so a long generation costs time in proportion to its length.
_BEHAVIOR = re.compile(_BEHAVIOR_WORDS + _CLOSING, re.IGNORECASE)
_REASON = re.compile(_REASON_WORDS + _CLOSING, re.IGNORECASE)
_BEHAVIOR_LINE = re.compile(_LINE_START + _BEHAVIOR_WORDS + _CLOSING, re.IGNORECASE)
_REASON_LINE = re.compile(_LINE_START + _REASON_WORDS + _CLOSING, re.IGNORECASE | re.MULTILINE)
_FENCE = re.compile(r"[ \t]{0,8}```[\w+-]{0,20}[ \t\r]{0,8}")
_ALTERNATIVE = re.compile(
    r"[\W_]{0,4}(?:(?:or|and|also|alternatively|maybe|perhaps|possibly|but)(?![a-z])|以及|或|也|和|另|但)",
    re.IGNORECASE,
)

_AROUND_REASON = " \t\r\n*`"

_PLACEHOLDER = re.compile(
    r"[<\[{][^<>\[\]{}\n]{0,40}(?:label|behaviou?r|categor|answer|标签|行为|类别|分类|答案)"
    r"[^<>\[\]{}\n]{0,80}[>\]}]",
    re.IGNORECASE,
)
"""A gap that a prompt of one's own shows (``<label>``), copied instead of filled."""

THOUGHT_MARK = re.compile(
    r"(?i:<\|?(/)?(?:seed:)?(?:think(?:ing)?|thought|reasoning)\|?>)|\[(/)?THINK\]|◁(/)?think▷"
)
"""Where a model's thought begins, or ends (then a group has matched)."""


def spoken(text: str) -> str:
    """Return a text without the thoughts in it.

    An end without a start ends a thought that began in the prompt; a start without an end begins
    one that was cut off.

    >>> spoken("<think>Blaming?</think>Collaboration"), spoken("Blaming?</think>Collaboration")
    ('Collaboration', 'Collaboration')
    """
    return _split_thoughts(text)[0]


def ends_in_thought(text: str) -> bool:
    """Whether a text was cut off inside a thought."""
    return _split_thoughts(text)[1]


def cut_text(text: str) -> str:
    """Return a text that was cut at its longest, marked as a thought where it may be one.

    A model whose thought began in the prompt and was cut off gives no mark at all: a text that
    does not begin as an answer is taken for such a thought.
    """
    begun = _BEHAVIOR_LINE.match(text.translate(WIDE_TO_ASCII).lstrip())
    return text if begun or THOUGHT_MARK.search(text) else f"<think>{text}"


def _split_thoughts(text: str) -> tuple[str, bool]:
    """Return what is outside of thoughts, and whether the end of the text is inside one."""
    kept: list[str] = []
    at, inside = 0, False
    for mark in THOUGHT_MARK.finditer(text):
        ends = mark.lastindex is not None
        if ends and not inside:
            kept.clear()
        elif not inside:
            kept.append(text[at : mark.start()])
        at, inside = mark.end(), not ends
    return "".join(kept if inside else [*kept, text[at:]]), inside


UNREADABLE = Answer(label=None)


@dataclass(frozen=True, kw_only=True)
class AnswerFormat:
    """How answers over some labels of a taxonomy are written and read.

    Attributes:
        labels: Canonical names of the labels that may be answered.
        language: Of the keys and of the label names.
        label_form: ``qualified`` writes the pattern before the behavior.
        rationale: Whether an answer has a ``Reason`` line.
    """

    taxonomy: Taxonomy
    labels: tuple[str, ...]
    language: Language = "en"
    label_form: LabelForm = "qualified"
    rationale: bool = True

    def written(self, name: str) -> str:
        """Return the form of a category's name that prompts and answers use."""
        return self.taxonomy.written(
            name, language=self.language, qualified=self.label_form == "qualified"
        )

    def lines(self, label: str, rationale: str | None) -> str:
        """Return the answer text for a label and a rationale as they are."""
        behavior, reason = _KEYS[self.language]
        if rationale is None:
            return behavior + label
        return f"{behavior}{label}\n{reason}{rationale}"

    def render(self, answer: Answer) -> str:
        """Return an answer as text; :meth:`parse` gives it back.

        The rationale loses white space at its ends, and marks of thoughts. A line of it that would
        read as an answer of another label is joined to the line before, since two answers in one
        text are unreadable.

        Raises:
            DataError: When the answer has no label, or one that is not of this format.
        """
        if answer.label not in self.labels:
            raise DataError(
                f"only answers with one of the labels {', '.join(self.labels)} can be written; "
                f"this one has {'none' if answer.label is None else 'another'}"
            )
        rationale = THOUGHT_MARK.sub(" ", answer.rationale or "").strip() if self.rationale else ""
        if not rationale:
            return self.lines(self.written(answer.label), None)
        first, *rest = rationale.split("\n")
        for line in rest:
            first += f" {line}" if self._gives_other(line, answer.label) else f"\n{line}"
        return self.lines(self.written(answer.label), first)

    def parse(self, text: str) -> Answer:
        """Return the answer in a text; its label is ``None`` where none is clear. Never raises.

        What a model only thinks is no part of it (:func:`spoken`). The exact format is tried first.
        Failing that: other keys, other spellings, quotes,
        markdown, code fences and words before the answer are seen through, and a label in running
        text counts when it is the only one named there and not denied.
        """
        text = spoken(text)
        exact = self._parse_exact(text)
        return exact if exact is not None else self._parse_loose(text)

    def label_start(self, text: str) -> int | None:
        """Return where the label stands that an answer begins with, behind its key if it has one.

        ``None`` where there is none, or where it is not :meth:`written` as prompts have it.
        """
        label = self.parse(text).label
        start = len(text) - len(text.lstrip())
        key = _BEHAVIOR_LINE.match(text[start:].translate(WIDE_TO_ASCII))
        start += key.end() if key else 0
        start += len(text[start:]) - len(text[start:].lstrip(_OPENING))
        return start if label and text.startswith(self.written(label), start) else None

    def _parse_exact(self, text: str) -> Answer | None:
        behavior, reason = _KEYS[self.language]
        head, _, tail = text.strip().partition("\n")
        label = self._by_written.get(head[len(behavior) :].rstrip())
        if label is None or not head.startswith(behavior):
            return None
        if not tail:
            return Answer(label=label)
        if not tail.startswith(reason.rstrip()):
            return None
        return self._answer(NamedLabel(label=label), tail[len(reason.rstrip()) :].strip())

    def _parse_loose(self, text: str) -> Answer:
        text = "\n".join(line for line in text.split("\n") if not _FENCE.fullmatch(line))
        wide = text.translate(WIDE_TO_ASCII)
        behavior = _BEHAVIOR.search(wide)
        if behavior is None:
            return self._parse_without_key(text, wide)
        before = _REASON_LINE.search(wide, 0, behavior.start())
        after = _REASON.search(wide, behavior.end())
        named, unkeyed = self._read_pieces(text, wide, behavior.end(), after)
        if after is not None:
            return self._answer(named, text[after.end() :].strip(_AROUND_REASON))
        rationale = text[before.end() : behavior.start()] if before else unkeyed
        return self._answer(named, rationale.strip(_AROUND_REASON))

    def _parse_without_key(self, text: str, wide: str) -> Answer:
        reason = _REASON.search(wide)
        head = text[: reason.start()] if reason else text
        named, unkeyed = self._read_piece(head, keyed=False)
        if named == NOTHING and reason:
            named = self._reader.named(text)
        rationale = text[reason.end() :] if reason else unkeyed
        return self._answer(named, rationale.strip(_AROUND_REASON))

    def _read_pieces(
        self, text: str, wide: str, start: int, reason: re.Match[str] | None
    ) -> tuple[NamedLabel, str]:
        """Read what follows each ``Behavior`` key up to ``Reason``; the answers must agree."""
        end = reason.start() if reason else len(text)
        cuts = [start]
        starts = []
        for key in _BEHAVIOR.finditer(wide, start, end):
            starts.append(key.start())
            cuts.append(key.end())
        read = [
            self._read_piece(text[a:b], keyed=True)
            for a, b in zip(cuts, [*starts, end], strict=True)
        ]
        found = {named for named, _ in read} - {NOTHING}
        if not found:
            return NOTHING, ""
        return (found.pop() if len(found) == 1 else DOUBTFUL), read[-1][1]

    def _read_piece(self, piece: str, *, keyed: bool) -> tuple[NamedLabel, str]:
        """Return what a piece names and the text after the line that names it."""
        lines = [line for line in piece.split("\n") if line.strip()]
        if not lines:
            return NOTHING, ""
        label = self._reader.whole(lines[0])
        named = NamedLabel(label=label) if label else NOTHING
        if keyed and label is None:
            named = self._reader.named(lines[0])
        if named == NOTHING and _PLACEHOLDER.search(lines[0].translate(WIDE_TO_ASCII)):
            # What follows explains an answer that was never given.
            return DOUBTFUL, ""
        if named == NOTHING:
            return self._reader.named(piece), ""
        if named.label and any(self._adds_another(line, named.label) for line in lines[1:]):
            return DOUBTFUL, ""
        return named, "\n".join(lines[1:])

    def _adds_another(self, line: str, label: str) -> bool:
        whole = self._reader.whole(line)
        if whole is not None:
            return whole != label
        return bool(_ALTERNATIVE.match(line)) and self._reader.named(line) not in (
            NOTHING,
            NamedLabel(label=label),
        )

    def _gives_other(self, line: str, label: str) -> bool:
        """Whether a line of a rationale is itself an answer line, of another label."""
        key = _BEHAVIOR_LINE.match(line.translate(WIDE_TO_ASCII))
        return key is not None and self._reader.whole(line[key.end() :]) not in (None, label)

    def _answer(self, named: NamedLabel, rationale: str) -> Answer:
        if named.label is None:
            return UNREADABLE
        label = named.label
        if any(self._gives_other(line, label) for line in rationale.split("\n")[1:]):
            return UNREADABLE
        return Answer(label=label, rationale=rationale or None)

    @cached_property
    def _reader(self) -> LabelReader:
        return LabelReader(self.taxonomy, self.labels)

    @cached_property
    def _by_written(self) -> dict[str, str]:
        return {self.written(name): name for name in self.labels}
