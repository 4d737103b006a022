"""Doccano exports in the forms that its versions write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recap.cli.command import main
from recap.data.corpus import read_corpus
from recap.data.issues import IssueLog
from recap.data.readers.doccano import read_doccano
from recap.records import Example, Turn
from recap.tasks.library import builtin_task

TEXT = "咨询师：你觉得呢？\n\n来访者：没什么好说的。"
HISTORY = (Turn(speaker="counselor", text="你觉得呢？"),)
LABEL = "争辩/Arguing-挑战/Challenging"


def read(
    tmp_path: Path, text: str, name: str = "d.jsonl", **options: Any
) -> tuple[list[Example], IssueLog]:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    issues = IssueLog(path.name)
    return list(read_doccano(path, issues=issues, **options)), issues


@pytest.mark.parametrize("text_key", ["text", "data"])
@pytest.mark.parametrize("label_key", ["label", "labels", "cats"])
@pytest.mark.parametrize("label", [LABEL, [LABEL], [LABEL, LABEL]])
def test_each_spelling_of_a_json_lines_export_is_the_same_example(
    tmp_path: Path, text_key: str, label_key: str, label: Any
) -> None:
    row = {"id": 5, text_key: TEXT, label_key: label, "Comments": ["先这样。", "再说。"]}
    (found,), _ = read(tmp_path, json.dumps(row))
    assert found == Example(
        id="5",
        history=HISTORY,
        response="没什么好说的。",
        label=LABEL,
        rationale="先这样。\n再说。",
    )


def test_csv_exports_read_alike(tmp_path: Path) -> None:
    text = f'id,data,label,Comments\n5,"{TEXT}",{LABEL},先这样。\n6,"a",x#y,\n7,"b",,\n'
    found, issues = read(tmp_path, text, "d.csv")
    assert found[0] == Example(
        id="5", history=HISTORY, response="没什么好说的。", label=LABEL, rationale="先这样。"
    )
    assert [(example.id, example.label) for example in found[1:]] == [("7", None)]
    assert [(fault.line, fault.reason) for fault in issues.issues] == [(5, "holds 2 labels")]


def test_the_old_form_numbers_its_labels_and_a_list_of_names_gives_them_back(
    tmp_path: Path,
) -> None:
    row = {"id": 1, "text": TEXT, "annotations": [{"label": 3, "user": 1}], "meta": {}}
    (found,), _ = read(tmp_path, json.dumps(row), label_names={3: LABEL})
    assert found.label == LABEL
    named = {**row, "annotations": [{"label": LABEL, "user": 1}]}
    (found,), _ = read(tmp_path, json.dumps(named))
    assert found.label == LABEL
    _, issues = read(tmp_path, json.dumps(row))
    assert "+data.options.label_names.3=NAME" in str(issues.issues[0])


def test_several_labels_are_rejected_or_take_the_first_as_stated(tmp_path: Path) -> None:
    row = json.dumps({"id": 1, "text": "a", "label": ["x", "y"]})
    found, issues = read(tmp_path, row)
    assert not found
    assert "data.options.multi_label=first" in str(issues.issues[0])
    (example,), _ = read(tmp_path, row, multi_label="first")
    assert example.label == "x"


def test_marked_passages_are_no_labels(tmp_path: Path) -> None:
    _, issues = read(tmp_path, json.dumps({"id": 1, "text": "abc", "label": [[0, 2, "x"]]}))
    assert "text classification" in str(issues.issues[0])


@pytest.mark.parametrize("row", [{"text": "a"}, {"text": "a", "label": []}])
def test_a_document_that_nobody_labeled_has_no_label(tmp_path: Path, row: Any) -> None:
    (found,), _ = read(tmp_path, json.dumps(row))
    assert (found.id, found.label, found.rationale) == ("d:1", None, None)


def test_all_rows_of_a_task_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    task = {
        "id": 2,
        "data": {"text": "Stranger: hello\n\nNeighbor: hi", "session": "s"},
        "annotations": [
            {
                "completed_by": 1,
                "result": [
                    {"from_name": "code", "type": "choices", "value": {"choices": ["Blaming"]}}
                ],
            }
        ],
    }
    sound = {**task, "id": 3, "data": {"text": "Counselor: hi\n\nClient: hi", "session": "s"}}
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps([task, sound, task]), encoding="utf-8")
    corpus = read_corpus(
        reader="label_studio", path=path, taxonomy=builtin_task("flat").taxonomy, on_error="skip"
    )
    assert (corpus.rows_read, corpus.rows_accepted, len(corpus.examples)) == (3, 1, 1)


TURNS = [
    {"session": "s", "speaker": "counselor", "text": "How are you?"},
    {"session": "s", "speaker": "client", "text": "Leave me alone.", "label": "Blaming"},
]


@pytest.mark.parametrize(
    ("choice", "ending"),
    [
        *((choice, ".jsonl") for choice in ("doccano", "client_resistance", "psyguard", "prodigy")),
        ("doccano", ".csv"),
        ("label_studio", ".json"),
    ],
)
def test_rows_that_are_turns_are_not_read_as_texts_of_clients(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], choice: str, ending: str
) -> None:
    path = tmp_path / f"turns{ending}"
    text = "".join(json.dumps(row) + "\n" for row in TURNS)
    if ending == ".csv":
        text = "speaker,text,label\nT,How are you?,\nC,Leave me alone.,Blaming\n"
    elif ending == ".json":
        text = json.dumps([{"id": 1, "data": TURNS[0], "annotations": []}])
    path.write_text(text, encoding="utf-8")
    assert main(["corpus", f"data={choice}", f"data.path={path}", "task=flat"]) == 2
    said = capsys.readouterr().err
    assert f"turns{ending}:{2 if ending == '.csv' else 1}: 'speaker' says that the" in said
    assert "counselor speaks" in said
    assert "data=table (CSV, Excel)" in said


def test_a_speaker_beside_a_text_that_names_its_own_is_no_matter(tmp_path: Path) -> None:
    row = {"text": TEXT, "label": [LABEL], "speaker": "counselor"}
    found, _ = read(tmp_path, json.dumps(row) + "\n")
    assert [turn.speaker for turn in found[0].history] == ["counselor"]
