"""Native JSON lines: dialogues and examples, and every way in which a line can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recap.data.issues import IssueLog
from recap.data.readers.native import read_dialogues
from recap.records import Dialogue, Example, Turn

ASK = {"speaker": "counselor", "text": "How was it?"}
SAY = {"speaker": "client", "text": "Fine."}


def write(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "d.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(path: Path, **options: Any) -> tuple[list[Dialogue | Example], IssueLog]:
    issues = IssueLog(path.name)
    found = list(read_dialogues(path, issues=issues, **options))
    return found, issues


def test_a_dialogue_line_becomes_a_dialogue_with_everything_it_says(tmp_path: Path) -> None:
    row = {
        "session": "s1",
        "client": "c1",
        "counselor": "k1",
        "meta": {"wai": 71},
        "site": "north",
        "turns": [
            {**ASK, "label": "question"},
            {**SAY, "id": "u2", "label": "Minimum Talk", "rationale": "One word."},
        ],
    }
    (found,), issues = read(write(tmp_path, row))
    assert found == Dialogue(
        session="s1",
        client="c1",
        counselor="k1",
        meta={"site": "north", "wai": 71},
        turns=(
            Turn(speaker="counselor", text="How was it?", label="question"),
            Turn(
                speaker="client",
                text="Fine.",
                id="u2",
                label="Minimum Talk",
                rationale="One word.",
            ),
        ),
    )
    assert (issues.rows_read, issues.rows_rejected) == (1, 0)


def test_examples_and_dialogues_may_share_a_file(tmp_path: Path) -> None:
    example = {"id": "e1", "history": [ASK], "response": "Fine.", "label": "Collaboration"}
    path = write(tmp_path, {"session": "s1", "turns": [ASK, SAY]}, example)
    found, _ = read(path)
    assert [type(record).__name__ for record in found] == ["Dialogue", "Example"]
    assert found[1].label == "Collaboration"
    assert found[1].history == (Turn(speaker="counselor", text="How was it?"),)


def test_an_example_without_id_is_named_by_session_and_turn_else_by_file_and_line(
    tmp_path: Path,
) -> None:
    path = write(
        tmp_path,
        {"session": "s1", "history": [ASK, SAY, ASK], "response": "a"},
        {"session": "s1", "turn": 9, "history": [ASK], "response": "b"},
        {"response": "c"},
    )
    assert [example.id for example in read(path)[0]] == ["s1:3", "s1:9", "d:3"]


def test_speakers_may_bear_other_names(tmp_path: Path) -> None:
    turns = [{"speaker": "Therapist", "text": "a"}, {"speaker": "P", "text": "b"}]
    path = write(tmp_path, {"session": "s", "turns": turns})
    (found,), _ = read(path, speakers={"P": "client"})
    assert [turn.speaker for turn in found.turns] == ["counselor", "client"]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ("{oops", "row"),
        ("[1]", "row"),
        ('"text"', "row"),
        ({"session": "s"}, "row"),
        ({"turns": [ASK, SAY]}, "session"),
        ({"session": "", "turns": [ASK, SAY]}, "session"),
        ({"session": ["s"], "turns": [ASK, SAY]}, "session"),
        ({"session": "s", "turns": "hello"}, "turns"),
        ({"session": "s", "turns": ["hello"]}, "turns[0]"),
        ({"session": "s", "turns": [{"speaker": "nurse", "text": "a"}]}, "speaker"),
        ({"session": "s", "turns": [{"text": "a"}]}, "turns[0].speaker"),
        ({"session": "s", "turns": [ASK, {"speaker": "client"}]}, "turns[1].text"),
        ({"session": "s", "turns": [ASK, {**SAY, "text": 3}]}, "turns[1].text"),
        ({"session": "s", "turns": [ASK, {**SAY, "label": ""}]}, "turns[1].label"),
        ({"session": "s", "turns": [ASK, {**SAY, "label": ["a"]}]}, "turns[1].label"),
        ({"session": "s", "meta": 1, "turns": [ASK, SAY]}, "meta"),
        ({"id": "e", "response": None}, "response"),
        ({"id": "e", "response": "a", "history": "b"}, "history"),
        ({"id": "e", "response": "a", "label": "  "}, "label"),
    ],
)
def test_a_bad_line_is_noted_under_its_field_and_the_next_one_is_read(
    tmp_path: Path, row: Any, field: str
) -> None:
    good = {"session": "good", "turns": [ASK, SAY]}
    # A first line that is a list would make the file a JSON list.
    found, issues = read(write(tmp_path, good, row, {**good, "session": "good2"}))
    assert [record.session for record in found] == ["good", "good2"]
    assert [(fault.line, fault.field) for fault in issues.issues] == [(2, field)]
    assert (issues.rows_read, issues.rows_rejected) == (3, 1)


def test_all_faults_of_a_line_are_listed_and_the_line_counts_once(tmp_path: Path) -> None:
    turns = [{"speaker": "nurse", "text": "a"}, {"speaker": "client"}]
    _, issues = read(write(tmp_path, {"session": "s", "turns": turns}))
    assert [fault.field for fault in issues.issues] == ["turns[1].text", "speaker"]
    assert issues.rows_rejected == 1


def test_keys_of_a_turn_that_are_not_known_are_counted(tmp_path: Path) -> None:
    _, issues = read(write(tmp_path, {"session": "s", "turns": [ASK, {**SAY, "lable": "x"}]}))
    assert issues.counts["unknown_turn_keys"] == 1


def test_blank_lines_are_no_rows_and_do_not_shift_line_numbers(tmp_path: Path) -> None:
    path = write(tmp_path, {"session": "s", "turns": [ASK, SAY]}, "", "  ", "{oops")
    _, issues = read(path)
    assert issues.rows_read == 2
    assert issues.issues[0].line == 4


def test_records_are_read_one_at_a_time(tmp_path: Path) -> None:
    path = write(tmp_path, {"session": "s", "turns": [ASK, SAY]}, "{oops")
    issues = IssueLog(path.name)
    first = next(read_dialogues(path, issues=issues))
    assert first.session == "s"
    assert not issues.issues
