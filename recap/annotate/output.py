"""The file that annotation appends to: whole windows, one after the other, whatever ends it.

A window is a fixed number of rows. A process that goes on drops what follows the last whole window
and computes from there, so that windows are always computed together, and the file ends the same
whether it was interrupted or not.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from recap.annotate.rows import csv_header, csv_line, json_line
from recap.data.safe_cells import protect_cell
from recap.disks import writing
from recap.errors import ConfigError, DataError, quote_id
from recap.private_files import narrow, open_private

_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What of a file is kept: whole windows; ``last_start`` is where their last row begins."""

    rows: int
    end: int
    last_start: int


def whole_windows(path: Path, *, window: int, header: bool) -> Kept:
    """Return how many rows stand in whole windows at the beginning of a file, in bytes too.

    Args:
        path: Is read a piece at a time.
        window: Rows that are written together.
        header: Whether the file is CSV: a first line with names, and line ends inside quotes.
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

    Args:
        path: Ends with ``.jsonl`` or ``.csv``.
        columns: Of the CSV file.
        window: Rows that are written together.

    Raises:
        ConfigError: When another process is writing it, or it cannot be written.
    """

    def __init__(self, path: Path, *, columns: tuple[str, ...], window: int) -> None:
        self.path = path
        self._columns = columns if is_csv(path) else None
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open_private(path, "ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file, which gives it free."""
        self._file.close()

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return os.fstat(self._file.fileno()).st_size

    def find_kept(self) -> Kept:
        """Return the whole windows that are there; nothing is changed."""
        self.kept = whole_windows(self.path, window=self._window, header=self._columns is not None)
        return self.kept

    def last_id(self) -> str:
        """Return the id of the last row that is kept, as it stands there.

        Raises:
            DataError: When that row is none of this command's.
        """
        with self.path.open("rb") as file:
            file.seek(self.kept.last_start)
            text = file.read(self.kept.end - self.kept.last_start).decode("utf-8", "replace")
        try:
            if self._columns is None:
                return str(json.loads(text)["id"])
            return next(csv.reader(io.StringIO(text)))[self._columns.index("id")]
        except (ValueError, LookupError, TypeError, StopIteration, csv.Error):
            raise _changed(self.path) from None

    def check_last(self, identifier: str) -> None:
        """Check that the last row kept is about the utterance of this id.

        Raises:
            DataError: When it is not.
        """
        expected = identifier if self._columns is None else protect_cell(identifier)
        # CSV writes what UTF-8 cannot hold in another way; ids with it are not compared.
        if expected.isprintable() and self.last_id() != expected:
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
        if columns is None:
            text = b"".join(json_line(row) for row in rows)
        else:
            text = b"".join(csv_line(row, columns) for row in rows)
        with writing(self.path):
            self._file.write(text)
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
    """Return whether an output is CSV.

    Raises:
        ConfigError: When it is neither CSV nor JSON lines.
    """
    ending = path.suffix.lower()
    if ending not in (".jsonl", ".csv"):
        raise ConfigError(f"output={path}: has to end with .jsonl or .csv")
    return ending == ".csv"


def _changed(path: Path) -> DataError:
    return DataError(f"{path}: was changed since it was written; remove it, or name another output")
