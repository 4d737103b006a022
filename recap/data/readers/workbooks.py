"""Rows of Excel files, whatever may be wrong with them."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recap.data.readers.archives import UNREADABLE, open_archive, unreadable
from recap.errors import DataError

_KIND, _MEND = "Excel file", "save it again as .xlsx"
_MOST_ROWS = 1_048_576
_PIECE = 1 << 20
_FORMULA = re.compile(rb"<(\w+:)?f[\s/>]")


@dataclass(frozen=True, kw_only=True)
class ExcelRow:
    """One row of a sheet."""

    number: int
    """As the spreadsheet counts, from 1."""
    cells: list[str]
    unsaved: int | None
    """Index of a cell that is a formula without the value it had, ``None`` where none is."""


def excel_rows(path: Path, sheet: str | None) -> Iterator[ExcelRow]:
    """Yield the rows of one sheet, from the first that is not empty on.

    Args:
        path: An ``.xlsx`` file.
        sheet: Name of the sheet; by default the first.

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
    with open_archive(path, kind=_KIND, mend=_MEND) as archive:
        has_formulas = _look_through(path, archive)
    try:
        yield from _rows(path, sheet, has_formulas)
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


def _rows(path: Path, sheet: str | None, has_formulas: bool) -> Iterator[ExcelRow]:
    values = _values(path, sheet, saved=True)
    formulas = _values(path, sheet, saved=False) if has_formulas else None
    begun = False
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
        cells = [cell_text(value) for value in row]
        begun = begun or any(cells) or unsaved is not None
        if begun:
            yield ExcelRow(number=number, cells=cells, unsaved=unsaved)


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


def cell_text(value: Any) -> str:
    """Return a cell's value as text, ``""`` for an empty one."""
    if value is None:
        return ""
    # A spreadsheet keeps the id 12 as 12.0.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
