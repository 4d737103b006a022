"""The sheets of a counsellor study as files that people fill in."""

from __future__ import annotations

from collections.abc import Sequence

from recap.data.safe_cells import sheet_to_csv
from recap.reporting.workbook import workbook_bytes


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
