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
from sample_files import Sample

from recap.data.issues import IssueLog
from recap.data.readers.doccano import document_text
from recap.data.readers.files import json_rows
from recap.data.readers.native import read_dialogues, records_to_jsonl
from recap.data.readers.speakers import SpeakerNames, sample_of
from recap.data.readers.tables import read_sheet
from recap.records import Dialogue, Example, Turn
from recap.system.files import bare_cell, sheet_to_csv

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
OPTIONAL = st.none() | NAMES
TURN = st.builds(
    Turn,
    speaker=st.sampled_from(["client", "counselor"]),
    text=SPOKEN,
    id=OPTIONAL,
    label=OPTIONAL,
    rationale=OPTIONAL,
)
META = st.dictionaries(NAMES, NAMES | st.integers() | st.lists(NAMES, max_size=2), max_size=2)
RECORDS = st.builds(
    Dialogue,
    session=NAMES,
    client=OPTIONAL,
    counselor=OPTIONAL,
    turns=st.lists(TURN, max_size=3).map(tuple),
    meta=META,
) | st.builds(
    Example,
    id=NAMES,
    session=OPTIONAL,
    client=OPTIONAL,
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


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
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
    found, said, fault = sample_of(text, SpeakerNames().read(text))
    assert fault is None
    # Blank lines within a turn go, so that the last one is where the response begins.
    assert said == response.replace("\n\n", "\n")
    assert [(turn.speaker, turn.text) for turn in found] == [
        (speaker, text.replace("\n\n", "\n")) for speaker, text in history
    ]
