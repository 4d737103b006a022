"""Transcripts that name the speaker before each turn, such as those of CPsyCounD."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recap.data.faults import FaultLog, Place
from recap.data.readers.dialogue_text import SpeakerNames, Utterance
from recap.data.readers.fields import Fields
from recap.data.readers.files import existing_file, json_rows, text_lines
from recap.data.readers.registry import register_reader
from recap.records import Dialogue, Turn

_NO_SPEAKER = (
    "no line begins with a speaker",
    "write 来访者： or Client:, or name yours with +data.options.speakers.NAME=client",
)


@register_reader("transcript", aliases=("cpsycound",))
def read_transcript(
    path: Path | None, *, faults: FaultLog, speakers: Mapping[str, str] | None = None
) -> Iterator[Dialogue]:
    """Yield a dialogue for each ``{"file", "text"}`` of JSON lines, or that of a ``.txt`` file.

    A line without a speaker goes on with the turn above; such lines before the first speaker are
    counted as ``lines_before_first_speaker``. The session is the ``file`` (or ``session``) without
    its ending.

    Args:
        path: The file.
        faults: Where bad rows are noted.
        speakers: Names of speakers beside the usual English and Chinese ones, each with its role.
    """
    path = existing_file(path)
    names = SpeakerNames(speakers)
    if path.suffix.lower() == ".txt":
        yield from _plain_text(path, names, faults)
        return
    for line, row in json_rows(path, faults):
        fields = Fields(row, line=line, faults=faults)
        key = "file" if "file" in row else "session"
        session = fields.identifier(key)
        if session is None and fields.sound:
            fields.reject(key, "is missing", "give every dialogue a name of its own")
        spoken, untagged = names.utterances(fields.text("text"))
        if fields.sound and not spoken:
            fields.reject("text", *_NO_SPEAKER)
        if fields.sound:
            _count_untagged(faults, untagged)
            faults.at(line)
            extra = {name: value for name, value in row.items() if name not in (key, "text")}
            yield _dialogue((session or "").removesuffix(".txt"), spoken, extra)


def _plain_text(path: Path, names: SpeakerNames, faults: FaultLog) -> Iterator[Dialogue]:
    spoken, untagged = names.utterances("".join(text_lines(path, faults)))
    if not spoken:
        if faults.rows_read:
            return
        faults.row()
        faults.reject(1, "text", *_NO_SPEAKER)
        return
    _count_untagged(faults, untagged)
    for _ in spoken:
        faults.row()
    faults.at_turns([Place(line=utterance.line) for utterance in spoken])
    yield _dialogue(path.stem, spoken, {})


def _dialogue(session: str, spoken: list[Utterance], extra: Mapping[str, Any]) -> Dialogue:
    turns = tuple(Turn(speaker=u.speaker, text=u.text) for u in spoken)
    return Dialogue(session=session, turns=turns, extra=extra)


def _count_untagged(faults: FaultLog, untagged: int) -> None:
    if untagged:
        faults.counts["lines_before_first_speaker"] += untagged
