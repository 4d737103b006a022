"""One annotated client turn as a row of JSON lines or CSV."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from recap.data.safe_cells import csv_record, protect_cell
from recap.records import Annotation, Example

OWN_COLUMNS = (
    *("id", "session", "turn", "label", "pattern", "probabilities", "rationale", "text"),
    *("parsed", "skipped", "response"),
)
"""What every row has, in this order; ``response`` is what the client said."""

GOLD_COLUMNS = ("gold", "gold_rationale")
"""What a row has whose utterance came with a label or a reason."""

TEXT_COLUMNS = ("rationale", "text", "response", "gold_rationale")
"""Columns of texts, which hold the row's id where texts are replaced."""

SIGNIFICANT_DIGITS = 6
"""Of a probability; beyond these, the order of sums on different machines shows."""


def row_of(example: Example, annotation: Annotation) -> dict[str, Any]:
    """Return a row: the annotation, the response, and all else that the input's row held.

    A key of the input that a row has itself comes back as ``input_<key>``.
    """
    row: dict[str, Any] = {
        "id": annotation.id,
        "session": annotation.session,
        "turn": annotation.turn,
        "label": annotation.label,
        "pattern": annotation.pattern,
        "probabilities": _rounded(annotation.probabilities),
        "rationale": annotation.rationale,
        "text": annotation.text,
        "parsed": annotation.parsed,
        "skipped": annotation.skipped,
        "response": example.response,
    }
    if example.label is not None:
        row["gold"] = example.label
    if example.rationale is not None:
        row["gold_rationale"] = example.rationale
    for key, value in came_in(example).items():
        row[input_column(key)] = value
    return row


def without_text(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its id in the place of every text, and nothing else that came in.

    Nobody can tell which of the input's other keys hold words of clients.
    """
    return {
        name: row["id"] if name in TEXT_COLUMNS and value else value
        for name, value in row.items()
        if name in columns_without_text(tuple(row))
    }


def columns_without_text(columns: Sequence[str]) -> tuple[str, ...]:
    """Return those of a row's columns that are there when texts are replaced."""
    return tuple(name for name in columns if name in OWN_COLUMNS or name in GOLD_COLUMNS)


def came_in(example: Example) -> Mapping[str, Any]:
    """Return what else the input's row held; of a reader that does not say, what it put in meta."""
    if example.extra or not example.meta:
        return example.extra
    return {"meta": dict(example.meta)}


def input_column(key: str) -> str:
    """Return the name under which a key of the input comes back."""
    return f"input_{key}" if key in OWN_COLUMNS or key in GOLD_COLUMNS else key


def json_line(row: Mapping[str, Any]) -> bytes:
    """Return a row as one line of JSON."""
    try:
        return (json.dumps(row, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:
        # Half of a character in a key that is only passed through.
        return (json.dumps(row) + "\n").encode()


def csv_line(row: Mapping[str, Any], columns: Sequence[str]) -> bytes:
    """Return a row as one record of CSV, with nothing in it that a spreadsheet would execute."""
    return _record([_cell(row.get(column)) for column in columns])


def csv_header(columns: Sequence[str]) -> bytes:
    """Return the first line of a CSV file."""
    return _record([protect_cell(column) for column in columns])


def _record(cells: Sequence[str]) -> bytes:
    return csv_record(cells).encode("utf-8", "backslashreplace")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return protect_cell(value)
    return json.dumps(value, ensure_ascii=False)


def _rounded(probabilities: Mapping[str, float] | None) -> dict[str, float] | None:
    if probabilities is None:
        return None
    return {label: float(f"{p:.{SIGNIFICANT_DIGITS}g}") for label, p in probabilities.items()}
