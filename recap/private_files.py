"""Files that no other account may read: they hold words of clients, or what names them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any, Literal

PRIVATE = 0o600
"""Mode of files with text: read and written by their owner alone."""


def open_private(path: Path, mode: Literal["a", "ab"]) -> IO[Any]:
    """Open a file to append to, creating it with mode 0600 (less the umask).

    A file that is there keeps its mode.
    """
    encoding = None if "b" in mode else "utf-8"
    return open(path, mode, encoding=encoding, opener=_opener)


def narrow(descriptor: int) -> None:
    """Take from others what they may do with an open file; its owner keeps what he has."""
    os.fchmod(descriptor, os.fstat(descriptor).st_mode & PRIVATE)


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags, PRIVATE)
