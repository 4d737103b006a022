"""CSV and Excel tables: a row an utterance of a dialogue, or a row an example with its history.

Rows of CSV files and spreadsheets, whatever may be wrong with them, are read as texts under their
column names.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from recap.data.issues import LONGEST_TEXT, FirstLines, IssueLog, too_long
from recap.data.names import identity, is_missing, whole_number
from recap.data.readers.excel import OddCell, SheetRow, column_letters, excel_rows
from recap.data.readers.exports import refuse_export
from recap.data.readers.files import JsonFault, decode_json, existing_file, json_rows, text_lines
from recap.data.readers.registry import (
    EXCEL_ENDINGS,
    ORDER_ROLES,
    TABLE_ENDINGS,
    Fields,
    Record,
    find_columns,
    register_reader,
    require_column,
    unrecognized,
)
from recap.data.readers.row_order import Order, SessionRow, in_order
from recap.data.readers.speakers import BEFORE_SPEAKERS, SpeakerNames, is_letter
from recap.errors import ConfigError, DataError, quote_id
from recap.records import Dialogue, Example, Turn
from recap.system.files import bare_cell

_DELIMITERS = (",", ";", "\t")
_LONGEST_FIELD = 2**24
"""Characters after which a quotation mark that is not closed is given up."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table: its column names, and its rows one by one as ``(line, {column: text})``."""

    path: Path
    columns: tuple[str, ...]
    rows: Iterator[tuple[int, dict[str, str]]]
    texts: set[str] = field(default_factory=set)
    """Columns of texts, names and ids: whoever reads them says so before the first row, and rows
    where a spreadsheet made something else of one of them are noted and left out."""


def read_sheet(
    path: Path | None, issues: IssueLog, *, delimiter: str | None = None, sheet: str | None = None
) -> Sheet:
    """Return the table of a CSV file, or of one sheet of an Excel file.

    Rows that do not fit the header are noted in ``issues`` and left out; empty rows are no rows.
    What separates the fields of a CSV file is the ``delimiter``, by default whichever of comma,
    semicolon and tab the header holds most often; of an Excel file the first ``sheet`` that is not
    hidden is read, unless one is named.

    Raises:
        DataError: When the file is missing, empty or of another kind, or two columns have one name.
        ConfigError: When the delimiter is more than one character.
    """
    path = existing_file(path)
    records = _records(path, issues, delimiter, sheet)
    header = next(records, None)
    if header is None:
        raise DataError(f"{path}: is empty; it needs a first row with the names of its columns")
    if header.broken is not None:
        raise DataError(f"{path}:{header.line}: the header {header.broken[0]}; {header.broken[1]}")
    columns = tuple(identity(name) for name in header.cells)
    _check_names(path, columns)
    texts: set[str] = set()
    rows = _named(records, columns, issues, texts)
    return Sheet(path=path, columns=columns, rows=rows, texts=texts)


def _records(
    path: Path, issues: IssueLog, delimiter: str | None, sheet: str | None
) -> Iterator[SheetRow]:
    if path.suffix.lower() in EXCEL_ENDINGS:
        return excel_rows(path, sheet, issues)
    if path.suffix.lower() == ".xls":
        raise DataError(
            f"{path}: old Excel files cannot be read; save it as .xlsx or as 'CSV UTF-8'"
        )
    return _csv_records(path, issues, delimiter)


def read_rows(
    path: Path, issues: IssueLog, *, texts: Iterable[str] = ()
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield ``(line, row)`` of a table, its cells bare, or of a JSON file, by the file's ending.

    ``texts`` are the columns of texts, names and ids.
    """
    if path.suffix.lower() in TABLE_ENDINGS:
        table = read_sheet(path, issues)
        table.texts.update(texts)
        return ((line, bare_row(cells)) for line, cells in table.rows)
    return json_rows(path, issues)


def bare_row(cells: Mapping[str, str]) -> dict[str, str]:
    """Return a table's row without the quotes put in front of what looks like a formula."""
    return {bare_cell(name): bare_cell(cell) for name, cell in cells.items()}


def mapping_of(value: object) -> Mapping[str, Any] | None:
    """Return a mapping, also one written as JSON in a cell; ``None`` for anything else.

    >>> mapping_of('{"Blaming": 0.25}')
    {'Blaming': 0.25}
    """
    if isinstance(value, str) and value.strip():
        try:
            value, faults = decode_json(value)
        except (ValueError, RecursionError):
            return None
        if faults:
            return None
    return value if isinstance(value, Mapping) else None


def finite_number(value: object) -> float | None:
    """Return a JSON number that a float holds, ``None`` for anything else.

    >>> finite_number(1), finite_number(True), finite_number(10**400), finite_number(float("nan"))
    (1.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= sys.float_info.max else None


SUM_TOLERANCE = 0.01
"""How far probabilities may be from adding up to 1: three thirds of two digits are 0.99."""


def fault_of_probabilities(found: Collection[float]) -> str | None:
    """Return what keeps numbers from being the probabilities of all labels; ``None``: nothing.

    >>> fault_of_probabilities([0.9, 0.8]), fault_of_probabilities([0.33, 0.33, 0.33])
    ('add up to 1.7', None)
    """
    total = math.fsum(found)
    if min(found) < 0:
        return f"hold {min(found):.6g}"
    return f"add up to {total:.6g}" if round(abs(total - 1), 9) > SUM_TOLERANCE else None


def read_probabilities(fields: Fields) -> dict[str, float]:
    """Return the probabilities of a row, an object or JSON in a cell; others are rejected."""
    written = fields.row.get("probabilities")
    given = mapping_of(written) if isinstance(written, str) else None
    if given is None and not (isinstance(written, str) and is_missing(written)):
        given = fields.mapping("probabilities")
    numbers = {str(name): finite_number(p) for name, p in (given or {}).items()}
    known = {name: p for name, p in numbers.items() if p is not None}
    fault = "holds no finite number" if len(known) < len(numbers) else None
    if fault is None and known:
        fault = fault_of_probabilities(known.values())
    if fault is not None:
        hint = f"write numbers from 0 to 1 that add up to 1 (give or take {SUM_TOLERANCE}), or null"
        fields.reject("probabilities", fault, hint)
        return {}
    return known


def _check_names(path: Path, columns: tuple[str, ...]) -> None:
    first: dict[str, int] = {}
    for number, name in enumerate(columns, start=1):
        if name and first.setdefault(name, number) != number:
            raise DataError(
                f"{path}: columns {first[name]} and {number} have the same name; rename one "
                "(is the first row a header?)"
            )


def _named(
    records: Iterator[SheetRow], columns: tuple[str, ...], issues: IssueLog, texts: set[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    for record in records:
        if record.broken is None and not any(cell.strip() for cell in record.cells):
            continue
        issues.row()
        broken = record.broken or _misfit(record.cells, columns)
        if broken is not None:
            issues.reject(record.line, record.field, *broken)
        elif not (record.odd and _has_odd_cell(record, columns, issues, texts)):
            yield record.line, dict(zip(columns, record.cells, strict=False))


def _has_odd_cell(
    row: SheetRow, columns: tuple[str, ...], issues: IssueLog, texts: set[str]
) -> bool:
    odd = [
        (number, name, cell)
        for number, (name, cell) in enumerate(zip(columns, row.cells, strict=False))
        if isinstance(cell, OddCell) and name in texts
    ]
    for number, name, cell in odd:
        reason = f"{cell.reason} in cell {column_letters(number)}{row.line}"
        issues.reject(row.line, name, reason, cell.hint)
    return bool(odd)


def _misfit(cells: list[str], columns: tuple[str, ...]) -> tuple[str, str] | None:
    width = len(columns)
    if width > 1 and cells[0].strip() == columns[0] and tuple(map(identity, cells)) == columns:
        return "repeats the header", "remove it (were two files put together?)"
    if len(cells) < width or any(cells[width:]):
        return (
            f"has {len(cells)} fields where the header has {width}",
            "complete it, and quote texts that hold the separator",
        )
    if any("\0" in cell for cell in cells):
        return "holds a NUL character", "remove it (was the file damaged?)"
    longest = max(map(len, cells))
    if longest > LONGEST_TEXT:
        return too_long(longest)
    return None


def _csv_records(path: Path, issues: IssueLog, delimiter: str | None) -> Iterator[SheetRow]:
    """Yield every record with the line it begins on; those quoted wrongly are broken."""
    lines = text_lines(path, issues)
    first = next(lines, None)
    if first is None:
        return
    delimiter = delimiter or max(_DELIMITERS, key=first.count)
    # Strict: otherwise a quotation mark that is never closed swallows the rest of the file
    # unnoticed.
    try:
        reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"data.options.delimiter: must be one character, not {delimiter!r}"
        ) from error
    while True:
        line = reader.line_num + 1
        limit = csv.field_size_limit(_LONGEST_FIELD)
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield SheetRow(line=line, cells=[], broken=_csv_fault(error, reader.line_num))
            if "field limit" in str(error):
                return
            continue
        finally:
            csv.field_size_limit(limit)
        yield SheetRow(line=line, cells=cells)


def _csv_fault(error: csv.Error, line: int) -> tuple[str, str]:
    message = str(error)
    if "field limit" in message:
        return (
            f"has a field of more than {_LONGEST_FIELD:,} characters, up to line {line}",
            "close the quotation mark that it begins with; nothing after it could be read",
        )
    if "new-line" in message:
        return (
            "holds a line end without a line feed outside of quotation marks",
            "quote the text, or save the file with other line ends (is it of an old Mac?)",
        )
    return (
        f"is not valid CSV up to line {line} ({message})",
        "close every quotation mark, and double those inside a text",
    )


_EXAMPLE_ROLES = ("id", "session", "text", "label", "rationale")
_UTTERANCE_ROLES = (*_EXAMPLE_ROLES, "speaker")
"""Roles whose columns annotation writes under names of its own; the others come back as they are.
"""


@register_reader("table", aliases=("csv", "excel"), endings=TABLE_ENDINGS)
def read_table(
    path: Path | None,
    *,
    issues: IssueLog,
    columns: Mapping[str, str | bool | None] | None = None,
    speakers: Mapping[str, str] | None = None,
    meta: Sequence[str] = (),
    delimiter: str | None = None,
    sheet: str | None = None,
) -> Iterator[Record]:
    """Yield a dialogue a session where a column names the speaker, else an example a row.

    A column that numbers the turns of a session, or says when they begin, puts them in order
    wherever they stand; without one, rows of one session follow each other. A table of utterances
    without a session column is one session, named like the file. A history is JSON turns, or lines
    such as ``Counselor: ...``; a text that names no speaker is the counselor's last turn.

    ``columns`` are names of those that are not recognized, as ``{role: name}``, and ``False`` where
    one only looks like that role. Values of the columns in ``meta`` go to the records' ``meta`` (of
    a session: those of its first row). ``delimiter`` and ``sheet`` are as in :func:`read_sheet`.
    """
    if path is not None and path.suffix.lower() in (".jsonl", ".json", ".ndjson"):
        raise DataError(f"{existing_file(path)}: is no table; read it with data=dialogues")
    table = read_sheet(path, issues, delimiter=delimiter, sheet=sheet)
    found = find_columns(table.path, table.columns, columns)
    issues.text_column = found["text"]
    table.texts.update(column for role, column in found.items() if role != "start")
    first = next(table.rows, None)
    if first is not None:
        refuse_export(issues, *first)
        bare = (
            (line, {name: bare_cell(cell) for name, cell in row.items()})
            for line, row in chain([first], table.rows)
        )
        table = replace(table, rows=bare)
        if (columns or {}).get("turn") is None and _names_turns(found.get("turn", ""), first[1]):
            del found["turn"]
    for column in meta:
        require_column(table.path, table.columns, column, "correct data.options.meta")
    utterances = "speaker" in found and "history" not in found
    if "history" not in found:
        issues.unrecognized = unrecognized(table.columns, found, ("speaker", "session"))
    read = _UTTERANCE_ROLES if utterances else _EXAMPLE_ROLES
    taken = {found[role] for role in read if role in found}
    rows = _Rows(
        table=table,
        columns=found,
        names=SpeakerNames(speakers),
        meta=tuple(meta),
        kept=tuple(column for column in table.columns if column not in taken),
        issues=issues,
        records=partial(_records, table.path, IssueLog("again"), delimiter, sheet),
    )
    if utterances:
        order = next((_ORDERS[role] for role in ORDER_ROLES if role in found), None)
        gather = order is not None and rows.is_scattered()
        yield from rows.dialogues(order, gather=gather)
    else:
        yield from rows.examples()


def _names_turns(column: str, row: Mapping[str, str]) -> bool:
    """Whether a column such as ``utterance_id`` names turns rather than numbers them."""
    cell = row.get(column, "").strip()
    return column.casefold().endswith("id") and not is_missing(cell) and whole_number(cell) is None


_SMALL = 2**24
"""Bytes of a file whose rows are gathered without a look whether they have to be."""

_NO_ORDER = "or say that this column is no order with data.options.columns"
_NUMBER = f"number the turns of a session one by one, {_NO_ORDER}.turn=false"
_BEGIN = f"say of each turn when it begins, {_NO_ORDER}.start=false"
_ORDERS = {
    "turn": Order(by="turn", field="turn", hint=_NUMBER),
    "start": Order(by="start", field="start", hint=_BEGIN),
}


@dataclass(frozen=True, kw_only=True)
class _Rows:
    table: Sheet
    columns: Mapping[str, str]
    names: SpeakerNames
    meta: tuple[str, ...]
    kept: tuple[str, ...]
    """Columns of none of the roles that are read: they come back as they are."""
    issues: IssueLog
    records: Callable[[], Iterator[SheetRow]]
    """Reads all rows of the table once more."""

    def again(self, role: str) -> Iterator[tuple[int, str]]:
        """Yield the line and the cell of each row, for a role that has a column."""
        column = self.table.columns.index(self.columns[role])
        for record in islice(self.records(), 1, None):  # below the header
            yield record.line, str(record.cells[column]) if len(record.cells) > column else ""

    @cached_property
    def names_and_letters(self) -> SpeakerNames:
        """The names, once all of the column have been read to know what letters stand for."""
        self.names.hear(cell for _, cell in self.again("speaker"))
        return self.names

    def cell(self, row: Mapping[str, str], role: str) -> str:
        """Return the cell for a role without outer blanks, ``""`` without such a column."""
        return row[self.columns[role]].strip() if role in self.columns else ""

    def name(self, row: Mapping[str, str], role: str) -> str:
        return self.issues.name(role, self.cell(row, role))

    def person(self, rows: Sequence[SessionRow], role: str) -> str | None:
        """Return who is named first: maybe the client's own rows alone name the client."""
        named = (self.name(row.cells, role) for row in rows) if role in self.columns else ()
        return next(filter(None, named), None)

    def session(self, row: Mapping[str, str]) -> str:
        return self.name(row, "session") if "session" in self.columns else self.table.path.stem

    def id(self, row: Mapping[str, str]) -> str | None:
        # Ids are unique, and there may be millions: no two forms of one are looked for.
        cell = self.cell(row, "id")
        return None if is_missing(cell) else identity(cell)

    def meta_of(self, row: Mapping[str, str]) -> dict[str, str]:
        return {column: row[column] for column in self.meta}

    def extra_of(self, row: Mapping[str, str]) -> dict[str, str]:
        return {column: row[column] for column in self.kept}

    def dialogues(self, order: Order | None, *, gather: bool) -> Iterator[Dialogue]:
        """Yield a dialogue a session, when the next one begins; to gather rows, all at the end."""
        begun: dict[str, list[SessionRow]] = {}
        closed = FirstLines()
        for line, row in self.table.rows:
            name = self.session(row)
            turn = self.turn(line, row)
            if name not in begun:
                if not _may_continue(self.issues, line, name, closed):
                    continue
                if not gather:
                    yield from self.finished(begun, order)
                    for session in begun:
                        closed.add(session, line)
                    begun.clear()
            cell = "" if order is None else self.cell(row, order.by)
            begun.setdefault(name, []).append(
                SessionRow(line=line, turn=turn, order=cell, cells=row)
            )
        yield from self.finished(begun, order)

    def is_scattered(self) -> bool:
        """Return whether the sessions of a table may have to be gathered from all over the file."""
        if self.table.path.stat().st_size < _SMALL or "session" not in self.columns:
            return True
        last, closed = None, FirstLines()
        for line, cell in self.again("session"):
            if cell and cell != last:
                last, name = cell, identity(cell)
                if closed.find(name) is not None:
                    return True
                closed.add(name, line)
        return False

    def turn(self, line: int, row: Mapping[str, str]) -> Turn | None:
        called = self.cell(row, "speaker")
        names = self.names_and_letters if is_letter(called) else self.names
        voice = names.voice(self.issues, line, "speaker", called)
        return (
            None
            if voice is None
            else voice.turn(
                self.cell(row, "text"),
                id=self.id(row),
                label=self.cell(row, "label") or None,
                rationale=self.cell(row, "rationale") or None,
                extra=self.extra_of(row),
            )
        )

    def finished(
        self, begun: Mapping[str, Sequence[SessionRow]], order: Order | None
    ) -> Iterator[Dialogue]:
        for session, given in begun.items():
            rows = in_order(session, given, order=order, issues=self.issues)
            if rows:
                yield Dialogue(
                    session=session,
                    client=self.person(rows, "client"),
                    counselor=self.person(rows, "counselor"),
                    meta=self.meta_of(rows[0].cells),
                    turns=tuple(row.turn for row in rows if row.turn is not None),
                )

    def examples(self) -> Iterator[Example]:
        for line, row in self.table.rows:
            history = self.history(line, self.cell(row, "history"))
            response = self.response(line, self.cell(row, "text"))
            if history is None or response is None:
                continue
            self.issues.at(line)
            yield Example(
                id=self.id(row) or f"{self.table.path.stem}:{line}",
                session=self.name(row, "session") or None,
                client=self.name(row, "client") or None,
                counselor=self.name(row, "counselor") or None,
                history=history,
                response=response,
                label=self.cell(row, "label") or None,
                rationale=self.cell(row, "rationale") or None,
                meta=self.meta_of(row),
                extra=self.extra_of(row),
            )

    def history(self, line: int, cell: str) -> tuple[Turn, ...] | None:
        """Return the turns of a history, ``None`` (and a fault) for JSON that holds none."""
        # A text may begin with a bracket without being JSON: then it is read as lines.
        written, faults = _json_list(cell) if cell.startswith("[") else (None, ())
        if written is None:
            return self.written_history(line, cell)
        for _, reason, hint in faults:
            self.issues.reject(line, "history", reason, hint)
        if faults:
            return None
        turns: list[Turn] = []
        self.names.hear(str(item.get("speaker")) for item in written)
        for index, item in enumerate(written):
            called, text = item.get("speaker"), item.get("text")
            if not isinstance(called, str) or not isinstance(text, str):
                reason = f"turn {index} of its JSON has no speaker or no text"
                hint = (
                    'write {"speaker": "counselor", "text": "..."}, or lines such as Counselor: ...'
                )
                self.issues.reject(line, "history", reason, hint)
                return None
            voice = self.names.voice(self.issues, line, "history", called)
            if voice is None:
                return None
            turns.append(voice.turn(text.strip()))
        return tuple(turns)

    def written_history(self, line: int, cell: str) -> tuple[Turn, ...] | None:
        """Return a history written as lines; one without speakers is a turn of the counselor's."""
        written = self.names.read_cell(self.issues, line, "history", cell)
        if written is None:
            return None
        if not written.turns:
            return (Turn(speaker="counselor", text=cell),) if cell else ()
        if written.above:
            self.issues.reject(line, "history", *BEFORE_SPEAKERS)
            return None
        return tuple(turn.turn() for turn in written.turns)

    def response(self, line: int, cell: str) -> str | None:
        """Return what the client said, without ``Client:`` in front; ``None`` where more is."""
        written = self.names.read_cell(self.issues, line, "response", cell)
        if written is None or not written.turns:
            return None if written is None else cell
        if len(written.turns) == 1 and not written.above:
            (turn,) = (one.turn() for one in written.turns)
            if turn.speaker == "client":
                return turn.text
        reason = "names a speaker other than the client, or several"
        hint = "write the client's response alone there, and what comes before it into the history"
        self.issues.reject(line, "response", reason, hint)
        return None


def _may_continue(issues: IssueLog, line: int, session: str, closed: FirstLines) -> bool:
    if not session:
        issues.reject(line, "session", "is empty", "write the session's id in every row")
    elif closed.find(session) is not None:
        reason = f"session {quote_id(session)} goes on after another one began"
        issues.reject(line, "session", reason, "sort the rows so that each session stands together")
    else:
        return True
    return False


def _json_list(cell: str) -> tuple[list[dict[str, Any]] | None, Sequence[JsonFault]]:
    """Return the objects of a JSON list and its faults, ``None`` where a text is none."""
    try:
        items, faults = decode_json(cell)
    except (ValueError, RecursionError):
        return None, ()
    whole = isinstance(items, list) and items and all(isinstance(item, dict) for item in items)
    return (items, faults) if whole else (None, ())
