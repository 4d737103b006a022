"""What there is to annotate in a dialogue or a file."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from recap.config import DataConfig
from recap.data.examples import examples_of
from recap.data.issues import IssueLog
from recap.data.utterances import read_utterances
from recap.records import Dialogue, Example, Turn


def dialogue(*turns: tuple[str, str]) -> Dialogue:
    speakers: dict[str, Any] = {"a": "client", "c": "counselor"}
    return Dialogue(session="s", turns=tuple(Turn(speaker=speakers[s], text=t) for s, t in turns))


# As clients' turns are annotated.
utterances_of = partial(examples_of, no_intervention="keep", empty_apart=True)


def given(reader: str, path: Path) -> DataConfig:
    return DataConfig(name=reader, reader=reader, path=str(path), no_intervention="keep")


def said(example: Example) -> list[str]:
    return [turn.text for turn in example.history]


def test_a_client_turn_without_text_stands_apart_and_in_no_history() -> None:
    talk = dialogue(("a", "one"), ("a", " "), ("a", "two"), ("c", ""), ("c", "so"), ("a", "three"))
    counts: Counter[str] = Counter()
    found = list(utterances_of(talk, counts=counts))
    assert [(e.id, e.response) for e in found] == [
        ("s:1", " "),
        ("s:2", "one\ntwo"),
        ("s:5", "three"),
    ]
    assert said(found[2]) == ["one\ntwo", "so"]
    assert counts["client_turns"] == 4
    assert counts["examples"] + counts["empty"] + counts["merged_client_turns"] == 4


def test_turns_apart_keep_their_places_beside_an_empty_counselor_turn() -> None:
    talk = dialogue(("a", "one"), ("c", " "), ("a", "two"))
    found = list(utterances_of(talk, merge_adjacent=False))
    assert [(e.id, e.response, said(e)) for e in found] == [
        ("s:0", "one", []),
        ("s:2", "two", ["one"]),
    ]


def test_client_turns_without_an_intervention_are_kept_unless_they_are_not_wanted() -> None:
    talk = dialogue(("a", "one"), ("c", "so"), ("a", "two"))
    assert [e.id for e in utterances_of(talk)] == ["s:0", "s:2"]
    assert [e.id for e in utterances_of(talk, no_intervention="skip")] == ["s:2"]


def test_an_example_without_a_response_is_read_and_one_with_empty_history_turns_too(
    tmp_path: Path,
) -> None:
    path = tmp_path / "in.jsonl"
    history = [{"speaker": "counselor", "text": "so"}, {"speaker": "client", "text": ""}]
    rows: list[dict[str, Any]] = [
        {"id": "a", "response": "", "history": history, "site": 3},
        {"id": "b", "response": "no", "history": history, "meta": {"k": 1}},
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    issues = IssueLog("in")
    found = list(read_utterances(given("dialogues", path), issues))
    assert [(e.id, e.response, said(e)) for e in found] == [("a", "", ["so"]), ("b", "no", ["so"])]
    assert [dict(e.extra) for e in found] == [
        {"history": history, "site": 3},
        {"history": history, "meta": {"k": 1}},
    ]
    assert not issues.issues


def test_unknown_columns_of_a_table_stay_with_their_utterance(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text(
        "session,speaker,text,room,client_id\na,counselor,So?,1,x\na,client,No.,2,x\n",
        encoding="utf-8",
    )
    [found] = read_utterances(given("table", path), IssueLog("in"))
    assert dict(found.extra) == {"room": "2", "client_id": "x"}
    assert found.client == "x"


def test_faults_can_be_taken_while_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    good = json.dumps({"id": "a", "response": "no"})
    again = json.dumps({"id": "a", "response": "yes"})
    path.write_text(f"broken\n{good}\n{again}\nbroken\n", encoding="utf-8")
    issues = IssueLog("in")
    taken = []
    for _ in read_utterances(given("dialogues", path), issues):
        taken += issues.take()
    taken += issues.take()
    assert [fault.line for fault in taken] == [1, 3, 4]
    assert (issues.rows_read, issues.rows_rejected, issues.issues) == (4, 3, [])
