"""A table with a row a session: keys, and columns of numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recap.analysis.joined import Key, join_key
from recap.data.faults import FaultLog
from recap.data.readers.sheets import read_sheet
from recap.errors import DataError, did_you_mean, quote_id

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", ".", "-"})
"""Cells, in lower case, that say that a figure is not known."""

_TABLES = (".csv", ".tsv", ".txt", ".xlsx", ".xlsm")


@dataclass(frozen=True, kw_only=True)
class SessionTable:
    """The cells of a table as they stand; rows keep the line they have in the file."""

    path: Path
    columns: tuple[str, ...]
    lines: tuple[int, ...]
    rows: tuple[Mapping[str, str], ...]

    def keys(self, on: Sequence[str]) -> tuple[Key, ...]:
        """Return the key of each row.

        Raises:
            DataError: When a column is missing, or a key is empty or occurs twice.
        """
        for column in on:
            self.require(column, "correct on=[…]")
        faults = FaultLog(str(self.path))
        first: dict[Key, int] = {}
        keys = []
        for line, row in zip(self.lines, self.rows, strict=True):
            faults.row()
            key = join_key([row[column] for column in on])
            field = ", ".join(on)
            if not all(key):
                faults.reject(line, field, "is empty", "write the session's id in every row")
            elif first.setdefault(key, line) != line:
                shown = " and ".join(quote_id(part) for part in key)
                reason = f"{shown} is at line {first[key]} already"
                mend = "keep one row a session, or name more columns with on=[…]"
                faults.reject(line, field, reason, mend)
            keys.append(key)
        if faults.faults:
            raise faults.error()
        return tuple(keys)

    def numbers(self, column: str) -> tuple[float, ...]:
        """Return a column of numbers, NaN where the cell says that there is none.

        Raises:
            DataError: When the column is missing, or a cell is neither.
        """
        self.require(column, "correct predictors=[…] or outcomes=[…]")
        faults = FaultLog(str(self.path))
        values = []
        for line, row in zip(self.lines, self.rows, strict=True):
            faults.row()
            values.append(_number(row[column], line, column, faults))
        if faults.faults:
            raise faults.error()
        return tuple(values)

    def require(self, column: str, mend: str) -> None:
        """Check that there is a column of this name.

        Raises:
            DataError: When there is none.
        """
        if column not in self.columns:
            raise DataError(
                f"{self.path}: has no column {column!r}{did_you_mean(column, self.columns)}; {mend}"
            )


def read_session_table(
    path: Path, *, delimiter: str | None = None, sheet: str | None = None
) -> SessionTable:
    """Return a CSV or Excel table.

    Raises:
        DataError: When the file cannot be read, or rows do not fit its header.
    """
    if path.suffix.lower() not in _TABLES:
        raise DataError(f"{path}: is no table; give a .csv or .xlsx file")
    faults = FaultLog(str(path))
    table = read_sheet(path, faults, delimiter=delimiter, sheet=sheet)
    rows = list(table.rows)
    if faults.faults:
        raise faults.error()
    if not rows:
        raise DataError(f"{path}: holds no rows below its header")
    return SessionTable(
        path=table.path,
        columns=table.columns,
        lines=tuple(line for line, _ in rows),
        rows=tuple(row for _, row in rows),
    )


def _number(cell: str, line: int, column: str, faults: FaultLog) -> float:
    text = cell.strip()
    if text.lower() in MISSING:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if math.isinf(value):
        reason = f"is no number (a text of {len(text)} characters)"
        faults.reject(
            line, column, reason, "write a number with a decimal point, or leave it empty"
        )
        return math.nan
    return value
