"""CSV and Excel tables: a row an utterance of a dialogue, or a row an example with its history."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recap.data.faults import FaultLog, Place
from recap.data.readers.columns import Columns, find_columns, require_column
from recap.data.readers.dialogue_text import SpeakerNames
from recap.data.readers.registry import Record, register_reader
from recap.data.readers.sheets import Sheet, read_sheet
from recap.data.seen import FirstLines
from recap.errors import quote_id
from recap.records import Dialogue, Example, Turn

_EXAMPLE_ROLES = ("id", "session", "text", "label", "rationale")
_UTTERANCE_ROLES = (*_EXAMPLE_ROLES, "speaker")
"""Roles whose columns annotation writes under names of its own; the others come back as they are.
"""


@register_reader("table", aliases=("csv", "excel"))
def read_table(
    path: Path | None,
    *,
    faults: FaultLog,
    columns: Mapping[str, str | None] | None = None,
    speakers: Mapping[str, str] | None = None,
    meta: Sequence[str] = (),
    delimiter: str | None = None,
    sheet: str | None = None,
) -> Iterator[Record]:
    """Yield a dialogue a session where a column names the speaker, else an example a row.

    Rows of one session follow each other. A table of utterances without a session column is one
    session, named like the file. A history is JSON turns, or lines such as ``Counselor: ...``; a
    text that names no speaker is the counsellor's last turn.

    Args:
        path: The file.
        faults: Where bad rows are noted.
        columns: Names of the columns that are not recognised, as ``{role: name}``.
        speakers: Names of speakers beside the usual ones, each with its role.
        meta: Columns whose values go to ``meta`` (of a session: those of its first row).
        delimiter: Separator of a CSV file, where the header does not show it.
        sheet: Name of the Excel sheet, where it is not the first.
    """
    table = read_sheet(path, faults, delimiter=delimiter, sheet=sheet)
    found = find_columns(table.path, table.columns, columns)
    for column in meta:
        require_column(table.path, table.columns, column, "correct data.options.meta")
    layout = _Layout(
        table=table, columns=found, names=SpeakerNames(speakers), meta=tuple(meta), faults=faults
    )
    if "speaker" in found and "history" not in found:
        yield from _dialogues(layout)
    else:
        yield from _examples(layout)


@dataclass(frozen=True, kw_only=True)
class _Layout:
    table: Sheet
    columns: Columns
    names: SpeakerNames
    meta: tuple[str, ...]
    faults: FaultLog

    def cell(self, row: Mapping[str, str], role: str) -> str:
        return self.columns.value(row, role)

    def meta_of(self, row: Mapping[str, str]) -> dict[str, str]:
        return {column: row[column] for column in self.meta}

    def extra_of(self, row: Mapping[str, str], *, read: Sequence[str]) -> dict[str, str]:
        """Return the cells of all columns but those of the roles that were read."""
        columns = self.columns.by_role
        taken = {columns[role] for role in read if role in columns}
        return {column: cell for column, cell in row.items() if column not in taken}


@dataclass(kw_only=True)
class _Session:
    name: str
    first: Mapping[str, str]
    turns: list[Turn] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)


def _dialogues(layout: _Layout) -> Iterator[Dialogue]:
    current: _Session | None = None
    closed = FirstLines()
    for line, row in layout.table.rows:
        name = (
            layout.cell(row, "session") if "session" in layout.columns else layout.table.path.stem
        )
        turn = _turn(layout, line, row)
        if not _may_continue(layout.faults, line, name, closed) or turn is None:
            continue
        if current is None or name != current.name:
            if current is not None:
                closed.add(current.name, line)
                yield _finished(layout, current)
            current = _Session(name=name, first=row)
        current.turns.append(turn)
        current.places.append(Place(line=line))
    if current is not None:
        yield _finished(layout, current)


def _may_continue(faults: FaultLog, line: int, session: str, closed: FirstLines) -> bool:
    if not session:
        faults.reject(line, "session", "is empty", "write the session's id in every row")
    elif closed.find(session) is not None:
        reason = f"session {quote_id(session)} goes on after another one began"
        faults.reject(line, "session", reason, "sort the rows so that each session stands together")
    else:
        return True
    return False


def _turn(layout: _Layout, line: int, row: Mapping[str, str]) -> Turn | None:
    said = layout.cell(row, "speaker")
    speaker = layout.names.find(said)
    if speaker is None:
        layout.faults.reject(line, "speaker", *layout.names.complaint(said))
        return None
    return Turn(
        speaker=speaker,
        text=layout.cell(row, "text"),
        id=layout.cell(row, "id") or None,
        label=layout.columns.label(row),
        rationale=layout.cell(row, "rationale") or None,
        extra=layout.extra_of(row, read=_UTTERANCE_ROLES),
    )


def _finished(layout: _Layout, session: _Session) -> Dialogue:
    layout.faults.at_turns(session.places)
    return Dialogue(
        session=session.name,
        client=layout.cell(session.first, "client") or None,
        counselor=layout.cell(session.first, "counselor") or None,
        meta=layout.meta_of(session.first),
        turns=tuple(session.turns),
    )


def _examples(layout: _Layout) -> Iterator[Example]:
    for line, row in layout.table.rows:
        history = _history(layout, line, layout.cell(row, "history"))
        if history is None:
            continue
        layout.faults.at(line)
        yield Example(
            id=layout.cell(row, "id") or f"{layout.table.path.stem}:{line}",
            session=layout.cell(row, "session") or None,
            client=layout.cell(row, "client") or None,
            history=history,
            response=layout.names.without_prefix(layout.cell(row, "text")),
            label=layout.columns.label(row),
            rationale=layout.cell(row, "rationale") or None,
            meta=layout.meta_of(row),
            extra=layout.extra_of(row, read=_EXAMPLE_ROLES),
        )


def _history(layout: _Layout, line: int, cell: str) -> tuple[Turn, ...] | None:
    """Return the turns of a history, ``None`` (and a fault) for JSON that holds none."""
    # A text may begin with a bracket without being JSON: then it is read as lines.
    written = _json_list(cell) if cell.startswith("[") else None
    if written is None:
        return layout.names.history(cell)
    turns: list[Turn] = []
    for index, item in enumerate(written):
        speaker, text = item.get("speaker"), item.get("text")
        role = layout.names.find(speaker) if isinstance(speaker, str) else None
        if role is None or not isinstance(text, str):
            reason = f"turn {index} of its JSON has no known speaker or no text"
            mend = 'write {"speaker": "counselor", "text": "..."}, or lines such as Counselor: ...'
            layout.faults.reject(line, "history", reason, mend)
            return None
        turns.append(Turn(speaker=role, text=text.strip()))
    return tuple(turns)


def _json_list(cell: str) -> list[dict[str, Any]] | None:
    """Return the objects of a JSON list, ``None`` where a text is none."""
    try:
        items = json.loads(cell)
    except (ValueError, RecursionError):
        return None
    return items if items and all(isinstance(item, dict) for item in items) else None
