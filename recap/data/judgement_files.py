"""The files behind a path of judgements: a table, a folder or a zip with one file an annotator."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from recap.data.readers.archives import UNREADABLE, open_archive, unreadable
from recap.data.readers.files import existing_file
from recap.errors import DataError

JSON_ENDINGS = (".json", ".jsonl")
"""Endings of files whose rows are JSON objects."""

_TABLES = (".csv", ".tsv", ".txt", ".xlsx", ".xlsm")
_KIND, _MEND = "zip file", "export it again"
_NOTHING_INSIDE = "holds no .jsonl, .json, .csv or .xlsx file; put in one export an annotator"


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgementFile:
    """One file of judgements."""

    path: Path
    """Where it can be read."""
    shown: str
    """What messages call it; its stem is the annotator's name where the file is one's own."""
    of_one: bool
    """Whether it is one annotator's own."""


@contextmanager
def judgement_files(path: Path) -> Iterator[list[JudgementFile]]:
    """Yield the files behind a path; what a zip held is gone once the block is left.

    Raises:
        DataError: When there is no such file, or nothing usable in it.
    """
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if _is_judgement_file(p.name) and p.is_file())
        if not inside:
            raise DataError(f"{path}: {_NOTHING_INSIDE}")
        yield [JudgementFile(path=file, shown=str(file), of_one=True) for file in inside]
    elif path.suffix.lower() == ".zip":
        with tempfile.TemporaryDirectory() as folder, ExitStack() as held:
            yield _unpacked(existing_file(path), Path(folder), held)
    else:
        yield [JudgementFile(path=existing_file(path), shown=str(path), of_one=False)]


def _opened(file: Path, held: ExitStack) -> BinaryIO:
    """Return a file to be written; where the system can, memory holds what it holds (Linux).

    A kill then leaves no words of clients in a temporary folder.
    """
    if not hasattr(os, "memfd_create"):
        return file.open("wb")
    memory = os.memfd_create(file.name)
    held.callback(os.close, memory)
    file.symlink_to(f"/proc/{os.getpid()}/fd/{memory}")
    return os.fdopen(memory, "wb", closefd=False)


def _unpacked(path: Path, folder: Path, held: ExitStack) -> list[JudgementFile]:
    """Return the files of a zip; the folder gets their names, memory alone what they hold."""
    files = []
    with open_archive(path, kind=_KIND, mend=_MEND) as archive:
        parts = [part for part in archive.infolist() if _is_judgement_file(part.filename)]
        for number, part in enumerate(sorted(parts, key=lambda part: part.filename)):
            if not part.filename.isprintable():
                raise DataError(
                    f"{path}: a file in it has a name with unprintable characters; rename it"
                )
            # Never under its own name, which may lead out of the folder.
            file = folder / f"{number}{Path(part.filename).suffix.lower()}"
            try:
                with archive.open(part) as packed, _opened(file, held) as copy:
                    shutil.copyfileobj(packed, copy)
            except UNREADABLE as error:
                raise unreadable(path, _KIND, error, _MEND) from None
            files.append(JudgementFile(path=file, shown=f"{path}/{part.filename}", of_one=True))
    if not files:
        raise DataError(f"{path}: {_NOTHING_INSIDE}")
    return files


def _is_judgement_file(name: str) -> bool:
    path = Path(name)
    hidden = path.name.startswith((".", "~")) or "__MACOSX" in path.parts
    return not hidden and path.suffix.lower() in (*JSON_ENDINGS, *_TABLES)
