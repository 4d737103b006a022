from __future__ import annotations

import math
from pathlib import Path

import pytest

from recap.errors import DataError
from recap.insights.alliance import join, join_key, read_session_table


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_numbers_and_what_is_not_known(tmp_path: Path) -> None:
    read = read_session_table(table(tmp_path, "session,goal\nA,1.5\nB,\nC,NA\nD,-2e1\n"))
    values = read.numbers("goal")
    assert (values[0], values[3]) == (1.5, -20.0)
    assert all(math.isnan(value) for value in values[1:3])


def test_cells_that_are_no_numbers_are_listed_without_their_text(tmp_path: Path) -> None:
    read = read_session_table(table(tmp_path, "session,goal\nA,a secret\nB,inf\nC,2\n"))
    with pytest.raises(DataError) as error:
        read.numbers("goal")
    assert ":2: goal: is no number (a text of 8 characters)" in str(error.value)
    assert ":3: goal:" in str(error.value)
    assert "secret" not in str(error.value)


def test_a_missing_column_is_named_with_the_closest(tmp_path: Path) -> None:
    read = read_session_table(table(tmp_path, "session,total_goal\nA,1\n"))
    with pytest.raises(DataError, match="did you mean 'total_goal'"):
        read.numbers("total_gaol")


def test_keys_have_to_be_there_once(tmp_path: Path) -> None:
    read = read_session_table(table(tmp_path, "pair,session\n1,1\n1,2\n1,1\n,3\n"))
    with pytest.raises(DataError) as error:
        read.keys(["pair", "session"])
    assert ":4: pair, session: '1' and '1' is at line 2 already" in str(error.value)
    assert ":5: pair, session: is empty" in str(error.value)


def test_keys_of_a_spreadsheet_and_of_a_csv_file_meet() -> None:
    assert join_key(["7.0", " S "]) == join_key(["7", "S"])
    assert join([("1",), ("2",), ("3",)], [("3",), ("9",), ("1",)]) == [(0, 2), (2, 0)]


def test_other_files_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no table"):
        read_session_table(tmp_path / "talks.jsonl")
    with pytest.raises(DataError, match="no rows"):
        read_session_table(table(tmp_path, "a,b\n"))
