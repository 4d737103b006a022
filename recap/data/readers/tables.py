"""CSV and Excel tables: a row an utterance of a dialogue, or a row an example with its history.

Rows of CSV files and spreadsheets, whatever may be wrong with them, are read as texts under their
column names.
"""

from __future__ import annotations

import csv
import json
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from recap.data.issues import LONGEST_TEXT, FirstLines, IssueLog, Place, too_long
from recap.data.readers.files import (
    UNREADABLE,
    existing_file,
    json_rows,
    open_archive,
    text_lines,
    unreadable,
)
from recap.data.readers.registry import (
    Columns,
    Record,
    find_columns,
    register_reader,
    require_column,
)
from recap.data.readers.speakers import BEFORE_SPEAKERS, SpeakerNames, Written
from recap.errors import ConfigError, DataError, quote_id
from recap.records import Dialogue, Example, Turn
from recap.system.files import bare_cell

_KIND, _MEND = "Excel file", "save it again as .xlsx"
_MOST_ROWS = 1_048_576
_PIECE = 1 << 20
_FORMULA = re.compile(rb"<(\w+:)?f[\s/>]")


_DELIMITERS = (",", ";", "\t")
_EXCEL = (".xlsx", ".xlsm")
TABLE_ENDINGS = (".csv", ".tsv", *_EXCEL)
"""Endings of files that are read as tables where others hold JSON."""
_LONGEST_FIELD = 2**24
"""Characters after which a quotation mark that is not closed is given up."""
_UNSAVED = (
    "holds a formula without its value",
    "open and save the file in a spreadsheet program, or write the value itself",
)


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table: its column names, and its rows one by one as ``(line, {column: text})``."""

    path: Path
    columns: tuple[str, ...]
    rows: Iterator[tuple[int, dict[str, str]]]


def read_sheet(
    path: Path | None, issues: IssueLog, *, delimiter: str | None = None, sheet: str | None = None
) -> Sheet:
    """Return the table of a CSV file, or of one sheet of an Excel file.

    Rows that do not fit the header are noted in ``issues`` and left out; empty rows are no rows.

    Args:
        path: A ``.csv`` (or any other text) or ``.xlsx`` file.
        issues: Where bad rows are noted.
        delimiter: What separates the fields of a CSV file; by default whichever of comma, semicolon
            and tab the header holds most often.
        sheet: Name of the Excel sheet; by default the first.

    Raises:
        DataError: When the file is missing, empty or of another kind, or two columns have one name.
        ConfigError: When the delimiter is more than one character.
    """
    path = existing_file(path)
    if path.suffix.lower() in _EXCEL:
        records = _excel_records(path, sheet)
    elif path.suffix.lower() == ".xls":
        raise DataError(
            f"{path}: old Excel files cannot be read; save it as .xlsx or as 'CSV UTF-8'"
        )
    else:
        records = _csv_records(path, issues, delimiter)
    header = next(records, None)
    if header is None:
        raise DataError(f"{path}: is empty; it needs a first row with the names of its columns")
    if header.broken is not None:
        raise DataError(f"{path}:{header.line}: the header {header.broken[0]}; {header.broken[1]}")
    columns = tuple(name.strip() for name in header.cells)
    _check_names(path, columns)
    return Sheet(path=path, columns=columns, rows=_named(records, columns, issues))


def read_rows(path: Path, issues: IssueLog) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield ``(line, row)`` of a table, its cells bare, or of a JSON file, by the file's ending."""
    if path.suffix.lower() in TABLE_ENDINGS:
        return ((line, bare_row(cells)) for line, cells in read_sheet(path, issues).rows)
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
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, Mapping) else None


def whole_number(text: str) -> int | None:
    """Return a whole number of up to nine digits, in any script; ``None`` for anything else.

    >>> whole_number("12"), whole_number("-1"), whole_number("9" * 5000)
    (12, None, None)
    """
    return int(text) if len(text) < 10 and text.isdecimal() else None


def finite_number(value: object) -> float | None:
    """Return a JSON number that a float holds, ``None`` for anything else.

    >>> finite_number(1), finite_number(True), finite_number(10**400), finite_number(float("nan"))
    (1.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= sys.float_info.max else None


@dataclass(frozen=True, kw_only=True)
class _Record:
    line: int
    cells: list[str]
    broken: tuple[str, str] | None = None
    """What is wrong with it, and the mend."""
    field: str = "row"


def _check_names(path: Path, columns: tuple[str, ...]) -> None:
    first: dict[str, int] = {}
    for number, name in enumerate(columns, start=1):
        if name and first.setdefault(name, number) != number:
            raise DataError(
                f"{path}: columns {first[name]} and {number} have the same name; rename one "
                "(is the first row a header?)"
            )


def _named(
    records: Iterator[_Record], columns: tuple[str, ...], issues: IssueLog
) -> Iterator[tuple[int, dict[str, str]]]:
    for record in records:
        if record.broken is None and not any(cell.strip() for cell in record.cells):
            continue
        issues.row()
        broken = record.broken or _misfit(record.cells, len(columns))
        if broken is not None:
            issues.reject(record.line, record.field, *broken)
        else:
            yield record.line, dict(zip(columns, record.cells, strict=False))


def _misfit(cells: list[str], width: int) -> tuple[str, str] | None:
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


def _csv_records(path: Path, issues: IssueLog, delimiter: str | None) -> Iterator[_Record]:
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
            yield _Record(line=line, cells=[], broken=_csv_fault(error, reader.line_num))
            if "field limit" in str(error):
                return
            continue
        finally:
            csv.field_size_limit(limit)
        yield _Record(line=line, cells=cells)


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


def _excel_records(path: Path, sheet: str | None) -> Iterator[_Record]:
    """Yield the rows of one sheet of an ``.xlsx`` file, from the first that is not empty on.

    Raises:
        DataError: When openpyxl is missing, or the file is broken, too large, or lacks the sheet.
    """
    try:
        import openpyxl  # type: ignore[import-untyped]  # noqa: F401
    except ImportError:
        raise DataError(
            f"{path}: Excel files need openpyxl: pip install recap[excel]; "
            "or save the sheet as 'CSV UTF-8'"
        ) from None
    with open_archive(path, kind=_KIND, hint=_MEND) as archive:
        has_formulas = _look_through(path, archive)
    try:
        yield from _sheet_records(path, sheet, has_formulas)
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - openpyxl has many of its own
        raise unreadable(path, _KIND, error, _MEND) from None


def _look_through(path: Path, archive: zipfile.ZipFile) -> bool:
    """Return whether a sheet may hold formulas; refuse XML that defines entities.

    A few nested entities expand to gigabytes, and no spreadsheet program writes any.
    """
    formulas = False
    for part in archive.infolist():
        is_sheet = "worksheets/" in part.filename
        try:
            with archive.open(part) as file:
                before = b""
                while piece := file.read(_PIECE):
                    seen = (before + piece).replace(b"\0", b"")
                    if b"<!DOCTYPE" in seen or b"<!ENTITY" in seen:
                        raise DataError(f"{path}: its XML defines a document type; {_MEND}")
                    formulas = formulas or (is_sheet and _FORMULA.search(seen) is not None)
                    before = piece[-20:]
        except UNREADABLE as error:
            raise unreadable(path, _KIND, error, _MEND) from None
    return formulas


def _sheet_records(path: Path, sheet: str | None, has_formulas: bool) -> Iterator[_Record]:
    values = _values(path, sheet, saved=True)
    formulas = _values(path, sheet, saved=False) if has_formulas else None
    width = 0
    for number, row in enumerate(values, start=1):
        if number > _MOST_ROWS:
            raise DataError(f"{path}: has rows beyond {_MOST_ROWS:,}, the most of a sheet; {_MEND}")
        written: Sequence[Any] = next(formulas, ()) if formulas is not None else ()
        if not row:
            continue
        unsaved = next(
            (
                index
                for index, (value, text) in enumerate(zip(row, written, strict=False))
                if value is None and text is not None
            ),
            None,
        )
        cells = [_cell_text(value) for value in row]
        if not (width or any(cells) or unsaved is not None):
            continue
        width = width or len(cells)
        cells += [""] * (width - len(cells))
        if unsaved is None:
            yield _Record(line=number, cells=cells)
        else:
            yield _Record(line=number, cells=cells, broken=_UNSAVED, field=f"column {unsaved + 1}")


def _values(path: Path, sheet: str | None, *, saved: bool) -> Iterator[Sequence[Any]]:
    """Yield rows of a sheet: of formulas the value that was saved, or the formulas themselves."""
    import openpyxl

    book = openpyxl.load_workbook(path, read_only=True, data_only=saved)
    try:
        if sheet is not None and sheet not in book.sheetnames:
            raise DataError(
                f"{path}: has no sheet {sheet!r}; correct data.options.sheet, one of: "
                f"{', '.join(book.sheetnames)}"
            )
        page = book[sheet] if sheet is not None else book.worksheets[0]
        # What a file says of its size cuts off all rows and columns beyond, unnoticed.
        page.reset_dimensions()
        yield from page.iter_rows(values_only=True)
    finally:
        book.close()


def _cell_text(value: Any) -> str:
    """Return a cell's value as text, ``""`` for an empty one."""
    if value is None:
        return ""
    # A spreadsheet keeps the id 12 as 12.0.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


_EXAMPLE_ROLES = ("id", "session", "text", "label", "rationale")
_UTTERANCE_ROLES = (*_EXAMPLE_ROLES, "speaker")
"""Roles whose columns annotation writes under names of its own; the others come back as they are.
"""


@register_reader("table", aliases=("csv", "excel"), endings=TABLE_ENDINGS)
def read_table(
    path: Path | None,
    *,
    issues: IssueLog,
    columns: Mapping[str, str | None] | None = None,
    speakers: Mapping[str, str] | None = None,
    meta: Sequence[str] = (),
    delimiter: str | None = None,
    sheet: str | None = None,
) -> Iterator[Record]:
    """Yield a dialogue a session where a column names the speaker, else an example a row.

    Rows of one session follow each other. A table of utterances without a session column is one
    session, named like the file. A history is JSON turns, or lines such as ``Counselor: ...``; a
    text that names no speaker is the counselor's last turn.

    Args:
        path: The file.
        issues: Where bad rows are noted.
        columns: Names of the columns that are not recognized, as ``{role: name}``.
        speakers: Names of speakers beside the usual ones, each with its role.
        meta: Columns whose values go to ``meta`` (of a session: those of its first row).
        delimiter: Separator of a CSV file, where the header does not show it.
        sheet: Name of the Excel sheet, where it is not the first.
    """
    table = read_sheet(path, issues, delimiter=delimiter, sheet=sheet)
    found = find_columns(table.path, table.columns, columns)
    for column in meta:
        require_column(table.path, table.columns, column, "correct data.options.meta")
    layout = _Layout(
        table=table, columns=found, names=SpeakerNames(speakers), meta=tuple(meta), issues=issues
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
    issues: IssueLog

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
        if not _may_continue(layout.issues, line, name, closed) or turn is None:
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


def _may_continue(issues: IssueLog, line: int, session: str, closed: FirstLines) -> bool:
    if not session:
        issues.reject(line, "session", "is empty", "write the session's id in every row")
    elif closed.find(session) is not None:
        reason = f"session {quote_id(session)} goes on after another one began"
        issues.reject(line, "session", reason, "sort the rows so that each session stands together")
    else:
        return True
    return False


def _turn(layout: _Layout, line: int, row: Mapping[str, str]) -> Turn | None:
    called = layout.cell(row, "speaker")
    voice = layout.names.find(called)
    if voice is None:
        layout.names.reject_cell(layout.issues, line, "speaker", called)
        return None
    return Turn(
        speaker=voice.speaker,
        name=voice.name,
        text=layout.cell(row, "text"),
        id=layout.cell(row, "id") or None,
        label=layout.columns.label(row),
        rationale=layout.cell(row, "rationale") or None,
        extra=layout.extra_of(row, read=_UTTERANCE_ROLES),
    )


def _finished(layout: _Layout, session: _Session) -> Dialogue:
    layout.issues.at_turns(session.places)
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
        response = _response(layout, line, layout.cell(row, "text"))
        if history is None or response is None:
            continue
        layout.issues.at(line)
        yield Example(
            id=layout.cell(row, "id") or f"{layout.table.path.stem}:{line}",
            session=layout.cell(row, "session") or None,
            client=layout.cell(row, "client") or None,
            history=history,
            response=response,
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
        return _written_history(layout, line, cell)
    turns: list[Turn] = []
    for index, item in enumerate(written):
        called, text = item.get("speaker"), item.get("text")
        if not isinstance(called, str) or not isinstance(text, str):
            reason = f"turn {index} of its JSON has no speaker or no text"
            hint = 'write {"speaker": "counselor", "text": "..."}, or lines such as Counselor: ...'
            layout.issues.reject(line, "history", reason, hint)
            return None
        voice = layout.names.find(called)
        if voice is None:
            layout.names.reject_cell(layout.issues, line, "history", called)
            return None
        turns.append(Turn(speaker=voice.speaker, name=voice.name, text=text.strip()))
    return tuple(turns)


def _written_history(layout: _Layout, line: int, cell: str) -> tuple[Turn, ...] | None:
    """Return the turns of a history written as lines; one without speakers is the counselor's."""
    written = _taken_apart(layout, line, "history", cell)
    if written is None:
        return None
    if not written.turns:
        return (Turn(speaker="counselor", text=cell),) if cell else ()
    if written.before:
        layout.issues.reject(line, "history", *BEFORE_SPEAKERS)
        return None
    return tuple(turn.turn() for turn in written.turns)


def _response(layout: _Layout, line: int, cell: str) -> str | None:
    """Return what the client said, without ``Client:`` in front; ``None`` (and a fault) for more.

    A cell in which the counselor speaks is none of a response.
    """
    written = _taken_apart(layout, line, "response", cell)
    if written is None or not written.turns:
        return None if written is None else cell
    if len(written.turns) == 1 and not written.before:
        (turn,) = (one.turn() for one in written.turns)
        if turn.speaker == "client":
            return turn.text
    reason = "names a speaker other than the client, or several"
    hint = "write the client's response alone there, and what comes before it into the history"
    layout.issues.reject(line, "response", reason, hint)
    return None


def _taken_apart(layout: _Layout, line: int, field: str, cell: str) -> Written | None:
    written = layout.names.read(cell)
    if written.unknown:
        layout.names.reject(layout.issues, line, field, written.unknown)
        return None
    return written


def _json_list(cell: str) -> list[dict[str, Any]] | None:
    """Return the objects of a JSON list, ``None`` where a text is none."""
    try:
        items = json.loads(cell)
    except (ValueError, RecursionError):
        return None
    return items if items and all(isinstance(item, dict) for item in items) else None
