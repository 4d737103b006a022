"""Sheets on which rationales are rated: blank ones made, filled ones read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydantic.dataclasses
from pydantic import ConfigDict, Field

from recap.data.issues import IssueLog
from recap.data.names import identity, is_missing, whole_number
from recap.data.readers.doccano import document_text
from recap.data.sheets import filled_rows, raise_issues
from recap.errors import DataError, quote_id
from recap.records import Example

_COLUMNS = ("id", "session", "dialogue", "label", "rationale")
_WORDS = ("dialogue", "rationale")


@dataclass(frozen=True, kw_only=True)
class BlankSheet:
    """A sheet to be filled in: cells for points and a comment are empty."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def blank_sheet(
    examples: Sequence[Example],
    *,
    criteria: Sequence[str],
    language: str | None = "en",
    texts: bool = True,
) -> BlankSheet:
    """Return a sheet with a row an example, as :func:`read_ratings` reads it once it is filled.

    Args:
        examples: With the labels and rationales that are to be rated.
        criteria: What is rated, a column each.
        language: Of the dialogues.
        texts: Whether dialogue and rationale stand on it; without them it says which to look up.
    """
    kept = [name for name in _COLUMNS if texts or name not in _WORDS]
    rows = []
    for example in examples:
        cells = {
            "id": example.id,
            "session": example.session or "",
            "dialogue": document_text(example, language=language) if texts else "",
            "label": example.label or "",
            "rationale": example.rationale or "",
        }
        rows.append((*(cells[name] for name in kept), *[""] * (len(criteria) + 1)))
    return BlankSheet(header=(*kept, *criteria, "comment"), rows=tuple(rows))


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
    return FilledSheets(ratings=tuple(found), empty=empty)


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Rating:
    """The points that one rater gave one example on one criterion."""

    id: str
    rater: str
    criterion: str
    points: int


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class RatingsOptions:
    """How rationales are rated."""

    path: str | list[str] | None = None
    """Sheets that raters filled; ``None``: blank sheets are written."""
    raters: list[str] = Field(default_factory=lambda: ["rater1", "rater2"])
    """Who gets a blank sheet."""
    size: int = Field(default=200, ge=1)
    """Examples on a sheet (200 in Section 4.2)."""
    criteria: list[str] = Field(
        default_factory=lambda: [
            "label_alignment",
            "context_relevance",
            "rationality",
            "clarity",
        ]
    )
    """What is rated, a column each."""
    points: int = Field(default=5, ge=2)
    """The scale goes from 1 to this."""
    predictions: str | None = None
    """A predictions.jsonl whose labels and rationales are rated instead of the data's."""
    seed: int = 0
    """Seed of the draw."""
