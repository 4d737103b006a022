"""Folders that appear whole or not at all, and one message for what a disk refuses."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recap.errors import ConfigError, RecapError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
_CLOSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_MISNAMED = frozenset({errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG})
_CODE_IN_TEXT = re.compile(r"\(os error (\d+)\)")
"""How libraries written in Rust (safetensors, tokenizers) name the system's error."""

_MEGABYTE = 1e6


class DiskError(RecapError):
    """A disk has no room for what is to be written, or fails."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Have errors of the block that name no file name this one.

    A write that does not fit names none, and libraries that write for us name neither file nor
    kind.

    Raises:
        OSError: In the place of an error that a disk caused; any other one passes.
    """
    try:
        yield
    except Exception as error:
        found = _cause(error)
        if found is None or (found is error and found.filename is not None):
            raise
        named = found.filename if found.filename is not None else str(path)
        raise OSError(found.errno, os.strerror(found.errno or 0), named) from error


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``folder``, which takes its place where the block succeeds.

    What the block has written is on the disk before that; what was there before is deleted after
    it. Where the block fails, the old folder is as it was, and the new one is gone.

    Args:
        folder: Its parents have to exist.

    Raises:
        OSError: When the disk does not take it, naming the folder.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    replaced = folder.with_name(f".{folder.name}.replaced")
    with writing(folder):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            yield partial
            for path in (*partial.rglob("*"), partial):
                sync(path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        shutil.rmtree(replaced, ignore_errors=True)
        if folder.exists():
            folder.replace(replaced)
        partial.replace(folder)
        sync(folder.parent)
        shutil.rmtree(replaced, ignore_errors=True)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk, not only in the machine's memory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def disk_error(error: BaseException) -> RecapError | None:
    """Return what is to be said of an error that a disk caused, ``None`` for any other.

    Args:
        error: Any error; its causes are looked at too.

    Returns:
        A :class:`DiskError` where there is no room, a
        :class:`~recap.errors.ConfigError` where we may not write (or read).
    """
    found = _cause(error)
    if found is None:
        return None
    name = "" if found.filename is None else f"{os.fsdecode(found.filename)}: "
    said = os.strerror(found.errno or 0)
    if found.errno not in _FULL:
        return ConfigError(
            f"{name}{said}; what was there is as it was: give access, or name another folder "
            "(out=, output=, runs_dir=), and give the same command again"
        )
    free = _free(found.filename)
    return DiskError(
        f"{name}{said}{free}; what was written before is as it was: make room, and the same "
        "command goes on from there"
    )


def _cause(error: BaseException) -> OSError | None:
    """Return the disk's own error among an error and its causes.

    What a full disk spoils goes on to fail in other ways, so that there errors count that were
    dealt with meanwhile; of the others only those that were given as a cause. What has been told
    in our words already stays as it is.
    """
    if isinstance(error, RecapError):
        return None
    if isinstance(error, OSError) and error.errno in _MISNAMED and error.filename is not None:
        return error
    seen: set[int] = set()
    meanwhile = False
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        code = _code(one)
        if code in _FULL or (code in _CLOSED and not meanwhile):
            return one if isinstance(one, OSError) else OSError(code, os.strerror(code))
        meanwhile = meanwhile or one.__cause__ is None
        one = one.__cause__ or one.__context__
    return None


def _code(error: BaseException) -> int:
    if isinstance(error, OSError):
        return error.errno or 0
    found = _CODE_IN_TEXT.search(str(error))
    return int(found[1]) if found else 0


def _free(filename: object) -> str:
    if not isinstance(filename, str | bytes | os.PathLike):
        return ""
    there = Path(os.fsdecode(filename)).absolute()
    while not there.is_dir() and there != there.parent:
        there = there.parent
    return f" ({shutil.disk_usage(there).free / _MEGABYTE:.1f} MB are free there)"
