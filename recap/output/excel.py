"""Excel files (extra ``excel``) whose cells are texts and numbers, never formulas."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from recap.errors import ConfigError
from recap.system.files import protect_cell, sheet_to_csv
from recap.system.plain_text import printable

_MOST_CHARACTERS = 32_767
"""Excel's limit for one cell, in units of UTF-16."""

MOST_ROWS = 1_048_576
"""Excel's limit for one sheet, its header among them."""

_WIDEST = 60

_ESCAPE = re.compile("_(?=x[0-9A-Fa-f]{4}_)")
_NOT_IN_XML = re.compile(r"[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]")
_NOT_IN_A_SHEET_NAME = re.compile(r"[\[\]:*?/\\\s\ufffd]+")
_SHEET_NAME_UNITS = 31
"""Excel's limit for the name of a sheet, in UTF-16."""

NO_OPENPYXL = "no Excel sheets: they need openpyxl: pip install recap-counseling[excel]"

CellValue = str | int | float | None


class NoOpenpyxlError(ConfigError):
    """Excel files were asked for, and openpyxl is not installed."""


def workbook_bytes(
    sheets: Mapping[str, tuple[Sequence[str], Sequence[Sequence[CellValue]]]],
    *,
    scales: Mapping[str, int] | None = None,
) -> bytes:
    """Return an .xlsx file: for each sheet its header and its rows.

    A text that a spreadsheet could take for a formula gets an apostrophe in front, so that it stays
    a text when the file is saved as CSV and opened again. Empty texts leave their cells empty.

    Args:
        sheets: By their names; see :func:`sheet_names`.
        scales: Columns that are to be filled in with whole numbers from 1 to so many points.

    Raises:
        NoOpenpyxlError: When openpyxl is missing.
    """
    try:
        import openpyxl  # type: ignore[import-untyped]
    except ImportError:
        raise NoOpenpyxlError(
            "Excel files need openpyxl: pip install 'recap-counseling[excel]', or ask "
            "for none with excel=false"
        ) from None
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, (header, rows) in zip(sheet_names(sheets), sheets.values(), strict=True):
        page = book.create_sheet(name)
        for y, row in enumerate([header, *rows], start=1):
            for x, value in enumerate(row, start=1):
                _write_cell(page.cell(row=y, column=x), value, bold=y == 1)
        page.freeze_panes = "A2"
        for x, column in enumerate(header, start=1):
            letter = openpyxl.utils.get_column_letter(x)
            longest = max(len(str(cell.value or "")) for cell in page[letter])
            page.column_dimensions[letter].width = min(max(longest + 2, 10), _WIDEST)
            if scales and column in scales:
                _take_points(page, letter, scales[column])
    return _saved(book)


def sheet_names(names: Iterable[str]) -> list[str]:
    r"""Return names that Excel takes for sheets, each once whatever its case.

    >>> sheet_names(["a/b", "A:B", "'x'", "\x1b", "History"])
    ['a b', 'A B (2)', 'x', 'sheet', 'History (2)']
    """
    # One that Excel keeps to itself.
    taken, found = {"history"}, []
    for name in names:
        shown = _NOT_IN_A_SHEET_NAME.sub(" ", _NOT_IN_XML.sub("", printable(name)))
        base = _cut_name(shown) or "sheet"
        one, n = base, 1
        while one.casefold() in taken:
            n += 1
            one = f"{_cut_name(base, len(f' ({n})'))} ({n})"
        taken.add(one.casefold())
        found.append(one)
    return found


def _cut_name(name: str, less: int = 0) -> str:
    units = name.strip("' ").encode("utf-16-le", "ignore")[: 2 * (_SHEET_NAME_UNITS - less)]
    return units.decode("utf-16-le", "ignore").strip("' ")


def _write_cell(cell: Any, value: CellValue, *, bold: bool) -> None:
    from openpyxl.styles import Alignment, Font  # type: ignore[import-untyped]

    if value is None or value == "":
        return
    cell.value = safe_cell(value)
    if isinstance(value, str):
        # Whatever it begins with, a text stays a text.
        cell.data_type = "s"
    cell.alignment = Alignment(wrap_text=True, vertical="top")
    if bold:
        cell.font = Font(bold=True)


def _take_points(page: Any, letter: str, points: int) -> None:
    """Let a column below its header take whole numbers from 1 to ``points`` only."""
    from openpyxl.worksheet.datavalidation import DataValidation  # type: ignore[import-untyped]

    rule = DataValidation(
        type="whole",
        operator="between",
        formula1="1",
        formula2=str(points),
        showErrorMessage=True,
        error=f"1 to {points}",
    )
    rule.add(f"{letter}2:{letter}{max(page.max_row, 2)}")
    page.add_data_validation(rule)


def safe_cell(value: CellValue) -> CellValue:
    """Return a cell's value as Excel may hold it; a text that is cut says so at its end.

    >>> [safe_cell(v) for v in ("=1+1", "no", -2.5, None)]
    ["'=1+1", 'no', -2.5, None]
    """
    if not isinstance(value, str):
        return value
    plain = protect_cell(_NOT_IN_XML.sub("", value))
    if is_too_long(plain):
        end = f" … [cut: {len(plain):,} characters, of which a cell holds {_MOST_CHARACTERS:,}]"
        room = 2 * (_MOST_CHARACTERS - len(end))
        plain = plain.encode("utf-16-le")[:room].decode("utf-16-le", "ignore") + end
    # A spreadsheet reads _x0041_ as A.
    return _ESCAPE.sub("_x005F_", plain)


def is_too_long(text: str) -> bool:
    """Return whether a cell of Excel has no room for a text."""
    return (
        len(text) > _MOST_CHARACTERS // 2 and len(text.encode("utf-16-le")) > 2 * _MOST_CHARACTERS
    )


def _saved(book: Any) -> bytes:
    """Return a workbook as a file, written in memory alone.

    openpyxl itself (3.1) writes each sheet to a temporary file first, which a kill leaves behind.
    """
    from openpyxl.worksheet._writer import WorksheetWriter  # type: ignore[import-untyped]
    from openpyxl.writer.excel import ExcelWriter  # type: ignore[import-untyped]

    class InMemory(ExcelWriter):  # type: ignore[misc]
        def write_worksheet(self, page: Any) -> None:
            """Write a sheet without charts and pictures."""
            text = io.BytesIO()
            writer = WorksheetWriter(page, text)
            writer.write()
            page._rels, page._drawing = writer._rels, None
            self._archive.writestr(page.path[1:], text.getvalue())
            self.manifest.append(page)

    file = io.BytesIO()
    InMemory(book, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED)).save()
    return file.getvalue()


def sheet_file(header: Sequence[str], rows: Sequence[Sequence[str]], *, excel: bool) -> str | bytes:
    """Return a sheet in which no cell runs as a formula, as an .xlsx file or as CSV.

    Args:
        header: Names of its columns.
        rows: Texts of its cells.
        excel: Whether it is an .xlsx file.

    Raises:
        ConfigError: When Excel files cannot be written here.
    """
    if excel:
        return workbook_bytes({"sheet": (header, rows)})
    return sheet_to_csv(header, rows)
