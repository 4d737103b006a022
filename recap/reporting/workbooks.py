"""Excel sheets that people fill in (extra ``excel``)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from recap.data.safe_cells import protect_cell
from recap.reporting.workbook import saved

NO_OPENPYXL = "no Excel sheets: they need openpyxl: pip install recap-counseling[excel]"

_WIDE = 60
_MOST_CHARACTERS = 32_767
"""Excel's limit for one cell."""
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
        from openpyxl import Workbook  # type: ignore[import-untyped]
        from openpyxl.styles import Alignment, Font  # type: ignore[import-untyped]
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
