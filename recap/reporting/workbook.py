"""Excel files whose cells are texts and numbers, never formulas."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from recap.data.safe_cells import protect_cell
from recap.errors import ConfigError
from recap.reporting.sheets import printable

_MOST_CHARACTERS = 32_767
"""Excel's limit for one cell."""

Cell = str | int | float | None


def workbook_bytes(sheets: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Cell]]]]) -> bytes:
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


def safe_cell(value: Cell) -> Cell:
    """Return a cell's value as Excel may hold it.

    >>> [safe_cell(v) for v in ("=1+1", "no", -2.5, None)]
    ["'=1+1", 'no', -2.5, None]
    """
    if not isinstance(value, str):
        return value
    return protect_cell(printable(value))[:_MOST_CHARACTERS]
