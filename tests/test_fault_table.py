"""The table of ``make faults``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fault_table import main
from faults import FAULTS_FILE, record_fault


def collect(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    file = folder / "collected.jsonl"
    monkeypatch.setenv(FAULTS_FILE, str(file))
    monkeypatch.setattr(sys, "argv", ["fault_table", str(file), str(folder / "faults.md")])
    return file


def test_rows_of_one_name_are_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collect(monkeypatch, tmp_path)
    record_fault("SIGKILL", tried=3, survived=3, lost=0)
    record_fault("SIGKILL", tried=2000, survived=2000, lost=0)
    record_fault("full disk", tried=1, survived=1, lost=0, note="on a small file system")
    assert main() == 0
    text = (tmp_path / "faults.md").read_text()
    assert "| SIGKILL | 2,003 | 2,003 | 0 |  |" in text
    assert "| full disk | 1 | 1 | 0 | on a small file system |" in text


@pytest.mark.parametrize(("note", "code"), [("", 1), ("cannot be prevented, since …", 0)])
def test_a_loss_needs_a_reason(
    note: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect(monkeypatch, tmp_path)
    record_fault("canary", tried=5, survived=4, lost=1, note=note)
    assert main() == code


def test_nothing_tried_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collect(monkeypatch, tmp_path).write_text("")
    assert main() == 1


def test_without_the_variable_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = collect(monkeypatch, tmp_path)
    monkeypatch.delenv(FAULTS_FILE)
    record_fault("SIGKILL", tried=1, survived=1, lost=0)
    assert not file.exists()
