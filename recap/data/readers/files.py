"""Opening a user's file: does it exist, which encoding has it, and its rows when it holds JSON."""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recap.data.faults import FaultLog
from recap.errors import DataError, did_you_mean

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_CUT = "mend or remove it (was the file cut off?)"
_DECODER = json.JSONDecoder()


def existing_file(path: Path | None) -> Path:
    """Return ``path`` when it is a file that can be opened.

    Raises:
        DataError: When no path was given, nothing is there, or it is a folder.
    """
    if path is None:
        raise DataError("this data set is read from a file; name it with data.path=FILE")
    if path.is_dir():
        raise DataError(f"{path}: is a folder; name the file in it with data.path=FILE")
    if not path.is_file():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(
            f"{path}: there is no such file{did_you_mean(path.name, beside)}; "
            "correct data.path=FILE"
        )
    return path


def text_lines(path: Path, faults: FaultLog) -> Iterator[str]:
    """Yield the lines of a file in UTF-8, or in UTF-16 with a byte-order mark, with their ends.

    A last line that breaks off inside a character is noted in ``faults``.

    Raises:
        DataError: When the file cannot be opened or is in another encoding.
    """
    try:
        with path.open("rb") as file:
            if file.read(2) in _UTF16:
                yield from io.StringIO(_utf16_text(path), newline="\n")
                return
            file.seek(0)
            for number, raw in enumerate(file, start=1):
                text = _decoded(path, number, raw, faults)
                if text is not None:
                    yield text
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); check its permissions"
        ) from error


def json_rows(path: Path | None, faults: FaultLog) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield ``(line, object)`` for every row of a JSON-lines file or a JSON list.

    Rows that are no JSON objects are noted in ``faults``.

    Raises:
        DataError: When the file is missing, or not text in a known encoding.
    """
    path = existing_file(path)
    lines = text_lines(path, faults)
    begun = False
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        if not begun and text.lstrip().startswith("["):
            yield from _list_rows("\n" * (number - 1) + text + "".join(lines), faults)
            return
        begun = True
        faults.row()
        row = _object(text, number, faults)
        if row is not None:
            yield number, row


def _decoded(path: Path, number: int, raw: bytes, faults: FaultLog) -> str | None:
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        # Only a cut leaves an incomplete character at the very end; anything else is another
        # encoding.
        if error.reason == "unexpected end of data" and not raw.endswith(b"\n"):
            faults.row()
            faults.reject(number, "row", "breaks off inside a character", _CUT)
            return None
        raise DataError(
            f"{path}:{number}: the file is not in UTF-8; save it as UTF-8 (in a spreadsheet, "
            "'CSV UTF-8'), or convert it, for example with: iconv -f GBK -t UTF-8 OLD > NEW"
        ) from None


def _utf16_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-16")
    except UnicodeDecodeError:
        raise DataError(
            f"{path}: begins like UTF-16 and is not; save it as UTF-8 (was the file cut off?)"
        ) from None


def _object(text: str, line: int, faults: FaultLog) -> dict[str, Any] | None:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        faults.reject(line, "row", f"is not valid JSON ({_json_reason(error)})", _CUT)
        return None
    if not isinstance(row, dict):
        faults.reject(line, "row", f"is a JSON {_json_kind(row)}", "write an object, {...}")
        return None
    return row


def _list_rows(text: str, faults: FaultLog) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a JSON list, so that each fault still has the line its row begins on."""
    at, line, counted = text.index("[") + 1, 1, 0
    while True:
        at = _skip(text, at, " \t\r\n,")
        line, counted = line + text.count("\n", counted, at), at
        if text[at : at + 1] == "]":
            return
        faults.row()
        try:
            row, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            reason = f"the list is no valid JSON from here on ({_json_reason(error)})"
            faults.reject(line, "row", reason, "mend it; nothing after it could be read")
            return
        if isinstance(row, dict):
            yield line, row
        else:
            faults.reject(line, "row", f"is a JSON {_json_kind(row)}", "write an object, {...}")


def _skip(text: str, at: int, characters: str) -> int:
    while at < len(text) and text[at] in characters:
        at += 1
    return at


def _json_reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, character {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else "a number is too long"


def _json_kind(value: object) -> str:
    kinds = {list: "list", str: "string", bool: "boolean", type(None): "null"}
    return kinds.get(type(value), "number")
