"""Files: whole or not at all, for their owner alone, and never trusted when they come from others.

One message stands for what a disk refuses. Where the YAML choices live is known here too: inside
the package when installed, beside it in a checkout.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import os
import re
import shutil
import tempfile
import unicodedata
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal, TextIO

import yaml

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


def write_atomic(
    path: Path, content: str | bytes, *, private: bool = False, create: bool = True
) -> None:
    """Write a file so that it holds all of the old or all of the new content, come what may.

    A ``private`` one holds words of clients or names of sessions: it has mode 0600 from its first
    byte on, so that no other account may read it. Its folder is created where it is missing, unless
    ``create`` is false.
    """
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with writing(path), os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        if not private:  # mkstemp creates its files with mode 0600
            temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


PRIVATE = 0o600
"""Mode of files with text: read and written by their owner alone."""


def open_private(path: Path, mode: Literal["a", "ab"]) -> IO[Any]:
    """Open a file to append to, creating it with mode 0600 (less the umask).

    A file that is there keeps its mode.
    """
    encoding = None if "b" in mode else "utf-8"
    return open(
        path, mode, encoding=encoding, opener=lambda name, flags: os.open(name, flags, PRIVATE)
    )


def narrow(descriptor: int) -> None:
    """Take from others what they may do with an open file; its owner keeps what he has."""
    os.fchmod(descriptor, os.fstat(descriptor).st_mode & PRIVATE)


def refuse_links(folder: Path) -> None:
    """Refuse links by which what is written to a run folder, or deleted in it, lies elsewhere.

    Raises:
        ConfigError: When the folder, or something directly in it, is one.
    """
    entries = folder.iterdir() if folder.is_dir() else ()
    for path in (folder, *entries):
        if path.is_symlink() and not path.resolve().is_relative_to(folder.parent.resolve()):
            raise ConfigError(
                f"{path}: is a link that leaves the run folder; set runs_dir to a folder that is "
                "where the runs are to be"
            )


def open_lock(path: Path) -> TextIO:
    """Return an opened lock file, made when missing; a link in its place is never followed.

    Raises:
        ConfigError: When it is a link.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if path.is_symlink():
            raise ConfigError(f"{path}: is a link, and a lock never is one; remove it") from error
        raise
    return os.fdopen(handle, "r+", encoding="utf-8")


_LOCKED: weakref.WeakSet[IO[Any]] = weakref.WeakSet()


def lock(file: IO[Any], *, wait: bool = False) -> None:
    """Lock an open file until it is closed; a kill leaves no lock behind.

    This process alone has the lock: those that it forks, such as workers that read data, may live
    on for seconds after it was killed, and would keep others out.

    Raises:
        BlockingIOError: When another process has it and ``wait`` is false.
    """
    fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    _let_go_in_forks()
    _LOCKED.add(file)


@cache
def _let_go_in_forks() -> None:
    os.register_at_fork(after_in_child=_let_go)


def _let_go() -> None:
    """Put nothing in the place of every locked file: closing one would write what it buffers."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for file in _LOCKED:
        if not file.closed:
            os.dup2(nowhere, file.fileno(), inheritable=False)
    _LOCKED.clear()
    os.close(nowhere)


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds; tags that build objects are refused.

    Raises:
        ConfigError: When it holds none, or cannot be read.
    """
    try:
        # Ten times as fast, where PyYAML was built with libyaml.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        read = loader(file.read_text(encoding="utf-8"))
        node = read.get_single_node()
        _refuse_repeated_keys(node, file)
        values = read.construct_document(node) if node is not None else None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}); correct its path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        why = getattr(error, "problem", None) or "is not in UTF-8"
        raise ConfigError(f"{file}{line}: {why}; correct it, or restore the file") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: holds no mapping of keys to values; restore the file")
    return values


def _refuse_repeated_keys(root: yaml.Node | None, file: Path) -> None:
    nodes, met = [root], {id(root)}
    for node in nodes:
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        keys: set[str] = set()
        for key, _ in pairs:
            if isinstance(key, yaml.ScalarNode) and key.value in keys:
                line = key.start_mark.line + 1
                raise ConfigError(f"{file}:{line}: key {key.value!r} is there twice; keep one")
            keys.add(str(key.value))
        inner = [value for _, value in pairs]
        inner += node.value if isinstance(node, yaml.SequenceNode) else []
        # An anchor is one node wherever it is named.
        nodes += [one for one in inner if id(one) not in met]
        met.update(map(id, inner))


def conf_dir() -> Path:
    """Return the folder that holds ``train.yaml`` and ``task/``.

    Raises:
        RecapError: When neither place holds it, which means a broken installation.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").is_file() and (folder / "task").is_dir():
            return folder
    raise RecapError("recap's conf/ is missing; install recap again")


_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
_EXECUTED = frozenset("=+-@")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
BYTE_ORDER_MARK = "\ufeff"
"""Without it Excel takes UTF-8 for something else; the readers pass over it."""


def protect_cell(text: str) -> str:
    """Return a text with an apostrophe in front where a spreadsheet would take it for a formula.

    The characters are OWASP's (CSV Injection): ``=``, ``+``, ``-`` and ``@``, also in full width
    and after what is not seen, a tab and a line end. Numbers stay as they are. A text that has
    apostrophes in front of a formula gets another one, so that none is lost on the way back.

    >>> [protect_cell(text) for text in ("=1+1", " ＝A1", "-2.5", "- no", "no", "'=1")]
    ["'=1+1", "' ＝A1", '-2.5', "'- no", 'no', "''=1"]
    """
    return f"'{text}" if _is_formula(text.lstrip("'")) else text


def bare_cell(text: str) -> str:
    """Return a cell without the quote that :func:`protect_cell` put in front."""
    return text[1:] if text.startswith("'") and _is_formula(text.lstrip("'")) else text


def plain_markdown(text: str) -> str:
    """Return Markdown in which no part of a text is HTML, by CommonMark's rules."""
    return _TAG.sub(r"\\<", text)


def sheet_to_csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a CSV file's text for a spreadsheet program, its cells protected."""
    records = [csv_record(header)]
    records += [csv_record([protect_cell(cell) for cell in row]) for row in rows]
    return BYTE_ORDER_MARK + "".join(records)


def csv_record(cells: Sequence[str]) -> str:
    """Return one record of a CSV file, which ends in a line feed."""
    text = io.StringIO()
    # The writer quotes a carriage return only where it ends lines itself (Python 3.11).
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return f"{text.getvalue()[:-2]}\n"


def _is_formula(text: str) -> bool:
    if text[:1] in ("\t", "\r", "\n"):
        return True
    return _first_visible(text) in _EXECUTED and not _NUMBER.fullmatch(text)


def _first_visible(text: str) -> str:
    """Return the first character that is seen, in half width; empty without one."""
    for character in text:
        if not character.isspace() and unicodedata.category(character) not in ("Cc", "Cf"):
            return unicodedata.normalize("NFKC", character)
    return ""
