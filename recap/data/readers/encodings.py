"""What a file is when it is not text in UTF-8, said together with the mend."""

from __future__ import annotations

import codecs
from pathlib import Path

from recap.errors import DataError

_HEAD = 4096
"""Bytes by which a file's form is recognised."""

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_UTF32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_FORMS = {
    b"PK\x03\x04": "a zip archive or an Excel file; give it its ending back (.xlsx, .zip)",
    b"\x1f\x8b": "compressed with gzip; unpack it first (gunzip)",
    b"\xd0\xcf\x11\xe0": "an old or encrypted Office file; save it as .xlsx without a password",
    b"PAR1": "a Parquet file; write it as JSON lines or CSV",
    b"%PDF": "a PDF; export its text",
    b"SQLite format 3": "a database; export a table from it",
}
_CHINESE = range(0x4E00, 0x9FFF + 1)


def refuse_other_form(path: Path, head: bytes) -> None:
    """Refuse a file whose first bytes are those of something else than UTF-8 or marked UTF-16.

    Raises:
        DataError: Saying what the file is, and what to do.
    """
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
