"""Scores of a study from a long table: a row a participant and phase, or a row a scenario."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path

from recap.analysis.study_table import ScoreRow
from recap.data.faults import FaultLog
from recap.data.readers.columns import require_column
from recap.data.readers.sheets import read_sheet


@dataclass(frozen=True, kw_only=True)
class ScoreColumns:
    """The names of a long table's columns."""

    participant: str = "participant"
    group: str = "group"
    phase: str = "phase"
    score: str = "score"


def read_scores(
    path: Path, columns: ScoreColumns, *, faults: FaultLog, sheet: str | None = None
) -> tuple[ScoreRow, ...]:
    """Return the sound rows of a CSV or Excel file.

    Args:
        path: The file.
        columns: Which of its columns hold what; others are not looked at.
        faults: Where bad rows are noted.
        sheet: Name of the Excel sheet, where it is not the first.

    Raises:
        DataError: When the file cannot be read or lacks a column.
    """
    table = read_sheet(path, faults, sheet=sheet)
    names = {field.name: getattr(columns, field.name) for field in fields(columns)}
    for role, column in names.items():
        require_column(path, table.columns, column, f"name it with study.{role}=COLUMN")
    rows = []
    for line, cells in table.rows:
        values = {role: cells[column].strip() for role, column in names.items()}
        missing = [role for role in names if not values[role]]
        for role in missing:
            faults.reject(line, names[role], "is empty", "complete the row, or remove it")
        score = _number(values["score"])
        if score is None and "score" not in missing:
            reason = f"is no number but a text of {len(values['score'])} characters"
            faults.reject(line, names["score"], reason, "write a number with a decimal point")
        elif score is not None and not missing:
            rows.append(ScoreRow(line=line, **{**values, "score": score}))  # type: ignore[arg-type]
    return tuple(rows)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
