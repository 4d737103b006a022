"""Anybody's predictions: a file with ids and labels, joined with the labelled data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recap.data.answer_cells import bare_row, finite_number, mapping_of, whole_number
from recap.data.faults import FaultLog
from recap.data.readers.fields import Fields
from recap.data.readers.files import json_rows
from recap.data.readers.sheets import read_sheet
from recap.errors import DataError, did_you_mean, quote_id
from recap.tasks.mentions import LabelReader
from recap.tasks.task import Task

TABLES = (".csv", ".tsv", ".xlsx", ".xlsm")
"""Endings of files that are read as tables; others hold JSON."""

_NO_LABEL = ("", "null", "none", "nan", "n/a")
_KNOWN = ("id", "label", "fold", "probabilities", "rationale", "text", "gold", "task")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportedRow:
    """One row of a predictions file; ``label`` is a label of the task, or ``None``."""

    id: str
    label: str | None
    fold: int | None
    probabilities: Mapping[str, float] | None
    rationale: str | None
    text: str
    gold: str | None
    task: str | None


@dataclass(frozen=True, kw_only=True)
class ImportedFile:
    """The rows that could be used, by id, and an account of all.

    ``counts``: ``read``, ``accepted``, ``rejected`` rows; of the accepted ones ``without_label``,
    ``unreadable`` (no spelling of the taxonomy) and ``other_labels`` (of the taxonomy, but not
    among the task's), all three of which count as wrong.
    """

    rows: Mapping[str, ImportedRow]
    counts: Mapping[str, int]
    faults: FaultLog


def read_predictions(path: Path, task: Task, known_ids: frozenset[str]) -> ImportedFile:
    """Return the predictions of a JSONL, JSON, CSV or Excel file.

    A row needs ``id`` and ``label``; ``fold``, ``probabilities``, ``rationale``, ``text``, ``gold``
    and ``task`` are used where they are there. A label may be written in any spelling of the
    taxonomy, and may lie below one of the task's.

    Args:
        path: The file.
        task: Its labels are looked for.
        known_ids: Ids of the data set: of all examples, also those that the task does not select,
            and of client turns that make none.

    Raises:
        DataError: When the file cannot be read, or lacks the columns.
    """
    faults = FaultLog(str(path))
    reader = _Reader(task, known_ids, faults)
    rows = _table_rows(path, faults) if path.suffix.lower() in TABLES else json_rows(path, faults)
    for line, row in rows:
        reader.read(line, row)
    if faults.rows_read == 0:
        raise DataError(f"{path}: holds no rows; write one prediction a row, with id and label")
    rejected = faults.rows_rejected
    counts = {
        **reader.counts,
        "read": faults.rows_read,
        "accepted": faults.rows_read - rejected,
        "rejected": rejected,
    }
    return ImportedFile(rows=reader.rows, counts=counts, faults=faults)


def _table_rows(path: Path, faults: FaultLog) -> Iterator[tuple[int, dict[str, Any]]]:
    sheet = read_sheet(path, faults)
    for name in ("id", "label"):
        if name not in sheet.columns:
            raise DataError(
                f"{path}: has no column {name!r}{did_you_mean(name, sheet.columns)}; "
                f"name its columns id and label, and if need be {', '.join(_KNOWN[2:])}"
            )
    for line, cells in sheet.rows:
        # An empty cell is no value: of a label that means none, of the rest that there is none.
        bare = bare_row(cells)
        yield line, {name: cell for name, cell in bare.items() if cell != "" or name == "label"}


class _Reader:
    """Reads rows one by one; what is wrong with one is noted, and it is left out."""

    def __init__(self, task: Task, known_ids: frozenset[str], faults: FaultLog) -> None:
        self._task = task
        self._labels = LabelReader(task.taxonomy, task.labels)
        self._known_ids = known_ids
        self._faults = faults
        self._line_of_id: dict[str, int] = {}
        self.rows: dict[str, ImportedRow] = {}
        self.counts = Counter(without_label=0, unreadable=0, other_labels=0)

    def read(self, line: int, row: Mapping[str, Any]) -> None:
        fields = Fields(row, line=line, faults=self._faults)
        identifier = self._identifier(fields)
        if "label" not in row:
            fields.reject("label", "is missing", "write null where there is none")
        label = fields.optional_text("label")
        fold = self._fold(fields)
        probabilities = self._probabilities(fields)
        texts = {name: fields.optional_text(name) for name in ("rationale", "text", "gold", "task")}
        if not fields.sound or identifier is None:
            return
        self.rows[identifier] = ImportedRow(
            id=identifier,
            label=self._label(label),
            fold=fold,
            probabilities=probabilities,
            rationale=texts["rationale"],
            text=label or "" if texts["text"] is None else texts["text"],
            gold=texts["gold"],
            task=texts["task"],
        )

    def _identifier(self, fields: Fields) -> str | None:
        identifier = fields.identifier("id")
        if identifier is None:
            if fields.sound:
                fields.reject("id", "is missing", "write the example's id as the data have it")
            return None
        if identifier in self._line_of_id:
            first = self._line_of_id[identifier]
            reason = f"id {quote_id(identifier)} is at line {first} already"
            fields.reject("id", reason, "keep one prediction an example")
            return identifier
        self._line_of_id[identifier] = fields.line
        if identifier not in self._known_ids:
            reason = f"id {quote_id(identifier)} is not in the labelled data"
            fields.reject("id", reason, "give the data that was predicted, or remove the row")
        return identifier

    def _label(self, text: str | None) -> str | None:
        if text is None or text.casefold() in _NO_LABEL:
            self.counts["without_label"] += 1
            return None
        found = self._task.taxonomy.find(text)
        if found is None:
            self.counts["unreadable"] += 1
            return None
        label = self._labels.label_at_or_above(found)
        self.counts["other_labels"] += label is None
        return label

    def _fold(self, fields: Fields) -> int | None:
        value = fields.row.get("fold")
        if isinstance(value, str):
            found = whole_number(value.strip())
            value = value if found is None else found
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
            return value
        fields.reject("fold", "is no fold's index", "write 0, 1, …, or leave it out")
        return None

    def _probabilities(self, fields: Fields) -> Mapping[str, float] | None:
        """Return the probabilities of the task's labels, ``None`` where some cannot be read."""
        value = fields.row.get("probabilities")
        given = mapping_of(value) if isinstance(value, str) else fields.mapping("probabilities")
        if value is None or given is None:
            return None
        found: dict[str, float] = {}
        for name, p in given.items():
            label = self._labels.whole(str(name))
            number = finite_number(p)
            if number is None:
                fields.reject("probabilities", "holds no finite number", "write numbers, or null")
                return None
            if label is None:
                return None
            found[label] = found.get(label, 0.0) + number
        return found or None
