"""Whatever a file holds, every row is accounted for; whatever was written is read back."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from input_readers import INPUT_READERS, InputReader, receive
from sample_files import Sample, json_lines, table, workbook

from recap.data.corpus import read_records
from recap.data.issues import IssueLog, name_damage
from recap.data.names import identity, is_missing
from recap.data.readers.doccano import document_text
from recap.data.readers.files import json_rows
from recap.data.readers.native import read_dialogues, records_to_jsonl
from recap.data.readers.speakers import SpeakerNames, sample_of
from recap.data.readers.tables import read_sheet
from recap.records import Dialogue, Example, Turn
from recap.system.files import bare_cell, sheet_to_csv
from recap.taxonomy import taxonomy_from_dict

QUICK = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
MANY = settings(QUICK, max_examples=50)

WORDS = st.sampled_from(
    [*("Blaming", "合作", "client", "counselor", "e0", "s", "Client: a\n\nb", "", " ", "n/a", "1")]
)
SCALARS = WORDS | st.text(max_size=5) | st.none() | st.booleans() | st.integers() | st.floats()
TURNS = st.lists(
    st.dictionaries(st.sampled_from(["speaker", "text", "label", "id"]), SCALARS, max_size=4),
    max_size=3,
)
VALUES = (
    SCALARS | TURNS | st.lists(SCALARS, max_size=2) | st.dictionaries(WORDS, SCALARS, max_size=2)
)


def cases(*endings: str) -> list[Any]:
    found = [
        pytest.param(reader, sample, id=f"{reader.name}{sample.ending}")
        for reader in INPUT_READERS
        for sample in reader.samples
        if sample.ending in endings
    ]
    assert len(found) > 8
    return found


def keys_of(sample: Sample) -> list[str]:
    return list(dict.fromkeys(key for row in sample.rows for key in row))


@QUICK
@pytest.mark.parametrize(("reader", "sample"), cases(".json", ".jsonl"))
@given(data=st.data())
def test_any_json_row_is_accepted_or_rejected(
    tmp_path: Path, reader: InputReader, sample: Sample, data: st.DataObject
) -> None:
    row = st.fixed_dictionaries({}, optional=dict.fromkeys(keys_of(sample), VALUES))
    rows = data.draw(st.lists(row | SCALARS, max_size=4))
    path = tmp_path / f"input{sample.ending}"
    if sample.ending == ".json":
        text = json.dumps(rows, indent=data.draw(st.sampled_from([None, 0])))
    else:
        text = "\n".join(json.dumps(row) for row in rows)
    path.write_text(text, encoding="utf-8")
    assert receive(reader, path).complaint == ""


@QUICK
@pytest.mark.parametrize(("reader", "sample"), cases(".csv"))
@given(data=st.data())
def test_any_row_of_a_table_is_accepted_or_rejected(
    tmp_path: Path, reader: InputReader, sample: Sample, data: st.DataObject
) -> None:
    names = keys_of(sample)
    cell = WORDS | st.text(max_size=5) | st.floats().map(str)
    rows = data.draw(st.lists(st.lists(cell, min_size=1, max_size=len(names) + 1), max_size=5))
    text = io.StringIO()
    csv.writer(text).writerows([names, *rows])
    path = tmp_path / "input.csv"
    path.write_bytes(text.getvalue().encode("utf-8"))
    assert receive(reader, path).complaint == ""


@MANY
@given(
    items=st.lists(st.dictionaries(WORDS, SCALARS, max_size=2) | SCALARS, max_size=6),
    between=st.lists(st.sampled_from(["", " ", "\n", "\n\n"]), min_size=7, max_size=7),
)
def test_rows_of_a_list_are_told_apart_however_they_are_laid_out(
    tmp_path: Path, items: list[Any], between: list[str]
) -> None:
    finite = [
        json.loads(json.dumps(item).replace("NaN", "1").replace("Infinity", "1")) for item in items
    ]
    text = "[" + ",".join(f"{b}{json.dumps(i)}" for b, i in zip(between, finite, strict=False))
    path = tmp_path / "a.json"
    path.write_text(f"{text}{between[-1]}]", encoding="utf-8")
    issues = IssueLog("a.json")
    found = [row for _, row in json_rows(path, issues)]
    assert found == [item for item in finite if isinstance(item, dict)]
    assert (issues.rows_read, issues.rows_rejected) == (len(finite), len(finite) - len(found))
    assert len({(fault.line, fault.field) for fault in issues.issues}) == issues.rows_rejected


SPOKEN = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12
).filter(str.strip)
NAMES = (
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8
    )
    .map(str.strip)
    .filter(bool)
)
IDS = NAMES.map(identity).filter(lambda name: not (is_missing(name) or name_damage(name)))
OPTIONAL_ID = st.none() | IDS
OPTIONAL = st.none() | NAMES
TURN = st.builds(
    Turn,
    speaker=st.sampled_from(["client", "counselor"]),
    text=SPOKEN,
    id=OPTIONAL_ID,
    label=OPTIONAL,
    rationale=OPTIONAL,
)
META = st.dictionaries(NAMES, NAMES | st.integers() | st.lists(NAMES, max_size=2), max_size=2)
RECORDS = st.builds(
    Dialogue,
    session=IDS,
    client=OPTIONAL_ID,
    counselor=OPTIONAL_ID,
    turns=st.lists(TURN, max_size=3).map(tuple),
    meta=META,
) | st.builds(
    Example,
    id=IDS,
    session=OPTIONAL_ID,
    client=OPTIONAL_ID,
    turn=st.none() | st.integers(0, 99),
    history=st.lists(TURN, max_size=3).map(tuple),
    response=SPOKEN,
    label=OPTIONAL,
    rationale=OPTIONAL,
    meta=META,
)


@MANY
@given(records=st.lists(RECORDS, max_size=3))
def test_records_are_read_back_from_the_native_form(
    tmp_path: Path, records: list[Dialogue | Example]
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(records_to_jsonl(records), encoding="utf-8")
    issues = IssueLog("a.jsonl")
    assert list(read_dialogues(path, issues=issues)) == records
    assert issues.issues == []


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), max_size=8)
CELL |= st.text("a\r\n,\"'= ", max_size=4)


@MANY
@given(rows=st.lists(st.lists(CELL, min_size=3, max_size=3), max_size=4))
def test_cells_of_a_sheet_are_read_back(tmp_path: Path, rows: list[list[str]]) -> None:
    # A text of the user's own that begins with a quote before a formula is the one exception.
    own = [["x", *(cell.lstrip("'") for cell in row)] for row in rows]
    path = tmp_path / "a.csv"
    path.write_bytes(sheet_to_csv(["a", "b", "c", "d"], own).encode("utf-8"))
    issues = IssueLog("a.csv")
    found = [[bare_cell(cell) for cell in row.values()] for _, row in read_sheet(path, issues).rows]
    assert found == own
    assert issues.issues == []


LINE = st.text("ab 心.", min_size=1, max_size=6).map(str.strip).filter(bool)
SAID = st.lists(LINE, min_size=1, max_size=3).map("\n\n".join)


@MANY
@given(
    history=st.lists(st.tuples(st.sampled_from(["client", "counselor"]), SAID), max_size=3),
    response=SAID,
    language=st.sampled_from(["en", "zh"]),
)
def test_what_annotators_see_is_read_back_as_history_and_response(
    history: list[Any], response: str, language: str
) -> None:
    turns = tuple(Turn(speaker=speaker, text=text) for speaker, text in history)
    example = Example(id="e", history=turns, response=response)
    text = document_text(example, language=language)
    found, said, fault = sample_of(SpeakerNames().read(text))
    assert fault is None
    # Blank lines within a turn go, so that the last one is where the response begins.
    assert said == response.replace("\n\n", "\n")
    assert [(turn.speaker, turn.text) for turn in found] == [
        (speaker, text.replace("\n\n", "\n")) for speaker, text in history
    ]


FORMS = ("native.jsonl", "table.csv", "table.xlsx", "annomi.csv")
TALK = taxonomy_from_dict({"name": "talk", "categories": [{"name": "change"}]})
WRONG = st.sampled_from(
    [
        *({"speaker": "Nobody"}, {"speaker": ""}, {"text": ""}, {"label": "a wish"}, {"turn": ""}),
        *({"turn": "1"}, {"turn": "x"}, {"session": ""}, {"session": "s0"}, {"id": "one"}),
        *({"label": "N/A"}, {"session": "s\u200b1"}, {"id": "\x07"}),
    ]
)


def talk_rows(data: st.DataObject) -> list[dict[str, str]]:
    """Return rows of utterances, some of them faulty, lost, or out of order."""
    rows = [
        {
            "session": f"s{session}",
            "turn": str(turn),
            "id": "",
            "speaker": ("therapist", "client")[turn % 2],
            "text": f"{session} said {'so ' * turn}",
            "label": "change" if turn % 2 else "",
        }
        for session in range(data.draw(st.integers(1, 3)))
        for turn in range(data.draw(st.integers(1, 6)))
    ]
    for index in data.draw(st.sets(st.integers(0, len(rows) - 1), max_size=3)):
        rows[index] |= data.draw(WRONG)
    lost = data.draw(st.sets(st.integers(0, len(rows) - 1), max_size=1))
    kept = [row for index, row in enumerate(rows) if index not in lost] or rows
    return data.draw(st.permutations(kept) | st.just(kept))


def written(path: Path, rows: list[dict[str, str]]) -> dict[int, list[dict[str, str]]]:
    """Write rows in the form that a file's name says; return those of each line."""
    if path.name.startswith("native"):
        sessions: dict[str, list[dict[str, str]]] = {}
        for row in rows:
            sessions.setdefault(row["session"], []).append(row)
        lines = [
            {
                "session": name,
                "turns": [{k: v for k, v in row.items() if v or k == "text"} for row in own],
            }
            for name, own in sessions.items()
        ]
        path.write_bytes(json_lines(lines))
        return dict(enumerate(sessions.values(), start=1))
    if path.name.startswith("annomi"):
        rows = [
            {
                "transcript_id": row["session"],
                "utterance_id": row["turn"],
                "interlocutor": row["speaker"],
                "utterance_text": row["text"],
                "main_therapist_behaviour": "n/a",
                "client_talk_type": row["label"],
            }
            for row in rows
        ]
    path.write_bytes(workbook(rows) if path.suffix == ".xlsx" else table(rows))
    return {line: [row] for line, row in enumerate(rows, start=2)}


def utterance_of(row: dict[str, str]) -> tuple[str, str]:
    """Return transcript and number; a row without a number is alone."""
    number = row["utterance_id"] or row["utterance_text"]
    return identity(row["transcript_id"]), number


def size(*texts: str) -> int:
    return sum(len("".join(text.split())) for text in texts)


@pytest.mark.parametrize("form", FORMS)
@MANY
@given(data=st.data())
def test_every_word_that_is_read_is_in_a_record_or_in_a_rejected_row(
    tmp_path: Path, form: str, data: st.DataObject
) -> None:
    path = tmp_path / form
    rows = talk_rows(data)
    of_line = written(path, rows)
    issues = IssueLog(form)
    reader = {"native": "dialogues", "annomi": "annomi"}.get(path.stem, "table")
    records = read_records(
        reader=reader, path=path, taxonomy=TALK, issues=issues, require_labels=False
    )
    said = [turn.text for record in records for turn in record.turns]  # type: ignore[union-attr]
    # A number that is missing is a fault of no row.
    lost = {fault.line for fault in issues.issues if fault.rows}
    # Speakers, and labels of clients, that are not known are listed once for all their rows.
    told = " ".join(fault.reason for fault in issues.issues)
    unknown = [{"Nobody"}] if "unknown speakers: Nobody" in told else []
    unknown += [{"client", "a wish"}] if "unknown labels: a wish" in told else []
    lost |= {
        line
        for line, own in of_line.items()
        if any(cells <= set(row.values()) for cells in unknown for row in own)
    }
    gone = [row for line in lost for row in of_line[line]]
    if reader == "annomi":
        # All rows of one utterance go together, and its first line is named.
        names = {utterance_of(row) for row in gone}
        gone = [row for (row,) in of_line.values() if utterance_of(row) in names]
    left_out = [row.get("text", row.get("utterance_text", "")) for row in gone]
    assert size(*said) + size(*left_out) == size(*(row["text"] for row in rows))
    assert issues.rows_read == len(of_line)
    if reader != "dialogues":
        assert issues.rows_rejected == len(left_out)
