"""Transcripts: dialogues as text that name the speaker before each turn, as those of CPsyCounD."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from recap.data.issues import IssueLog, Place
from recap.data.readers.files import existing_file, json_rows, read_head, text_lines
from recap.data.readers.registry import JSON_ENDINGS, Fields, register_reader
from recap.data.readers.speakers import NOT_IN_FRONT, SpeakerNames, Written
from recap.data.readers.vtt import CAPTION_ENDINGS, LINE_OF_TIMES, dialogue_of_captions
from recap.records import Dialogue

_JSON = re.compile(rb"[\s\xef\xbb\xbf]*(?:\{|\[\s*\{)")
NO_SPEAKER = (
    "no line begins with a speaker",
    "write 来访者： or Client:, or name yours with 'data.options.speakers={NAME: client}'",
)


@register_reader(
    "transcript", aliases=("cpsycound",), endings=(".txt", *JSON_ENDINGS, *CAPTION_ENDINGS)
)
def read_transcript(
    path: Path | None, *, issues: IssueLog, speakers: Mapping[str, str] | None = None
) -> Iterator[Dialogue]:
    """Yield a dialogue for each ``{"file", "text"}`` of JSON lines, or that of a file of text.

    A line without a speaker goes on with the turn above, blank lines inside a turn included; such
    lines before the first speaker are counted as ``lines_before_first_speaker``. The session is the
    ``file`` (or ``session``) without its ending. WebVTT and SRT are read as the reader ``vtt``
    does.

    Args:
        path: The file.
        issues: Where bad rows are noted.
        speakers: Names of speakers beside the usual English and Chinese ones, each with its role;
            see :class:`~recap.data.readers.speakers.SpeakerNames`.
    """
    path = existing_file(path)
    names = SpeakerNames(speakers)
    if path.suffix.lower() in CAPTION_ENDINGS:
        yield from dialogue_of_captions(path, names, issues)
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
            fields.reject("text", *NO_SPEAKER)
        elif written is not None:
            issues.at(line)
            extra = {name: value for name, value in row.items() if name not in (key, "text")}
            yield _dialogue((session or "").removesuffix(".txt"), written, extra, issues)


def _plain_text(path: Path, names: SpeakerNames, issues: IssueLog) -> Iterator[Dialogue]:
    before = issues.rows_read
    text = "".join(text_lines(path, issues))
    if LINE_OF_TIMES.search(text):
        yield from dialogue_of_captions(path, names, issues)
        return
    written = names.read(text)
    if not written.turns:
        if issues.rows_read > before:
            return
        issues.row()
        issues.reject(1, "text", *NO_SPEAKER)
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
