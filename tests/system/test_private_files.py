"""Files that hold words of clients are their owner's alone, whatever the umask."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from recap.output.excel import workbook_bytes
from recap.predict.output import AnnotationFile
from recap.prompt.clients import Reply
from recap.prompt.requests import AnswerCache
from recap.runs.folder import write_json
from recap.system.files import write_atomic

WRITTEN_APART: list[str] = []


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o277], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_private_file_is_never_readable_by_others(umask: int, tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", "x", private=True)
    write_json(tmp_path / "b", {}, private=True)
    write_atomic(tmp_path / "open", "x")
    AnswerCache(tmp_path, Reply).write("key", Reply(text="x"))
    assert mode(tmp_path / "a") == mode(tmp_path / "b") == 0o600 & ~umask
    assert mode(tmp_path / "ke/key.json") == 0o600 & ~umask
    assert mode(tmp_path / "open") == 0o666 & ~umask


def test_a_file_is_not_widened_when_it_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old", encoding="utf-8")
    path.chmod(0o644)
    write_atomic(path, "new", private=True)
    assert mode(path) == 0o600


def test_an_annotation_is_its_owners_alone(umask: int, tmp_path: Path) -> None:
    with AnnotationFile(tmp_path / "a.jsonl", columns=(), window=1) as file:
        file.append([{"id": "a"}])
    assert mode(tmp_path / "a.jsonl") == 0o600 & ~umask


def test_an_annotation_begun_anew_is_narrowed_and_one_gone_on_with_keeps_its_mode(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("{}\n", encoding="utf-8")
    path.chmod(0o640)
    with AnnotationFile(path, columns=(), window=1) as file:
        file.append([{"id": "a"}])
    assert mode(path) == 0o640
    with AnnotationFile(path, columns=(), window=1) as file:
        file.clear()
    assert mode(path) == 0o600


def test_an_excel_file_is_made_without_a_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "there is no such folder"))
    rows = [["=SUM(1)", 3, None], ["text", 1.5, "鹤唳"]]
    content = workbook_bytes({"one": (["a", "b", "c"], rows), "two": (["d"], [])})
    file = tmp_path / "book.xlsx"
    file.write_bytes(content)
    book = openpyxl.load_workbook(file)
    assert book.sheetnames == ["one", "two"]
    assert [[cell.value for cell in row] for row in book["one"].iter_rows()] == [
        ["a", "b", "c"],
        ["'=SUM(1)", 3, None],
        ["text", 1.5, "鹤唳"],
    ]
    assert book["one"].freeze_panes == "A2"
