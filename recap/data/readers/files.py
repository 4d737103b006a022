"""A user's file opened: does it exist, which encoding has it, and its rows when it holds JSON."""

from __future__ import annotations

import codecs
import glob
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from recap.data.issues import IssueLog, Line, damage
from recap.errors import DataError, did_you_mean, quote_cell

READER_BY_ENDING = {
    **dict.fromkeys((".csv", ".tsv", ".xlsx", ".xlsm"), "table"),
    ".txt": "transcript",
    ".vtt": "vtt",
    ".srt": "vtt",
}
"""``data`` by a file's ending; anything else is ``dialogues``."""

_HEAD = 4096
"""Bytes by which a file's form is recognized."""

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_UTF32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_FORMS = {
    b"PK\x03\x04": "a zip archive, an Excel or a Word file; give it its ending back (.xlsx, .zip), "
    "or save a document as plain text (.txt)",
    b"\x1f\x8b": "compressed with gzip; unpack it first (gunzip)",
    b"\xd0\xcf\x11\xe0": "an old or encrypted Office file; save it as .xlsx without a password",
    b"PAR1": "a Parquet file; write it as JSON lines or CSV",
    b"%PDF": "a PDF; export its text",
    b"SQLite format 3": "a database; export a table from it",
}
_CHINESE = range(0x4E00, 0x9FFF + 1)


def refuse_other_form(path: Path, head: bytes) -> None:
    """Refuse, with a ``DataError``, a file that begins as no UTF-8 and no marked UTF-16 does."""
    for mark, form in _FORMS.items():
        if head.startswith(mark):
            raise DataError(f"{path}: is no text but {form}")
    if head.startswith(_UTF32):
        raise DataError(f"{path}: is in UTF-32; save it as UTF-8")
    if head.startswith(_UTF16):
        return
    name = _unmarked_utf16(head)
    if name is not None:
        raise DataError(
            f"{path}: looks like {name} without a byte-order mark; save it as UTF-8, for example "
            f"with: iconv -f {name} -t UTF-8 OLD > NEW"
        )


def other_encoding(path: Path, line: int) -> DataError:
    """Return the error for a line that is not in UTF-8, naming the encoding that it looks like."""
    guess = _likely_encoding(path)
    looks = "" if guess is None else f"; it looks like {guess}"
    return DataError(
        f"{path}:{line}: the file is not in UTF-8{looks}; save it as UTF-8 (in a spreadsheet, "
        f"'CSV UTF-8'), or convert it, for example with: iconv -f {guess or 'GBK'} -t UTF-8 OLD > "
        "NEW"
    )


def read_head(path: Path) -> bytes:
    """Return a file's first bytes."""
    with path.open("rb") as file:
        return file.read(_HEAD)


def _unmarked_utf16(head: bytes) -> str | None:
    """Return the byte order of text whose every second byte is mostly 0, as in Latin scripts."""
    pairs = len(head) // 2
    if pairs < 2:
        return None
    first, second = (head[start : 2 * pairs : 2].count(0) / pairs for start in (0, 1))
    if second > 0.4 and first < 0.1:
        return "UTF-16LE"
    return "UTF-16BE" if first > 0.4 and second < 0.1 else None


def _likely_encoding(path: Path) -> str | None:
    """Return GB18030 for what reads as Chinese in it, Windows-1252 for a few odd bytes, or none."""
    with path.open("rb") as file:
        sample = file.read(1 << 20)
    high = sum(byte > 127 for byte in sample)
    text = sample.decode("gb18030", "replace")
    chinese = sum(ord(character) in _CHINESE for character in text)
    # Two such bytes make a Chinese character; an accented letter is one, and takes the next along.
    if text.count("\ufffd") <= 1 and high / 4 <= chinese <= high * 0.7:
        return "GB18030"
    return "WINDOWS-1252" if high < len(sample) / 4 else None


DEEPEST = 20
"""Levels of lists and objects in one JSON row; a dialogue has four."""


_MARK = "\ufeff"
_CUT = "mend or remove it (was the file cut off?)"
_BLANKS = " \t\r\n"


def existing_file(path: Path | None) -> Path:
    """Return ``path`` when it is a file that can be opened.

    Raises:
        DataError: When no path was given, nothing is there, or it is a folder.
    """
    if path is None:
        raise DataError("this data set is read from a file; name it with data.path=FILE")
    try:
        if path.is_dir():
            raise DataError(f"{path}: is a folder; name the file in it with data.path=FILE")
        there = path.is_file()
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    except OSError as error:
        # A name that is too long, or a folder that may not be looked into.
        raise DataError(
            f"{str(path)[:200]}: cannot be opened ({error.strerror}); correct the path"
        ) from error
    if not there:
        raise DataError(
            f"{path}: there is no such file{did_you_mean(path.name, beside)}; correct the path"
        )
    return path


def input_files(path: Path, endings: tuple[str, ...] | None) -> list[Path]:
    """Return the files that a path stands for, in order: itself, a folder's, or a pattern's.

    Hidden files are none, and of a folder only those with one of ``endings``, none of its folders.

    Raises:
        DataError: When a folder or a pattern holds none.
    """
    if not is_several(path):
        return [path]
    is_folder = path.is_dir()
    anchor = Path(path.anchor)
    # In a pattern ``**`` stands for folders of any depth.
    found = path.iterdir() if is_folder else anchor.glob(str(path.relative_to(anchor)))
    files = sorted(
        file
        for file in found
        if file.is_file()
        and not file.name.startswith(".")
        and (not is_folder or endings is None or file.suffix.lower() in endings)
    )
    if files:
        return files
    if not is_folder:
        raise DataError(
            f"{path}: no file matches this pattern; correct it, as in data.path='FOLDER/*.txt'"
        )
    kinds = "file" if endings is None else f"{' or '.join(endings)} file"
    raise DataError(
        f"{path}: this folder holds no {kinds}; name another, a file, or a pattern with "
        f"data.path='{path}/**/*.txt'"
    )


def is_several(path: Path) -> bool:
    """Whether a path is a folder, or a pattern such as ``talks/*.txt``."""
    try:
        return path.is_dir() or (glob.has_magic(str(path)) and not path.exists())
    except OSError:
        # A name that is too long.
        return False


def text_lines(path: Path, issues: IssueLog) -> Iterator[str]:
    """Yield the lines of a file in UTF-8, or in UTF-16 with a byte-order mark, with their ends.

    A byte-order mark at the start of any line is skipped: there files were put together. A last
    line that breaks off inside a character is noted in ``issues``.

    Raises:
        DataError: When the file cannot be opened, is in another encoding, or is no text.
    """
    try:
        refuse_other_form(path, read_head(path))
        with path.open("rb") as file:
            if file.read(2) in _UTF16:
                for line in io.StringIO(_utf16_text(path), newline="\n"):
                    yield line.lstrip(_MARK)
                return
            file.seek(0)
            for number, raw in enumerate(file, start=1):
                text = _decoded(path, number, raw, issues)
                if text is not None:
                    yield text
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); check its permissions"
        ) from error


def json_rows(path: Path | None, issues: IssueLog) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield ``(line, object)`` for every row of a JSON-lines file or a JSON list.

    Rows that are no JSON objects are noted in ``issues``. Where several rows of a list begin on one
    line, the line is a :class:`~recap.data.issues.Line`.

    Raises:
        DataError: When the file is missing, or not text in a known encoding.
    """
    path = existing_file(path)
    lines = text_lines(path, issues)
    begun = False
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        if not begun and text.lstrip().startswith("["):
            yield from _list_rows("\n" * (number - 1) + text + "".join(lines), issues)
            return
        begun = True
        issues.row()
        try:
            row, faults = decode_json(text)
        except (ValueError, RecursionError) as error:
            if text.strip() == "{":
                reason = (
                    "begins an object that goes on over other lines, after which nothing is read"
                )
                issues.reject(number, "row", reason, "write a list of objects, [{...}]")
                return
            suits = READER_BY_ENDING.get(path.suffix.lower())
            if suits and issues.rows_read == 1 and not text.lstrip().startswith("{"):
                raise DataError(f"{path}: holds no JSON; read it with data={suits}") from None
            issues.reject(number, "row", f"is not valid JSON ({_json_reason(error)})", _CUT)
            continue
        if _is_row(row, faults, number, issues):
            yield number, row


def _decoded(path: Path, number: int, raw: bytes, issues: IssueLog) -> str | None:
    try:
        return raw.decode("utf-8").lstrip(_MARK)
    except UnicodeDecodeError as error:
        # Only a cut leaves an incomplete character at the very end; anything else is another
        # encoding.
        if error.reason == "unexpected end of data" and not raw.endswith(b"\n"):
            issues.row()
            issues.reject(number, "row", "breaks off inside a character", _CUT)
            return None
        raise other_encoding(path, number) from None


def _utf16_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-16")
    except UnicodeDecodeError:
        raise DataError(
            f"{path}: begins like UTF-16 and is not; save it as UTF-8 (was the file cut off?)"
        ) from None


def _list_rows(text: str, issues: IssueLog) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a JSON list, so that each fault still has the line its row begins on."""
    at = _skip(text, text.index("[") + 1, _BLANKS + ",")
    line, counted, item, shares = 1 + text.count("\n", 0, at), at, 0, False
    while text[at : at + 1] != "]":
        issues.row()
        try:
            row, end, faults = _DECODER.decode_at(text, at)
        except (ValueError, RecursionError) as error:
            reason = f"the list is no valid JSON from here on ({_json_reason(error)})"
            place = Line(line, item=item) if shares else line
            issues.reject(place, "row", reason, "mend it; nothing after it could be read")
            return
        at = _skip(text, end, _BLANKS + ",")
        lines = text.count("\n", counted, at)
        shared_before, shares = shares, lines == 0
        alone = not shared_before and (not shares or text[at : at + 1] == "]")
        place = line if alone else Line(line, item=item)
        if _is_row(row, faults, place, issues):
            yield place, row
        line, counted, item = line + lines, at, item + 1
    if text[at + 1 :].strip():
        issues.row()
        place = Line(line, item=item) if shares else line
        reason = "something follows the end of the list"
        issues.reject(place, "row", reason, "keep one list a file, or one object a line")


def _skip(text: str, at: int, characters: str) -> int:
    while at < len(text) and text[at] in characters:
        at += 1
    return at


def _is_row(row: object, faults: Sequence[JsonFault], line: int, issues: IssueLog) -> bool:
    """Return whether a JSON value is an object of moderate depth; anything else is noted."""
    if not isinstance(row, dict):
        kinds = {list: "list", str: "string", bool: "boolean", type(None): "null"}
        reason = f"is a JSON {kinds.get(type(row), 'number')}"
        issues.reject(line, "row", reason, "write an object, {...}")
        return False
    if _is_deep(row):
        reason = f"is nested more than {DEEPEST} levels deep"
        issues.reject(line, "row", reason, "write the text itself, not what wraps it")
        return False
    for fault in faults:
        issues.reject(line, *fault)
    return not faults


def _is_deep(value: dict[str, Any]) -> bool:
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


JsonFault = tuple[str, str, str]
"""A field, what is wrong with it, and the mend."""

_ESCAPED_DAMAGE = re.compile(r"\\u(?:d[89a-f]|0000)", re.IGNORECASE)


class _StrictDecoder:
    """Decodes JSON; tells what Python would lose or change without a word, and what is no JSON."""

    def __init__(self) -> None:
        self._faults: list[JsonFault] = []
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object, parse_float=self._float, parse_constant=self._constant
        )

    def decode_at(self, text: str, at: int) -> tuple[Any, int, tuple[JsonFault, ...]]:
        """Return the value that begins at a character, where it ends, and its faults."""
        self._faults = []
        value, end = self._decoder.raw_decode(text, at)
        # Only an escape can name half of a character: UTF-8 has none.
        if _ESCAPED_DAMAGE.search(text, at, end):
            self._faults += _damaged_parts(value, "")
        return value, end, tuple(self._faults)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            counted = Counter(key for key, _ in pairs)
            for key in (key for key, n in counted.items() if n > 1):
                reason = f"key {quote_cell(key)} is there {counted[key]} times in one object"
                self._faults.append(("row", reason, "keep one; the others would be lost"))
        return found

    def _float(self, digits: str) -> float:
        number = float(digits)
        if math.isinf(number):
            self._faults.append(("row", "holds a number that is too large", "correct it"))
        return number

    def _constant(self, name: str) -> None:
        self._faults.append(
            ("row", f"is not valid JSON ({name} is no JSON, null is)", "write null")
        )


_DECODER = _StrictDecoder()


def decode_json(text: str) -> tuple[Any, tuple[JsonFault, ...]]:
    """Return the value of a JSON text, and what in it would be lost or changed without a word.

    Raises:
        ValueError: When it is no JSON, or something follows it.
        RecursionError: When it is nested too deeply.
    """
    value, end, faults = _DECODER.decode_at(text, _skip(text, 0, _BLANKS))
    after = _skip(text, end, _BLANKS)
    if after < len(text):
        raise json.JSONDecodeError("Extra data", text, after)
    return value, faults


def _damaged_parts(value: object, field: str) -> Iterator[JsonFault]:
    """Yield the texts and keys of a value that hold half of a character or a NUL."""
    parts: list[tuple[str, object]] = [(field, value)]
    for field, part in parts:
        if isinstance(part, str) and (broken := damage(part)) is not None:
            yield field.lstrip(".") or "row", *broken
        elif isinstance(part, dict):
            if any(map(damage, part)):
                reason = "has a key with half of a character or a NUL"
                yield field.lstrip(".") or "row", reason, "rename it"
            parts += [
                (f"{field}.{key if key.isidentifier() and len(key) < 25 else '…'}", inner)
                for key, inner in part.items()
            ]
        elif isinstance(part, list):
            parts += [(f"{field}[{index}]", inner) for index, inner in enumerate(part)]


def _json_reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"character {error.colno}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return "a number is too long"
