"""Exports of annotation tools through the commands: what is a label, and whose."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from recap.corpus.__main__ import main


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = (
        json.dumps(rows) if path.suffix == ".json" else "".join(f"{json.dumps(r)}\n" for r in rows)
    )
    path.write_text(text, encoding="utf-8")
    return path


def lines(path: Path, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def found(tmp_path: Path, action: str, *arguments: str) -> dict[str, Any]:
    out = tmp_path / "out"
    assert main([f"action={action}", *arguments, f"out={out}"]) == 0
    answer: dict[str, Any] = json.loads((out / f"{action}.json").read_text("utf-8"))
    return answer


def labels(tmp_path: Path, *arguments: str) -> dict[str, int]:
    """Return how often each label of a corpus occurs."""
    rows = found(tmp_path, "describe", *arguments)["categories"]
    parents = {row["parent"] for row in rows}
    return {row["name"]: row["n"] for row in rows if row["n"] and row["name"] not in parents}


def refused(capsys: pytest.CaptureFixture[str], action: str, *arguments: str) -> str:
    assert main([f"action={action}", *arguments]) == 2
    return capsys.readouterr().err


def said(agreement: dict[str, Any]) -> tuple[list[str], int, int]:
    """Return the annotators, all annotations, and the examples of two annotators or more."""
    annotators = list(agreement["annotators"])
    return annotators, agreement["judgements"], agreement["paired_examples"]


ASK, NO, YES = "Counselor: And then?", "Client: You never listen.", "Client: Then I left."


def prodigy(text: str, **more: Any) -> dict[str, Any]:
    return {"text": f"{ASK}\n\n{text}", **more}


def test_a_label_that_was_rejected_in_prodigy_is_no_label(tmp_path: Path) -> None:
    file = write(
        tmp_path / "p.jsonl",
        prodigy(NO, label="Challenging", answer="reject", _input_hash=1),
        prodigy(NO, label="Blaming", answer="accept", _input_hash=1),
        prodigy(YES, label="Collaboration", answer="ignore", _input_hash=2),
        prodigy(
            "Client: Yes.",
            options=[{"id": "Collaboration", "text": "c"}],
            answer="accept",
            accept=["Collaboration"],
            _input_hash=3,
        ),
        prodigy(
            "Client: Fine.",
            options=[{"id": 7, "text": "Collaboration"}],
            answer="accept",
            accept=[7],
            _input_hash=4,
        ),
    )
    assert labels(tmp_path, "data=prodigy", f"data.path={file}") == {
        "Blaming": 1,
        "Collaboration": 2,
    }
    checked = found(tmp_path, "validate", "data=prodigy", f"data.path={file}")
    assert (checked["rows_read"], checked["rows_rejected"]) == (5, 0)
    assert (checked["utterances"], checked["labelled"]) == (4, 3)


def test_a_label_that_one_annotator_rejects_and_another_accepts_is_settled_by_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(
        tmp_path / "p.jsonl",
        prodigy(NO, label="Blaming", answer="accept", _input_hash=1, _annotator_id="ann"),
        prodigy(NO, label="Blaming", answer="reject", _input_hash=1, _annotator_id="bo"),
    )
    message = refused(capsys, "describe", "data=prodigy", f"data.path={file}")
    assert "2 of 2 rows" in message
    assert "p.jsonl:1: label: is accepted in one answer and rejected in another" in message
    first = ("data=prodigy", f"data.path={file}", "data.options.multi_label=first")
    assert labels(tmp_path, *first) == {"Blaming": 1}


@pytest.mark.parametrize("reader", ["doccano", "client_resistance", "dialogues", "psyguard"])
def test_an_export_of_prodigy_is_read_as_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reader: str
) -> None:
    file = write(tmp_path / "p.jsonl", prodigy(NO, label="Challenging", answer="reject"))
    message = refused(capsys, "describe", f"data={reader}", f"data.path={file}")
    assert "p.jsonl:1: this is an export of Prodigy; read it with data=prodigy" in message
    assert "a rejected or skipped answer is none" in refused(
        capsys, "agreement", f"data.path={file}"
    )
    assert "listen" not in message


def test_annotators_of_prodigy_are_told_apart_by_their_names(tmp_path: Path) -> None:
    file = write(
        tmp_path / "p.jsonl",
        prodigy(NO, label="Blaming", answer="accept", _input_hash=1, _annotator_id="ann"),
        prodigy(NO, label="Blaming", answer="accept", _input_hash=1, _annotator_id="bo"),
        prodigy(YES, label="Excusing", answer="accept", _input_hash=2, _annotator_id="ann"),
        prodigy(YES, label="Blaming", answer="reject", _input_hash=2, _annotator_id="bo"),
    )
    agreement = found(tmp_path, "agreement", "data=prodigy", f"data.path={file}")
    assert said(agreement) == (["ann", "bo"], 3, 1)


def test_two_answers_of_one_annotator_in_prodigy_are_one_or_a_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def rows(*answers: tuple[str, str, str]) -> Path:
        more = [{"label": a, "answer": b, "_annotator_id": c} for a, b, c in answers]
        return write(tmp_path / "p.jsonl", *(prodigy(NO, **one, _input_hash=1) for one in more))

    blaming, bo = ("Blaming", "accept", "ann"), ("Blaming", "accept", "bo")
    file = rows(blaming, blaming, bo)
    assert said(found(tmp_path, "agreement", f"data.path={file}")) == (["ann", "bo"], 2, 1)
    rows(blaming, ("Excusing", "accept", "ann"), bo)
    message = refused(capsys, "agreement", f"data.path={file}")
    assert "2 of 3 rows" in message
    assert "p.jsonl:1: label: holds 2 labels" in message
    first = ("agreement", f"data.path={file}", "annotations.multi_label=first")
    assert said(found(tmp_path, *first)) == (["ann", "bo"], 2, 1)
    rows(blaming, ("Blaming", "reject", "ann"), bo)
    assert "rejected in another" in refused(capsys, "agreement", f"data.path={file}")


def test_scores_of_prodigy_are_no_labels_and_numbers_of_options_stand_for_their_texts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = write(tmp_path / "p.jsonl", prodigy(NO, cats={"Blaming": 1.0}, answer="accept"))
    message = refused(capsys, "describe", "data=prodigy", f"data.path={scores}")
    assert "p.jsonl:1: cats: holds" in message
    options = [{"id": "1", "text": "Blaming"}, {"id": "2", "text": "Excusing"}]
    chosen = prodigy(NO, options=options, accept=["2"], answer="accept")
    file = write(tmp_path / "o.jsonl", chosen)
    assert labels(tmp_path, "data=prodigy", f"data.path={file}") == {"Excusing": 1}


@pytest.mark.parametrize(
    ("tool", "row"),
    [
        ("prodigy", "So.,Blaming,reject,,,"),
        ("label_studio", "So.,Blaming,,1,1,2.5"),
    ],
)
def test_tables_of_tools_are_read_as_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tool: str, row: str
) -> None:
    names = "text,label,answer,annotator,annotation_id,lead_time"
    drop = (3, 4, 5) if tool == "prodigy" else (2,)
    cells = [
        ",".join(c for n, c in enumerate(line.split(",")) if n not in drop) for line in (names, row)
    ]
    file = lines(tmp_path / "t.csv", *cells)
    message = refused(capsys, "describe", "data=table", f"data.path={file}")
    assert "t.csv:2: this is an export of" in message
    assert f"read it with data={tool}" in message


def task(number: int, text: Any, *annotations: dict[str, Any], **data: Any) -> dict[str, Any]:
    return {"id": number, "data": {"text": text, **data}, "annotations": list(annotations)}


def chose(who: Any, *choices: str, name: str = "code", **more: Any) -> dict[str, Any]:
    result = {
        "from_name": name,
        "to_name": "text",
        "type": "choices",
        "value": {"choices": choices},
    }
    return {"completed_by": who, "result": [result], "was_cancelled": False, **more}


TASKS = (
    task(
        1, f"{ASK}\n\n{NO}", chose(1, "Blaming"), chose({"id": 2, "email": "bo@x.org"}, "Blaming")
    ),
    task(2, f"{ASK}\n\n{YES}", chose(1, "Excusing"), chose(2, "Blaming", was_cancelled=True)),
    {**task(3, f"{ASK}\n\nClient: Yes."), "predictions": [chose(9, "Blaming")]},
)


def test_choices_of_label_studio_are_labels_and_predictions_are_not(tmp_path: Path) -> None:
    file = write(tmp_path / "ls.json", *TASKS)
    chosen = labels(tmp_path, "data=label_studio", f"data.path={file}")
    assert chosen == {"Blaming": 1, "Excusing": 1}
    agreement = found(tmp_path, "agreement", "data=label_studio", f"data.path={file}")
    assert said(agreement) == (["1", "bo@x.org"], 3, 1)
    # Recognized by what stands in it, where annotations.path names it.
    assert found(tmp_path, "agreement", f"annotations.path={file}") == agreement


def test_label_studio_exports_as_csv_and_json_min_say_the_same(tmp_path: Path) -> None:
    flat = [
        {"text": f"{ASK}\n\n{NO}", "id": 1, "mood": "Blaming", "annotator": 1},
        {"text": f"{ASK}\n\n{NO}", "id": 1, "mood": "Blaming", "annotator": 2},
        {"text": f"{ASK}\n\n{YES}", "id": 2, "mood": "Excusing", "annotator": 1},
        {"text": f"{ASK}\n\n{YES}", "id": 2, "annotator": 2},
    ]
    for number, row in enumerate(flat):
        row |= {"annotation_id": number, "created_at": "now", "updated_at": "now", "lead_time": 1.5}
    small = write(tmp_path / "min.json", *flat)
    names = ["text", "id", "mood", "annotator", "annotation_id", "created_at", "lead_time"]
    cells = [[str(row.get(name, "")) for name in names] for row in flat]
    cells[0][2] = '{"choices": ["Blaming"]}'
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in cells]
    table = lines(tmp_path / "ls.csv", ",".join(names), *quoted)
    for file in (small, table):
        arguments = ("data=label_studio", f"data.path={file}")
        assert labels(tmp_path, *arguments) == {"Blaming": 1, "Excusing": 1}
        assert said(found(tmp_path, "agreement", *arguments)) == (["1", "2"], 3, 1)


def test_a_choice_of_label_studio_that_the_first_task_lacks_stands_last(tmp_path: Path) -> None:
    file = lines(
        tmp_path / "ls.csv",
        "text,session,id,annotator,annotation_id,created_at,updated_at,lead_time,code",
        "Client: a,s,1,1,1,now,now,2,",
        "Client: b,s,2,1,2,now,now,2,Blaming",
        "Client: b,s,2,2,3,now,now,2,Blaming",
    )
    assert labels(tmp_path, "data=label_studio", f"data.path={file}") == {"Blaming": 1}
    assert said(found(tmp_path, "agreement", f"data.path={file}")) == (["1", "2"], 2, 1)


def test_annotators_who_differ_are_settled_or_refused_by_their_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "ls.json", task(1, NO, chose(1, "Blaming"), chose(2, "Excusing")))
    message = refused(capsys, "describe", "data=label_studio", f"data.path={file}")
    assert "ls.json:1: label: holds 2 labels of 2 annotators" in message
    first = ("data=label_studio", f"data.path={file}", "data.options.multi_label=first")
    assert labels(tmp_path, *first) == {"Blaming": 1}


def test_annotators_of_one_export_are_adjudicated_over_its_texts(tmp_path: Path) -> None:
    both = chose(1, "Blaming"), chose(2, "Blaming")
    file = write(
        tmp_path / "ls.json", task(1, NO, *both), task(2, YES, both[0], chose(2, "Excusing"))
    )
    settled = found(tmp_path, "adjudicate", "data=label_studio", f"data.path={file}")
    assert (settled["examples"], settled["open"]) == (2, ["2"])
    rows = (tmp_path / "out" / "labels.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(row).get("label") for row in rows] == ["Blaming", None]


def test_agreement_needs_no_text(tmp_path: Path) -> None:
    rows = [
        {
            "id": n,
            "data": {"audio": f"{n}.wav"},
            "annotations": [chose(1, "Blaming"), chose(2, "Blaming")],
        }
        for n in (1, 2)
    ]
    file = write(tmp_path / "ls.json", *rows)
    assert said(found(tmp_path, "agreement", f"annotations.path={file}")) == (["1", "2"], 4, 2)


def test_of_several_choices_the_label_has_to_be_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = chose(1, "Blaming")
    both["result"] += chose(1, "loud", name="tone")["result"]
    file = write(tmp_path / "ls.json", task(1, NO, both))
    message = refused(capsys, "describe", "data=label_studio", f"data.path={file}")
    assert "'code', 'tone'" in message
    assert "data.options.columns.label=NAME" in message
    named = ("data=label_studio", f"data.path={file}", "data.options.columns.label=code")
    assert labels(tmp_path, *named) == {"Blaming": 1}
    wrong = ("data=label_studio", f"data.path={file}", "data.options.columns.label=cod")
    assert "did you mean 'code'" in refused(capsys, "describe", *wrong)


def test_a_dialogue_of_label_studio_is_history_and_response(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = [{"author": "Therapist", "text": "And?"}, {"author": "Kim", "text": "No."}]
    row = {"id": 1, "data": {"dialogue": turns}, "annotations": [chose(1, "Blaming")]}
    file = write(tmp_path / "ls.json", row)
    arguments = ("data=label_studio", f"data.path={file}")
    assert "ls.json:1: text: unknown speakers: Kim (1)" in refused(capsys, "describe", *arguments)
    mapped = (*arguments, "+data.options.speakers.Kim=client")
    assert labels(tmp_path, *mapped) == {"Blaming": 1}
    other = (*arguments, "+data.options.speakers.Kim=counselor")
    assert "does not end with the client" in refused(capsys, "describe", *other)


def test_marked_passages_of_label_studio_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    span = {"completed_by": 1, "result": [{"type": "labels", "value": {"labels": ["Blaming"]}}]}
    file = write(tmp_path / "ls.json", task(1, NO, span))
    message = refused(capsys, "describe", "data=label_studio", f"data.path={file}")
    assert "marked passages" in message
    # A choice about a passage says nothing of the whole, even where there is but one.
    part = chose(1, "Blaming")
    part["result"][0]["value"] |= {"start": 0, "end": 4}
    file = write(tmp_path / "part.json", task(1, NO, part))
    for action in ("describe", "agreement"):
        message = refused(capsys, action, "data=label_studio", f"data.path={file}")
        assert "part.json:1: annotations[0].result: holds marked passages" in message


def test_a_text_beside_its_context_is_not_read_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"context": ASK, "utterance": "You never listen."}
    file = write(
        tmp_path / "ls.json", {"id": 1, "data": data, "annotations": [chose(1, "Blaming")]}
    )
    arguments = ("data=label_studio", f"data.path={file}")
    message = refused(capsys, "describe", *arguments)
    assert "'utterance' and 'context' both look like the text" in message
    assert labels(tmp_path, *arguments, "data.options.columns.text=utterance") == {"Blaming": 1}


def test_an_object_over_several_lines_is_one_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ls.json"
    file.write_text(json.dumps(task(1, NO, chose(1, "Blaming")), indent=2))
    message = refused(capsys, "describe", "data=label_studio", f"data.path={file}")
    assert "1 of 1 rows" in message
    assert "ls.json:1: row: begins an object that goes on over other lines" in message


def test_passages_and_rounds_of_an_old_doccano_export_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = "annotations.label_names={4: Excusing, 5: Blaming}"
    both = [{"label": 4, "user": 1}, {"label": 4, "user": 2}]
    again = [{"label": 5, "user": 1}, {"label": 4, "user": 2}]
    rows = [
        {"id": 1, "round": str(n), "text": NO, "annotations": one}
        for n, one in enumerate((both, again), start=1)
    ]
    file = write(tmp_path / "d.jsonl", *rows)
    agreement = found(tmp_path, "agreement", f"data.path={file}", names)
    # The last round counts.
    assert (said(agreement), agreement["percent_agreement"]) == ((["1", "2"], 2, 1), 0.0)
    for one in both:
        one |= {"start_offset": 0, "end_offset": 3}
    spans = write(tmp_path / "spans.jsonl", {"id": 1, "text": NO, "annotations": both})
    message = refused(capsys, "agreement", f"data.path={spans}", names)
    assert "spans.jsonl:1: annotations: holds marked passages" in message
    of_data = ("data=doccano", "data.options.label_names={4: Excusing}")
    assert "holds marked" in refused(capsys, "describe", *of_data, f"data.path={spans}")


def test_users_of_an_old_doccano_export_are_annotators(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"id": 1, "text": NO, "annotations": [{"label": 4, "user": 1}, {"label": 4, "user": 2}]},
        {"id": 2, "text": YES, "annotations": [{"label": 4, "user": 1}, {"label": 5, "user": 2}]},
        {"id": 3, "text": "Client: Yes.", "annotations": [{"label": 5, "user": 2}]},
    ]
    file = write(tmp_path / "d.jsonl", *rows)
    names = ("annotations.label_names={4: Excusing, 5: Blaming}",)
    agreement = found(tmp_path, "agreement", f"data.path={file}", *names)
    assert said(agreement) == (["1", "2"], 5, 2)
    assert agreement["percent_agreement"] == 0.5
    raw = found(tmp_path, "agreement", f"data.path={file}", "labels=raw")
    assert said(raw) == (["1", "2"], 5, 2)
    names = ("data.options.label_names={4: Excusing, 5: Blaming}",)
    of_data = ("data=doccano", f"data.path={file}", *names)
    assert said(found(tmp_path, "agreement", *of_data)) == (["1", "2"], 5, 2)
    message = refused(capsys, "describe", *of_data)
    assert "d.jsonl:2: annotations: holds 2 labels of 2 annotators" in message
    assert "1 of 3 rows" in message


WIDE = ("id,text,ann,bo", "1,Say no.,Blaming,Blaming", "2,Blaming,Excusing,", "3,So.,Blaming,n/a")


def test_a_table_with_a_column_an_annotator_is_recognized_by_its_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = lines(tmp_path / "wide.csv", *WIDE)
    assert said(found(tmp_path, "agreement", f"data.path={file}")) == (["ann", "bo"], 4, 1)
    assert "a column an annotator: 'ann', 'bo'" in capsys.readouterr().out
    long = refused(capsys, "agreement", f"data.path={file}", "annotations.format=long")
    assert "annotations.columns.label" in long
    raw = ("agreement", f"data.path={file}", "labels=raw")
    assert "annotations.format=wide" in refused(capsys, *raw)
    wide = found(tmp_path, *raw, "annotations.format=wide")
    assert said(wide) == (["ann", "bo"], 4, 1)


def test_json_lines_may_be_wide_and_a_label_beside_the_annotators_is_no_annotator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": n, "text": "So.", "ann": "Blaming", "bo": "Excusing"} for n in (1, 2)]
    file = write(tmp_path / "wide.jsonl", *rows)
    assert said(found(tmp_path, "agreement", f"data.path={file}")) == (["ann", "bo"], 4, 2)
    settled = write(tmp_path / "settled.jsonl", *({**row, "code": "Blaming"} for row in rows))
    wide = ("agreement", f"data.path={settled}", "annotations.format=wide")
    assert "column 'code' may hold" in refused(capsys, *wide)
    named = found(tmp_path, *wide, "annotations.annotators=[ann,bo]")
    assert said(named) == (["ann", "bo"], 4, 2)


def test_without_a_taxonomy_columns_are_annotators_where_they_share_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = lines(tmp_path / "w.csv", "id,date,ann,bo", "1,2 May,x,x", "2,3 May,y,x", "3,4 May,x,x")
    arguments = (f"data.path={file}", "labels=raw")
    wide = found(tmp_path, "agreement", *arguments, "annotations.format=wide")
    assert said(wide) == (["ann", "bo"], 6, 3)
    # One marginal is a constant: observed agreement 2/3 is what chance gives.
    assert wide["mean_pairwise_cohen_kappa"] == pytest.approx(0.0)
    twice = refused(capsys, "agreement", *arguments, "annotations.annotators=[ann,ann]")
    assert "annotations.annotators: names a column twice" in twice


def test_numbers_in_a_wide_table_are_labels_where_they_are_named(tmp_path: Path) -> None:
    file = lines(tmp_path / "wide.csv", "id,ann,bo", "1,4,5", "2,4,4")
    names = ("annotations.label_names={4: Excusing, 5: Blaming}",)
    agreement = found(tmp_path, "agreement", f"data.path={file}", *names)
    assert said(agreement) == (["ann", "bo"], 4, 2)
    assert agreement["labels"] == ["Blaming", "Excusing"]
    typed = "annotations.label_names={4: Excusing, 5: Blaming}"
    assert found(tmp_path, "agreement", f"data.path={file}", typed) == agreement


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ("id,ann,bo", "1,Blaming,Blamin", "2,Blaming,Excusing", "3,Blaming,Blaming"),
            "wide.csv:2: label: ",
        ),
        *(
            ((f"id,ann,bo,{name}", "1,Blaming,Blaming,Blaming"), f"column '{name}' may hold")
            for name in ("gold", "gold_standard", "Final code", "consensus_label", "majority_vote")
        ),
        (
            ("id,ann,bo,cy", "1,Blaming,Blaming,", "2,Blaming,Excusing,Excusin"),
            "column 'cy' holds 0 labels and 1 other texts",
        ),
        (
            ("id,ann,bo,note", "1,Blaming,Blaming,Blaming", "2,Blaming,Blaming,dull"),
            "column 'note' holds 1 labels and 1 other texts",
        ),
        (("id,ann", "1,Blaming"), "annotations.annotators=[A,B]"),
    ],
)
def test_a_wide_table_that_is_not_clear_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: tuple[str, ...], message: str
) -> None:
    file = lines(tmp_path / "wide.csv", *rows)
    assert message in refused(capsys, "agreement", f"data.path={file}")


def test_potato_has_a_folder_or_a_name_for_each_annotator(tmp_path: Path) -> None:
    def instance(number: int, label: str, **more: Any) -> dict[str, Any]:
        marks = {"code": {label: "true", "Pessimism": "false"}, "why": {"text_box": "since"}}
        text = f"{ASK}<br>{NO}"
        return {"id": number, "displayed_text": text, "label_annotations": marks, **more}

    for name, second in (("ann", "Excusing"), ("bo", "Blaming")):
        file = tmp_path / "output" / name / "annotated_instances.jsonl"
        write(file, instance(1, "Blaming"), instance(2, second))
        lines(file.parent / "annotation_order.txt", "1", "2")
    agreement = found(tmp_path, "agreement", f"annotations.path={tmp_path / 'output'}")
    assert said(agreement) == (["ann", "bo"], 4, 2)
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "output")
    assert found(tmp_path, "agreement", f"annotations.path={packed}") == agreement
    one = write(tmp_path / "one.jsonl", *(instance(1, "Blaming", user_id=u) for u in ("ann", "bo")))
    assert said(found(tmp_path, "agreement", f"data.path={one}")) == (["ann", "bo"], 2, 1)
    assert labels(tmp_path, "data=potato", f"data.path={one}") == {"Blaming": 1}
    table = lines(
        tmp_path / "one.tsv",
        "user\tinstance_id\tdisplayed_text\tcode:::Blaming\tcode:::Excusing",
        f"ann\t1\t{NO}\tcode:::Blaming\t",
        f"bo\t1\t{NO}\t\t1",
    )
    assert said(found(tmp_path, "agreement", f"data.path={table}")) == (["ann", "bo"], 2, 1)


def test_marked_passages_of_potato_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"id": 1, "displayed_text": NO, "label_annotations": {}}
    file = write(tmp_path / "p.jsonl", {**row, "span_annotations": [{"annotation": "Blaming"}]})
    message = refused(capsys, "describe", "data=potato", f"data.path={file}")
    assert "p.jsonl:1: span_annotations: holds marked passages" in message


TALK = "Counselor: And then? 😟\nClient: You never listen.\nCounselor: Oh.\nClient: I left."


def cas(*spans: tuple[str, str], **document: str) -> dict[str, Any]:
    def at(part: str) -> dict[str, int]:
        # Java counts UTF-16: the face is two.
        begin = len(TALK[: TALK.index(part)].encode("utf-16-le")) // 2
        return {"begin": begin, "end": begin + len(part)}

    structures: list[dict[str, Any]] = [
        {"%ID": 1, "%TYPE": "uima.cas.Sofa", "sofaNum": 1, "sofaString": TALK},
        {"%ID": 2, "%TYPE": "custom.Span", "@sofa": 1, **at("And"), "label": "Pessimism"},
    ]
    structures += [
        {"%ID": 3 + n, "%TYPE": "custom.Span", "@sofa": 1, **at(part), "label": label}
        for n, (part, label) in enumerate(spans)
    ]
    structures += [{"%ID": 99, "%TYPE": "custom.Whole", "@sofa": 1, **document}] if document else []
    return {"%TYPES": {}, "%FEATURE_STRUCTURES": structures, "%VIEWS": {}}


def test_spans_of_inception_label_the_turns_that_they_are_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "annotation" / "talk.txt"
    folder.mkdir(parents=True)
    ann = folder / "ann.json"
    ann.write_text(json.dumps(cas(("never listen", "Blaming"), ("left", "Excusing")), indent=2))
    assert labels(tmp_path, "data=inception", f"data.path={ann}") == {"Blaming": 1, "Excusing": 1}
    lines(
        folder / "bo.tsv",
        "#FORMAT=WebAnno TSV 3.3",
        "#T_SP=webanno.custom.Span|label",
        "",
        "",
        "#Text=Counselor: And then? 😟",
        "1-1\t0-9\tCounselor\t_\t",
        "",
        "#Text=Client: You never listen.",
        "2-1\t24-30\tClient\t_\t",
        "2-2\t32-35\tYou\tBlaming[1]\t",
        "2-3\t36-41\tnever\tBlaming[1]\t",
        "",
        "#Text=Counselor: Oh.",
        "3-1\t50-59\tCounselor\t_\t",
        "",
        "#Text=Client: I left.",
        "4-1\t65-71\tClient\tBlaming\t",
    )
    (folder / "INITIAL_CAS.json").write_text(json.dumps(cas()))
    agreement = found(tmp_path, "agreement", f"annotations.path={tmp_path / 'annotation'}")
    assert said(agreement) == (["ann", "bo"], 4, 2)
    assert agreement["percent_agreement"] == 0.5
    ann.write_text(json.dumps(cas(("listen.\nCounselor", "Blaming"))))
    message = refused(capsys, "describe", "data=inception", f"data.path={ann}")
    assert "ann.json:2: marks: has a span that goes on over another turn" in message
    assert "data=inception" in refused(capsys, "describe", "data=dialogues", f"data.path={ann}")


def test_a_span_outside_of_the_text_of_inception_labels_no_turn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "talk.json"
    document = cas(("never listen", "Blaming"))
    document["%FEATURE_STRUCTURES"][-1] |= {"begin": 4000, "end": 4005}
    file.write_text(json.dumps(document))
    message = refused(capsys, "describe", "data=inception", f"data.path={file}")
    assert "is no export of INCEpTION, or a broken one" in message


def test_names_of_speakers_hold_for_the_annotations_of_inception_too(tmp_path: Path) -> None:
    text = "Kim: No."
    sofa = {"%TYPE": "uima.cas.Sofa", "sofaString": text}
    span = {"%TYPE": "custom.Code", "begin": 5, "end": 7, "value": "Blaming"}
    relation = {**span, "%TYPE": "custom.Link", "@Governor": 2, "@Dependent": 2}
    file = tmp_path / "ann.json"
    document = {"%TYPES": {}, "%FEATURE_STRUCTURES": [sofa, span, relation]}
    file.write_text(json.dumps(document))
    arguments = ("data=inception", f"data.path={file}", "data.options.speakers={Kim: client}")
    assert said(found(tmp_path, "agreement", *arguments)) == (["ann"], 1, 0)


def test_a_document_label_of_inception_is_that_of_its_last_turn(tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    file.write_text(json.dumps(cas(label="Blaming")))
    named = ("data=inception", f"data.path={file}", "data.options.columns.label=Whole.label")
    assert labels(tmp_path, *named) == {"Blaming": 1}


CHAT = {"messages": [{"role": "assistant", "content": "And?"}, {"role": "user", "content": "No."}]}
AS_CHAT = (
    "data.options.columns={turns: messages, speaker: role, text: content}",
    "+data.options.speakers.assistant=counselor",
    "+data.options.speakers.user=client",
)


def test_messages_under_other_names_are_refused_with_the_options_that_read_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "chat.jsonl", CHAT, CHAT)
    message = refused(capsys, "describe", "data=dialogues", f"data.path={file}")
    assert f"'{AS_CHAT[0]}'" in message
    assert "'data.options.speakers={assistant: counselor, user: client}'" in message
    checked = found(tmp_path, "validate", "data=dialogues", f"data.path={file}", *AS_CHAT)
    assert (checked["rows_read"], checked["rows_rejected"], checked["utterances"]) == (2, 0, 2)


def test_a_fault_under_another_name_is_told_by_that_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "chat.jsonl", {"messages": [{"role": "user", "content": 7}]})
    message = refused(capsys, "describe", "data=dialogues", f"data.path={file}", *AS_CHAT)
    assert 'chat.jsonl:1: messages[0].content: is no text, write "content": "..."' in message
    wrong = ("data=dialogues", f"data.path={file}", "+data.options.columns.turn_list=messages")
    assert "data.options.columns.turn_list" in refused(capsys, "describe", *wrong)
    twice = "data.options.columns={turns: messages, speaker: role, text: role}"
    message = refused(capsys, "describe", "data=dialogues", f"data.path={file}", twice)
    assert "key 'role' is named for two things" in message


def rated(number: int, text: str, kind: str, value: Any) -> dict[str, Any]:
    result = [{"from_name": "r", "type": kind, "value": value}]
    given = [{"completed_by": 1, "result": result}]
    return {"id": number, "data": {"text": f"{ASK}\n\n{text}"}, "annotations": given}


def test_tasks_of_ratings_alone_are_said_to_be_read_as_unlabeled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stars = rated(1, NO, "rating", {"rating": 4}), rated(2, YES, "textarea", {"text": ["hm"]})
    file = write(tmp_path / "ls.json", *stars, task(3, "Client: Fine.", chose(1, "Blaming")))
    chosen = ("data=label_studio", f"data.path={file}")
    assert labels(tmp_path, *chosen) == {"Blaming": 1}
    assert "2 answers of annotators hold ratings, texts or the like" in capsys.readouterr().out
    found(tmp_path, "validate", *chosen)
    printed = capsys.readouterr().out
    assert "2 answers of annotators hold ratings, texts or the like" in printed
    assert "skipped, ignored" not in printed
    write(file, *stars)
    assert "nor are the 2 that are ratings or texts" in refused(
        capsys, "agreement", f"data.path={file}"
    )


def test_rows_cut_to_one_label_are_counted_with_what_they_carry(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {
        1: ["Excusing", "Blaming"],
        2: ["Blaming", "Excusing"],
        3: ["Excusing", "Blaming", "Blaming"],
        4: ["Blaming", "否认-责怪"],
        5: ["Pessimism"],
        6: ["Reluctance", "Blaming"],
    }
    # The last one has no text, is rejected, and so is cut to nothing.
    rows = [
        {"id": n, "text": f"{ASK}\n\nClient: {n}" if n < 6 else 6, "label": one}
        for n, one in given.items()
    ]
    for name in ("d.jsonl", "d.json"):
        file = write(tmp_path / name, *rows)
        first = ("data=doccano", f"data.path={file}", "data.options.multi_label=first")
        for action in ("describe", "validate"):
            counted = found(tmp_path, action, *first, "data.on_error=skip")["cut_to_one_label"]
            assert counted == {
                "rows": 3,
                "combinations": [
                    {"taken": "Excusing", "others": ["Blaming"], "rows": 2},
                    {"taken": "Blaming", "others": ["Excusing"], "rows": 1},
                ],
            }
            printed = capsys.readouterr().out
            assert "3 rows carry several labels, of which one was taken" in printed
            assert "cut to the first: Excusing + Blaming (2), Blaming + Excusing (1)" in printed


def test_annotations_cut_to_one_label_are_said_beside_agreement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = {**chose(1, "Blaming"), "result": [*chose(1, "Blaming", "Excusing")["result"]]}
    rows = task(1, NO, two, chose(2, "Blaming")), task(2, YES, chose(1, "Blaming"), two)
    file = write(tmp_path / "ls.json", *rows)
    found(tmp_path, "agreement", f"data.path={file}", "annotations.multi_label=first")
    printed = capsys.readouterr().out
    assert "cut to the first: Blaming + Excusing (2)" in printed


@pytest.mark.parametrize("given", ["", "*.jsonl"])
def test_a_folder_or_pattern_of_one_export_an_annotator_is_measured_and_adjudicated(
    tmp_path: Path, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "exports"
    for who, second in {"ann": "Excusing", "bo": "Blaming", "cy": "Blaming"}.items():
        write(
            folder / f"{who}.jsonl",
            {"id": 1, "text": f"{ASK}\n\n{NO}", "label": ["Blaming"]},
            {"id": 2, "text": f"{ASK}\n\n{YES}", "label": [second]},
        )
    path = f"data.path={folder / given}"
    assert said(found(tmp_path, "agreement", path)) == (["ann", "bo", "cy"], 6, 2)
    settled = found(tmp_path, "adjudicate", "data=doccano", path)
    assert (settled["examples"], settled["open"]) == (2, [])
    rows = (tmp_path / "out" / "labels.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(row)["label"] for row in rows] == ["Blaming", "Blaming"]
    write(folder / "cy.jsonl", {"id": 2, "text": f"{ASK}\n\nClient: No.", "label": ["Blaming"]})
    message = refused(capsys, "adjudicate", "data=doccano", path)
    assert "cy.jsonl: '2' has another text than in" in message
    assert "no file matches this pattern" in refused(
        capsys, "agreement", f"data.path={folder}/*.txt"
    )


def test_several_paths_in_data_path_are_answered_with_what_to_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = refused(capsys, "describe", "data.path=[a.jsonl,b.jsonl]")
    asked = "error: data.path: takes one file, a folder, or a pattern such as 'talks/*.jsonl'"
    assert said.startswith(asked)
    assert said.count("\n") == 1
