"""Rows of CSV files and spreadsheets, as texts under their column names."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from recap.data.characters import LONGEST_TEXT, too_long
from recap.data.faults import FaultLog
from recap.data.readers.files import existing_file, text_lines
from recap.data.readers.workbooks import excel_rows
from recap.errors import ConfigError, DataError

_DELIMITERS = (",", ";", "\t")
_EXCEL = (".xlsx", ".xlsm")
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
    path: Path | None, faults: FaultLog, *, delimiter: str | None = None, sheet: str | None = None
) -> Sheet:
    """Return the table of a CSV file, or of one sheet of an Excel file.

    Rows that do not fit the header are noted in ``faults`` and left out; empty rows are no rows.

    Args:
        path: A ``.csv`` (or any other text) or ``.xlsx`` file.
        faults: Where bad rows are noted.
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
        records = _csv_records(path, faults, delimiter)
    header = next(records, None)
    if header is None:
        raise DataError(f"{path}: is empty; it needs a first row with the names of its columns")
    if header.broken is not None:
        raise DataError(f"{path}:{header.line}: the header {header.broken[0]}; {header.broken[1]}")
    columns = tuple(name.strip() for name in header.cells)
    _check_names(path, columns)
    return Sheet(path=path, columns=columns, rows=_named(records, columns, faults))


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
    records: Iterator[_Record], columns: tuple[str, ...], faults: FaultLog
) -> Iterator[tuple[int, dict[str, str]]]:
    for record in records:
        if record.broken is None and not any(cell.strip() for cell in record.cells):
            continue
        faults.row()
        broken = record.broken or _misfit(record.cells, len(columns))
        if broken is not None:
            faults.reject(record.line, record.field, *broken)
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


def _csv_records(path: Path, faults: FaultLog, delimiter: str | None) -> Iterator[_Record]:
    """Yield every record with the line it begins on; those quoted wrongly are broken."""
    lines = text_lines(path, faults)
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
    said = str(error)
    if "field limit" in said:
        return (
            f"has a field of more than {_LONGEST_FIELD:,} characters, up to line {line}",
            "close the quotation mark that it begins with; nothing after it could be read",
        )
    if "new-line" in said:
        return (
            "holds a line end without a line feed outside of quotation marks",
            "quote the text, or save the file with other line ends (is it of an old Mac?)",
        )
    return (
        f"is not valid CSV up to line {line} ({said})",
        "close every quotation mark, and double those inside a text",
    )


def _excel_records(path: Path, sheet: str | None) -> Iterator[_Record]:
    width = 0
    for row in excel_rows(path, sheet):
        width = width or len(row.cells)
        cells = row.cells + [""] * (width - len(row.cells))
        if row.unsaved is None:
            yield _Record(line=row.number, cells=cells)
        else:
            yield _Record(
                line=row.number, cells=cells, broken=_UNSAVED, field=f"column {row.unsaved + 1}"
            )
