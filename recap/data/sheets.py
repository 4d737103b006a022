"""Sheets that people fill in, read back: the columns that were handed out, bare cells."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from recap.data.issues import IssueLog, name_damage
from recap.data.readers.registry import require_column
from recap.data.readers.tables import read_sheet
from recap.errors import DataError
from recap.system.files import bare_cell
from recap.taxonomy import Taxonomy

NAMES = frozenset({"id", "session", "rater", "candidate", "participant", "scenario", "rating_id"})
"""Columns that hold names or ids."""


def filled_rows(
    path: Path,
    columns: Sequence[str],
    issues: IssueLog,
    *,
    hint: str,
    optional: Sequence[str] = (),
    numbers: Sequence[str] = (),
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line of each row, and its cells without blanks and protective quotes.

    Names and ids (:data:`NAMES`) come in the form in which they are compared.

    Args:
        path: A CSV or Excel file.
        columns: Those that it has to have.
        issues: Where rows that do not fit the header are noted.
        hint: What to do where a column is missing.
        optional: Columns that are empty where the file lacks them.
        numbers: Those of the columns in which a spreadsheet may show a percentage.

    Raises:
        DataError: When the file cannot be read or lacks a column.
    """
    table = read_sheet(path, issues)
    for column in columns:
        require_column(table.path, table.columns, column, hint)
    table.texts.update({*columns, *optional}.difference(numbers))
    for line, row in table.rows:
        cells = {column: row.get(column, "") for column in (*columns, *optional)}
        bare = {column: bare_cell(cell.strip()).strip() for column, cell in cells.items()}
        names = {column: cell for column, cell in bare.items() if column in NAMES}
        broken = [(column, found) for column, cell in names.items() if (found := name_damage(cell))]
        for column, found in broken:
            issues.reject(line, column, *found)
        if not broken:
            yield line, {**bare, **{c: issues.name(c, cell) for c, cell in names.items()}}


def raise_issues(*logs: IssueLog) -> None:
    """Raise an error that lists all faulty rows, where there are any.

    Raises:
        DataError: With the rows of every file.
    """
    faulty = [str(log.error()) for log in logs if log.issues]
    if faulty:
        raise DataError("\n".join(faulty))


def known_label(
    label: str, taxonomy: Taxonomy | None, line: int, column: str, issues: IssueLog
) -> str | None:
    """Return a label's canonical name, itself without a taxonomy; ``None`` and a note for none."""
    found = label if taxonomy is None else taxonomy.find(label)
    if taxonomy is not None and found is None:
        issues.reject_label(line, column, label, taxonomy)
    return found


def number_in(cell: str) -> float | None:
    """Return the finite number that a cell holds, ``None`` where it holds anything else.

    >>> number_in("0.5"), number_in("1e999"), number_in("nan"), number_in("many")
    (0.5, None, None, None)
    """
    try:
        value = float(cell)
    except ValueError:
        return None
    if "_" in cell:
        # Python's own way of grouping digits.
        return None
    return value if math.isfinite(value) else None
