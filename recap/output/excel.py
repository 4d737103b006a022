"""Excel files whose cells are texts and numbers, never formulas.

Excel sheets that people fill in (extra ``excel``).

The sheets of a counsellor study as files that people fill in.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from recap.errors import ConfigError
from recap.output.tables import printable
from recap.system.escaping import protect_cell, sheet_to_csv

_MOST_CHARACTERS = 32_767
"""Excel's limit for one cell."""

CellValue = str | int | float | None


def workbook_bytes(
    sheets: Mapping[str, tuple[Sequence[str], Sequence[Sequence[CellValue]]]],
) -> bytes:
    """Return an .xlsx file: for each sheet its header and its rows.

    A text that a spreadsheet could take for a formula gets an apostrophe in front, so that it stays
    a text when the file is saved as CSV and opened again.

    Raises:
        ConfigError: When openpyxl (extra ``excel``) is missing.
    """
    try:
        import openpyxl  # type: ignore[import-untyped]
        from openpyxl.styles import Alignment, Font  # type: ignore[import-untyped]
    except ImportError:
        raise ConfigError(
            "Excel files need openpyxl: pip install 'recap-counseling[excel]', or ask "
            "for none with excel=false"
        ) from None
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, (header, rows) in sheets.items():
        page = book.create_sheet(name[:31])
        for y, row in enumerate([header, *rows], start=1):
            for x, value in enumerate(row, start=1):
                cell = page.cell(row=y, column=x)
                cell.value = safe_cell(value)
                if isinstance(value, str):
                    cell.data_type = "s"
                cell.alignment = Alignment(wrap_text=True, vertical="top")
                if y == 1:
                    cell.font = Font(bold=True)
        page.freeze_panes = "A2"
        for x, column in enumerate(header, start=1):
            longest = max([len(str(column)), *(len(str(row[x - 1] or "")) for row in rows)])
            letter = openpyxl.utils.get_column_letter(x)
            page.column_dimensions[letter].width = min(max(longest + 2, 10), 60)
    return saved(book)


def saved(book: Any) -> bytes:
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


def safe_cell(value: CellValue) -> CellValue:
    """Return a cell's value as Excel may hold it.

    >>> [safe_cell(v) for v in ("=1+1", "no", -2.5, None)]
    ["'=1+1", 'no', -2.5, None]
    """
    if not isinstance(value, str):
        return value
    return protect_cell(printable(value))[:_MOST_CHARACTERS]


NO_OPENPYXL = "no Excel sheets: they need openpyxl: pip install recap-counseling[excel]"

_WIDE = 60

_NOT_IN_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")


def fill_in_workbook(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, scale: Sequence[str], points: int
) -> bytes | None:
    """Return an Excel file, ``None`` without openpyxl; no cell of it runs as a formula.

    Args:
        header: Names of the columns.
        rows: Texts; cells to fill in are empty.
        scale: The columns that take whole numbers from 1 to ``points`` only.
        points: Upper end of the scale.
    """
    try:
        from openpyxl import Workbook
        from openpyxl.styles import Alignment, Font
        from openpyxl.utils import get_column_letter  # type: ignore[import-untyped]
        from openpyxl.worksheet.datavalidation import (  # type: ignore[import-untyped]
            DataValidation,
        )
    except ImportError:
        return None
    book = Workbook()
    page = book.active
    page.append(list(header))
    for row in rows:
        page.append([None] * len(header))
        for column, text in enumerate(row, start=1):
            if text:
                shown = protect_cell(_NOT_IN_XML.sub("", text))[:_MOST_CHARACTERS]
                cell = page.cell(page.max_row, column, shown)
                # Whatever it begins with, a text stays a text.
                cell.data_type = "s"
                cell.alignment = Alignment(wrap_text=True, vertical="top")
    for column, name in enumerate(header, start=1):
        page.cell(1, column).font = Font(bold=True)
        longest = max(len(str(cell.value or "")) for cell in page[get_column_letter(column)])
        page.column_dimensions[get_column_letter(column)].width = min(longest + 2, _WIDE)
        if name in scale:
            rule = DataValidation(
                type="whole",
                operator="between",
                formula1="1",
                formula2=str(points),
                showErrorMessage=True,
                error=f"1 to {points}",
            )
            letter = get_column_letter(column)
            rule.add(f"{letter}2:{letter}{max(page.max_row, 2)}")
            page.add_data_validation(rule)
    page.freeze_panes = "A2"
    return saved(book)


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
