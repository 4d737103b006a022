"""Sheets as spreadsheet programs and libraries write them: every cell right, or named."""

from __future__ import annotations

import datetime
import json
import re
import tempfile
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recap.corpus.__main__ import main
from recap.data.issues import IssueLog
from recap.data.readers.tables import read_sheet
from recap.output.excel import workbook_bytes

HEADER = ["session", "speaker", "text", "label"]
ROWS: list[list[Any]] = [
    ["a", "counselor", "How was it?", None],
    ["a", "client", "It went badly.", "Pessimism"],
    ["a", "counselor", "And now?", None],
    ["a", "client", "Nothing will change.", "Pessimism"],
]


def book(path: Path, rows: Sequence[Sequence[Any]], formats: dict[str, str] | None = None) -> Path:
    made = openpyxl.Workbook()
    for row in (HEADER, *rows):
        made.active.append(row)
    for cell, written in (formats or {}).items():
        made.active[cell].number_format = written
    made.save(path)
    return path


def rewritten(path: Path, part: str, change: Any) -> Path:
    """Change the XML of one part of a workbook, as another program would have written it."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    before = parts[part].decode("utf-8")
    parts[part] = change(before).encode("utf-8")
    assert parts[part] != before.encode("utf-8")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def exit_code(path: Path, *more: str) -> int:
    return main(["action=describe", "data=table", f"data.path={path}", f"out={path.parent}", *more])


def describe(path: Path, *more: str) -> dict[str, Any]:
    assert exit_code(path, *more) == 0
    found: dict[str, Any] = json.loads((path.parent / "describe.json").read_text("utf-8"))
    return found


def cells(path: Path) -> list[dict[str, str]]:
    return [row for _, row in read_sheet(path, IssueLog("t")).rows]


def test_escaped_characters_are_read_as_what_they_stand_for(tmp_path: Path) -> None:
    odd = [[*ROWS[0][:2], "How was it?_x000D_\nTell me. _x005F_x000D_ _x4E2D_", None], *ROWS[1:]]
    assert cells(book(tmp_path / "t.xlsx", odd))[0]["text"] == "How was it?\nTell me. _x000D_ 中"


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"])), min_size=1))
def test_what_the_library_writes_it_reads_back(texts: list[str]) -> None:
    """Literal escapes among them, which a spreadsheet program would turn into characters too."""
    written = [*(f"x{text}_x0041_" for text in texts)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.xlsx"
        path.write_bytes(workbook_bytes({"s": (("text",), [(text,) for text in written])}))
        assert [row["text"] for row in cells(path)] == written


@pytest.mark.parametrize(
    ("column", "value", "written", "found"),
    [
        ("text", datetime.datetime(2026, 1, 2), None, "a date or a time in cell C3"),
        ("text", datetime.time(9, 30), None, "a date or a time in cell C3"),
        ("text", True, None, "the truth value TRUE in cell C3"),
        ("text", 0.25, "0%", "a percentage in cell C3"),
        ("session", datetime.date(2026, 1, 2), None, "a date or a time in cell A3"),
        ("session", 12345678901234567, None, "more than 15 digits"),
        ("session", 0.5, "0.0%", "a percentage in cell A3"),
        ("label", False, None, "the truth value FALSE in cell D3"),
        ("label", "#N/A", None, "the error #N/A"),
        ("session", "#NAME?", None, "the error #NAME? of a spreadsheet in cell A3"),
    ],
)
def test_what_a_spreadsheet_made_of_a_text_or_an_id_is_a_fault_that_names_the_cell(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    column: str,
    value: Any,
    written: str | None,
    found: str,
) -> None:
    rows = [list(row) for row in ROWS]
    rows[1][HEADER.index(column)] = value
    cell = f"{'ABCD'[HEADER.index(column)]}3"
    path = book(tmp_path / "t.xlsx", rows, {cell: written} if written else None)
    assert exit_code(path) == 2
    message = capsys.readouterr().err
    assert f"t.xlsx:3: {column}: is " in message
    assert found in message
    assert "2026" not in message


def test_ids_are_read_as_the_sheet_shows_them(tmp_path: Path) -> None:
    rows = [[7, *row[1:]] for row in ROWS]
    path = book(tmp_path / "t.xlsx", rows, {"A2": "000", "A3": "0", "A4": "General", "A5": "@"})
    assert [row["session"] for row in cells(path)] == ["007", "7", "7", "7"]


def test_dates_may_stand_in_columns_that_are_not_read(tmp_path: Path) -> None:
    made = openpyxl.Workbook()
    made.active.append([*HEADER, "held_on"])
    for row in ROWS:
        made.active.append([*row, datetime.date(2026, 1, 2)])
    made.save(tmp_path / "t.xlsx")
    assert describe(tmp_path / "t.xlsx")["labelled"]["n"] == 2


def swap_rows(xml: str) -> str:
    found = re.findall(r"<row r=.*?</row>", xml, re.DOTALL)
    return xml.replace(found[3] + found[4], found[4] + found[3])


def repeat_row(xml: str) -> str:
    found = re.findall(r"<row r=.*?</row>", xml, re.DOTALL)
    return xml.replace(found[3], found[3] + found[3])


@pytest.mark.parametrize("change", [swap_rows, repeat_row])
def test_rows_that_do_not_stand_in_order_are_named_and_none_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any
) -> None:
    path = rewritten(book(tmp_path / "t.xlsx", ROWS), "xl/worksheets/sheet1.xml", change)
    assert exit_code(path) == 2
    assert "t.xlsx: row 4 of sheet 'Sheet' comes after row " in capsys.readouterr().err


@pytest.mark.parametrize("address", ["C3", "C9"])
def test_a_cell_that_comes_twice_or_belongs_elsewhere_costs_its_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    path = rewritten(
        book(tmp_path / "t.xlsx", ROWS),
        "xl/worksheets/sheet1.xml",
        lambda xml: xml.replace('r="D3"', f'r="{address}"'),
    )
    assert exit_code(path) == 2
    assert "t.xlsx:3: column " in capsys.readouterr().err


def test_a_hidden_sheet_is_read_only_when_it_is_named(tmp_path: Path) -> None:
    made = openpyxl.Workbook()
    hidden, shown = made.active, made.create_sheet("Shown")
    hidden.title, hidden.sheet_state = "Old", "hidden"
    for sheet, rows in ((hidden, ROWS[:2]), (shown, ROWS)):
        for row in (HEADER, *rows):
            sheet.append(row)
    made.active = 1
    path = tmp_path / "t.xlsx"
    made.save(path)
    assert describe(path)["labelled"]["n"] == 2
    assert describe(path, "data.options.sheet=Old")["labelled"]["n"] == 1


def test_a_workbook_of_hidden_sheets_alone_is_refused_by_their_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = rewritten(
        book(tmp_path / "t.xlsx", ROWS),
        "xl/workbook.xml",
        lambda xml: xml.replace('state="visible"', 'state="veryHidden"'),
    )
    assert exit_code(path) == 2
    assert "all of its sheets are hidden (Sheet)" in capsys.readouterr().err


def test_other_visible_sheets_are_said_not_to_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = openpyxl.load_workbook(book(tmp_path / "t.xlsx", ROWS))
    made.create_sheet("Second").append(HEADER)
    made.save(tmp_path / "t.xlsx")
    path = tmp_path / "t.xlsx"
    describe(path)
    printed = " ".join(capsys.readouterr().out.split())
    assert "1 more sheets of the workbook are not read" in printed


def test_merged_cells_of_which_one_alone_holds_the_label_are_a_fault_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = openpyxl.Workbook()
    for row in ([*HEADER, "remark"], *([*one, "same"] for one in ROWS)):
        made.active.append(row)
    made.active.merge_cells("E2:E5")
    made.save(tmp_path / "t.xlsx")
    # Columns that are not read may be merged.
    assert exit_code(tmp_path / "t.xlsx") == 0
    made.active.merge_cells("D3:D5")
    made.save(tmp_path / "t.xlsx")
    assert exit_code(tmp_path / "t.xlsx") == 2
    message = capsys.readouterr().err
    reason = "label: is one of the merged cells D3:D5, which hold one value in cell"
    assert [f"t.xlsx:{line}: {reason} D{line}" in message for line in (3, 4, 5)] == [False, 1, 1]


def test_formulas_may_give_no_text_or_wait_in_columns_that_are_not_read(tmp_path: Path) -> None:
    made = openpyxl.Workbook()
    for row in ([*HEADER, "length"], *([*one, "=LEN(C2)"] for one in ROWS)):
        made.active.append(row)
    made.active["D2"] = '=IF(B2="client","?","")'
    made.save(tmp_path / "t.xlsx")
    assert exit_code(tmp_path / "t.xlsx") == 2
    # As Excel and LibreOffice save a formula that gives a text without a character.
    change = partial(re.sub, r'<c r="D2"><f>(.*?)</f><v ?/>', r'<c r="D2" t="str"><f>\1</f><v></v>')
    path = rewritten(tmp_path / "t.xlsx", "xl/worksheets/sheet1.xml", change)
    assert describe(path)["labelled"]["n"] == 2


def test_elapsed_times_order_rows_beyond_a_day(tmp_path: Path) -> None:
    made = openpyxl.Workbook()
    made.active.append(["start", *HEADER])
    for hours, row in zip((30, 0.01, 31.5, 29), ROWS, strict=True):
        made.active.append([datetime.timedelta(hours=hours), *row])
    made.save(tmp_path / "t.xlsx")
    assert [row["start"] for row in cells(tmp_path / "t.xlsx")] == [
        *("30:00:00", "0:00:36", "31:30:00", "29:00:00")
    ]
    assert describe(tmp_path / "t.xlsx")["dialogues"]["after_counselor"] == 0


def test_an_underscore_that_is_one_stays_also_in_texts_that_sheets_share(tmp_path: Path) -> None:
    path = book(tmp_path / "t.xlsx", ROWS)
    content = ("session", "speaker", "text", "label", "a", "client", "a_x000D_&#10;_x005F_x0041_")
    shared = "".join(f"<si><t>{text}</t></si>" for text in content)
    rows = ["".join(f'<c t="s"><v>{n}</v></c>' for n in row) for row in ((0, 1, 2, 3), (4, 5, 6))]
    data = "<sheetData>" + "".join(f"<row>{row}</row>" for row in rows) + "</sheetData>"
    sheet = "xl/worksheets/sheet1.xml"
    rewritten(path, sheet, lambda xml: re.sub("<sheetData>.*</sheetData>", data, xml))
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/sharedStrings"
    link = f'<Relationship Id="rId99" Type="{kind}" Target="sharedStrings.xml"/></Relationships>'
    rewritten(path, "xl/_rels/workbook.xml.rels", lambda x: x.replace("</Relationships>", link))
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
    part = f'<Override PartName="/xl/sharedStrings.xml" ContentType="{kind}"/></Types>'
    rewritten(path, "[Content_Types].xml", lambda xml: xml.replace("</Types>", part))
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("xl/sharedStrings.xml", f'<sst xmlns="{space}">{shared}</sst>')
    assert [row["text"] for row in cells(path)] == ["a\n_x0041_"]
    assert exit_code(path, "labels=raw") == 0
