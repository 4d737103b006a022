"""Dialogue written as text: transcripts, and samples that are a context above its response.

A transcript names the speaker before each turn, as those of CPsyCounD do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recap.data.issues import IssueLog, Place
from recap.data.readers.files import existing_file, json_rows, text_lines
from recap.data.readers.registry import Fields, register_reader
from recap.errors import ConfigError, quote_label
from recap.records import Dialogue, Example, Speaker, Turn

SPEAKERS: Mapping[str, Speaker] = {
    **dict.fromkeys(
        ("counselor", "counsellor", "therapist", "psychologist", "helper"), "counselor"
    ),
    **dict.fromkeys(("心理咨询师", "咨询师", "心理治疗师", "治疗师", "辅导员"), "counselor"),
    **dict.fromkeys(("client", "patient", "seeker", "help-seeker", "visitor"), "client"),
    **dict.fromkeys(("来访者", "来访", "求助者", "当事人"), "client"),
}
"""Names of the two speakers, in folded case."""

_LINE_END = re.compile(r"\r\n|\r|\n")
_BLANK_LINE = re.compile(r"(?:\r\n|\r|\n)[ \t\u3000]*(?:\r\n|\r|\n)")


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenTurn:
    """One turn of a written transcript; ``line`` counts from 1 within the text."""

    speaker: Speaker
    text: str
    line: int


class SpeakerNames:
    """The names by which a file calls its counselor and its client.

    Args:
        extra: Names of the user's own, each with ``counselor`` or ``client``; they come before the
            built-in ones.

    Raises:
        ConfigError: When a name is given any other role.
    """

    def __init__(self, extra: Mapping[str, str] | None = None) -> None:
        own: dict[str, Speaker] = {}
        for name, role in (extra or {}).items():
            if role not in ("counselor", "client"):
                raise ConfigError(
                    f"data.options.speakers: {name!r} must be counselor or client, not {role!r}"
                )
            own[str(name).strip().casefold()] = "client" if role == "client" else "counselor"
        self._roles = {**SPEAKERS, **own}
        longest_first = sorted(self._roles, key=len, reverse=True)
        names = "|".join(map(re.escape, longest_first))
        self._prefix = re.compile(rf"\s*({names})\s*[:：]\s*", re.IGNORECASE)

    def find(self, name: str) -> Speaker | None:
        """Return the role of a name, ``None`` when it is not known."""
        return self._roles.get(name.strip().casefold())

    def complaint(self, name: str) -> tuple[str, str]:
        """Return why ``name`` is no speaker and what to do, without repeating client text."""
        if not name.strip():
            return "is empty", "write counselor or client"
        return (
            f"{quote_label(name, self._roles)} is not a known speaker",
            "write counselor or client, or name it with +data.options.speakers.NAME=client",
        )

    def utterances(self, text: str) -> tuple[list[WrittenTurn], int]:
        """Return the turns of a transcript and the number of lines before its first speaker.

        A line without a speaker's name goes on with the turn above it.
        """
        turns: list[tuple[Speaker, list[str], int]] = []
        untagged = 0
        for number, line in enumerate(_LINE_END.split(text), start=1):
            prefix = self._prefix.match(line)
            if prefix is not None:
                role = self._roles[prefix[1].casefold()]
                turns.append((role, [line[prefix.end() :].strip()], number))
            elif line.strip() and turns:
                turns[-1][1].append(line.strip())
            elif line.strip():
                untagged += 1
        spoken = [
            WrittenTurn(speaker=speaker, text="\n".join(filter(None, lines)), line=number)
            for speaker, lines, number in turns
        ]
        return spoken, untagged

    def history(self, text: str) -> tuple[Turn, ...]:
        """Return a context as turns; one that names no speaker is one turn of the counselor."""
        turns, untagged = self.utterances(text)
        if not turns or untagged:
            return (Turn(speaker="counselor", text=text.strip()),) if text.strip() else ()
        return tuple(Turn(speaker=t.speaker, text=t.text) for t in turns)

    def without_prefix(self, text: str) -> str:
        """Return a client's text without ``Client:`` or its like in front."""
        prefix = self._prefix.match(text)
        if prefix is not None and self._roles[prefix[1].casefold()] == "client":
            text = text[prefix.end() :]
        return text.strip()

    def context_and_response(self, text: str) -> tuple[tuple[Turn, ...], str]:
        """Return the history and the response of a sample, split at its last blank line.

        Without a blank line, a transcript that ends with the client is split before its last turn,
        and anything else is all response.
        """
        blanks = list(_BLANK_LINE.finditer(text))
        if blanks:
            blank = blanks[-1]
            return self.history(text[: blank.start()]), self.without_prefix(text[blank.end() :])
        turns, untagged = self.utterances(text)
        if len(turns) > 1 and not untagged and turns[-1].speaker == "client":
            before = tuple(Turn(speaker=t.speaker, text=t.text) for t in turns[:-1])
            return before, turns[-1].text
        return (), self.without_prefix(text)


def text_example(
    fields: Fields,
    text: str,
    names: SpeakerNames,
    *,
    fallback_id: str,
    label: str | None,
    rationale: str | None,
) -> Example:
    """Return the example of a row whose text is a context above its response."""
    history, response = names.context_and_response(text)
    return Example(
        id=fields.identifier("id") or fallback_id,
        session=fields.identifier("session"),
        client=fields.identifier("client"),
        history=history,
        response=response,
        label=label,
        rationale=rationale,
    )


_NO_SPEAKER = (
    "no line begins with a speaker",
    "write 来访者： or Client:, or name yours with +data.options.speakers.NAME=client",
)


@register_reader("transcript", aliases=("cpsycound",))
def read_transcript(
    path: Path | None, *, issues: IssueLog, speakers: Mapping[str, str] | None = None
) -> Iterator[Dialogue]:
    """Yield a dialogue for each ``{"file", "text"}`` of JSON lines, or that of a ``.txt`` file.

    A line without a speaker goes on with the turn above; such lines before the first speaker are
    counted as ``lines_before_first_speaker``. The session is the ``file`` (or ``session``) without
    its ending.

    Args:
        path: The file.
        issues: Where bad rows are noted.
        speakers: Names of speakers beside the usual English and Chinese ones, each with its role.
    """
    path = existing_file(path)
    names = SpeakerNames(speakers)
    if path.suffix.lower() == ".txt":
        yield from _plain_text(path, names, issues)
        return
    for line, row in json_rows(path, issues):
        fields = Fields(row, line=line, issues=issues)
        key = "file" if "file" in row else "session"
        session = fields.identifier(key, unique=True)
        if session is None and fields.sound:
            fields.reject(key, "is missing", "give every dialogue a name of its own")
        spoken, untagged = names.utterances(fields.text("text"))
        if fields.sound and not spoken:
            fields.reject("text", *_NO_SPEAKER)
        if fields.sound:
            _count_untagged(issues, untagged)
            issues.at(line)
            extra = {name: value for name, value in row.items() if name not in (key, "text")}
            yield _dialogue((session or "").removesuffix(".txt"), spoken, extra)


def _plain_text(path: Path, names: SpeakerNames, issues: IssueLog) -> Iterator[Dialogue]:
    spoken, untagged = names.utterances("".join(text_lines(path, issues)))
    if not spoken:
        if issues.rows_read:
            return
        issues.row()
        issues.reject(1, "text", *_NO_SPEAKER)
        return
    _count_untagged(issues, untagged)
    for _ in spoken:
        issues.row()
    issues.at_turns([Place(line=utterance.line) for utterance in spoken])
    yield _dialogue(path.stem, spoken, {})


def _dialogue(session: str, spoken: list[WrittenTurn], extra: Mapping[str, Any]) -> Dialogue:
    turns = tuple(Turn(speaker=u.speaker, text=u.text) for u in spoken)
    return Dialogue(session=session, turns=turns, extra=extra)


def _count_untagged(issues: IssueLog, untagged: int) -> None:
    if untagged:
        issues.counts["lines_before_first_speaker"] += untagged
