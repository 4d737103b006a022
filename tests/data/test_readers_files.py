"""Files as users have them: other encodings, cut ends, missing, and JSON lists."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from recap.corpus.__main__ import main
from recap.data.issues import IssueLog
from recap.data.readers.files import existing_file, json_rows, text_lines
from recap.errors import DataError

ROWS = [{"a": "来访者"}, {"a": "second"}]
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n"


def rows_of(path: Path) -> tuple[list[tuple[int, dict[str, str]]], IssueLog]:
    issues = IssueLog(path.name)
    return list(json_rows(path, issues)), issues


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_encodings_with_a_mark_and_both_line_ends_are_read_alike(
    tmp_path: Path, encoding: str, line_end: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(LINES.replace("\n", line_end).encode(encoding))
    assert rows_of(path)[0] == [(1, ROWS[0]), (2, ROWS[1])]


def test_another_encoding_ends_in_one_message_that_says_how_to_convert(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(("{}\n" + LINES).encode("gbk"))
    with pytest.raises(DataError, match=r"a\.jsonl:2: .*UTF-8.*iconv"):
        rows_of(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (LINES.encode("utf-16-le"), "looks like UTF-16LE without a byte-order mark"),
        (LINES.encode("utf-16-be"), "looks like UTF-16BE without a byte-order mark"),
        (LINES.encode("utf-32"), "is in UTF-32"),
        (('{"a": "来访者说，她不知道该怎么办。"}\n' * 3).encode("gbk"), "it looks like GB18030"),
        ('{"a": "un café déjà fermé"}\n'.encode("latin-1"), "it looks like WINDOWS-1252"),
        (gzip.compress(LINES.encode(), mtime=0), "gunzip"),
        (b"PK\x03\x04...", "a zip archive, an Excel or a Word file"),
        (b"\xd0\xcf\x11\xe0...", "encrypted Office file"),
    ],
)
def test_a_file_of_another_form_is_told_for_what_it_is(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said):
        rows_of(path)


def test_a_file_cut_inside_a_character_loses_its_last_row_only(tmp_path: Path) -> None:
    whole = (LINES + '{"a": "心"}').encode()
    path = tmp_path / "a.jsonl"
    path.write_bytes(whole[: whole.rindex("心".encode()) + 2])
    found, issues = rows_of(path)
    assert found == [(1, ROWS[0]), (2, ROWS[1])]
    assert [fault.line for fault in issues.issues] == [3]
    assert (issues.rows_read, issues.rows_rejected) == (3, 1)


def test_a_raw_nul_is_a_fault_of_its_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": "x\0y"}\n{"a": "z"}\n')
    found, issues = rows_of(path)
    assert found == [(2, {"a": "z"})]
    assert issues.issues[0].line == 1


def test_rows_of_a_json_list_have_the_line_they_begin_on(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('\n[\n  {"a": 1},\n  3,\n  {"a": "\\n",\n   "b": 2}\n]\n', encoding="utf-8")
    found, issues = rows_of(path)
    assert found == [(3, {"a": 1}), (5, {"a": "\n", "b": 2})]
    assert [(fault.line, fault.reason) for fault in issues.issues] == [(4, "is a JSON number")]
    assert issues.rows_read == 3


def test_rows_that_begin_on_one_line_are_told_apart_by_their_index(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"a": 1}, 2, {"b": 3},\n4]', encoding="utf-8")
    found, issues = rows_of(path)
    assert [row for _, row in found] == [{"a": 1}, {"b": 3}]
    for line, _ in found:
        for field in ("x", "y"):
            issues.reject(line, field, "is wrong", "mend it")
    assert [(fault.line, fault.field) for fault in issues.issues] == [
        *((1, "[1]"), (2, "row")),
        *((1, "[0].x"), (1, "[0].y"), (1, "[2].x"), (1, "[2].y")),
    ]
    assert (issues.rows_read, issues.rows_rejected) == (4, 4)


def test_what_follows_a_list_is_a_fault_and_not_lost_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"a": 1}]\n[{"a": 2}]\n', encoding="utf-8")
    found, issues = rows_of(path)
    assert [row for _, row in found] == [{"a": 1}]
    assert [fault.reason for fault in issues.issues] == ["something follows the end of the list"]
    assert (issues.rows_read, issues.rows_rejected) == (2, 1)


def test_twenty_levels_are_read_and_one_more_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"a": {"[" * n}{"]" * n}}}\n' for n in (19, 20)), encoding="utf-8")
    found, issues = rows_of(path)
    assert [line for line, _ in found] == [1]
    assert [(fault.line, fault.field) for fault in issues.issues] == [(2, "row")]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have_are_faults(tmp_path: Path, number: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"a": {number}}}\n{{"a": null}}\n', encoding="utf-8")
    found, issues = rows_of(path)
    assert found == [(2, {"a": None})]
    assert f"{number} is no JSON, null is" in issues.issues[0].reason


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ('{"a": 1, "b": {"c": [{"d": 1, "d": 2}]}}', "row", "key 'd' is there 2 times"),
        ('{"a": {}, "a": {}, "a": {}}', "row", "key 'a' is there 3 times"),
        ('{"a": {"score": [1, -1e999]}}', "row", "holds a number that is too large"),
        (r'{"a": {"b": [0, "x\ud83d"]}}', "a.b[1]", "half of a character"),
        (r'{"a": {"\udc00 b": "x"}}', "a", "has a key with half of a character"),
        (r'{"a": "x\u0000"}', "a", "holds a NUL character"),
    ],
)
def test_what_python_would_lose_or_could_not_write_costs_its_row_alone(
    tmp_path: Path, row: str, field: str, reason: str
) -> None:
    sound = r'{"a": "\ud83d\ude00", "b": 1e300}'
    for name, text in (("a.jsonl", f"{row}\n{sound}\n"), ("a.json", f"[{row},\n{sound}]")):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        found, issues = rows_of(path)
        assert found == [(2, {"a": "\U0001f600", "b": 1e300})]
        (fault,) = issues.issues
        assert (fault.line, fault.field) == (1, field)
        assert reason in fault.reason


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_mark_where_files_were_put_together_is_no_part_of_a_row(
    tmp_path: Path, encoding: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\ufeff{"a": "\ufeffx"}\n', encoding=encoding)
    assert rows_of(path)[0] == [(1, {"a": 1}), (2, {"a": "\ufeffx"})]


def test_sound_dialogues_on_one_line_are_validated(tmp_path: Path) -> None:
    turns = [{"speaker": "counselor", "text": "q"}, {"speaker": "client", "text": "jo@mail.org"}]
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"session": s, "turns": turns} for s in "ab"]), encoding="utf-8")
    out = tmp_path / "out"
    assert main(["action=validate", "data=dialogues", f"data.path={path}", f"out={out}"]) == 0
    hints = json.loads((out / "validate.json").read_text("utf-8"))["hints"]
    assert [hint["line"] for hint in hints if hint["kind"] == "email_like"] == [1, 1]


def test_a_json_list_that_breaks_off_keeps_what_was_read_and_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"a": 1},\n {"a": 2},\n {"a": ', encoding="utf-8")
    found, issues = rows_of(path)
    assert [row for _, row in found] == [{"a": 1}, {"a": 2}]
    assert [fault.line for fault in issues.issues] == [3]
    assert (issues.rows_read, issues.rows_rejected) == (3, 1)


def test_cutting_a_file_at_any_byte_gives_rows_and_faults_but_no_exception(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for whole in (LINES.encode(), json.dumps(ROWS, ensure_ascii=False, indent=1).encode()):
        for end in range(len(whole)):
            path.write_bytes(whole[:end])
            found, issues = rows_of(path)
            assert issues.rows_read == len(found) + issues.rows_rejected


def test_deep_nesting_and_endless_numbers_are_faults(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("{}\n" + '{"a":' * 100_000 + "\n" + '{"a": ' + "9" * 5000 + "}\n")
    found, issues = rows_of(path)
    assert [line for line, _ in found] == [1]
    assert [fault.line for fault in issues.issues] == [2, 3]


def test_no_path_a_missing_file_and_a_folder_are_each_told_with_the_mend(tmp_path: Path) -> None:
    (tmp_path / "dialogues.csv").touch()
    with pytest.raises(DataError, match=r"data\.path=FILE"):
        existing_file(None)
    with pytest.raises(DataError, match=r"did you mean 'dialogues\.csv'.*correct the path"):
        existing_file(tmp_path / "dialogue.csv")
    with pytest.raises(DataError, match=r"is a folder.*data\.path=FILE"):
        existing_file(tmp_path)
    with pytest.raises(DataError, match=r"too long.*correct the path"):
        existing_file(tmp_path / ("a" * 300))


def test_only_line_feeds_end_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("a\u2028b\x0bc\nd".encode("utf-16"))
    assert list(text_lines(path, IssueLog("a"))) == ["a\u2028b\x0bc\n", "d"]
