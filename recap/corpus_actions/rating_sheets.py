"""Filled sheets of ratings, read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recap.analysis.ratings import Rating
from recap.data.faults import FaultLog
from recap.data.readers.columns import require_column
from recap.data.readers.sheets import read_sheet
from recap.data.safe_cells import bare_cell
from recap.errors import DataError, quote_id


@dataclass(frozen=True, kw_only=True)
class FilledSheets:
    """The ratings of one or more sheets."""

    ratings: tuple[Rating, ...]
    empty: int
    """Cells that were left empty."""


def read_ratings(paths: Sequence[Path], *, criteria: Sequence[str], points: int) -> FilledSheets:
    """Return what raters filled in.

    A sheet has the columns ``id`` and the criteria; who rated stands in a column ``rater``, else in
    the file's name (``ratings_ann.csv``).

    Raises:
        DataError: When a sheet cannot be read, listing every faulty row, or nothing was rated.
    """
    found: list[Rating] = []
    empty = 0
    faulty: list[str] = []
    seen: set[tuple[str, str]] = set()
    for path in paths:
        faults = FaultLog(str(path))
        table = read_sheet(path, faults)
        for column in ("id", *criteria):
            mend = "name what was rated with ratings.criteria=[...]"
            require_column(table.path, table.columns, column, mend)
        for line, row in table.rows:
            rater = row.get("rater", "").strip() or path.stem.removeprefix("ratings_")
            identifier = bare_cell(row["id"].strip())
            if not identifier:
                faults.reject(line, "id", "is empty", "keep the ids of the blank sheet")
            elif (identifier, rater) in seen:
                reason = f"rater {quote_id(rater)} has rated id {quote_id(identifier)} before"
                faults.reject(line, "id", reason, "keep one row")
            else:
                seen.add((identifier, rater))
                given = _points(row, line, faults, criteria, points)
                empty += len(criteria) - len(given)
                found += [
                    Rating(id=identifier, rater=rater, criterion=name, points=value)
                    for name, value in given.items()
                ]
        if faults.faults:
            faulty.append(str(faults.error()))
    if faulty:
        raise DataError("\n".join(faulty))
    if not found:
        raise DataError(
            f"{', '.join(map(str, paths))}: nothing was rated; write 1 to {points} in the columns "
            f"{', '.join(criteria)}"
        )
    return FilledSheets(ratings=tuple(found), empty=empty)


def _points(
    row: Mapping[str, str], line: int, faults: FaultLog, criteria: Sequence[str], points: int
) -> dict[str, int]:
    given = {}
    for name in criteria:
        text = row[name].strip()
        if text.isdecimal() and 1 <= int(text) <= points:
            given[name] = int(text)
        elif text:
            reason = f"is no whole number from 1 to {points}"
            faults.reject(line, name, reason, "correct it, or leave it empty")
    return given
