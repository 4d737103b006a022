from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recap.data.issues import IssueLog
from recap.data.readers.doccano import batch_to_jsonl, read_doccano
from recap.data.readers.native import read_dialogues, records_to_jsonl
from recap.records import Dialogue, Example, Turn
from recap.system.files import bare_cell, protect_cell, sheet_to_csv

EXAMPLE = Example(
    id="s:2",
    session="s",
    client="c",
    turn=2,
    history=(
        Turn(speaker="client", text="Hello.", id="s:0", label="Collaboration"),
        Turn(speaker="counselor", text="What brings you here?"),
    ),
    response="Nothing.\n\nReally nothing.",
    label="Minimum Talk",
    rationale="Short.",
    meta={"topic": "sleep"},
)
DIALOGUE = Dialogue(
    session="s",
    counselor="k",
    turns=(
        Turn(speaker="counselor", text="你好", label="question"),
        Turn(speaker="client", text="嗯。", label="Minimum Talk", rationale="短", id="x"),
    ),
)


def test_native_lines_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(records_to_jsonl([EXAMPLE, DIALOGUE]), encoding="utf-8")
    issues = IssueLog("records.jsonl")
    assert list(read_dialogues(path, issues=issues)) == [EXAMPLE, DIALOGUE]
    assert not issues.issues


@pytest.mark.parametrize("language", ["en", "zh", None, "both"])
def test_a_batch_is_read_back_with_history_and_response(
    tmp_path: Path, language: str | None
) -> None:
    text = batch_to_jsonl(
        [EXAMPLE], round_name="1", language=language, labels={"s:2": "Minimum Talk"}
    )
    row = json.loads(text)
    assert (row["example_id"], row["session"], row["round"]) == ("s:2", "s", "1")
    path = tmp_path / "ann.jsonl"
    path.write_text(text, encoding="utf-8")
    [example] = read_doccano(path, issues=IssueLog("ann.jsonl"))
    assert [(turn.speaker, turn.text) for turn in example.history] == [
        ("client", "Hello."),
        ("counselor", "What brings you here?"),
    ]
    # The blank line inside went: the last one is where the response begins.
    assert example.response == "Nothing.\nReally nothing."
    assert example.label == "Minimum Talk"


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-1-1", "@x", "\t=1", "＝A1", " =A1", "- yes"])
def test_no_cell_runs_as_a_formula(text: str) -> None:
    [_, [cell]] = csv.reader(io.StringIO(sheet_to_csv(["text"], [[text]]).removeprefix("\ufeff")))
    assert cell == f"'{text}"


def test_a_carriage_return_in_a_cell_ends_no_row() -> None:
    text = sheet_to_csv(["text", "rating"], [["first\rsecond", "1"], ["third\r", ""]])
    lines = io.StringIO(text.removeprefix("\ufeff"), newline="\n")
    found = [["text", "rating"], ["first\rsecond", "1"], ["third\r", ""]]
    assert list(csv.reader(lines, strict=True)) == found


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="'=+-@a ＝\t\n.", max_size=8))
def test_a_cell_is_read_back_as_it_was(text: str) -> None:
    # A text of the user's own that begins with a quote before a formula is the one exception.
    if protect_cell(text) != text or not text.startswith("'"):
        assert bare_cell(protect_cell(text)) == text
