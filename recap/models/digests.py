"""SHA-256 of checkpoints: written with them, compared before they are read.

A file carries its own: torch writes zip archives, and a zip archive ends with a comment of free
text. So a checkpoint is one file that appears under its name whole or not at all, and that torch,
Lightning and ``unzip`` read as any other. A folder holds a list that ``sha256sum -c`` reads.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import torch

SUMS = "SHA256SUMS"
"""The list of digests in a folder."""

_MARK = b"sha256:"
_COMMENT_BYTES = len(_MARK) + 2 * hashlib.sha256().digest_size
_LENGTH_BYTES = 2
"""Of the field before the comment, the last one of an archive without a comment."""

_NO_COMMENT = bytes(_LENGTH_BYTES)
_BLOCK_BYTES = 1 << 20


class _Digesting:
    """A file as ``torch.save`` wants it, which adds up the digest of what goes through."""

    def __init__(self, file: BinaryIO) -> None:
        self.digest = hashlib.sha256()
        self.error: OSError | None = None
        self._file = file

    def write(self, data: memoryview) -> int:
        self.digest.update(data)
        try:
            return self._file.write(data)
        except OSError as error:
            # torch hides it behind complaints about places in the archive (2.13).
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def save_digested(content: Any, path: Path) -> None:
    """Write what ``torch.save`` would, with its SHA-256 in the archive's comment, onto the disk.

    Tensors go to the file one after another: there is never a second copy of them in memory.

    Raises:
        OSError: When the disk does not take it.
    """
    with path.open("wb") as file:
        through = _Digesting(file)
        try:
            torch.save(content, through)  # type: ignore[arg-type]
        except RuntimeError:
            if through.error is not None:
                raise through.error from None
            raise
        comment = _MARK + through.digest.hexdigest().encode()
        file.seek(-_LENGTH_BYTES, os.SEEK_END)
        file.write(len(comment).to_bytes(_LENGTH_BYTES, "little") + comment)
        file.flush()
        os.fsync(file.fileno())


def write_sums(folder: Path, digests: Mapping[str, str]) -> None:
    """Write the list of a folder's digests, by file name."""
    with (folder / SUMS).open("w", encoding="utf-8") as file:
        file.writelines(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
        file.flush()
        os.fsync(file.fileno())


def digests_of(files: Iterable[Path]) -> dict[str, str]:
    """Return the SHA-256 of some files, by name."""
    found = {}
    for path in files:
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def fault_of(path: Path) -> str | None:
    """Return what is wrong with a checkpoint, file or folder; ``None`` when it is as written.

    It is read as a whole for that, but only once a process as long as it stays the same.
    """
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return _fault(path, tuple(_state(file) for file in files))


def _state(file: Path) -> tuple[str, int, int, int]:
    found = file.stat()
    return file.name, found.st_ino, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=64)
def _fault(path: Path, state: tuple[tuple[str, int, int, int], ...]) -> str | None:
    return _folder_fault(path) if path.is_dir() else _file_fault(path)


def _file_fault(path: Path) -> str | None:
    digested = path.stat().st_size - _COMMENT_BYTES - _LENGTH_BYTES
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(max(0, digested))
        ending = file.read()
        if not ending.startswith(_COMMENT_BYTES.to_bytes(_LENGTH_BYTES, "little") + _MARK):
            return "is cut short, or was written without a checksum"
        file.seek(0)
        left = digested
        while left > 0:
            block = file.read(min(left, _BLOCK_BYTES))
            digest.update(block)
            left -= len(block)
    digest.update(_NO_COMMENT)
    expected = ending[_LENGTH_BYTES + len(_MARK) :].decode("ascii", errors="replace")
    return None if digest.hexdigest() == expected else "does not match its checksum"


def _folder_fault(folder: Path) -> str | None:
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return "is incomplete, or was written without checksums"
    expected = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    if not all((folder / name).is_file() for name in expected):
        return "lacks some of its files"
    found = digests_of(folder / name for name in expected)
    return None if found == expected else "does not match its checksums"
