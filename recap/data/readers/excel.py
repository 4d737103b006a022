"""Sheets of Excel files as rows of texts, or why a row or a cell cannot be one."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from recap.data.issues import ERROR_CELLS, IssueLog
from recap.data.readers.archives import UNREADABLE, open_archive, unreadable
from recap.errors import DataError

_KIND, _MEND = "Excel file", "save it again as .xlsx"
_MOST_ROWS = 1_048_576
_MOST_COLUMNS = 16_384
_PIECE = 1 << 20
_EXACT = 10**15
"""From here on a spreadsheet no longer keeps every digit of a number."""
_UNSAVED = (
    "holds a formula without its value",
    "open and save the file in a spreadsheet program, or write the value itself",
)
_AS_TEXT = "format the column as text and write it there again"
_MERGED = re.compile(rb"<(?:\w+:)?mergeCell [^>]*?ref=[\"']([A-Z]+\d+:[A-Z]+\d+)")
_ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")
_LINE_END = re.compile("\r\n?")
_QUOTED = re.compile(r'"[^"]*"|\\.|\[[^\]]*\]')


@dataclass(kw_only=True, slots=True)
class SheetRow:
    """One row of a table with the line, or the row's number in a spreadsheet, it begins on.

    Not frozen, for speed: there is one a row.
    """

    line: int
    cells: list[str]
    broken: tuple[str, str] | None = None
    """What is wrong with it, and the mend."""
    field: str = "row"
    odd: bool = False
    """Whether some of its cells may be :class:`OddCell`."""


class OddCell(str):
    """A cell that is no text to its spreadsheet, such as a date, under the text that it has here.

    Where a column holds numbers or is not read it may stand; among texts and ids it is a fault.
    """

    reason: str
    hint: str

    def __new__(cls, text: str, reason: str, hint: str = _AS_TEXT) -> OddCell:
        """Return a text that knows why it is none, and what to do."""
        cell = super().__new__(cls, text)
        cell.reason, cell.hint = reason, hint
        return cell


def column_letters(index: int) -> str:
    """Return what a spreadsheet calls the column of an index from 0.

    >>> column_letters(0), column_letters(25), column_letters(26), column_letters(702)
    ('A', 'Z', 'AA', 'AAA')
    """
    before, last = divmod(index, 26)
    return (column_letters(before - 1) if before else "") + chr(ord("A") + last)


def excel_rows(path: Path, sheet: str | None, issues: IssueLog) -> Iterator[SheetRow]:
    """Yield the rows of one sheet of an ``.xlsx`` file, from the first that is not empty on.

    Without a name, the first sheet that is not hidden is read; the others are counted in
    ``issues``.

    Raises:
        DataError: When openpyxl is missing, or the file is broken, too large, or lacks the sheet.
    """
    try:
        import openpyxl  # type: ignore[import-untyped]
    except ImportError:
        raise DataError(
            f"{path}: Excel files need openpyxl: pip install recap[excel]; "
            "or save the sheet as 'CSV UTF-8'"
        ) from None
    with open_archive(path, kind=_KIND, hint=_MEND) as archive:
        merged = _merged_cells(path, archive)
    book = None
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        page = _page(path, book, sheet, issues)
        yield from _rows(path, book, page, merged.get(page._worksheet_path.lstrip("/"), []))
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - openpyxl has many of its own
        raise unreadable(path, _KIND, error, _MEND) from None
    finally:
        if book is not None:
            book.close()


def _merged_cells(path: Path, archive: zipfile.ZipFile) -> dict[str, list[str]]:
    """Return the areas of merged cells of each sheet, ``D2:D5``, and refuse XML with entities.

    A few nested ones expand to gigabytes, and no spreadsheet program writes any.
    """
    found: dict[str, list[str]] = {}
    for part in archive.infolist():
        try:
            with archive.open(part) as file:
                before = b""
                while piece := file.read(_PIECE):
                    seen = before + piece.replace(b"\0", b"")
                    if b"<!DOCTYPE" in seen or b"<!ENTITY" in seen:
                        raise DataError(f"{path}: its XML defines a document type; {_MEND}")
                    areas = map(bytes.decode, _MERGED.findall(seen))
                    found.setdefault(part.filename, []).extend(areas)
                    # No area is found twice, none cut in two.
                    before = seen[-100:].rpartition(b">")[2]
        except UNREADABLE as error:
            raise unreadable(path, _KIND, error, _MEND) from None
    return found


def _page(path: Path, book: Any, sheet: str | None, issues: IssueLog) -> Any:
    """Return the sheet to be read; those beside it that a user sees are counted."""
    if sheet is not None:
        if sheet not in book.sheetnames:
            raise DataError(
                f"{path}: has no sheet {sheet!r}; correct data.options.sheet, one of: "
                f"{', '.join(book.sheetnames)}"
            )
        return book[sheet]
    shown = [page for page in book.worksheets if page.sheet_state == "visible"]
    if not shown:
        raise DataError(
            f"{path}: all of its sheets are hidden ({', '.join(book.sheetnames)}); show the one "
            "that is meant, or name it with data.options.sheet"
        )
    issues.counts["other_sheets"] += len(shown) - 1
    return shown[0]


def _rows(path: Path, book: Any, page: Any, areas: Sequence[str]) -> Iterator[SheetRow]:
    cell_text = partial(_cell_text, formats=_number_formats(book))
    merged = _Merged(areas)
    width, last = 0, 0
    with page._get_source() as source:
        for number, cells in _parser(book, page, source).parse():
            if number <= last:
                raise DataError(
                    f"{path}: row {number} of sheet {page.title!r} comes after row {last}; {_MEND} "
                    "(which program wrote it?)"
                )
            if number > _MOST_ROWS:
                raise DataError(
                    f"{path}: has rows beyond {_MOST_ROWS:,}, the most of a sheet; {_MEND}"
                )
            last = number
            row = _row(number, cells, cell_text)
            if width or any(row.cells) or row.broken:
                width = width or len(row.cells)
                row.cells.extend([""] * (width - len(row.cells)))
                merged.mark(row)
                yield row


class _Merged:
    """Areas of merged cells, of which the first cell alone has the value that all of them show."""

    def __init__(self, areas: Sequence[str]) -> None:
        from openpyxl.utils import range_boundaries  # type: ignore[import-untyped]

        bounds = [(*range_boundaries(area), area) for area in areas]
        self._coming = sorted(bounds, key=lambda one: -one[1])
        self._here: list[Any] = []

    def mark(self, row: SheetRow) -> None:
        """Make the cells of the next row that only share another one's value odd."""
        while self._coming and self._coming[-1][1] <= row.line:
            self._here.append(self._coming.pop())
        self._here = [one for one in self._here if one[3] >= row.line]
        for left, top, right, _, area in self._here:
            for column in range(left + (top == row.line), min(right, len(row.cells)) + 1):
                reason = f"is one of the merged cells {area}, which hold one value"
                odd = OddCell("", reason, "split them, and write the value into each cell")
                row.cells[column - 1] = odd


def _parser(book: Any, page: Any, source: Any) -> Any:
    """Return openpyxl's own parser of a sheet, which also tells which formulas were never computed.

    openpyxl's rows (3.1) leave out, unnoticed, those that do not stand in order, cells that come
    twice, and all beyond what the file says of its size.
    """
    from openpyxl.worksheet._reader import (  # type: ignore[import-untyped]
        FORMULA_TAG,
        WorkSheetParser,
    )

    class Parser(WorkSheetParser):  # type: ignore[misc]
        def parse_cell(self, element: Any) -> dict[str, Any]:
            """Return what openpyxl says of a cell, and whether it waits to be computed."""
            cell = super().parse_cell(element)
            # The value of a formula may be a text without a character.
            saved = cell["value"] is not None or element.get("t") == "str"
            return {**cell, "unsaved": not saved and element.find(FORMULA_TAG) is not None}

    return Parser(
        source,
        _shared_texts(book, page),
        data_only=True,
        epoch=book.epoch,
        date_formats=book._date_formats,
        timedelta_formats=book._timedelta_formats,
    )


def _shared_texts(book: Any, page: Any) -> Sequence[str]:
    """Return the texts that sheets share, as they are written.

    openpyxl (3.1) takes every ``x005F_`` out, which marks an underscore that is one.
    """
    from openpyxl.cell.text import Text  # type: ignore[import-untyped]
    from openpyxl.xml.functions import fromstring  # type: ignore[import-untyped]

    parts = [name for name in book._archive.namelist() if name.endswith("/sharedStrings.xml")]
    content = book._archive.read(parts[0]) if parts else b""
    if b"x005F_" not in content:
        texts: Sequence[str] = page._shared_strings
        return texts
    return [Text.from_tree(node).content for node in fromstring(content)]


def _row(number: int, cells: Sequence[dict[str, Any]], cell_text: Callable[..., str]) -> SheetRow:
    width = max((cell["column"] for cell in cells), default=0)
    if width > _MOST_COLUMNS:
        raise ValueError
    texts = [""] * width
    met: set[int] = set()
    for cell in cells:
        column = cell["column"]
        field = f"column {column}"
        if cell["row"] != number or column in met:
            broken = "holds a cell of another row, or one cell twice", _MEND
            return SheetRow(line=number, cells=texts, broken=broken, field=field)
        met.add(column)
        texts[column - 1] = cell_text(cell)
    while texts and not texts[-1]:
        texts.pop()
    return SheetRow(line=number, cells=texts, odd=True)


def _number_formats(book: Any) -> list[str]:
    """Return the number format of each cell style, without what it quotes."""
    from openpyxl.styles.numbers import BUILTIN_FORMATS  # type: ignore[import-untyped]

    own = book._number_formats
    formats = [
        own[style.numFmtId - 164] if style.numFmtId >= 164 else BUILTIN_FORMATS.get(style.numFmtId)
        for style in book._cell_styles
    ]
    return [_QUOTED.sub("", written or "") for written in formats]


def _cell_text(cell: dict[str, Any], *, formats: Sequence[str]) -> str:
    """Return a cell as text, ``""`` for an empty one; what is no text to the sheet is odd."""
    value, kind = cell["value"], cell["data_type"]
    if value is None:
        return OddCell("=", *_UNSAVED) if cell["unsaved"] else ""
    if kind == "e" or (isinstance(value, str) and value in ERROR_CELLS):
        return OddCell(str(value), f"is the error {value} of a spreadsheet")
    if kind == "s":
        return _LINE_END.sub("\n", _ESCAPED.sub(lambda code: chr(int(code[1], 16)), value))
    if isinstance(value, bool):
        return OddCell(str(value).upper(), f"is the truth value {str(value).upper()}")
    if isinstance(value, timedelta):
        minutes, seconds = divmod(value.total_seconds(), 60)
        clock = f"{seconds:09.6f}".rstrip("0").rstrip(".")
        value = f"{minutes // 60:.0f}:{minutes % 60:02.0f}:{clock}"
    if not isinstance(value, int | float):
        return OddCell(str(value), "is a date or a time")
    return _number_text(value, formats[cell["style_id"]] if cell["style_id"] else "")


def _number_text(value: float, written: str) -> str:
    # A spreadsheet keeps the id 12 as 12.0, and shows 012 where its format says so.
    whole = isinstance(value, int) or value.is_integer()
    text = str(int(value)) if whole else str(value)
    if "%" in written:
        return OddCell(text, "is a percentage")
    if whole and abs(value) >= _EXACT:
        return OddCell(text, "is a number of more than 15 digits, of which the last are lost")
    if whole and value >= 0 and re.fullmatch("0{2,}", written):
        return text.zfill(len(written))
    return text
