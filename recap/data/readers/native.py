"""The library's own JSON lines, read and written: a dialogue or an example a line, also mixed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from recap.data.issues import LISTED_FAULTS, IssueLog
from recap.data.readers.exports import SPEAKER_KEYS, TEXT_KEYS, refuse_export
from recap.data.readers.files import existing_file, json_rows
from recap.data.readers.registry import (
    Fields,
    Record,
    check_roles,
    register_reader,
    unrecognized,
)
from recap.data.readers.speakers import SpeakerNames
from recap.errors import ConfigError, DataError
from recap.records import Dialogue, Example, Speaker, Turn

_DIALOGUE_KEYS = frozenset({"session", "client", "counselor", "meta", "turns"})
_EXAMPLE_KEYS = frozenset(
    {"id", "session", "client", "counselor", "turn", "history", "response", "label", "rationale"}
    | {"meta"}
)
_KEPT = frozenset({"client", "counselor", "history", "meta"})
"""Known keys that annotation gives back as they stood."""
_TURN_KEYS = frozenset({"speaker", "name", "text", "label", "rationale", "id"})
_ROLES = _DIALOGUE_KEYS | _EXAMPLE_KEYS | _TURN_KEYS


@register_reader("dialogues", aliases=("native",))
def read_dialogues(
    path: Path | None,
    *,
    issues: IssueLog,
    columns: Mapping[str, str | None] | None = None,
    speakers: Mapping[str, str] | None = None,
) -> Iterator[Record]:
    """Yield the dialogues and examples of a JSON-lines file (or of one JSON list).

    Keys that the format does not know go to ``meta``; those of a turn are counted as
    ``unknown_turn_keys``. ``columns`` are names that keys have in this file, as ``{turns: messages,
    speaker: role, text: content}``; a dialogue without a session is then called after its number.
    """
    path = existing_file(path)
    names = SpeakerNames(speakers)
    keys = _renamed(columns)
    for number, (line, row) in enumerate(json_rows(path, issues), start=1):
        fields = Fields(row, line=line, issues=issues, keys=keys)
        record: Record | None = None
        if fields.key("turns") in row:
            record = _dialogue(fields, names, f"{path.stem}:{number}" if "turns" in keys else None)
        elif fields.key("response") in row:
            record = _example(fields, names, f"{path.stem}:{line}")
        else:
            refuse_export(issues, line, row)
            turns, response = fields.key("turns"), fields.key("response")
            fields.reject("row", f"holds neither {turns!r} nor {response!r}", _chat_hint(row))
        if record is not None and fields.sound:
            issues.at(line)
            yield record


def _renamed(columns: Mapping[str, str | None] | None) -> dict[str, str]:
    keys = {role: name for role, name in (columns or {}).items() if name is not None}
    check_roles("data.options.columns", keys, sorted(_ROLES), what="a key")
    of_turn = Counter(name for role, name in keys.items() if role in _TURN_KEYS)
    twice = next((name for name, n in of_turn.items() if n > 1), None)
    if twice is not None:
        raise ConfigError(f"data.options.columns: key {twice!r} is named for two things; name two")
    return keys


_ASSISTANTS: Mapping[str, Speaker] = {
    **dict.fromkeys(("assistant", "gpt", "bot", "model"), "counselor"),
    **dict.fromkeys(("user", "human"), "client"),
}
"""Who is who where a model was the counselor."""


_OWN_KEYS = ("turns", "speaker", "text")


def _chat_hint(row: Mapping[str, Any]) -> str:
    """Return how to read a row that holds a list of messages under names of its own."""
    for turns, items in row.items():
        first = items[0] if isinstance(items, list) and items else None
        if not isinstance(first, dict) or not turns.isidentifier():
            continue
        speaker = next((key for key in SPEAKER_KEYS if key in first), None)
        text = next((key for key in TEXT_KEYS if key in first), None)
        if speaker is None or text is None or (turns, speaker, text) == _OWN_KEYS:
            continue
        said = [str(item.get(speaker)) for item in items if isinstance(item, dict)]
        names = ", ".join(f"{n}: {_ASSISTANTS[n]}" for n in dict.fromkeys(said) if n in _ASSISTANTS)
        others = f" 'data.options.speakers={{{names}}}'" if names else ""
        columns = f"{{turns: {turns}, speaker: {speaker}, text: {text}}}"
        return f"read it with 'data.options.columns={columns}'{others}"
    return 'write "turns": [...] of a dialogue, or "response": "..." of an example'


def record_from_row(row: Mapping[str, Any], number: int = 0) -> Record:
    """Return the record of one row, called ``number`` without an id; a ``DataError`` for faults."""
    issues = IssueLog("row")
    issues.row()
    named = {"session": str(number), **row} if "turns" in row else row
    fields = Fields(named, line=number + 1, issues=issues)
    read = _dialogue(fields, SpeakerNames()) if "turns" in row else None
    record = read or _example(fields, SpeakerNames(), str(number))
    if issues.issues:
        raise DataError("; ".join(str(fault) for fault in issues.issues[:LISTED_FAULTS]))
    return record


def _dialogue(fields: Fields, names: SpeakerNames, fallback: str | None = None) -> Dialogue:
    session = fields.identifier("session", unique=True) or fallback
    if session is None and fields.sound:
        fields.reject("session", "is missing", "give every dialogue an id of its own")
    return Dialogue(
        session=session or "",
        client=fields.identifier("client"),
        counselor=fields.identifier("counselor"),
        meta=_meta(fields, _DIALOGUE_KEYS),
        turns=_turns(fields, "turns", names),
        extra=_extra(fields, _DIALOGUE_KEYS - _KEPT),
    )


def _example(fields: Fields, names: SpeakerNames, fallback_id: str) -> Example:
    session = fields.identifier("session")
    history = _turns(fields, "history", names) if fields.key("history") in fields.row else ()
    turn = fields.value("turn")
    if not isinstance(turn, int) or isinstance(turn, bool):
        turn = None
    if session is not None:
        fallback_id = f"{session}:{len(history) if turn is None else turn}"
    return Example(
        id=fields.identifier("id") or fallback_id,
        session=session,
        client=fields.identifier("client"),
        counselor=fields.identifier("counselor"),
        turn=turn,
        history=history,
        response=fields.text("response"),
        label=_label(fields),
        rationale=fields.optional_text("rationale"),
        meta=_meta(fields, _EXAMPLE_KEYS),
        extra=_extra(fields, _EXAMPLE_KEYS - _KEPT),
    )


def _turns(fields: Fields, key: str, names: SpeakerNames) -> tuple[Turn, ...]:
    turns, items = [], fields.items(key)
    who = fields.keys.get("speaker", "speaker")
    names.hear(str(item.get(who)) for item in items if isinstance(item, dict))
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            fields.reject(f"{key}[{index}]", "is no object", 'write {"speaker": ..., "text": ...}')
            continue
        within = f"{fields.key(key)}[{index}]."
        part = Fields(item, line=fields.line, issues=fields.issues, within=within, keys=fields.keys)
        turns.append(_turn(part, names))
        fields.sound = fields.sound and part.sound
    return tuple(turns)


def _turn(part: Fields, names: SpeakerNames) -> Turn:
    if part.key("speaker") not in part.row and part.issues.rows_read == 1:
        keys = [str(key) for key in part.row]
        part.issues.unrecognized = unrecognized(keys, (), ("speaker",), what="key")
    called = part.text("speaker")
    voice = names.voice(part.issues, part.line, "speaker", called) if part.sound else None
    part.sound = voice is not None
    name = part.optional_text("name") or (voice.name if voice else None)
    unknown = len(_extra(part, _TURN_KEYS))
    if unknown:
        part.issues.counts["unknown_turn_keys"] += unknown
    return Turn(
        speaker=voice.speaker if voice else "client",
        name=name,
        text=part.text("text"),
        id=part.identifier("id"),
        label=_label(part),
        rationale=part.optional_text("rationale"),
        extra=_extra(part, _TURN_KEYS),
    )


def _label(fields: Fields) -> str | None:
    label = fields.optional_text("label")
    if label == "":
        fields.reject("label", "is empty", "write a label, or leave the key out")
    return label


def _meta(fields: Fields, known: frozenset[str]) -> Mapping[str, Any]:
    return {**_extra(fields, known), **fields.mapping("meta")}


def _extra(fields: Fields, known: frozenset[str]) -> dict[str, Any]:
    names = {fields.key(role) for role in known}
    return {key: value for key, value in fields.row.items() if key not in names}


def records_to_jsonl(records: Iterable[Record]) -> str:
    """Return the text of a JSON-lines file, a dialogue or an example a line."""
    rows = (json.dumps(_written(record), ensure_ascii=False) for record in records)
    return "".join(f"{row}\n" for row in rows)


_WRITTEN: Mapping[type, tuple[str, ...]] = {
    Dialogue: ("session", "client", "counselor", "meta", "turns"),
    Example: (
        *("id", "session", "client", "counselor", "turn", "history"),
        *("response", "label", "rationale", "meta"),
    ),
    Turn: ("speaker", "name", "text", "id", "label", "rationale"),
}
"""The keys of a record, in order."""


def _written(record: Record | Turn) -> dict[str, Any]:
    found = {key: getattr(record, key) for key in _WRITTEN[type(record)]}
    for key in found.keys() & {"turns", "history"}:
        found[key] = [_written(turn) for turn in found[key]]
    if "meta" in found:
        found["meta"] = dict(found["meta"])
    return {key: value for key, value in found.items() if value not in (None, {})}
