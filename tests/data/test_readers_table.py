"""Tables: a row an utterance or an example, from CSV or Excel, with columns found or named."""

from __future__ import annotations

import builtins
import csv
import json
from pathlib import Path
from typing import Any

import pytest
from sample_files import with_sheet

from recap.data.issues import IssueLog
from recap.data.readers import archives
from recap.data.readers.tables import read_table
from recap.errors import ConfigError, DataError
from recap.records import Dialogue, Example, Turn

UTTERANCES = [
    ["session", "speaker", "text", "label"],
    ["s1", "counselor", "How was it?", "question"],
    ["s1", "client", "Fine, I\nguess.", "Minimum Talk"],
    ["s2", "therapist", "Hello", ""],
    ["s2", "patient", "Hello", "n/a"],
]
EXAMPLES = [
    ["id", "session", "history", "response", "label", "rationale"],
    ["e1", "s1", "Counselor: Why?\nClient: So.\nCounselor: I see.", "Client: No.", "Blaming", "x"],
    ["e2", "s1", "What did you do?", "Nothing.", "Excusing", ""],
    ["e3", "", "", "Alone.", "", ""],
]


def write_csv(tmp_path: Path, rows: list[list[str]], **options: Any) -> Path:
    path = tmp_path / "t.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, **options).writerows(rows)
    return path


def write_excel(tmp_path: Path, sheets: dict[str, list[list[Any]]]) -> Path:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        page = book.create_sheet(name)
        for row in rows:
            page.append(row)
    path = tmp_path / "t.xlsx"
    book.save(path)
    return path


def read(path: Path, **options: Any) -> tuple[list[Dialogue | Example], IssueLog]:
    issues = IssueLog(path.name)
    found = list(read_table(path, issues=issues, **options))
    return found, issues


def check_utterances(found: list[Dialogue | Example]) -> None:
    assert found == [
        Dialogue(
            session="s1",
            turns=(
                Turn(speaker="counselor", text="How was it?", label="question"),
                Turn(speaker="client", text="Fine, I\nguess.", label="Minimum Talk"),
            ),
        ),
        Dialogue(
            session="s2",
            turns=(
                Turn(speaker="counselor", text="Hello"),
                # Whether that is a label is for the task to say.
                Turn(speaker="client", text="Hello", label="n/a"),
            ),
        ),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_of_utterances_gives_a_dialogue_a_session(tmp_path: Path, delimiter: str) -> None:
    found, issues = read(write_csv(tmp_path, UTTERANCES, delimiter=delimiter))
    check_utterances(found)
    assert (issues.rows_read, issues.rows_rejected) == (4, 0)


def test_excel_gives_the_same_as_csv(tmp_path: Path) -> None:
    found, issues = read(write_excel(tmp_path, {"data": UTTERANCES, "notes": [["x"]]}))
    check_utterances(found)
    assert issues.rows_read == 4


def test_a_sheet_may_be_named_and_a_wrong_name_lists_them(tmp_path: Path) -> None:
    path = write_excel(tmp_path, {"notes": [["x"]], "data": UTTERANCES})
    check_utterances(read(path, sheet="data")[0])
    with pytest.raises(DataError, match=r"data\.options\.sheet, one of: notes, data"):
        read(path, sheet="dat")


def test_whole_numbers_in_excel_are_ids_without_a_decimal_point(tmp_path: Path) -> None:
    rows = [["session", "speaker", "text"], [12.0, "client", "a"], [12, "client", 3.5]]
    (found,), _ = read(write_excel(tmp_path, {"data": rows}))
    assert found.session == "12"
    assert [turn.text for turn in found.turns] == ["a", "3.5"]


def test_a_missing_openpyxl_is_told_with_the_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_excel(tmp_path, {"data": UTTERANCES})
    imported = builtins.__import__

    def without_openpyxl(name: str, *rest: Any, **options: Any) -> Any:
        if name == "openpyxl":
            raise ImportError(name)
        return imported(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without_openpyxl)
    with pytest.raises(DataError, match=r"pip install recap\[excel\]"):
        read(path)


@pytest.mark.parametrize(("name", "hint"), [("t.xlsx", "save it again"), ("t.xls", "save it as")])
def test_a_file_that_is_no_excel_file_is_told_so(tmp_path: Path, name: str, hint: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"not a workbook")
    with pytest.raises(DataError, match=hint):
        read(path)


def test_a_table_of_examples_reads_histories_as_lines_as_one_turn_or_as_none(
    tmp_path: Path,
) -> None:
    found, issues = read(write_csv(tmp_path, EXAMPLES))
    assert [(e.id, e.session, e.response, e.label, e.rationale) for e in found] == [
        ("e1", "s1", "No.", "Blaming", "x"),
        ("e2", "s1", "Nothing.", "Excusing", None),
        ("e3", None, "Alone.", None, None),
    ]
    assert [[(t.speaker, t.text) for t in e.history] for e in found] == [
        [("counselor", "Why?"), ("client", "So."), ("counselor", "I see.")],
        [("counselor", "What did you do?")],
        [],
    ]
    assert issues.rows_read == 3


def test_a_history_may_be_json(tmp_path: Path) -> None:
    history = json.dumps([{"speaker": "咨询师", "text": "为什么？"}], ensure_ascii=False)
    rows = [["history", "response"], [history, "不知道"], ["[sighs] Tell me more", "No"]]
    first, second = read(write_csv(tmp_path, rows))[0]
    assert first.history == (Turn(speaker="counselor", text="为什么？"),)
    assert second.history == (Turn(speaker="counselor", text="[sighs] Tell me more"),)


def test_columns_are_found_by_usual_names_in_any_case_or_language(tmp_path: Path) -> None:
    rows = [["Dialogue ID", "角色", " 内容 ", "Category"], ["s", "来访者", "你好", "x"]]
    (found,), _ = read(write_csv(tmp_path, rows))
    assert found == Dialogue(session="s", turns=(Turn(speaker="client", text="你好", label="x"),))


def test_columns_may_be_named_and_unset_ones_are_still_found(tmp_path: Path) -> None:
    rows = [["session", "who", "text", "said"], ["s", "client", "note", "hello"]]
    path = write_csv(tmp_path, rows)
    (found,), _ = read(path, columns={"text": "said", "speaker": "who", "label": None})
    assert found.turns == (Turn(speaker="client", text="hello"),)


def test_a_table_of_utterances_without_a_session_column_is_one_session(tmp_path: Path) -> None:
    (found,), _ = read(write_csv(tmp_path, [["speaker", "text"], ["client", "a"], ["client", "b"]]))
    assert (found.session, len(found.turns)) == ("t", 2)


def test_columns_named_as_meta_are_carried_along(tmp_path: Path) -> None:
    rows = [["session", "speaker", "text", "wai"], ["s", "client", "a", "70"]]
    (found,), _ = read(write_csv(tmp_path, rows), meta=["wai"])
    assert found.meta == {"wai": "70"}


def test_other_speaker_names_can_be_given(tmp_path: Path) -> None:
    rows = [["speaker", "text"], ["T", "a"], ["c", "b"]]
    (found,), _ = read(write_csv(tmp_path, rows), speakers={"T": "counselor", "C": "client"})
    assert [turn.speaker for turn in found.turns] == ["counselor", "client"]
    with pytest.raises(ConfigError, match="must be counselor, client, other or text"):
        read(tmp_path / "t.csv", speakers={"T": "teacher"})


def test_bad_rows_are_noted_with_their_first_line_and_the_others_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "session,speaker,text,label\n"  # line 1
        's1,counselor,"two\nlines",\n'  # 2 and 3
        "s1,nurse,hello,\n"  # 4: unknown speaker
        "s1,client\n"  # 5: too few fields
        "\n"  # 6: no row
        's1,client,"he said "no" to me",x\n'  # 7: quotation marks not doubled
        ",client,hello,x\n"  # 8: no session
        "s1,client,hello,x\n"  # 9
        "s2,client,hello,x\n"  # 10
        "s1,client,hello,x\n"  # 11: session s1 again
        's2,client,"never closed,x\n',  # 12
        encoding="utf-8",
    )
    found, issues = read(path)
    assert [(d.session, len(d.turns)) for d in found] == [("s1", 2), ("s2", 1)]
    assert sorted((fault.line, fault.field) for fault in issues.issues) == [
        (4, "speaker"),
        (5, "row"),
        (7, "row"),
        (8, "session"),
        (11, "session"),
        (12, "row"),
    ]
    assert (issues.rows_read, issues.rows_rejected) == (9, 6)


def test_a_header_that_comes_again_is_no_row_of_words(tmp_path: Path) -> None:
    found, issues = read(write_csv(tmp_path, [*EXAMPLES, EXAMPLES[0], ["e4", "", "", "x", "", ""]]))
    assert [example.id for example in found] == ["e1", "e2", "e3", "e4"]
    assert [(fault.line, fault.reason) for fault in issues.issues] == [(7, "repeats the header")]


def test_whoever_names_the_client_names_the_sessions_client(tmp_path: Path) -> None:
    rows = [["session", "turn", "speaker", "text", "client", "topic"]]
    rows += [["a", "1", "client", "w", "c7", "late"], ["a", "0", "counselor", "q", "", "first"]]
    ((dialogue,), _) = read(write_csv(tmp_path, rows), meta=["topic"])
    assert isinstance(dialogue, Dialogue)
    assert (dialogue.client, dialogue.counselor, dialogue.meta) == ("c7", None, {"topic": "first"})


def test_a_nul_in_a_cell_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"speaker,text\nclient,a\0b\nclient,c\n")
    (found,), issues = read(path)
    assert [turn.text for turn in found.turns] == ["c"]
    assert [fault.line for fault in issues.issues] == [2]


@pytest.mark.parametrize(
    ("header", "options", "error", "message"),
    [
        ("speaker,words", {}, DataError, r"data\.options\.columns=\{text: NAME"),
        ("speaker,utterence", {}, DataError, r"did you mean 'utterance'"),
        ("text,response", {}, DataError, r"'text' and 'response' .*columns\.text=NAME"),
        ("text,text", {}, DataError, r"columns 1 and 2 have the same name"),
        ("text,code", {"columns": {"label": "codes"}}, DataError, r"did you mean 'code'.*label"),
        ("text,code", {"columns": {"lable": "code"}}, ConfigError, r"did you mean 'label'"),
        ("text,code", {"meta": ["cod"]}, DataError, r"did you mean 'code'.*data\.options\.meta"),
        ("", {}, DataError, "is empty"),
    ],
)
def test_a_header_that_does_not_serve_names_the_mend(
    tmp_path: Path, header: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(header)
    with pytest.raises(error, match=message):
        read(path, **options)


def test_a_long_cell_costs_its_own_row_alone(tmp_path: Path) -> None:
    rows = [["client", "a" * 131_072], ["client", "b\n" * 70_000], ["client", "c"]]
    (found,), issues = read(write_csv(tmp_path, [["speaker", "text"], *rows]))
    assert [len(turn.text) for turn in found.turns] == [131_072, 1]
    assert [(fault.line, fault.reason.split(",")[0]) for fault in issues.issues] == [
        (3, "has 140")  # 140,000 characters
    ]


def test_a_broken_header_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('speaker,"text" of it\nclient,a\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"t\.csv:1: the header is not valid CSV"):
        read(path)


def test_a_delimiter_is_one_character(tmp_path: Path) -> None:
    path = write_csv(tmp_path, [["speaker", "text"], ["client", "a"]])
    with pytest.raises(ConfigError, match=r"data\.options\.delimiter: must be one character"):
        read(path, delimiter="::")


def test_json_of_a_history_names_speaker_and_text_or_is_a_fault(tmp_path: Path) -> None:
    good = json.dumps([{"speaker": "client", "text": "a"}])
    unknown = json.dumps([{"speaker": "client", "text": None}])
    deep = "[" * 100_000
    twice = good.replace('"text": "a"', '"text": "a", "text": "b"')
    rows = [["history", "response"], [good, "1"], [unknown, "2"], [deep, "3"], ["[sighs]", "4"]]
    found, issues = read(write_csv(tmp_path, [*rows, [twice, "5"]]))
    assert [[t.text for t in e.history] for e in found] == [["a"], [deep], ["[sighs]"]]
    assert [(fault.line, fault.field) for fault in issues.issues] == [
        (3, "history"),
        (6, "history"),
    ]


def test_a_formula_without_its_value_is_a_fault_of_its_row(tmp_path: Path) -> None:
    rows = [["speaker", "text"], ["client", "=1+1"], ["client", "two"], ["counselor", None]]
    (found,), issues = read(write_excel(tmp_path, {"a": rows}))
    assert [turn.text for turn in found.turns] == ["two", ""]
    assert [(fault.line, fault.field) for fault in issues.issues] == [(2, "text")]
    assert "in cell B2" in str(issues.issues[0])
    assert (issues.rows_read, issues.rows_rejected) == (3, 1)


def test_what_a_sheet_says_of_its_size_cuts_nothing_off(tmp_path: Path) -> None:
    path = write_excel(tmp_path, {"a": [["speaker", "text"], ["client", "a"], ["client", "b"]]})
    path.write_bytes(
        with_sheet(path.read_bytes(), lambda xml: xml.replace('ref="A1:B3"', 'ref="A1"'))
    )
    (found,), issues = read(path)
    assert [turn.text for turn in found.turns] == ["a", "b"]
    assert issues.rows_read == 2


def test_a_sheet_that_unpacks_to_too_much_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_excel(tmp_path, {"a": [["speaker", "text"], ["client", "a" * 30_000]]})
    monkeypatch.setattr(archives, "MOST_UNPACKED", 20_000)
    with pytest.raises(DataError, match=r"zip bomb"):
        read(path)


def test_xml_that_defines_entities_is_refused(tmp_path: Path) -> None:
    path = write_excel(tmp_path, {"a": [["speaker", "text"], ["client", "a"]]})
    declared = '<!DOCTYPE worksheet [<!ENTITY a "aaaa">]>'
    path.write_bytes(with_sheet(path.read_bytes(), lambda xml: declared + xml))
    with pytest.raises(DataError, match="document type"):
        read(path)
