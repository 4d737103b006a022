"""Rows of CSV files and spreadsheets, as texts under their column names."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from recap.data.faults import FaultLog
from recap.data.readers.files import existing_file, text_lines
from recap.errors import DataError

_DELIMITERS = (",", ";", "\t")
_EXCEL = (".xlsx", ".xlsm")


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
    columns = tuple(name.strip() for name in header[1])
    _check_names(path, columns)
    return Sheet(path=path, columns=columns, rows=_named(records, columns, faults))


def _check_names(path: Path, columns: tuple[str, ...]) -> None:
    first: dict[str, int] = {}
    for number, name in enumerate(columns, start=1):
        if name and first.setdefault(name, number) != number:
            raise DataError(
                f"{path}: columns {first[name]} and {number} have the same name; rename one "
                "(is the first row a header?)"
            )


def _named(
    records: Iterator[tuple[int, list[str]]], columns: tuple[str, ...], faults: FaultLog
) -> Iterator[tuple[int, dict[str, str]]]:
    width = len(columns)
    for line, cells in records:
        if not any(cell.strip() for cell in cells):
            continue
        faults.row()
        if len(cells) < width or any(cells[width:]):
            reason = f"has {len(cells)} fields where the header has {width}"
            faults.reject(
                line, "row", reason, "complete it, and quote texts that hold the separator"
            )
        elif any("\0" in cell for cell in cells):
            faults.reject(line, "row", "holds a NUL character", "remove it (was the file damaged?)")
        else:
            yield line, dict(zip(columns, cells, strict=False))


def _csv_records(
    path: Path, faults: FaultLog, delimiter: str | None
) -> Iterator[tuple[int, list[str]]]:
    """Yield every record with the line it begins on; those quoted wrongly are noted."""
    lines = text_lines(path, faults)
    first = next(lines, None)
    if first is None:
        return
    delimiter = delimiter or max(_DELIMITERS, key=first.count)
    # Strict: otherwise a quotation mark that is never closed swallows the rest of the file
    # unnoticed.
    reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            faults.row()
            reason = f"is not valid CSV up to line {reader.line_num} ({error})"
            faults.reject(
                line, "row", reason, "close every quotation mark, and double those inside a text"
            )
            continue
        yield line, cells


def _excel_records(path: Path, sheet: str | None) -> Iterator[tuple[int, list[str]]]:
    try:
        import openpyxl  # type: ignore[import-untyped]
    except ImportError:
        raise DataError(
            f"{path}: Excel files need openpyxl: pip install recap[excel]; "
            "or save the sheet as 'CSV UTF-8'"
        ) from None
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (OSError, ValueError, LookupError, TypeError, SyntaxError, zipfile.BadZipFile) as error:
        # openpyxl lets through whatever zip and XML raise; the errors of XML are SyntaxErrors.
        raise DataError(
            f"{path}: is no readable Excel file ({type(error).__name__}); save it again as .xlsx"
        ) from None
    try:
        if sheet is not None and sheet not in book.sheetnames:
            raise DataError(
                f"{path}: has no sheet {sheet!r}; correct data.options.sheet, one of: "
                f"{', '.join(book.sheetnames)}"
            )
        page = book[sheet] if sheet is not None else book.worksheets[0]
        yield from _without_leading_blanks(enumerate(page.iter_rows(values_only=True), start=1))
    finally:
        book.close()


def _without_leading_blanks(
    rows: Iterable[tuple[int, tuple[Any, ...]]],
) -> Iterator[tuple[int, list[str]]]:
    begun = False
    for number, values in rows:
        cells = [_cell_text(value) for value in values]
        begun = begun or any(cells)
        if begun:
            yield number, cells


def _cell_text(value: Any) -> str:
    if value is None:
        return ""
    # A spreadsheet keeps the id 12 as 12.0.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
