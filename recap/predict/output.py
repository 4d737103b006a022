"""What annotation reads and writes: a first pass over the input, rows, and the file of rows.

The file is appended to in windows of a fixed number of rows. A process that goes on drops what
follows the last whole window and computes from there, so that windows are always computed together,
and the file ends the same whether it was interrupted or not.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from recap.config import DataConfig
from recap.data.issues import LISTED_FAULTS, IssueLog, RowIssue, rows_error, turn_notes
from recap.data.utterances import COUNSELOR_TURN, is_probability_column, read_utterances
from recap.errors import ConfigError, DataError, quote_id
from recap.output.excel import CellValue, is_too_long, workbook_bytes
from recap.records import Annotation, Example
from recap.system.files import (
    BYTE_ORDER_MARK,
    bare_cell,
    csv_record,
    lock,
    narrow,
    open_private,
    protect_cell,
    write_atomic,
    writing,
)
from recap.tasks.task import Task

OWN_COLUMNS = (*(field.name for field in fields(Annotation)), "response")
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
    row: dict[str, Any] = {**asdict(annotation), "response": example.response}
    for label, p in (annotation.probabilities or {}).items():
        row["probabilities"][label] = float(f"{p:.{SIGNIFICANT_DIGITS}g}")
    if example.label is not None:
        row["gold"] = example.label
    if example.rationale is not None:
        row["gold_rationale"] = example.rationale
    for key, value in came_in(example).items():
        row[input_column(key)] = value
    return row


def table_row(
    row: Mapping[str, Any], example: Example, probabilities: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Return a row with what a reader of a spreadsheet looks for in columns of its own.

    The ``probabilities`` are those of :func:`label_columns`.
    """
    said = (turn.text for turn in reversed(example.history) if turn.speaker == "counselor")
    found = row["probabilities"] or {}
    by_label = {}
    for label, below in probabilities.items():
        p = found.get(label)
        if p is None and found.keys() >= {*below} != set():
            p = float(f"{math.fsum(found[name] for name in below):.{SIGNIFICANT_DIGITS}g}")
        by_label[f"P({label})"] = p
    return {**row, COUNSELOR_TURN: next(said, ""), **by_label}


def label_columns(tasks: Sequence[Task]) -> dict[str, tuple[str, ...]]:
    """Return the labels of all stages in the taxonomy's order, each with those below it."""
    order = dict.fromkeys(c.name for task in tasks for c in task.taxonomy.categories)
    labels = [name for name in order if any(name in task.labels for task in tasks)]
    above = {name: set(task.taxonomy.lineage(name)[1:]) for task in tasks for name in task.labels}
    return {label: tuple(name for name in labels if label in above[name]) for label in labels}


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
    return tuple(n for n in columns if _is_own(n) and n != COUNSELOR_TURN)


def came_in(example: Example) -> Mapping[str, Any]:
    """Return what else the input's row held; of a reader that does not say, what it put in meta."""
    if example.extra or not example.meta:
        return example.extra
    return {"meta": dict(example.meta)}


def input_column(key: str) -> str:
    """Return the name under which a key of the input comes back."""
    return f"input_{key}" if _is_own(key) else key


def _is_own(name: str) -> bool:
    own = name in OWN_COLUMNS or name in GOLD_COLUMNS or name == COUNSELOR_TURN
    return own or is_probability_column(name)


def table_columns(checked: Checked, labels: Iterable[str]) -> tuple[str, ...]:
    """Return the columns of a table as one reads them: who, what was said, how it was judged."""
    first = ("id", "session", "turn", COUNSELOR_TURN, checked.said, "label", "pattern")
    judged = (*(f"P({label})" for label in labels), "rationale", "skipped", "parsed")
    last = ("response", "text", "probabilities")
    middle = (name for name in checked.columns if name not in last)
    return tuple(dict.fromkeys((*first, *judged, *middle, *last)))


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
    return BYTE_ORDER_MARK.encode() + _record([protect_cell(column) for column in columns])


def _record(cells: Sequence[str]) -> bytes:
    return csv_record(cells).encode("utf-8", "backslashreplace")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return protect_cell(value)
    return json.dumps(value, ensure_ascii=False)


_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What of a file is kept: whole windows; ``last_start`` is where their last row begins."""

    rows: int
    end: int
    last_start: int


def whole_windows(path: Path, *, window: int, header: bool) -> Kept:
    """Return how many rows stand in whole windows at the beginning of a file, in bytes too.

    A file with a ``header`` is CSV: a first line with names, and line ends inside quotes.
    """
    head = int(header)
    lines, at, end_before, inside = 0, 0, 0, 0
    kept = Kept(rows=0, end=0, last_start=0)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            characters = np.frombuffer(chunk, dtype=np.uint8)
            ends = characters == ord("\n")
            if header:
                inner = (np.cumsum(characters == ord('"')) + inside) % 2
                inside = int(inner[-1])
                ends &= inner == 0
            places = at + np.flatnonzero(ends) + 1
            total = lines + len(places)
            wanted = head + (total - head) // window * window
            if total >= head and wanted > lines:
                index = wanted - lines - 1
                start = int(places[index - 1]) if index else end_before
                kept = Kept(rows=wanted - head, end=int(places[index]), last_start=start)
            if len(places):
                end_before = int(places[-1])
            lines, at = total, at + len(chunk)
    return kept


class AnnotationFile:
    """An output that is locked while it is written, and cut to whole windows when it is opened.

    A ``ConfigError`` where another process is writing it, or it cannot be written.
    """

    def __init__(self, path: Path, *, columns: tuple[str, ...], window: int) -> None:
        self.path = path
        self._columns = columns if is_csv(path) else None
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open_private(path, "ab")
        try:
            lock(self._file)
        except BlockingIOError as error:
            self._file.close()
            raise ConfigError(
                f"{path}: another process is writing it; wait for it, or name another output"
            ) from error
        self._window = window
        self.kept = Kept(rows=0, end=0, last_start=0)

    def __enter__(self) -> AnnotationFile:
        """Return this."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file, which gives it free."""
        self._file.close()

    def find_kept(self) -> Kept:
        """Return the whole windows that are there; nothing is changed."""
        self.kept = whole_windows(self.path, window=self._window, header=self._columns is not None)
        return self.kept

    def check_last(self, identifier: str) -> None:
        """Check that the last row kept is about the utterance of this id."""
        expected = identifier if self._columns is None else protect_cell(identifier)
        # CSV writes what UTF-8 cannot hold in another way; ids with it are not compared.
        if not expected.isprintable():
            return
        with self.path.open("rb") as file:
            file.seek(self.kept.last_start)
            text = file.read(self.kept.end - self.kept.last_start).decode("utf-8", "replace")
        try:
            if self._columns is None:
                last = str(json.loads(text)["id"])
            else:
                last = next(csv.reader(io.StringIO(text)))[self._columns.index("id")]
        except (ValueError, LookupError, TypeError, StopIteration, csv.Error):
            raise DataError(
                f"{self.path}: was changed since it was written; remove it, or name another output"
            ) from None
        if last != expected:
            raise DataError(
                f"{self.path}: its row {self.kept.rows} is not about id {quote_id(identifier)}, "
                "as the input has it there; remove it, or name another output"
            )

    def clear(self) -> None:
        """Drop all that is there, and its mode; when this returns, it is gone from the disk."""
        self._file.truncate(0)
        narrow(self._file.fileno())
        self._to_disk()

    def cut(self) -> None:
        """Drop what follows the whole windows, and write a CSV header where it is missing."""
        with writing(self.path):
            self._file.truncate(self.kept.end)
            if self._columns is not None and self.kept.end == 0:
                self._file.write(csv_header(self._columns))
            self._to_disk()

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write one window; when this returns, it is on the disk."""
        columns = self._columns
        lines = [json_line(row) if columns is None else csv_line(row, columns) for row in rows]
        with writing(self.path):
            self._file.write(b"".join(lines))
            self._to_disk()

    def join(self, parts: Iterable[Path]) -> None:
        """Write the rows of other outputs in place of what is there."""
        self.kept = Kept(rows=0, end=0, last_start=0)
        self.cut()
        head = len(csv_header(self._columns)) if self._columns is not None else 0
        with writing(self.path):
            for part in parts:
                with part.open("rb") as file:
                    file.seek(head)
                    shutil.copyfileobj(file, self._file)
            self._to_disk()

    def _to_disk(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())


def is_csv(path: Path) -> bool:
    """Return whether the rows of an output are CSV, as an Excel file's are until all are there."""
    ending = path.suffix.lower()
    if ending not in (".jsonl", ".csv", ".xlsx"):
        raise ConfigError(f"output={path}: has to end with .jsonl, .csv or .xlsx")
    if ending == ".xlsx" and find_spec("openpyxl") is None:
        raise ConfigError(
            f"output={path}: Excel files need openpyxl: pip install 'recap-counseling[excel]'; or "
            "name an output that ends with .csv"
        )
    return ending != ".jsonl"


_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,14}")


def write_workbook(path: Path, rows: Path, *, texts: Collection[str]) -> list[str]:
    """Write an Excel file, whole, of rows that stand in a CSV file; return what it has no room for.

    The cells of the columns ``texts`` are texts, also where they look like numbers.
    """
    limit = csv.field_size_limit(1 << 30)
    try:
        with rows.open(encoding="utf-8-sig", newline="") as file:
            header, *records = ([bare_cell(cell) for cell in row] for row in csv.reader(file))
    finally:
        csv.field_size_limit(limit)
    cells = [
        [cell if name in texts else _number(cell) for name, cell in zip(header, row, strict=True)]
        for row in records
    ]
    cut = sum(isinstance(c, str) and is_too_long(c) for row in cells for c in row)
    write_atomic(path, workbook_bytes({"predictions": (header, cells)}), private=True)
    said = (
        f"{cut} cells of {path} are cut at 32,767 characters, the most that Excel holds, and say "
        "so at their end; an output that ends with .csv or .jsonl has them whole"
    )
    return [said] if cut else []


def _number(cell: str) -> CellValue:
    """Return a cell as a number where it is read back as it was written."""
    if _WHOLE.fullmatch(cell):
        return int(cell)
    try:
        number = float(cell)
    except ValueError:
        return cell
    return number if math.isfinite(number) and str(number) == cell and "." in cell else cell


MOST_COLUMNS = 1000
"""Columns of a CSV output; keys that are all different belong into ``meta``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """What an input holds.

    ``columns`` are those of a CSV output; ``counts`` say what became of the turns, as
    :func:`recap.data.examples.examples_of` has it.
    """

    utterances: int
    rows_read: int
    rows_rejected: int
    counts: Mapping[str, int]
    columns: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """Who speaks in the files."""
    said: str = "response"
    """The column of a table for what was said: that of the input, if it is a table too."""

    @property
    def texts(self) -> frozenset[str]:
        """Columns whose cells are texts and names, also where they look like numbers."""
        return frozenset((*OWN_COLUMNS, *GOLD_COLUMNS, self.said, COUNSELOR_TURN)) - {"turn"}


def check_input(data: DataConfig, *, rejects: Path | None = None) -> Checked:
    """Read an input once, in constant memory.

    The faults of rows that are left out go to ``rejects``, one a line, if there are any. A
    ``DataError`` for rows at fault under ``on_error=fail``, after all of them were met, or where
    nothing is left to annotate.
    """
    file = str(data.path)
    issues = IssueLog(file)
    listed: list[RowIssue] = []
    columns: dict[str, None] = dict.fromkeys(OWN_COLUMNS)
    utterances, n_faults = 0, 0
    skipping = data.on_error == "skip"
    if rejects is not None and skipping:
        rejects.unlink(missing_ok=True)

    def note_faults() -> int:
        taken = issues.take()
        listed.extend(taken[: LISTED_FAULTS - len(listed)])
        if rejects is not None and skipping and taken:
            with open_private(rejects, "a") as written:
                written.writelines(f"{fault}\n" for fault in taken)
        return len(taken)

    for example in read_utterances(data, issues):
        utterances += 1
        _note_columns(columns, example)
        n_faults += note_faults()
    n_faults += note_faults()
    rejected, read = issues.rows_rejected, issues.rows_read
    if n_faults and not skipping:
        raise rows_error(file, listed, n_faults=n_faults, rows_rejected=rejected, rows_read=read)
    if not utterances:
        first = f"; the first fault: {listed[0]}" if listed else ""
        raise DataError(
            f"{file}: leaves no client turn to annotate ({read} rows, {rejected} "
            f"rejected{first}); check who speaks, and that data=… names the right reader"
        )
    return Checked(
        utterances=utterances,
        rows_read=read,
        rows_rejected=rejected,
        counts=dict(issues.counts),
        columns=tuple(columns),
        notes=tuple(turn_notes(issues.turns)),
        said=_column_of_texts(issues.text_column, columns),
    )


def _column_of_texts(name: str | None, columns: Collection[str]) -> str:
    """Return the column for the texts that came under a name, where ``text`` is the answer's."""
    if name is None or name == "response":
        return "response"
    name = input_column(name)
    return _column_of_texts(f"input_{name}", columns) if name in columns else name


def _note_columns(columns: dict[str, None], example: Example) -> None:
    if example.label is not None:
        columns.setdefault(GOLD_COLUMNS[0])
    if example.rationale is not None:
        columns.setdefault(GOLD_COLUMNS[1])
    for key in came_in(example):
        columns.setdefault(input_column(key))
    if len(columns) > MOST_COLUMNS:
        raise DataError(
            f"the rows have more than {MOST_COLUMNS} different keys; put what differs from row to "
            "row into 'meta'"
        )
