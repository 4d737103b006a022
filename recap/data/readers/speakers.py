"""Who speaks: names of speakers in columns and keys, and the marks before turns in a text.

A mark stands at the beginning of a line: ``NAME:``, ``NAME (note):``, ``NAME 2:``,
``[00:07] NAME:``, ``**NAME:**``, or a known name on a line of its own, above what it says.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

from recap.data.issues import IssueLog, name_damage
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
    "date time session title place location duration participants file transcript id age gender "
    "name no number code 日期 时间 标题 题目 地点 时长 参与者"
)
_HEADERS = frozenset(_OF_HEADERS.split())
_OF_PROSE = (
    "note notes nb ps pps example examples important warning update edit re subject todo so well "
    "but yes no and or first second third firstly secondly finally lastly next then also now ok "
    "okay oh however step option part point problem reason result thought thoughts feeling "
    "feelings mood score hint tip remember fact facts truth plan goal homework pros cons "
    "question questions answer summary monday tuesday wednesday thursday friday saturday sunday "
    "morning evening today tomorrow yesterday tel phone email 第 其 周 星期 注 附 注意 备注 附注 "
    "首先 其次 再次 然后 最后 总之 另外 此外 同时 但是 所以 问题 时间 原因 结果 建议 优点 缺点 "
    "例子 举个例子 步骤 方法 选项 情绪 想法 感受 目标 任务 作业 答案 结论 提示 重点 补充 一方面 "
    "另一方面 今天 明天 昨天 电话 网址"
)
_PROSE = frozenset(_OF_PROSE.split())
_OF_SENTENCES = (
    "my your his her its our their this that these those one another i he she it we they you"
)
_IN_PROSE = frozenset(_OF_SENTENCES.split())
_VERBS = frozenset(
    {"said", "says", "say", "asked", "asks", "thought", "wrote", "told", "is", "was"}
)
_OWN_THING = re.compile(r"[我你您他她它](?:们)?的|.*的(?:话|是)$")
_NOT_IN_NAMES = re.compile(r"[,，。!！?？;；、…“”‘’「」《》\"=@]")
_NARRATION = re.compile(r"(?:说|說|道|如下|例如|比如|譬如|包括|就是|的是|认为|觉得|因为|所以)$")
_MOST_CHARACTERS, _MOST_WORDS, _MOST_WITHOUT_CASE, _MOST_DIGITS = 24, 3, 8, 6

# Wide forms as the narrow ones, a character for a character, so that places stay what they are.
_NARROW = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_NARROW |= str.maketrans("\u3000\xa0﹕︓∶꞉〔〕【】", "  ::::[][]")
_CLOCK = r"\d{1,3}:\d\d(?::\d\d)?(?:[.,]\d{1,3})?(?:\s?[AaPp]\.?[Mm]\.?)?"
_DATE = r"\d{1,4}[-/.年]\d{1,2}[-/.月]\d{1,4}日?,?[T ]"
_SPAN = rf"(?:{_DATE})?{_CLOCK}(?:\s*[-–—~>]+\s*{_CLOCK})?"
_SECONDS = r"\d+(?:\.\d+)?\s?s?\s*[-–—~>]+\s*\d+(?:\.\d+)?\s?s?|\d+\.\d+\s?s?|\d+\s?s"
_TIME = rf"(?:[\[(<{{]\s*(?:{_SPAN}|{_SECONDS})\s*[\])>}}]|{_SPAN})"
_GAP = r"[\s\u00ad\u200b-\u200f\u2060\ufeff]*"
_MARK = re.compile(
    rf"{_GAP}(?P<bold>\*{{1,3}}(?!\s)|_{{1,3}})?{_GAP}"
    rf"(?P<list>(?:[-–—•·>#]+|\*)\s+|[#>•·]+|[(\[]?\d{{1,4}}[.)\]、](?!\d)\s*|\d{{1,4}}\s+)?"
    rf"(?P<time>{_TIME}[\s\-–—|:,]*)?"
    r"(?P<inner>\*{1,3}|_{1,3})?"
    r"(?:\[(?P<boxed>[^\[\]:]{1,60})\]|(?P<name>[^\s:()\[\]<>{}](?:[^:()\[\]<>{}\n]{0,58}?)))"
    r"(?P<note>(?:\s*(?:\([^()\n]{0,80}\)|\[[^\[\]\n]{0,80}\])){0,2})"
    rf"(?P<after>[\s\-–—|,]*{_TIME})?(?P<close>\*{{1,3}}|_{{1,3}})?{_GAP}(?P<end>:+|$)"
)
_NO_MARK = re.compile(r"//|\\|[-']?[()DPp|/]\s*$")
_LONGEST_MARK = 240
_NOTES = re.compile(r"[(\[][^()\[\]]*[)\]]")
_ONE_TIME = re.compile(_TIME)
_SHORTENED = re.compile(r"(?:[^\W\d_]{1,4}\.)+")
_SOME_KNOWN = "Therapist, Counselor, Client, Patient, 咨询师, 来访者, ..."
_WHO = (
    "say who each is, as in 'data.options.speakers={NAME: other}' (counselor, client, other, or "
    "text where a line names no speaker)"
)
BEFORE_SPEAKERS = (
    "begins with lines that name no speaker",
    "write who speaks in front of them, or remove them",
)
NOT_IN_FRONT = (
    "names a speaker inside a line, or without a colon",
    "begin a line with each speaker and a colon (were line ends lost?)",
)
_NUMBER = re.compile(
    r"[\s_#№-]*(?:\d{1,4}|(?<=[\s_-])[a-d]|(?<=[\u4e00-\u9fff])[a-d一二三四五六甲乙丙丁])$"
)
_HAN = re.compile("[\u4e00-\u9fff]")
_NOTES_BEHIND = re.compile(r"(?:\s*[(\[][^()\[\]]*[)\]])+$")
_EMPHASIS = re.compile(r"[*`]+|__+")
_BOXED = re.compile(r"[\[【]([^\[\]【】]*)[\]】]")
_LINE_END = re.compile(r"\r\n|\r|\n")
_FOOTER = "Transcribed by https://otter.ai"
_SOFT_END = re.compile("[\v\f\x85\u2028\u2029]")
_INSIDE = re.compile(
    r"(?:[.?!…。？！](?:[^\S\n]|[\"'”’」)）])*|[^\s:：(（\[【][^\S\n]+(?=[A-Z]))"
    r"([^\W\d][^\s:：.?!。？！，,]{0,15})\s?[:：]"
    r"|\n[^\w\n]{0,3}([^\W\d_][^\W_]{0,15})(?:\s?[;；=|<>({\[（【\]】]|\s[-–—]+\s|——)"
)


@lru_cache(maxsize=1024)
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


@lru_cache(maxsize=1024)
def _forms(name: str) -> tuple[str, ...]:
    """Return a name folded, then without its notes, then without its number."""
    folded = fold_name(name)
    bare = _NOTES_BEHIND.sub("", folded)
    shorter = _NUMBER.sub("", bare)
    return folded, bare, shorter, _NOTES_BEHIND.sub("", shorter)


def is_letter(name: str) -> bool:
    """Whether a name is a single letter, which only the names beside it explain."""
    return len(_forms(name)[-1]) == 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Voice:
    """What a name stands for: who speaks, and under which name where that says more."""

    speaker: Speaker
    name: str | None = None

    def turn(self, text: str, **more: Any) -> Turn:
        """Return a turn in which it says a text."""
        return Turn(speaker=self.speaker, name=self.name, text=text, **more)


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
        return self.voice.turn(self.text)


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """A text taken apart.

    ``above`` stands before the first speaker; ``cut`` says that it breaks off behind a name.
    """

    turns: Sequence[WrittenTurn]
    above: str
    cut: bool = False

    @property
    def before(self) -> int:
        """Lines before the first speaker."""
        return sum(map(bool, map(str.strip, self.above.split("\n"))))

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
    after: bool = False
    """Whether its time stands behind the name."""
    listed: bool = False
    """Whether a list's number or sign stands in front."""
    given: bool = False
    """Whether the file's own form says that this is a speaker."""

    @property
    def bare(self) -> bool:
        """Whether nothing but its name says that this is a mark."""
        return self.alone and not self.timed


class SpeakerNames:
    """The names by which a file calls those who speak.

    ``T:`` is the counselor and ``P:`` the client; ``C:`` is the client beside a ``T:`` of the same
    text, column or dialogue, the counselor beside a ``P:``, and unknown otherwise.

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
        self._hear(_LETTERS)

    def hear(self, names: Iterable[str]) -> None:
        """Take ``C`` as it is meant beside all names of a column or dialogue."""
        if (letters := {**_LETTERS, **self._letters_of(names)}) != self._letters:
            self._hear(letters)

    def _hear(self, letters: Mapping[str, Speaker]) -> None:
        self._letters = letters
        self.find = lru_cache(maxsize=1024)(partial(self._find, letters=letters))
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
        known: Sequence[Mapping[str, str]] = (self._own, SPEAKERS, letters)
        forms = _forms(name)
        return next((table[form] for table in known for form in forms if form in table), None)

    def reject(
        self, issues: IssueLog, line: int, field: str, names: Counter[str], *, rows: int = 1
    ) -> None:
        """Note that a row names speakers that are not known, which are listed once a file."""
        known = ", ".join([*self._own, _SOME_KNOWN])
        issues.reject_values(
            line, field, names, kind="unknown speakers", known=known, hint=_WHO, rows=rows
        )

    def voice(
        self, issues: IssueLog, line: int, field: str, name: str, *, rows: int = 1
    ) -> Voice | None:
        """Return whose a cell is that says who speaks; ``None``, and a fault, for nobody known."""
        voice = self.find(name)
        if voice is not None:
            return voice
        if (broken := name_damage(name)) is not None:
            issues.reject(line, field, *broken, rows=rows)
        elif fold_name(name):
            self.reject(issues, line, field, Counter([plain_name(name)]), rows=rows)
        else:
            issues.reject(line, field, "is empty", "write counselor or client", rows=rows)
        return None

    def read(self, text: str) -> Written:
        """Return the turns of a text.

        A line without a mark goes on with the turn above it, blank lines inside a turn included. A
        line that looks like a mark and names nobody known begins a turn without a voice.
        """
        if (ended := text.rstrip()).endswith(_FOOTER):
            text = ended.removesuffix(_FOOTER)
        lines = [
            (n, part.strip())
            for n, line in enumerate(_LINE_END.split(text), start=1)
            for part in _SOFT_END.split(line)
        ]
        filled = [place for place, (_, part) in enumerate(lines) if part]
        found = self.voices([find_mark(lines[place][1]) for place in filled])
        starts = [*(filled[n] for n, *_ in found), len(lines)]
        turns = [
            WrittenTurn(
                voice=voice,
                name=plain_name(mark.name),
                text="\n".join(
                    [mark.text.strip(), *(t for _, t in lines[start + 1 : end])]
                ).strip(),
                line=lines[start][0],
            )
            for (_, mark, voice), (start, end) in zip(found, pairwise(starts), strict=True)
        ]
        cut = bool(found and found[-1][2] and found[-1][1].alone and not turns[-1].text)
        above = "\n".join(part for _, part in lines[: starts[0]]).lstrip()
        return Written(turns=turns[:-1] if cut else turns, above=above, cut=cut)

    def read_cell(
        self, issues: IssueLog, line: int, field: str, text: str, *, rows: int = 1
    ) -> Written | None:
        """Return the turns of a row's text; ``None``, and a fault, where there can be none."""
        written = self.read(text)
        if written.unknown:
            self.reject(issues, line, field, written.unknown, rows=rows)
        elif any(map(self.runs_on, written.turns)) or (
            not written.turns and self._hides_mark("\n" + written.above)
        ):
            issues.reject(line, field, *NOT_IN_FRONT, rows=rows)
        else:
            return written
        return None

    def runs_on(self, turn: WrittenTurn) -> bool:
        """Whether a turn holds what seems to be a known speaker's mark, but not as it should be."""
        letters = {*_LETTERS, "c"} if is_letter(turn.name) else frozenset()
        return self._hides_mark(turn.text, letters)

    def _hides_mark(self, text: str, letters: Collection[str] = ()) -> bool:
        if "text" in self._own.values():
            lines = [(line, find_mark(line)) for line in text.split("\n")]
            text = "\n".join(
                line for line, mark in lines if not mark or self._role(mark.name, {}) != "text"
            )
        return any(
            (self._role(name, {}) in _SIDES and not name.islower()) or _forms(name)[-1] in letters
            for inside in _INSIDE.findall(text)
            if (name := "".join(inside))
        )

    def voices(self, marks: Sequence[Mark | None]) -> list[tuple[int, Mark, Voice | None]]:
        """Return the places of marks that begin a turn, and whose it is; ``None`` for nobody known.

        Marks are those of all lines of a text that are not blank, in order.
        """
        there = {n: mark for n, mark in enumerate(marks) if mark is not None}
        letters = self._letters_of(mark.name for mark in there.values() if not mark.bare)
        voices = {n: voice for n, mark in there.items() if (voice := self._voice(mark, letters))}
        style = _Style.of([there[n] for n in voices], there.values(), [*SPEAKERS, *self._own])
        known = {n: voice for n, voice in voices.items() if style.is_written_so(there[n])}
        first = min(known, default=len(marks))
        found: list[tuple[int, Mark, Voice | None]] = []
        for n, mark in there.items():
            if n not in known and self._role(mark.name, letters) is not None:
                continue
            # What stands directly below a name is its text, and one that stands last has none.
            inside = n > first and n + 1 < len(marks) and n + 1 not in known
            above = bool(found) and found[-1][0] == n - 1 and found[-1][1].bare
            if n in known or (
                (inside and not above and style.alone and style.is_name(mark))
                if mark.bare
                else style.is_speaker(mark, first=n < first)
            ):
                found.append((n, mark, known.get(n)))
        return found

    def _letters_of(self, names: Iterable[str]) -> dict[str, Speaker]:
        """Return what single letters stand for beside these names.

        None stands for a side that is named in full as well: there it may be anything.
        """
        written = list(names)
        sides = {self._role(name, {}) for name in written}
        there = {_forms(name)[-1] for name in written}
        letters = dict(_LETTERS)
        if "t" in there and "p" not in there:
            letters["c"] = "client"
        elif "p" in there and "t" not in there:
            letters["c"] = "counselor"
        return {letter: side for letter, side in letters.items() if side not in sides}

    def _voice(self, mark: Mark, letters: Mapping[str, Speaker]) -> Voice | None:
        """Return who speaks after a mark; a letter alone on its line is none without a time."""
        if mark.bare and len(fold_name(mark.name)) == 1:
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
        after=bool(timed or found["after"]),
        listed=bool(found["list"]) or unicodedata.category(name[0]) == "No",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Style:
    """How the known speakers of a text are written, by which unknown ones are told from text."""

    lower: bool
    listed: bool
    alone: bool
    timed: bool
    """Whether names stand alone on their lines beside a time."""
    often: frozenset[str]
    """Names that stand before a colon several times."""
    known: frozenset[str]

    @classmethod
    def of(cls, known: Sequence[Mark], marks: Iterable[Mark], names: Iterable[str]) -> _Style:
        """Return the style of the marks of known speakers, among all marks of a text."""
        alone = bool(known) and all(mark.bare for mark in known)
        times = Counter(plain_name(mark.name) for mark in marks if not mark.alone)
        return cls(
            lower=any(mark.name[0].islower() for mark in known if alone or not mark.bare),
            listed=any(mark.listed for mark in known),
            alone=alone,
            timed=any(mark.alone and mark.timed for mark in known),
            often=frozenset(name for name, n in times.items() if n > 1),
            known=frozenset(names),
        )

    def is_written_so(self, mark: Mark) -> bool:
        """Whether a known name is no word of a text, as ``patient`` may be on a line of its own."""
        return self.lower or not mark.bare or not mark.name[0].islower()

    def is_speaker(self, mark: Mark, *, first: bool) -> bool:
        """Whether a mark of nobody known looks like one of a speaker all the same."""
        if mark.given:
            return True
        if (mark.listed and not self.listed) or _NO_MARK.match(mark.text):
            return False
        if mark.alone and not mark.after and not self.timed:
            return False
        header = first and plain_name(mark.name).casefold().split()[-1:]
        return not (header and header[0] in _HEADERS) and self.is_name(mark)

    def is_name(self, mark: Mark) -> bool:
        """Whether a name that is not known looks like a person's, or several persons'."""
        name = plain_name(mark.name)
        if not any(map(str.isalpha, name)):
            return sum(map(str.isdigit, name)) > _MOST_DIGITS
        if _NOT_IN_NAMES.search(name.replace(", ", " ", 1)):
            return False
        if _HAN.search(name) or not any(c.isupper() or c.islower() for c in name):
            return self._is_name_without_case(name)
        words = name.replace(",", "").split()
        if any("." in word and not _SHORTENED.fullmatch(word) for word in words):
            return False
        persons = [w.casefold().removesuffix("'s").removesuffix("’s") for w in words]
        if persons[0] in self.known and (self.lower or not words[0][0].islower()):
            return True
        if _is_prose(name):
            return False
        often = name in self.often
        timed = mark.timed and (self.timed or not mark.alone)
        if (timed or often or (self.lower and len(words) == 1)) and is_short(name):
            return True
        named = [not w[0].islower() or p in _PERSONS for w, p in zip(words, persons, strict=True)]
        small = [word in _SMALL_WORDS for word in persons]
        whole = any(named) and all(a or b for a, b in zip(named, small, strict=True))
        return whole and (often or is_short(name))

    def _is_name_without_case(self, name: str) -> bool:
        letters = sum(not c.isspace() for c in name)
        if _NARRATION.search(name):
            return False
        if any(_HAN.search(known) and name.startswith(known) for known in self.known):
            return letters <= 2 * _MOST_WITHOUT_CASE
        most = _MOST_WITHOUT_CASE * (2 if name in self.often else 1)
        return letters <= most and not _is_prose(name) and not _OWN_THING.match(name)


def _is_prose(name: str) -> bool:
    """Whether a name is a word or words that introduce what a person says."""
    forms = {form.replace(".", "") for form in _forms(name)}
    first, *others = fold_name(name).split()
    return not _PROSE.isdisjoint(forms) or first in _IN_PROSE or not _VERBS.isdisjoint(others)


def plain_name(name: str) -> str:
    """Return a name as it is written, without its notes, which may hold words of the client."""
    return _NOTES_BEHIND.sub("", _bare(name.translate(_NARROW)))


def is_short(name: str) -> bool:
    """Whether a name may be shown: a longer one may be the words of a client."""
    return 0 < len(name) <= _MOST_CHARACTERS and len(name.split()) <= _MOST_WORDS


def sample_of(written: Written) -> tuple[tuple[Turn, ...], str, tuple[str, str] | None]:
    """Return the history and the response of a sample, and what is wrong with it, and the mend.

    The response is the last client turn, as a whole. What names no speaker and stands below the
    counselor's last turn, after its only blank line, is the response too. A text without any
    speaker is split at its last blank line; without one it is all response. All speakers of the
    sample have to be known.
    """
    if not written.turns:
        above, _, response = written.above.rpartition("\n\n")
        return _said_above(above), response.strip(), None
    *before, last = (turn.turn() for turn in written.turns)
    if written.above:
        if before or last.speaker != "client":
            return (), "", BEFORE_SPEAKERS
        return _said_above(written.above), last.text, None
    if last.speaker == "client":
        return tuple(before), last.text, None
    parts = re.split("\n\n+", last.text)
    if last.speaker == "counselor" and len(parts) == 2:
        return (*before, replace(last, text=parts[0])), parts[1], None
    who = "the counselor" if last.speaker == "counselor" else "another than the client"
    if len(parts) == 1 or last.speaker == "other":
        reason = f"the text ends with {who}"
        return (), "", (reason, "end it with the client's turn, which is what is labeled")
    reason = f"what stands below {who}'s last turn has {len(parts) - 1} blank lines"
    return (), "", (reason, "write Client: before the response")


def _said_above(text: str) -> tuple[Turn, ...]:
    return (Turn(speaker="counselor", text=text.strip()),) if text.strip() else ()
