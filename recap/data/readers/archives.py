"""Zip files, and Excel files, which are zip files: opened only where they unpack sanely."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
def open_archive(path: Path, *, kind: str, mend: str) -> Iterator[zipfile.ZipFile]:
    """Yield a zip file that does not unpack to more than the library is willing to hold.

    Nothing is unpacked before its size is known: what an archive declares is the most that Python
    reads of it.

    Args:
        path: The file.
        kind: What messages call it (``zip file``).
        mend: What to do when it cannot be used.

    Raises:
        DataError: When it is broken, encrypted, has too many parts or unpacks to too much.
    """
    try:
        archive = zipfile.ZipFile(path)
    except UNREADABLE as error:
        raise unreadable(path, kind, error, mend) from None
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


def unreadable(path: Path, kind: str, error: BaseException, mend: str) -> DataError:
    """Return the error for an archive that cannot be read; of ``error``, its kind alone."""
    return DataError(f"{path}: is no readable {kind} ({type(error).__name__}); {mend}")
