"""Transcripts: text that names the speaker before each turn, and captions of recorded talks.

Text as that of CPsyCounD; captions (WebVTT and SRT) as Zoom, Teams, Whisper and Otter write them.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recap.data.issues import IssueLog, Place
from recap.data.readers.files import existing_file, json_rows, read_head, text_lines
from recap.data.readers.registry import JSON_ENDINGS, Fields, register_reader
from recap.data.readers.speakers import (
    NOT_IN_FRONT,
    Mark,
    SpeakerNames,
    Voice,
    Written,
    find_mark,
    plain_name,
)
from recap.records import Dialogue, Turn

_CAPTION_ENDINGS = (".vtt", ".srt")

_STAMP = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?"
_TIMES = re.compile(rf"\s*{_STAMP}\s*-->\s*{_STAMP}(?:\s.*)?")
_LINE_OF_TIMES = re.compile(
    rf"^[ \t]*{_STAMP}[ \t]*-->[ \t]*{_STAMP}(?:[ \t]+[a-z]+:[^\s:]+)*[ \t]*\r?$", re.MULTILINE
)
"""A line by which a file of captions is known whatever its name ends with."""
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>")
_TAG = re.compile(
    r"</?(?:c|i|b|u|s|v|font|ruby|rt|lang)(?:[.\s][^>]*)?>|<\d[\d:.]*>|\{\\[^}]*\}", re.IGNORECASE
)
_NO_CUE = re.compile(r"(?:WEBVTT|NOTE|STYLE|REGION)(?:\s|$)")
_LINE_END = re.compile(r"\r\n|\r|\n")
_CHANGE = re.compile(r">{2,}|-\s*\w")
_SAY_WHO = "write who speaks in front of it, as Client: or <v Client>"
_JSON = re.compile(rb"[\s\xef\xbb\xbf]*(?:\{|\[\s*\{)")
_NO_SPEAKER = (
    "no line begins with a speaker",
    "write 来访者： or Client:, or name yours with 'data.options.speakers={NAME: client}'",
)


@register_reader(
    "transcript", aliases=("cpsycound",), endings=(".txt", *JSON_ENDINGS, *_CAPTION_ENDINGS)
)
def read_transcript(
    path: Path | None, *, issues: IssueLog, speakers: Mapping[str, str] | None = None
) -> Iterator[Dialogue]:
    """Yield a dialogue for each ``{"file", "text"}`` of JSON lines, or that of a file of text.

    A line without a speaker goes on with the turn above, blank lines inside a turn included; such
    lines before the first speaker are counted as ``lines_before_first_speaker``. The session is the
    ``file`` (or ``session``) without its ending. WebVTT and SRT are read as the reader ``vtt``
    does.
    """
    path = existing_file(path)
    names = SpeakerNames(speakers)
    if path.suffix.lower() in _CAPTION_ENDINGS:
        yield from _captions(path, names, issues)
        return
    if path.suffix.lower() not in JSON_ENDINGS and not _JSON.match(read_head(path)):
        yield from _plain_text(path, names, issues)
        return
    for line, row in json_rows(path, issues):
        fields = Fields(row, line=line, issues=issues)
        key = "file" if "file" in row else "session"
        session = fields.identifier(key, unique=True)
        if session is None and fields.sound:
            fields.reject(key, "is missing", "give every dialogue a name of its own")
        text = fields.text("text")
        written = names.read_cell(issues, line, "text", text) if fields.sound else None
        if written is not None and not written.turns:
            fields.reject("text", *_NO_SPEAKER)
        elif written is not None:
            issues.at(line)
            extra = {name: value for name, value in row.items() if name not in (key, "text")}
            yield _dialogue((session or "").removesuffix(".txt"), written, extra, issues)


def _plain_text(path: Path, names: SpeakerNames, issues: IssueLog) -> Iterator[Dialogue]:
    before = issues.rows_read
    text = "".join(text_lines(path, issues))
    if _LINE_OF_TIMES.search(text):
        yield from _captions(path, names, issues)
        return
    written = names.read(text)
    if not written.turns:
        if issues.rows_read > before:
            return
        issues.row()
        issues.reject(1, "text", *_NO_SPEAKER)
        return
    known = []
    for turn in written.turns:
        issues.row()
        if turn.voice is None:
            names.reject(issues, turn.line, "speaker", Counter([turn.name]))
        elif names.runs_on(turn):
            issues.reject(turn.line, "text", *NOT_IN_FRONT)
        else:
            known.append(turn)
    if known:
        issues.at_turns([Place(line=turn.line) for turn in known])
        yield _dialogue(path.stem, replace(written, turns=known), {}, issues)


def _dialogue(
    session: str, written: Written, extra: Mapping[str, Any], issues: IssueLog
) -> Dialogue:
    issues.counts["texts_cut_off"] += written.cut
    if written.before:
        issues.counts["lines_before_first_speaker"] += written.before
    turns = tuple(turn.turn() for turn in written.turns)
    return Dialogue(session=session, turns=turns, extra=extra)


@register_reader("vtt", aliases=("srt",), endings=_CAPTION_ENDINGS)
def read_captions(
    path: Path | None, *, issues: IssueLog, speakers: Mapping[str, str] | None = None
) -> Iterator[Dialogue]:
    """Return the dialogue of a WebVTT or SRT file, its session called like the file.

    A cue that names a speaker (``<v Name>``, ``Name: ...``, ``[Name]: ...``) is a turn, one that
    names none goes on with the turn above. A row is a cue.
    """
    return _captions(existing_file(path), SpeakerNames(speakers), issues)


def _captions(path: Path, names: SpeakerNames, issues: IssueLog) -> Iterator[Dialogue]:
    """Yield the one dialogue of a file of captions, or note why it holds none."""
    said = list(_said(path, issues))
    starts = names.voices([one.mark for one in said])
    if said and not starts:
        hint = (
            "name them in front of the cues (Client: ...), or export the captions with speakers "
            "(diarization)"
        )
        for line in {one.line for one in said}:
            issues.reject(line, "cue", "the file names no speaker", hint)
        return
    turns = _turns(said, {place: (mark, voice) for place, mark, voice in starts}, issues)
    known = [turn for turn in turns if turn.voice is not None]
    for turn in turns:
        if turn.voice is None:
            names.reject(issues, turn.line, "speaker", Counter([turn.name]), rows=len(turn.cues))
    if known:
        issues.at_turns([Place(line=turn.line, rows=len(turn.cues)) for turn in known])
        yield Dialogue(session=path.stem, turns=tuple(turn.turn() for turn in known))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Said:
    """A line of a cue; ``after_gap`` says that a cue above it could not be read."""

    line: int
    text: str
    mark: Mark | None
    after_gap: bool


@dataclass(kw_only=True, slots=True)
class _CaptionTurn:
    voice: Voice | None
    name: str
    line: int
    texts: list[str]
    cues: set[int] = field(default_factory=set)

    def turn(self) -> Turn:
        assert self.voice is not None
        return self.voice.turn("\n".join(filter(None, map(str.strip, self.texts))))


def _turns(
    said: Sequence[_Said], starts: Mapping[int, tuple[Mark, Voice | None]], issues: IssueLog
) -> list[_CaptionTurn]:
    turns: list[_CaptionTurn] = []
    lost = True
    for place, one in enumerate(said):
        if place in starts:
            mark, voice = starts[place]
            name = plain_name(mark.name)
            turns.append(_CaptionTurn(voice=voice, name=name, line=one.line, texts=[mark.text]))
            turns[-1].cues.add(one.line)
            lost = False
        elif _CHANGE.match(one.text):
            lost = True
            issues.reject(one.line, "cue", "says that another one speaks, and not who", _SAY_WHO)
        elif one.text and (lost or one.after_gap):
            lost = True
            why = "follows a cue that could not be read" if turns else "comes before any speaker"
            issues.reject(one.line, "cue", f"names no speaker and {why}", _SAY_WHO)
        elif one.text:
            turns[-1].texts.append(one.text)
            turns[-1].cues.add(one.line)
    return turns


def _said(path: Path, issues: IssueLog) -> Iterator[_Said]:
    """Yield the lines of all cues; those that cannot be read are noted."""
    latest, gap = -1.0, False
    for first, block in _blocks(path, issues):
        times = [place for place, line in enumerate(block) if "-->" in line]
        if not times and _NO_CUE.match(block[0]):
            continue
        if times and _NO_CUE.match(block[0]):
            # A header without a blank line below it.
            block, first, times = block[1:], first + 1, [place - 1 for place in times]
        fault, start = _cue_fault(block, times, latest)
        if fault is not None:
            issues.row()
            issues.reject(first, "cue", *fault)
            gap = True
            continue
        latest = start
        lines = list(_lines_of("\n".join(block[times[0] + 1 :])))
        # A cue that shows nothing is no row.
        for _ in lines[:1]:
            issues.row()
        for text, mark in lines:
            yield _Said(line=first, text=text, mark=mark, after_gap=gap)
            gap = False


def _blocks(path: Path, issues: IssueLog) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines between blank lines, with the number of the first."""
    block: list[str] = []
    lines = _LINE_END.split("".join(text_lines(path, issues)))
    for number, line in enumerate([*lines, ""], start=1):
        if line.strip():
            block.append(line)
        elif block:
            yield number - len(block), block
            block = []


def _cue_fault(
    block: Sequence[str], times: Sequence[int], latest: float
) -> tuple[tuple[str, str] | None, float]:
    """Return what is wrong with a cue and the mend, and the second at which it begins."""
    if not times or times[0] > 1:
        return ("has no line of times", "write 00:00:01.000 --> 00:00:04.000 above its text"), 0.0
    if len(times) > 1:
        return ("has several lines of times", "put a blank line between two cues"), 0.0
    found = _TIMES.fullmatch(block[times[0]])
    if found is None:
        return ("has times that cannot be read", "write 00:00:01.000 --> 00:00:04.000"), 0.0
    start, end = _seconds(found.groups()[:4]), _seconds(found.groups()[4:])
    if end < start:
        return ("ends before it begins", "correct its times"), 0.0
    if start < latest:
        return ("begins before the cue above it", "sort the cues by their times"), 0.0
    return None, start


def _seconds(parts: Sequence[str | None]) -> float:
    hours, minutes, seconds, fraction = (part or "0" for part in parts)
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction}")


def _lines_of(text: str) -> Iterator[tuple[str, Mark | None]]:
    """Yield the lines of a cue without tags, with the mark that each begins with."""
    unvoiced, *voiced = _VOICE.split(text)
    for line in unvoiced.split("\n"):
        plain = _plain(line)
        if plain:
            yield plain, find_mark(plain)
    for name, said in zip(voiced[::2], voiced[1::2], strict=True):
        voiced_text, _, rest = said.partition("</v>")
        plain = "\n".join(filter(None, map(_plain, voiced_text.split("\n"))))
        yield plain, Mark(name=_plain(name), text=plain, given=True)
        yield from _lines_of(rest)


def _plain(text: str) -> str:
    return html.unescape(_TAG.sub("", text)).strip()
