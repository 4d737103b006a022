"""Zip files, opened only where they unpack sanely, and the files of annotators that they hold.

Excel files are zip files too.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from recap.data.issues import name_damage
from recap.data.readers.files import existing_file, input_files, is_several
from recap.data.readers.registry import JSON_ENDINGS, TABLE_ENDINGS
from recap.errors import DataError

MOST_UNPACKED = 256 * 2**20
"""Bytes that all parts of an archive may unpack to; a sheet of 100,000 dialogues has less."""

MOST_PARTS = 10_000
"""Files in an archive."""

UNREADABLE = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError),
    *(OSError, RuntimeError, SyntaxError, TypeError, ValueError, UnicodeError),
    *(struct.error, zipfile.BadZipFile, zlib.error),
)
"""What the standard library and openpyxl raise for a broken zip file or the XML in it."""


@contextmanager
def open_archive(path: Path, *, kind: str, hint: str) -> Iterator[zipfile.ZipFile]:
    """Yield a zip file that does not unpack to more than the library is willing to hold.

    Nothing is unpacked before its size is known: what an archive declares is the most that Python
    reads of it.

    Raises:
        DataError: When it is broken, encrypted, has too many parts or unpacks to too much.
    """
    try:
        archive = zipfile.ZipFile(path)
    except UNREADABLE as error:
        raise unreadable(path, kind, error, hint) from None
    with archive:
        parts = archive.infolist()
        unpacked = sum(part.file_size for part in parts)
        if unpacked > MOST_UNPACKED or len(parts) > MOST_PARTS:
            raise DataError(
                f"{path}: unpacks to {unpacked / 2**20:,.0f} MiB in {len(parts):,} files; of a "
                f"{kind} at most {MOST_UNPACKED >> 20} MiB and {MOST_PARTS:,} files are read (is "
                "it a zip bomb?); split it, or give it as CSV or JSON lines"
            )
        yield archive


def unreadable(path: Path, kind: str, error: BaseException, hint: str) -> DataError:
    """Return the error for an archive that cannot be read; of ``error``, its kind alone."""
    return DataError(f"{path}: is no readable {kind} ({type(error).__name__}); {hint}")


POTATO_FILE = "annotated_instances"
"""Name of the file that Potato saves in a folder for each annotator."""

_ZIP, _MEND = "zip file", "export it again"
_NOTHING_INSIDE = "holds no .jsonl, .json, .csv or .xlsx file; put in one export an annotator"


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatorFile:
    """One file of annotations."""

    path: Path
    """Where it can be read."""
    shown: str
    """What messages call it; its stem is the annotator's name where the file is one's own."""
    of_one: bool
    """Whether it is one annotator's own."""

    @property
    def owner(self) -> str:
        """The annotator that it is named after, ``ann`` for ann.jsonl and ann.2.jsonl."""
        path = Path(self.shown)
        return path.parent.name if path.stem == POTATO_FILE else re.sub(r"\.\d+$", "", path.stem)


@contextmanager
def annotator_files(path: Path) -> Iterator[list[AnnotatorFile]]:
    """Yield the files behind a path; what a zip held is gone once the block is left.

    Raises:
        DataError: When there is no such file, or nothing usable in it.
    """
    if is_several(path):
        there = path.rglob("*") if path.is_dir() else input_files(path, None)
        inside = [Path(n) for n in _of_annotators(str(file) for file in there if file.is_file())]
        if not inside:
            raise DataError(f"{path}: {_NOTHING_INSIDE}")
        yield [AnnotatorFile(path=file, shown=str(file), of_one=True) for file in inside]
    elif path.suffix.lower() == ".zip":
        with tempfile.TemporaryDirectory() as folder, ExitStack() as held:
            yield _unpacked(existing_file(path), Path(folder), held)
    else:
        yield [AnnotatorFile(path=existing_file(path), shown=str(path), of_one=False)]


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


def _unpacked(path: Path, folder: Path, held: ExitStack) -> list[AnnotatorFile]:
    """Return the files of a zip; the folder gets their names, memory alone what they hold."""
    files = []
    with open_archive(path, kind=_ZIP, hint=_MEND) as archive:
        named = [(_name_in_zip(part), part) for part in archive.infolist()]
        kept = set(_of_annotators(name for name, _ in named))
        named = [(name, part) for name, part in named if name in kept]
        for number, (name, part) in enumerate(sorted(named, key=lambda one: one[0])):
            if name_damage(name):
                raise DataError(
                    f"{path}: a file in it has a name with unprintable characters; rename it"
                )
            # Never under its own name, which may lead out of the folder.
            file = folder / f"{number}{Path(name).suffix.lower()}"
            try:
                with archive.open(part) as packed, _opened(file, held) as copy:
                    shutil.copyfileobj(packed, copy)
            except UNREADABLE as error:
                raise unreadable(path, _ZIP, error, _MEND) from None
            files.append(AnnotatorFile(path=file, shown=f"{path}/{name}", of_one=True))
    if not files:
        raise DataError(f"{path}: {_NOTHING_INSIDE}")
    return files


_UTF8_FLAG = 0x800
_PAIR = re.compile(rb"[\xb0-\xf7][\xa1-\xfe]")


def _name_in_zip(part: zipfile.ZipInfo) -> str:
    """Return the name of a file in a zip, also where the archive does not say how it is encoded.

    Python takes such names for cp437. Chinese systems write them in GBK, whose usual characters are
    pairs of bytes that are no letters there, others in UTF-8.
    """
    if part.flag_bits & _UTF8_FLAG or part.filename.isascii():
        return part.filename
    try:
        written = part.filename.encode("cp437")
    except UnicodeEncodeError:
        return part.filename
    for encoding in ("utf-8", "gb18030") if _PAIR.search(written) else ("utf-8",):
        try:
            return written.decode(encoding)
        except UnicodeDecodeError:
            continue
    return part.filename


def _of_annotators(names: Iterable[str]) -> list[str]:
    """Return which of the files in a zip or a folder hold annotations, in order."""
    paths = [Path(name) for name in names]
    # INCEpTION's own: what nobody has annotated yet, and what a curator made of the annotations.
    found = [
        str(path)
        for path in paths
        if not path.name.startswith((".", "~"))
        and "__MACOSX" not in path.parts
        and path.stem not in ("INITIAL_CAS", "CURATION_USER")
        and path.suffix.lower() in (*JSON_ENDINGS, *TABLE_ENDINGS, ".txt")
    ]
    # Beside them Potato keeps the order and the times of its annotators.
    return sorted([name for name in found if Path(name).stem == POTATO_FILE] or found)
