"""Sheets that people fill in: those on which rationales are rated, and how any is read back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydantic.dataclasses
from pydantic import ConfigDict, Field

from recap.data.issues import IssueLog, name_damage
from recap.data.names import identity, is_missing, whole_number
from recap.data.readers.doccano import document_text
from recap.data.readers.registry import CanonicalLabels, require_column
from recap.data.readers.tables import read_sheet
from recap.errors import DataError, quote_id
from recap.records import Example
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

    Names and ids (:data:`NAMES`) come in the form in which they are compared. Columns that are
    ``optional`` are empty where the file lacks them. Among ``numbers``, a spreadsheet may show a
    percentage. ``hint`` says what to do where a column is missing.
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
    """Raise a ``DataError`` that lists the faulty rows of every file, where there are any."""
    faulty = [str(log.error()) for log in logs if log.issues]
    if faulty:
        raise DataError("\n".join(faulty))


def known_label(
    label: str, taxonomy: Taxonomy | None, line: int, column: str, issues: IssueLog
) -> str | None:
    """Return a label's canonical name, itself without a taxonomy; ``None`` and a note for none."""
    return CanonicalLabels(taxonomy).find(issues, line, column, label)


def number_in(cell: str) -> float | None:
    """Return the finite number that a cell holds, ``None`` where it holds anything else.

    >>> number_in("0.5"), number_in("1e999"), number_in("nan"), number_in("many")
    (0.5, None, None, None)
    """
    try:
        value = float(cell)
    except ValueError:
        return None
    # Python groups digits by underscores.
    return value if math.isfinite(value) and "_" not in cell else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Rating:
    """The points that one rater gave one example on one criterion."""

    id: str
    rater: str
    criterion: str
    points: int


_CRITERIA = ("label_alignment", "context_relevance", "rationality", "clarity")


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class RatingsOptions:
    """How rationales are rated."""

    path: str | list[str] | None = None
    """Sheets that raters filled; ``None``: blank sheets are written."""
    raters: list[str] = Field(default_factory=lambda: ["rater1", "rater2"])
    """Who gets a blank sheet."""
    size: int = Field(default=200, ge=1)
    """Examples on a sheet (200 in Section 4.2)."""
    criteria: list[str] = Field(default_factory=lambda: [*_CRITERIA])
    """What is rated, a column each."""
    points: int = Field(default=5, ge=2)
    """The scale goes from 1 to this."""
    predictions: str | None = None
    """A predictions.jsonl whose labels and rationales are rated instead of the data's."""
    seed: int = 0
    """Seed of the draw."""


_COLUMNS = ("id", "session", "dialogue", "label", "rationale")
_WORDS = ("dialogue", "rationale")


def blank_sheet(
    examples: Sequence[Example],
    *,
    criteria: Sequence[str],
    language: str | None = "en",
    texts: bool = True,
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return header and rows of a sheet, as :func:`read_ratings` reads it once it is filled.

    Rows are the examples; cells for the ``criteria`` and a comment are empty. Without ``texts``,
    which holds dialogue and rationale, it says what to look up.
    """
    kept = [name for name in _COLUMNS if texts or name not in _WORDS]
    rows: list[tuple[str, ...]] = []
    for example in examples:
        cells = {
            "id": example.id,
            "session": example.session or "",
            "dialogue": document_text(example, language=language) if texts else "",
            "label": example.label or "",
            "rationale": example.rationale or "",
        }
        rows.append((*(cells[name] for name in kept), *[""] * (len(criteria) + 1)))
    return (*kept, *criteria, "comment"), rows


def read_ratings(
    paths: Sequence[Path], *, criteria: Sequence[str], points: int
) -> tuple[list[Rating], int]:
    """Return what raters filled in, and how many cells they left empty.

    A sheet has the columns ``id`` and the criteria; who rated stands in a column ``rater``, else in
    the file's name (``ratings_ann.csv``).

    Raises:
        DataError: When a sheet cannot be read, listing every faulty row, or nothing was rated.
    """
    found: list[Rating] = []
    empty = 0
    seen: set[tuple[str, str]] = set()
    logs = []
    for path in paths:
        issues = IssueLog(str(path))
        logs.append(issues)
        hint = "name what was rated with ratings.criteria=[...]"
        for line, row in filled_rows(
            path, ("id", *criteria), issues, hint=hint, optional=("rater",)
        ):
            identifier = row["id"]
            rater = row["rater"] or identity(path.stem.removeprefix("ratings_"))
            if not identifier:
                issues.reject(line, "id", "is empty", "keep the ids of the blank sheet")
            elif (identifier, rater) in seen:
                reason = f"rater {quote_id(rater)} has rated id {quote_id(identifier)} before"
                issues.reject(line, "id", reason, "keep one row")
            else:
                seen.add((identifier, rater))
                given = _points(row, line, issues, criteria, points)
                empty += len(criteria) - len(given)
                found += [
                    Rating(id=identifier, rater=rater, criterion=name, points=value)
                    for name, value in given.items()
                ]
    raise_issues(*logs)
    if not found:
        raise DataError(
            f"{', '.join(map(str, paths))}: nothing was rated; write 1 to {points} in the columns "
            f"{', '.join(criteria)}"
        )
    return found, empty


def _points(
    row: Mapping[str, str], line: int, issues: IssueLog, criteria: Sequence[str], points: int
) -> dict[str, int]:
    given = {}
    for name in criteria:
        text = row[name]
        value = whole_number(text)
        if value is not None and 1 <= value <= points:
            given[name] = value
        elif not is_missing(text):
            reason = f"is no whole number from 1 to {points}"
            issues.reject(line, name, reason, "correct it, or leave it empty")
    return given
