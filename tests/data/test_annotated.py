from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recap.config import DataConfig
from recap.data.utterances import Annotated, is_predictions, read_annotated
from recap.errors import DataError
from recap.predict.output import csv_header, csv_line
from recap.tasks.library import builtin_task

TAXONOMY = builtin_task("flat").taxonomy


def jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def prediction(identifier: str, label: str | None, **more: Any) -> dict[str, Any]:
    """Return a row as recap.predict writes it."""
    return {
        "id": identifier,
        "session": identifier.split(":")[0],
        "turn": int(identifier.split(":")[1]),
        "label": label,
        "pattern": None,
        "probabilities": None if label is None else {label: 0.75, "Minimum Talk": 0.25},
        "rationale": None,
        "text": "raw",
        "parsed": label is not None,
        "skipped": None,
        **more,
    }


def read(path: Path, *, on_error: Any = "fail", **more: Any) -> Annotated:
    data = DataConfig(name="d", reader="dialogues", path=str(path), on_error=on_error)
    return read_annotated(data, TAXONOMY, **more)


DIALOGUE = {
    "session": "S",
    "client": "K",
    "turns": [
        {"speaker": "client", "text": "first"},
        {"speaker": "counselor", "text": "second"},
        {"speaker": "client", "text": "third", "label": "Blaming"},
        {"speaker": "client", "text": "fourth"},
    ],
}


def test_annotated_dialogues_keep_their_labels_and_count_what_has_none(tmp_path: Path) -> None:
    found = read(jsonl(tmp_path / "talks.jsonl", DIALOGUE))
    assert [(u.id, u.label, u.predicted) for u in found.utterances] == [
        ("S:0", None, False),
        ("S:2", "Blaming", False),
        ("S:3", None, False),
    ]
    assert not found.predicted
    assert found.notes() == [
        "2 client utterances have no label and play no part",
        "talks.jsonl: 1 counselor, 3 client and 0 other turns",
    ]


def test_predictions_are_recognized_and_marked(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "answers.jsonl",
        prediction("S:0", "否认-责怪", response="first", client="K", meta={"site": "A"}),
        prediction("S:2", None),
    )
    assert is_predictions(path)
    found = read(path)
    first, second = found.utterances
    assert (first.label, first.predicted, first.client, first.response) == (
        "Blaming",
        True,
        "K",
        "first",
    )
    assert dict(first.meta) == {"site": "A"}
    assert second.label is None
    assert found.counts["unparsed"] == 1
    assert found.notes()[0].startswith("Labels are predicted")


SKIPPED = {"parsed": False, "probabilities": None, "text": None}


def test_utterances_that_were_skipped_are_no_unreadable_answers(tmp_path: Path) -> None:
    rows = (
        prediction("S:0", "Blaming"),
        prediction("S:2", None),
        prediction("S:3", None, skipped="too_long", **SKIPPED),
        prediction("S:4", None, skipped="empty", **SKIPPED),
    )
    found = read(jsonl(tmp_path / "answers.jsonl", *rows))
    assert [u.id for u in found.utterances] == ["S:0", "S:2"]
    assert (found.counts["unparsed"], found.counts["skipped"]) == (1, 2)
    assert any(note.startswith("2 client utterances were empty or too") for note in found.notes())
    with pytest.raises(DataError, match="all of its 2 client utterances were skipped"):
        read(jsonl(tmp_path / "none.jsonl", *rows[2:]))


def test_skipped_utterances_are_left_out_of_their_dialogues(tmp_path: Path) -> None:
    talks = jsonl(tmp_path / "talks.jsonl", DIALOGUE)
    rows = [prediction("S:0", "Blaming"), prediction("S:2", None, skipped="too_long", **SKIPPED)]
    found = read(talks, predictions=jsonl(tmp_path / "answers.jsonl", *rows))
    assert [u.id for u in found.utterances] == ["S:0"]
    assert (found.counts["skipped"], found.counts["without_prediction"]) == (1, 1)


def test_dialogues_may_have_empty_turns_where_predictions_are_laid_over_them(
    tmp_path: Path,
) -> None:
    texts = ("first", "second", " ", "", "third")
    speakers = ("client", "counselor", "client", "counselor", "client")
    turns = [{"speaker": s, "text": t} for s, t in zip(speakers, texts, strict=True)]
    talks = jsonl(tmp_path / "talks.jsonl", {"session": "S", "turns": turns})
    rows = (
        prediction("S:0", "Blaming"),
        prediction("S:2", None, skipped="empty", **SKIPPED),
        prediction("S:4", "Excusing"),
    )
    found = read(talks, predictions=jsonl(tmp_path / "answers.jsonl", *rows))
    assert [(u.id, u.label) for u in found.utterances] == [("S:0", "Blaming"), ("S:4", "Excusing")]
    assert (found.counts["skipped"], found.counts["without_prediction"]) == (1, 0)
    with pytest.raises(DataError, match="is empty"):
        read(talks)


def test_predictions_in_csv_are_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    path.write_text(
        "id,session,turn,label,pattern,probabilities,rationale,text,parsed,response\n"
        'S:0,S,0,Blaming,Denying,"{""Blaming"": 0.75, ""Excusing"": 0.25}",why,raw,true,\'- no\n',
        encoding="utf-8",
    )
    [found] = read(path).utterances
    assert (found.turn, found.probability, found.rationale) == (0, 0.75, "why")
    assert found.response == "- no"


def test_every_cell_of_a_csv_is_read_without_the_apostrophe_that_guards_it(tmp_path: Path) -> None:
    said, session = "\uff1dno", "-A"
    talk = {"session": session, "turns": [{"speaker": "client", "text": said}]}
    talks = jsonl(tmp_path / "talks.jsonl", talk)
    row = {
        "id": f"{session}:0",
        "session": session,
        "turn": 0,
        "label": "Blaming",
        "parsed": True,
        "response": said,
        "rationale": "=why",
        "client": "@K",
        "-note": " +x",
    }
    path = tmp_path / "answers.csv"
    path.write_bytes(csv_header(list(row)) + csv_line(row, list(row)))
    [alone] = read(path).utterances
    assert (alone.id, alone.session, alone.response) == ("-A:0", "-A", said)
    assert (alone.rationale, alone.client, dict(alone.meta)) == ("=why", "@K", {"-note": " +x"})
    [laid] = read(talks, predictions=path).utterances
    assert (laid.id, laid.label, laid.response) == ("-A:0", "Blaming", said)


def test_predictions_are_laid_over_their_dialogues(tmp_path: Path) -> None:
    talks = jsonl(tmp_path / "talks.jsonl", DIALOGUE)
    answers = jsonl(
        tmp_path / "answers.jsonl",
        prediction("S:0", "Collaboration"),
        prediction("S:3", "Excusing", response="third\nfourth"),
    )
    found = read(talks, predictions=answers)
    # recap.predict merges turns of one speaker in a row: the last stands for both.
    assert [(u.id, u.label, u.response) for u in found.utterances] == [
        ("S:0", "Collaboration", "first"),
        ("S:3", "Excusing", "third\nfourth"),
    ]
    assert [turn.text for turn in found.utterances[1].history] == ["first", "second", "third"]
    assert found.counts["without_prediction"] == 1


def test_predictions_about_other_dialogues_are_refused(tmp_path: Path) -> None:
    talks = jsonl(tmp_path / "talks.jsonl", DIALOGUE)
    answers = jsonl(tmp_path / "answers.jsonl", prediction("T:0", "Blaming"))
    with pytest.raises(DataError, match=r"1 of its 1 ids .* 'T:0'"):
        read(talks, predictions=answers)
    with pytest.raises(DataError, match="is no file of predictions"):
        read(talks, predictions=talks)


def test_faulty_predictions_are_listed_with_line_and_field(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "answers.jsonl",
        prediction("S:0", "Blaming"),
        prediction("S:0", "Blaming"),
        prediction("S:1", "sustain"),
        {**prediction("S:2", "Blaming"), "session": None},
    )
    with pytest.raises(DataError) as error:
        read(path)
    message = str(error.value)
    for expected in (":2: id:", ":3: label:", ":4: session:", "3 of 4 rows"):
        assert expected in message
    found = read(path, on_error="skip")
    assert len(found.utterances) == 1
    assert found.counts["rows_left_out"] == 3


def test_dialogues_without_any_label_are_refused_and_told_of_predictions(tmp_path: Path) -> None:
    plain = {"session": "S", "turns": [{"speaker": "client", "text": "a secret"}]}
    with pytest.raises(DataError, match="predictions=FILE") as error:
        read(jsonl(tmp_path / "talks.jsonl", plain))
    assert "secret" not in str(error.value)


def test_an_example_without_a_session_is_a_session_of_its_own(tmp_path: Path) -> None:
    rows = [{"response": "a", "label": "Blaming", "history": []}, {"response": "b"}]
    found = read(jsonl(tmp_path / "examples.jsonl", *rows))
    assert len({u.session for u in found.utterances}) == 2
