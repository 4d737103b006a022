"""Rows of a session in order: by the number of a turn, the time it begins, or as they come."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recap.corpus.__main__ import main
from recap.data.corpus import Corpus, read_corpus
from recap.data.readers import tables
from recap.errors import DataError

HEAD = ("session", "turn", "speaker", "text", "label")


def row(session: str, turn: int | str, text: str = "") -> tuple[str, str, str, str, str]:
    """Return a row; odd turns are the client's."""
    number = int(turn) if str(turn).isdecimal() else 1
    client = number % 2 == 1
    words = text or f"w {session} {turn}"
    return session, str(turn), ("counselor", "client")[client], words, "Blaming" if client else ""


def write(folder: Path, rows: Sequence[Sequence[str]], head: Sequence[str] = HEAD) -> Path:
    path = folder / "t.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return path


def read(path: Path, **given: object) -> Corpus:
    options = {key: given.pop(key) for key in ("columns",) if key in given}
    return read_corpus(reader="table", path=path, taxonomy=None, options=options, **given)  # type: ignore[arg-type]


def talk(found: Corpus) -> dict[str, list[str]]:
    """Return history and response of every example, by id."""
    return {e.id: [*(turn.text for turn in e.history), e.response] for e in found.examples}


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sizes=st.lists(st.integers(2, 13), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_rows_in_any_order_give_the_examples_of_sorted_ones(
    tmp_path: Path, sizes: list[int], seed: int
) -> None:
    rows = [row(f"s{s}", turn) for s, size in enumerate(sizes) for turn in range(size)]
    expected = talk(read(write(tmp_path, rows)))
    random.Random(seed).shuffle(rows)
    assert talk(read(write(tmp_path, rows))) == expected
    assert len(expected) == sum(size // 2 for size in sizes)


def test_ten_comes_after_nine_and_large_files_are_read_session_by_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_SMALL", 0)
    texts = sorted((row("a", turn) for turn in range(12)), key=lambda one: one[1])
    assert [one[1] for one in texts][:3] == ["0", "1", "10"]
    other = [row("b", 0), row("b", 1)]
    together = talk(read(write(tmp_path, [*texts, *other])))
    assert together["a:11"] == [f"w a {turn}" for turn in range(12)]
    apart = talk(read(write(tmp_path, [*texts[:5], *other, *texts[5:]])))
    assert apart == together


FAULTS = {
    "twice": (
        ["0", "1", "1", "2", "3"],
        [(3, "has '1' at lines 3, 4"), (4, "has '1' at lines 3, 4")],
    ),
    "missing": (["0", "1", "4", "5"], [(4, "session 'a' goes from 1 to 4")]),
    "empty": (["0", "1", "", "2", "3"], [(4, "is empty")]),
    "unreadable": (["0", "1", "1b", "2", "3"], [(4, "is no whole number ('1b')")]),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_contradicts_an_order_is_a_fault_and_the_dialogue_is_cut_there(
    tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers, faults = FAULTS[case]
    path = write(tmp_path, [row("a", number) for number in numbers])
    arguments = ["data=table", f"data.path={path}", f"out={tmp_path / 'out'}", "labels=raw"]
    assert main(["action=validate", *arguments]) == 2
    found = json.loads((tmp_path / "out" / "validate.json").read_text("utf-8"))
    assert [(f["line"], f["field"]) for f in found["faults"]] == [
        (line, "turn") for line, _ in faults
    ]
    for fault, (_, reason) in zip(found["faults"], faults, strict=True):
        assert (fault["field"], reason in fault["reason"]) == ("turn", True)
        assert "data.options.columns.turn=false" in fault["mend"]
    assert found["rows_read"] == found["rows_accepted"] + found["rows_rejected"]
    assert found["rows_accepted"] == len(numbers) - (0 if case == "missing" else len(faults))
    with pytest.raises(DataError, match="turn: "):
        read(path)
    kept = read(path, on_error="skip", no_intervention="keep")
    # No history holds a turn of the other side of the gap.
    assert {len(words) for words in talk(kept).values()} <= {1, 2}
    assert kept.counts["cut_dialogues"] == 1


def test_rows_without_a_number_in_a_session_out_of_order_cost_the_session(tmp_path: Path) -> None:
    rows = [row("a", 2), row("a", ""), row("a", 0), row("a", 1), row("b", 0), row("b", 1)]
    found = read(write(tmp_path, rows), on_error="skip")
    assert list(talk(found)) == ["b:1"]
    assert (found.rows_read, found.rows_accepted) == (6, 2)


def test_a_rejected_row_cuts_a_session_also_where_rows_are_shuffled(tmp_path: Path) -> None:
    rows = [row("a", 3), row("a", 0), ("a", "2", "Nobody", "w", ""), row("a", 1)]
    found = read(write(tmp_path, rows), on_error="skip", no_intervention="keep")
    assert talk(found) == {"a:1": ["w a 0", "w a 1"], "a:2": ["w a 3"]}
    assert [(fault.line, fault.field) for fault in found.issues] == [(4, "speaker")]


def test_a_column_may_be_said_to_be_no_order_or_named(tmp_path: Path) -> None:
    exchanges = [("a", str(n // 2), *row("a", n)[2:]) for n in range(4)]
    path = write(tmp_path, exchanges)
    with pytest.raises(DataError, match=r"columns\.turn=false"):
        read(path)
    assert talk(read(path, columns={"turn": False}))["a:3"][0] == "w a 0"
    arguments = ["action=validate", "data=table", f"data.path={path}", "labels=raw"]
    assert main(arguments) == 2
    assert main([*arguments, "data.options.columns.turn=false"]) == 0
    named = write(tmp_path, [row("a", 1), row("a", 0)], ["session", "Nr", *HEAD[2:]])
    assert talk(read(named, columns={"turn": "Nr"})) == {"a:1": ["w a 0", "w a 1"]}


def test_without_a_number_a_session_whose_rows_are_apart_is_a_fault(tmp_path: Path) -> None:
    rows = [(*one[:1], *one[2:]) for one in (row("a", 0), row("b", 0), row("a", 1))]
    with pytest.raises(DataError, match="session 'a' goes on after another one began"):
        read(write(tmp_path, rows, ["session", *HEAD[2:]]))


@pytest.mark.parametrize(
    "times",
    [
        ["0", "9.5", "10", "62"],
        ["0:00:59", "1:00.5", "0:02:00", "1:00:00"],
        [
            "2024-05-01 09:59:00",
            "2024-05-01T10:00:00",
            "2024-05-01 10:00:30",
            "2024-05-02 00:00:00",
        ],
    ],
)
def test_times_order_rows_where_turns_have_no_number(tmp_path: Path, times: list[str]) -> None:
    head = ["session", "start_time", *HEAD[2:]]
    rows = [("a", time, *row("a", turn)[2:]) for turn, time in enumerate(times)]
    shuffled = [rows[i] for i in (2, 0, 3, 1)]
    assert talk(read(write(tmp_path, shuffled, head)))["a:3"] == [f"w a {n}" for n in range(4)]


def test_turns_of_one_time_keep_their_order_where_they_stand_together(tmp_path: Path) -> None:
    head = ["session", "start", *HEAD[2:]]
    rows = [("a", time, *row("a", turn)[2:]) for turn, time in enumerate(["1", "5", "5", "8"])]
    assert talk(read(write(tmp_path, rows, head)))["a:3"] == [f"w a {n}" for n in range(4)]
    apart = [rows[1], rows[0], rows[2], rows[3]]
    with pytest.raises(DataError, match=r"start: session 'a' has '5' at lines 2, 4"):
        read(write(tmp_path, apart, head))


def test_numbers_written_with_a_fraction_of_zero_order_rows(tmp_path: Path) -> None:
    # As pandas writes a column of whole numbers in which one was missing.
    numbers = ["1.0", "0.0", "3.0", "2.0"]
    path = write(tmp_path, [("a", number, *row("a", int(number[0]))[2:]) for number in numbers])
    assert talk(read(path))["a:3"] == [f"w a {n}" for n in range(4)]


def test_a_turn_that_is_no_number_is_a_fault_also_in_the_first_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, [("a", "T2", *row("a", 1)[2:]), ("a", "T1", *row("a", 0)[2:])])
    assert main(["action=validate", "data=table", f"data.path={path}", f"out={tmp_path}"]) == 2
    found = json.loads((tmp_path / "validate.json").read_text("utf-8"))
    assert [(f["line"], f["reason"]) for f in found["faults"]] == [
        (2, "is no whole number ('T2')"),
        (3, "is no whole number ('T1')"),
    ]
    # An utterance_id may be a name.
    named = [("a", name, *row("a", turn)[2:]) for turn, name in enumerate(["x9", "x1"])]
    path = write(tmp_path, named, ["session", "utterance_id", *HEAD[2:]])
    assert talk(read(path))["a:1"] == ["w a 0", "w a 1"]


@pytest.mark.parametrize(
    ("times", "line", "reason"),
    [
        (["23:59:50", "00:00:10"], 2, "may pass midnight"),
        (["5", "2026-01-02 10:00"], 3, "is written in another way than the first time"),
    ],
)
def test_times_that_do_not_say_which_comes_first_are_a_fault(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    times: list[str],
    line: int,
    reason: str,
) -> None:
    rows = [("a", time, *row("a", turn)[2:]) for turn, time in enumerate(times)]
    path = write(tmp_path, rows, ["session", "start", *HEAD[2:]])
    arguments = ["action=describe", "data=table", f"data.path={path}", "labels=raw"]
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert f"t.csv:{line}: start: " in message
    assert reason in message
    assert main([*arguments, "data.options.columns.start=false"]) == 0
