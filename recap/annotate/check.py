"""A first pass over an input: its rows are sound, and it is known how much there is to do."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from recap.annotate.rows import GOLD_COLUMNS, OWN_COLUMNS, came_in, input_column
from recap.data.examples import NoIntervention
from recap.data.faults import LISTED_FAULTS, FaultLog, RowFault, rows_error
from recap.data.readers.files import existing_file
from recap.data.utterances import read_utterances
from recap.errors import DataError
from recap.private_files import open_private
from recap.records import Example

MOST_COLUMNS = 1000
"""Columns of a CSV output; keys that are all different belong into ``meta``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A file of dialogues, and how it is read."""

    path: Path
    reader: str
    on_error: Literal["fail", "skip"] = "fail"
    merge_adjacent: bool = True
    no_intervention: NoIntervention = "keep"
    options: Mapping[str, Any]

    def utterances(self, faults: FaultLog) -> Iterator[Example]:
        """Yield the client utterances; see :func:`recap.data.utterances.read_utterances`."""
        return read_utterances(
            reader=self.reader,
            path=self.path,
            faults=faults,
            merge_adjacent=self.merge_adjacent,
            no_intervention=self.no_intervention,
            options=self.options,
        )

    def identity(self) -> dict[str, Any]:
        """Return what has to be the same for an output to be gone on with."""
        return {
            "sha256": _sha256(existing_file(self.path)),
            "reader": self.reader,
            "on_error": self.on_error,
            "merge_adjacent": self.merge_adjacent,
            "no_intervention": self.no_intervention,
            "options": dict(self.options),
        }


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


def check_source(source: Source, *, rejects: Path | None = None) -> Checked:
    """Read an input once, in constant memory.

    Args:
        source: The input.
        rejects: Where the faults of rows that are left out are written, one a line, if there are
            any.

    Raises:
        DataError: When rows are at fault and ``on_error`` is ``fail``, after all of them were met,
            or when nothing is left to annotate.
    """
    faults = FaultLog(str(source.path))
    listed: list[RowFault] = []
    columns: dict[str, None] = dict.fromkeys(OWN_COLUMNS)
    utterances, n_faults = 0, 0
    skipping = source.on_error == "skip"
    with _Rejects(rejects if skipping else None) as written:
        for example in source.utterances(faults):
            utterances += 1
            _note_columns(columns, example)
            if faults.faults:
                taken = faults.take()
                n_faults += len(taken)
                listed += taken[: LISTED_FAULTS - len(listed)]
                written.add(taken)
        taken = faults.take()
        n_faults += len(taken)
        listed += taken[: LISTED_FAULTS - len(listed)]
        written.add(taken)
    rejected, read = faults.rows_rejected, faults.rows_read
    if n_faults and not skipping:
        raise rows_error(
            str(source.path), listed, n_faults=n_faults, rows_rejected=rejected, rows_read=read
        )
    if not utterances:
        first = f"; the first fault: {listed[0]}" if listed else ""
        raise DataError(
            f"{source.path}: leaves no client turn to annotate ({read} rows, {rejected} "
            f"rejected{first}); check who speaks, and that data=… names the right reader"
        )
    return Checked(
        utterances=utterances,
        rows_read=read,
        rows_rejected=rejected,
        counts=dict(faults.counts),
        columns=tuple(columns),
    )


class _Rejects:
    """Writes faults to a file that exists only when there are any."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._begun = False

    def __enter__(self) -> _Rejects:
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open between two calls."""

    def add(self, faults: list[RowFault]) -> None:
        if self._path is not None and faults:
            with open_private(self._path, "a") as file:
                file.writelines(f"{fault}\n" for fault in faults)


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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
