"""Sound files as rows, and as the bytes of every format that readers take."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import openpyxl

CANARIES = ("zanzibar", "quicksilver")
"""Words of the client; every sample's texts hold both, and no message may."""
SECRET = f"{' '.join(CANARIES)} whom I never told"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A sound file: its rows, and the keys that hold texts, labels and ids at any depth."""

    rows: list[dict[str, Any]]
    ending: str = ".jsonl"
    text: tuple[str, ...] = ("text",)
    label: tuple[str, ...] = ("label",)
    id: tuple[str, ...] = ("id",)

    def content(self) -> bytes:
        """Return the file."""
        if self.ending == ".xlsx":
            return workbook(self.rows)
        if self.ending == ".zip":
            return zipped({"ann.jsonl": json_lines(self.rows), "readme.md": b"-"})
        return self.inner()

    def inner(self) -> bytes:
        """Return the text in the file: of a zip, of the file inside."""
        if self.ending == ".json":
            return json.dumps(self.rows, ensure_ascii=False).encode("utf-8", "surrogatepass")
        if self.ending == ".csv":
            return table(self.rows)
        if self.ending == ".txt":
            lines = "".join(f"{row['speaker']}: {row['text']}\n" for row in self.rows)
            return lines.encode("utf-8", "surrogatepass")
        if self.ending == ".vtt":
            cues = (
                f"{n}\n00:{n:02}:00.000 --> 00:{n:02}:09.000\n{row['speaker']}: {row['text']}\n\n"
                for n, row in enumerate(self.rows)
            )
            return ("WEBVTT\n\n" + "".join(cues)).encode("utf-8", "surrogatepass")
        return json_lines(self.rows)

    def holding(self, inner: bytes) -> bytes:
        """Return the file with other text in it."""
        return zipped({"ann.jsonl": inner}) if self.ending == ".zip" else inner


def json_lines(rows: list[dict[str, Any]]) -> bytes:
    """Return rows as JSON lines; half of a character comes out as an escape."""
    lines = []
    for row in rows:
        line = json.dumps(row, ensure_ascii=False)
        plain = re.search("[\ud800-\udfff]", line) is None
        lines.append(line if plain else json.dumps(row))
    return "".join(f"{line}\n" for line in lines).encode()


def cells(rows: list[dict[str, Any]]) -> list[list[Any]]:
    """Return a header and the rows below it."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    plain = (str, int, float, type(None))
    return [
        names,
        *(
            [
                value
                if isinstance(value := row.get(name), plain)
                else json.dumps(value, ensure_ascii=False)
                for name in names
            ]
            for row in rows
        ),
    ]


def table(rows: list[dict[str, Any]]) -> bytes:
    """Return rows as CSV; half of a character comes out as the bytes that it would have."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(cells(rows))
    return text.getvalue().encode("utf-8", "surrogatepass")


def workbook(rows: list[dict[str, Any]]) -> bytes:
    """Return rows as an Excel file, less what no cell can hold."""
    book = openpyxl.Workbook()
    for row in cells(rows):
        book.active.append(
            [
                re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]", "", value)[:32_767]
                if isinstance(value, str)
                else str(value)
                if isinstance(value, int) and abs(value) > 2**53
                else value
                for value in row
            ]
        )
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    """Return a zip file."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, inside in files.items():
            archive.writestr(name, inside)
    return content.getvalue()


def with_sheet(content: bytes, change: Callable[[str], str]) -> bytes:
    """Return an Excel file with another XML of its first sheet."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    name = "xl/worksheets/sheet1.xml"
    return zipped({**files, name: change(files[name].decode()).encode()})
