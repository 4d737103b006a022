"""Who speaks: names of speakers in columns and keys, and the marks before turns in a text.

A mark stands at the beginning of a line: ``NAME:``, ``NAME (note):``, ``NAME 2:``,
``[00:07] NAME:``, ``**NAME:**``, or a known name on a line of its own, above what it says.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import pairwise

from recap.data.issues import IssueLog
from recap.errors import ConfigError
from recap.records import Speaker, Turn

_COUNSELOR = (
    "counselor counsellor therapist psychotherapist psychologist psychiatrist helper clinician "
    "心理咨询师 咨询师 心理治疗师 治疗师 辅导员 心理医生 咨询员 心理师 "
    "諮商師 諮詢師 治療師 心理諮商師"
)
_CLIENT = (
    "client patient seeker help-seeker helpseeker visitor "
    "来访者 来访 求助者 当事人 访客 案主 患者 病人 來訪者 個案 當事人 求助人"
)
SPEAKERS: Mapping[str, Speaker] = {
    **dict.fromkeys(_COUNSELOR.split(), "counselor"),
    **dict.fromkeys(_CLIENT.split(), "client"),
    "other": "other",
}
"""Names of those who speak, as :func:`fold_name` has them."""

_SIDES: Mapping[str, Speaker] = {"counselor": "counselor", "client": "client", "other": "other"}
_LETTERS: Mapping[str, Speaker] = {"t": "counselor", "p": "client"}
_OF_PERSONS = (
    "husband wife spouse partner fiancé fiance fiancée mother father mom mum dad mommy daddy "
    "parent parents son daughter child children kid brother sister sibling boyfriend girlfriend "
    "friend grandmother grandfather grandma grandpa aunt uncle interpreter translator observer "
    "nurse doctor teacher supervisor trainer caregiver family group speaker participant"
)
_PERSONS = frozenset(_OF_PERSONS.split())
_OF_NAMES = "of the and und et y de da do von van der den la le"
_SMALL_WORDS = frozenset(_OF_NAMES.split())
_OF_HEADERS = (
    "date time session title place location duration participants file transcript "
    "日期 时间 标题 题目 地点 时长 参与者"
)
_HEADERS = frozenset(_OF_HEADERS.split())
_NOT_IN_NAMES = re.compile(r"[,，。!！?？;；、…“”‘’「」《》\"=@]|^第[一二三四五六七八九十\d]")
_NARRATION = re.compile(r"(?:说|說|道|如下|例如|比如|譬如|包括|就是|的是|认为|觉得|因为|所以)$")
_MOST_CHARACTERS, _MOST_WORDS, _MOST_WITHOUT_CASE = 24, 3, 8

# Wide forms as the narrow ones, a character for a character, so that places stay what they are.
_NARROW = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_NARROW |= str.maketrans("\u3000\xa0﹕︓∶꞉〔〕【】", "  ::::[][]")
_CLOCK = r"\d{1,3}:\d\d(?::\d\d)?(?:[.,]\d{1,3})?(?:\s?[AaPp]\.?[Mm]\.?)?"
_SPAN = rf"(?:\d{{4}}-\d\d-\d\d[T ])?{_CLOCK}(?:\s*[-–—~>]+\s*{_CLOCK})?"
_SECONDS = r"\d+(?:\.\d+)?\s?s?\s*[-–—~>]+\s*\d+(?:\.\d+)?\s?s?|\d+\.\d+\s?s?|\d+\s?s"
_TIME = rf"(?:[\[(<{{]\s*(?:{_SPAN}|{_SECONDS})\s*[\])>}}]|{_SPAN})"
_GAP = r"[\s\u00ad\u200b-\u200f\u2060\ufeff]*"
_MARK = re.compile(
    rf"{_GAP}(?P<bold>\*{{1,3}}|_{{1,3}})?{_GAP}"
    rf"(?P<list>(?:[-–—•·>#]+|\*)\s+|[#>•·]+|[(\[]?\d{{1,4}}[.)\]、]\s*|\d{{1,4}}\s+)?"
    rf"(?P<time>{_TIME}[\s\-–—|:,]*)?"
    r"(?P<inner>\*{1,3}|_{1,3})?"
    r"(?:\[(?P<boxed>[^\[\]:]{1,60})\]|(?P<name>[^\s:()\[\]<>{}](?:[^:()\[\]<>{}\n]{0,58}?)))"
    r"(?P<note>(?:\s*(?:\([^()\n]{0,80}\)|\[[^\[\]\n]{0,80}\])){0,2})"
    rf"(?P<after>[\s\-–—|,]*{_TIME})?(?P<close>\*{{1,3}}|_{{1,3}})?{_GAP}(?P<end>:|$)"
)
_NO_MARK = re.compile(r"//|\\|[-']?[()DPp|/]\s*$")
_LONGEST_MARK = 240
_NOTES = re.compile(r"[(\[][^()\[\]]*[)\]]")
_ONE_TIME = re.compile(_TIME)
_SHORTENED = re.compile(r"(?:[^\W\d_]{1,4}\.)+")
_SOME_KNOWN = "Therapist, Counselor, Client, Patient, 咨询师, 来访者, ..."
_WHO = (
    "say who it is with 'data.options.speakers={NAME: other}' (counselor, client, other, or text "
    "where a line names no speaker)"
)
BEFORE_SPEAKERS = (
    "begins with lines that name no speaker",
    "write who speaks in front of them, or remove them",
)
_NUMBER = re.compile(
    r"[\s_#№-]*(?:\d{1,4}|(?<=[\s_-])[a-d]|(?<=[\u4e00-\u9fff])[a-d一二三四五六甲乙丙丁])$"
)
_HAN = re.compile("[\u4e00-\u9fff]")
_NOTE = re.compile(r"\s*[(\[][^()\[\]]*[)\]]$")
_EMPHASIS = re.compile(r"[*`]+|__+")
_BOXED = re.compile(r"[\[【]([^\[\]【】]*)[\]】]")
_LINE_END = re.compile(r"\r\n|\r|\n")
_BLANK_LINES = re.compile(r"\n(?:[ \t\u3000]*\n)+")


def fold_name(name: str) -> str:
    """Return a speaker's name in the form in which names are compared.

    Width, case, bold marks, brackets around it, a colon behind it, and characters that cannot be
    seen make no difference.

    >>> fold_name("**Ｃｌｉｅｎｔ：**"), fold_name("[SPEAKER_00]"), fold_name("来访者（沉默）")
    ('client', 'speaker_00', '来访者(沉默)')
    """
    plain = unicodedata.normalize("NFKC", name).replace("【", "[").replace("】", "]")
    return _bare(plain).casefold()


def _bare(name: str) -> str:
    """Return a name without what is no part of it: marks, brackets around it, odd characters."""
    seen = "".join(c for c in name if c.isspace() or unicodedata.category(c)[0] != "C")
    bare = " ".join(_EMPHASIS.sub("", seen).split()).strip("_ :：")
    boxed = _BOXED.fullmatch(bare)
    return boxed[1].strip() if boxed else bare


def _forms(folded: str) -> Iterator[str]:
    """Yield a folded name as it stands, then without its notes, then without its number."""
    yield folded
    bare = folded
    while (shorter := _NOTE.sub("", bare)) != bare:
        bare = shorter
        yield bare
    if (shorter := _NUMBER.sub("", bare)) != bare:
        yield shorter
        yield _NOTE.sub("", shorter)


@dataclass(frozen=True, kw_only=True, slots=True)
class Voice:
    """What a name stands for: who speaks, and under which name where that says more."""

    speaker: Speaker
    name: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenTurn:
    """One turn of a text; ``line`` counts from 1, ``voice`` is ``None`` for an unknown ``name``."""

    voice: Voice | None
    name: str
    text: str
    line: int

    def turn(self) -> Turn:
        """Return the turn of a known speaker."""
        assert self.voice is not None
        return Turn(speaker=self.voice.speaker, name=self.voice.name, text=self.text)


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """A text taken apart.

    ``before`` lines stand before the first speaker; ``cut`` says that it breaks off behind a name.
    """

    turns: Sequence[WrittenTurn]
    before: int
    cut: bool = False

    @property
    def unknown(self) -> Counter[str]:
        """Names that look like speakers' and are none known, with the times they occur."""
        return Counter(turn.name for turn in self.turns if turn.voice is None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """What stands before a turn: a name as it is written, and how."""

    name: str
    text: str
    """What stands behind it on its line."""
    alone: bool = False
    """Whether the line holds nothing else, no colon either."""
    timed: bool = False
    listed: bool = False
    """Whether a list's number or sign stands in front."""
    given: bool = False
    """Whether the file's own form says that this is a speaker."""


class SpeakerNames:
    """The names by which a file calls those who speak.

    ``T:`` is the counselor and ``P:`` the client; ``C:`` is the client beside a ``T:`` of the same
    text, the counselor beside a ``P:``, and unknown otherwise.

    Args:
        extra: Names of the user's own, each with ``counselor``, ``client``, ``other`` (shown in the
            history under that name, never judged) or, in texts, ``text`` (no speaker, but part of
            the turn); they come before the built-in ones.

    Raises:
        ConfigError: When a name is given anything else.
    """

    def __init__(self, extra: Mapping[str, str] | None = None) -> None:
        self._own: dict[str, str] = {}
        for name, role in (extra or {}).items():
            if role not in ("counselor", "client", "other", "text"):
                raise ConfigError(
                    f"data.options.speakers: {name!r} must be counselor, client, other or text, "
                    f"not {role!r}"
                )
            self._own[fold_name(str(name))] = role
        # Every turn of a large file asks for one of a few names.
        self.find = lru_cache(maxsize=1024)(partial(self._find, letters=_LETTERS))
        """Returns what a name, as it is written, stands for; ``None`` where that is not known."""

    def _find(self, name: str, letters: Mapping[str, Speaker]) -> Voice | None:
        speaker = _SIDES.get(self._role(name, letters) or "")
        if speaker is None:
            return None
        folded = fold_name(name)
        own = folded in self._own and speaker != "other"
        plain = own or folded in SPEAKERS or folded in letters
        return Voice(speaker=speaker, name=None if plain else _bare(name))

    def _role(self, name: str, letters: Mapping[str, Speaker]) -> str | None:
        forms = list(_forms(fold_name(name)))
        known: Iterator[Mapping[str, str]] = iter((self._own, SPEAKERS, letters))
        return next((table[form] for table in known for form in forms if form in table), None)

    def reject(
        self, issues: IssueLog, line: int, field: str, names: Counter[str], *, rows: int = 1
    ) -> None:
        """Note that a row names speakers that are not known, which are listed once a file."""
        known = ", ".join([*self._own, _SOME_KNOWN])
        issues.reject_values(line, field, names, kind="speakers", known=known, hint=_WHO, rows=rows)

    def reject_cell(
        self, issues: IssueLog, line: int, field: str, name: str, *, rows: int = 1
    ) -> None:
        """Note that a cell that says who speaks is empty, or names nobody known."""
        if fold_name(name):
            self.reject(issues, line, field, Counter([plain_name(name)]), rows=rows)
        else:
            issues.reject(line, field, "is empty", "write counselor or client", rows=rows)

    def read(self, text: str) -> Written:
        """Return the turns of a text.

        A line without a mark goes on with the turn above it, blank lines inside a turn included. A
        line that looks like a mark and names nobody known begins a turn without a voice.
        """
        lines = _LINE_END.split(text)
        marks = {n: mark for n, line in enumerate(lines, start=1) if (mark := find_mark(line))}
        voices = self.voices(marks)
        starts = [*voices, len(lines) + 1]
        turns = []
        for start, end in pairwise(starts):
            said = [marks[start].text, *lines[start : end - 1]]
            turns.append(
                WrittenTurn(
                    voice=voices[start],
                    name=plain_name(marks[start].name),
                    text="\n".join(map(str.strip, said)).strip(),
                    line=start,
                )
            )
        before = sum(bool(line.strip()) for line in lines[: starts[0] - 1])
        last = turns[-1] if turns else None
        cut = last is not None and bool(last.voice and marks[last.line].alone and not last.text)
        return Written(turns=turns[:-1] if cut else turns, before=before, cut=cut)

    def voices(self, marks: Mapping[int, Mark]) -> dict[int, Voice | None]:
        """Return the marks of a text that begin a turn, and whose it is; ``None`` for nobody known.

        Args:
            marks: By their lines, in order.
        """
        letters = _letters_of(marks.values())
        known = {n: voice for n, mark in marks.items() if (voice := self._voice(mark, letters))}
        style = _Style.of([marks[n] for n in known])
        first = min(known, default=0)
        unknown: dict[int, Voice | None] = {
            n: None
            for n, mark in marks.items()
            if n not in known
            and self._role(mark.name, letters) is None
            and style.is_speaker(mark, first=n < first)
        }
        return dict(sorted({**known, **unknown}.items()))

    def _voice(self, mark: Mark, letters: Mapping[str, Speaker]) -> Voice | None:
        """Return who speaks after a mark; a letter alone on its line is none without a time."""
        if mark.alone and not mark.timed and len(fold_name(mark.name)) == 1:
            return None
        return self._find(mark.name, letters)


def find_mark(line: str) -> Mark | None:
    """Return what may be a speaker's mark at the beginning of a line, whoever it names."""
    plain = line[:_LONGEST_MARK].translate(_NARROW)
    found = _MARK.match(plain)
    if found is None or (not found["end"] and len(line) > _LONGEST_MARK):
        return None
    kind = "name" if found["boxed"] is None else "boxed"
    timed = [note for note in _NOTES.findall(found["note"]) if _ONE_TIME.fullmatch(note)]
    name = line[slice(*found.span(kind))]
    if not timed:
        name += line[slice(*found.span("note"))]
    text = line[found.end() :]
    if not name.strip() or (name[-1:].isdigit() and text[:1].isdigit()):
        return None
    bold = found["bold"] or found["inner"]
    if bold and not found["close"]:
        text = text.strip()
        text = text.removeprefix(bold) if text.startswith(bold) else text.removesuffix(bold)
    return Mark(
        name=name.strip(),
        text=text,
        alone=not found["end"],
        timed=bool(timed or found["time"] or found["after"]),
        listed=bool(found["list"]) or unicodedata.category(name[0]) == "No",
    )


def _letters_of(marks: Iterable[Mark]) -> dict[str, Speaker]:
    """Return what single letters stand for in a text with these marks."""
    there = {[*_forms(fold_name(mark.name))][-1] for mark in marks if not mark.alone or mark.timed}
    letters = dict(_LETTERS)
    if "t" in there and "p" not in there:
        letters["c"] = "client"
    elif "p" in there and "t" not in there:
        letters["c"] = "counselor"
    return letters


@dataclass(frozen=True, kw_only=True, slots=True)
class _Style:
    """How the known speakers of a text are written, by which unknown ones are told from text."""

    lower: bool
    listed: bool

    @classmethod
    def of(cls, known: Sequence[Mark]) -> _Style:
        """Return the style of the marks of known speakers."""
        return cls(
            lower=any(mark.name[0].islower() for mark in known),
            listed=any(mark.listed for mark in known),
        )

    def is_speaker(self, mark: Mark, first: bool) -> bool:
        """Whether a mark of nobody known looks like one of a speaker all the same."""
        if mark.given:
            return True
        if (mark.alone and not mark.timed) or (mark.listed and not self.listed):
            return False
        name = plain_name(mark.name)
        if _NO_MARK.match(mark.text) or (first and name.casefold() in _HEADERS):
            return False
        return _looks_like_name(name, lower=self.lower or mark.timed)


def plain_name(name: str) -> str:
    """Return a name as it is written, without its notes, which may hold words of the client."""
    bare = _bare(name.translate(_NARROW))
    while (shorter := _NOTE.sub("", bare)) != bare:
        bare = shorter
    return bare


def _looks_like_name(name: str, *, lower: bool) -> bool:
    words = name.split()
    if (
        not is_short(name)
        or not any(map(str.isalpha, name))
        or _NOT_IN_NAMES.search(name)
        or any("." in word and not _SHORTENED.fullmatch(word) for word in words)
    ):
        return False
    if _HAN.search(name) or not any(c.isupper() or c.islower() for c in name):
        letters = sum(not c.isspace() for c in name)
        return letters <= _MOST_WITHOUT_CASE and not _NARRATION.search(name)
    if lower and len(words) == 1:
        return True
    persons = [word.casefold().removesuffix("'s").removesuffix("’s") for word in words]
    named = [not w[0].islower() or p in _PERSONS for w, p in zip(words, persons, strict=True)]
    small = [word in _SMALL_WORDS for word in persons]
    return any(named) and all(a or b for a, b in zip(named, small, strict=True))


def is_short(name: str) -> bool:
    """Whether a name may be shown: a longer one may be the words of a client."""
    return 0 < len(name) <= _MOST_CHARACTERS and len(name.split()) <= _MOST_WORDS


def sample_of(text: str, written: Written) -> tuple[tuple[Turn, ...], str, tuple[str, str] | None]:
    """Return the history and the response of a sample, and what is wrong with it, and the mend.

    The response is the last client turn, as a whole. What names no speaker and stands below the
    counselor's last turn, after its only blank line, is the response too. A text without any
    speaker is split at its last blank line; without one it is all response.

    Args:
        text: The sample.
        written: The same taken apart; all its speakers are known.
    """
    if not written.turns:
        *context, response = _at_last_blank_line(text)
        return tuple(Turn(speaker="counselor", text=part) for part in context), response, None
    *before, last = (turn.turn() for turn in written.turns)
    if written.before:
        if before or last.speaker != "client":
            return (), "", BEFORE_SPEAKERS
        above = _LINE_END.split(text)[: written.turns[0].line - 1]
        return (Turn(speaker="counselor", text="\n".join(above).strip()),), last.text, None
    if last.speaker == "client":
        return tuple(before), last.text, None
    parts = _BLANK_LINES.split(last.text)
    if last.speaker == "counselor" and len(parts) == 2:
        return (*before, replace(last, text=parts[0])), parts[1], None
    who = "the counselor" if last.speaker == "counselor" else "another than the client"
    if len(parts) == 1 or last.speaker == "other":
        reason = f"the text ends with {who}"
        return (), "", (reason, "end it with the client's turn, which is what is labeled")
    reason = f"what stands below {who}'s last turn has {len(parts) - 1} blank lines"
    return (), "", (reason, "write Client: before the response")


def _at_last_blank_line(text: str) -> list[str]:
    """Return what stands above and below the last blank line, or the text where there is none."""
    lines = "\n".join(_LINE_END.split(text))
    blanks = list(_BLANK_LINES.finditer(lines))
    if not blanks:
        return [lines.strip()]
    above = lines[: blanks[-1].start()].strip()
    return [*filter(None, [above]), lines[blanks[-1].end() :].strip()]
