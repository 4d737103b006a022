"""A corpus: canonical labels, every row accounted for, and no client text in messages."""

from __future__ import annotations

import csv
import json
import logging
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recap.data.corpus import Corpus, read_corpus, read_records
from recap.data.issues import IssueLog
from recap.data.readers.registry import READERS, get_reader
from recap.errors import ConfigError, DataError, UnknownNameError, UserError
from recap.taxonomy import Taxonomy, taxonomy_from_dict

TAXONOMY = taxonomy_from_dict(
    {
        "name": "small",
        "categories": [
            {"name": "Resistance", "qualifies": False},
            {"name": "Arguing", "parent": "Resistance", "names": {"zh": "争辩"}},
            {"name": "Challenging", "parent": "Arguing", "names": {"zh": "挑战"}},
            {"name": "Disagreeing", "parent": "Resistance", "aliases": ["Disagreement"]},
            {"name": "Collaboration", "names": {"zh": "合作"}},
        ],
    }
)
SECRET = "zanzibar quicksilver over the hills"
HEADER = ["session", "speaker", "text", "label"]


def write(tmp_path: Path, rows: list[list[str]], name: str = "d.csv") -> Path:
    path = tmp_path / name
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    return path


def write_lines(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    return path


def read(path: Path | None, reader: str = "table", **options: Any) -> Corpus:
    taxonomy: Taxonomy | None = options.pop("taxonomy", TAXONOMY)
    return read_corpus(reader=reader, path=path, taxonomy=taxonomy, **options)


def session(name: str, text: str = "I see", label: str = "Collaboration") -> list[list[str]]:
    return [[name, "counselor", "Why?", "question"], [name, "client", text, label]]


def example(name: str, response: str, label: str | None, asked: str = "Why?") -> dict[str, Any]:
    history = [{"speaker": "counselor", "text": asked}]
    row = {"id": name, "history": history, "response": response}
    return row if label is None else {**row, "label": label}


def test_labels_of_the_client_become_canonical_and_acts_of_the_counselor_stay(
    tmp_path: Path,
) -> None:
    spellings = ["challenging", "争辩/Arguing-挑战/Challenging", "Disagreement", "合作"]
    rows = [row for n, label in enumerate(spellings) for row in session(f"s{n}", f"t{n}", label)]
    corpus = read(write(tmp_path, rows))
    assert [e.label for e in corpus.examples] == [
        "Challenging",
        "Challenging",
        "Disagreeing",
        "Collaboration",
    ]
    assert {e.history[0].label for e in corpus.examples} == {"question"}


def test_without_a_taxonomy_labels_stay_as_they_are(tmp_path: Path) -> None:
    (found,) = read(write(tmp_path, session("s", label="odd")), taxonomy=None).examples
    assert found.label == "odd"


def test_an_unknown_label_is_one_message_with_the_line_and_the_closest_label(
    tmp_path: Path,
) -> None:
    rows = session("s1") + session("s2", "No", "Disagreing") + session("s3")
    with pytest.raises(DataError) as caught:
        read(write(tmp_path, rows))
    lines = str(caught.value).splitlines()
    assert "1 of 6 rows cannot be used" in lines[0]
    assert (
        "d.csv:5: label: unknown labels: Disagreing (1) (did you mean 'Disagreeing'?)" in lines[1]
    )
    assert "; known: Resistance, Arguing, Challenging, Disagreeing, Collaboration (" in lines[1]
    assert lines[1].endswith("(taxonomy 'small'), correct them, or add them to the taxonomy")
    assert "data.on_error=skip" in lines[-1]
    assert len(lines) == 3


def test_an_empty_response_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"d\.csv:3: text: is empty, write the utterance"):
        read(write(tmp_path, session("s1", "  ")))
    path = write_lines(tmp_path, example("e", "", "Collaboration"))
    with pytest.raises(DataError, match=r"d\.jsonl:1: response: is empty"):
        read(path, "dialogues")


def test_skipping_keeps_the_faults_and_the_other_rows(tmp_path: Path) -> None:
    rows = session("s1") + session("s2", "", "Collaboration") + [["s2", "client", "Yes", "合作"]]
    corpus = read(write(tmp_path, rows), on_error="skip")
    assert [e.id for e in corpus.examples] == ["s1:1"]
    assert corpus.counts["no_intervention"] == 1  # what it answered may have been the lost row
    assert [(fault.line, fault.field) for fault in corpus.issues] == [(5, "text")]
    assert (corpus.rows_read, corpus.rows_accepted) == (5, 4)
    assert corpus.notes()[0] == "1 of 5 rows were left out"


def test_a_row_left_out_makes_no_neighbors_of_the_rows_around_it(tmp_path: Path) -> None:
    rows = [
        ["s", "counselor", "How are you?", ""],
        ["s", "client", "first", "Disagreeing"],
        ["s", "nobody", "a counselor's turn, perhaps", ""],
        ["s", "client", "second", "Collaboration"],
        ["s", "counselor", "Go on.", ""],
        ["s", "client", "third", "Collaboration"],
    ]
    corpus = read(write(tmp_path, rows), on_error="skip")
    assert [(e.response, e.label) for e in corpus.examples] == [
        ("first", "Disagreeing"),
        ("third", "Collaboration"),
    ]
    assert [turn.text for turn in corpus.examples[1].history] == ["second", "Go on."]
    assert "1 dialogues were cut in two at a row that was left out" in corpus.notes()


def test_half_a_character_is_a_fault(tmp_path: Path) -> None:
    line = json.dumps({**example("e", "x", "Collaboration"), "response": "cut \ud83d"})
    (tmp_path / "d.jsonl").write_text(line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"d\.jsonl:1: response: holds half of a character"):
        read(tmp_path / "d.jsonl", "dialogues")


def test_texts_that_differ_in_white_space_alone_are_duplicates(tmp_path: Path) -> None:
    rows = [example("e1", "It is so.", "Disagreeing"), example("e2", "It  is so. ", "Disagreeing")]
    corpus = read(write_lines(tmp_path, *rows), "dialogues")
    assert corpus.counts["duplicates"] == 1


def test_a_dialogue_that_is_one_row_is_left_out_whole(tmp_path: Path) -> None:
    ask = {"speaker": "counselor", "text": "Why?"}
    good = {"speaker": "client", "text": "So", "label": "合作"}
    rows = [
        {"session": "s1", "turns": [ask, good]},
        {"session": "s2", "turns": [ask, good, ask, {**good, "label": "Disagreing"}]},
    ]
    corpus = read(write_lines(tmp_path, *rows), "dialogues", on_error="skip")
    assert [e.session for e in corpus.examples] == ["s1"]
    assert [fault.field for fault in corpus.issues] == ["label"]
    assert (corpus.rows_read, corpus.rows_accepted) == (2, 1)


def test_a_dialogue_without_turns_is_a_fault(tmp_path: Path) -> None:
    path = write_lines(tmp_path, {"session": "s", "turns": []}, example("e", "a", "合作"))
    corpus = read(path, "dialogues", on_error="skip")
    assert [(f.line, f.field, f.reason) for f in corpus.issues] == [(1, "turns", "is empty")]


def test_only_the_first_twenty_faults_are_listed(tmp_path: Path) -> None:
    rows = [row for n in range(25) for row in session(f"s{n}", "", "Disagreeing")]
    with pytest.raises(DataError) as caught:
        read(write(tmp_path, rows))
    message = str(caught.value)
    assert message.count("is empty") == 20
    assert "and 5 more" in message


def test_an_unknown_label_is_shown_once_with_its_count_and_a_text_never(tmp_path: Path) -> None:
    labels = ["Disagreing"] * 30 + ["oops"] * 2 + [SECRET]
    rows = [row for n, label in enumerate(labels) for row in session(f"s{n}", f"t{n}", label)]
    with pytest.raises(DataError) as caught:
        read(write(tmp_path, rows))
    _, line, _ = str(caught.value).splitlines()
    assert (
        "Disagreing (30) (did you mean 'Disagreeing'?), oops (2), a text of 35 characters" in line
    )


def test_labels_of_another_task_name_that_task(tmp_path: Path) -> None:
    rows = session("s1", "a", "sustain") + session("s2", "b", "change talk")
    with pytest.raises(DataError, match="set task=annomi_talk, which knows them"):
        read(write(tmp_path, rows))
    with pytest.raises(DataError, match="correct them, or add them to the taxonomy"):
        read(write(tmp_path, rows + session("s3", "c", "sustain?")))


def test_an_example_needs_a_label_for_training_and_none_for_prediction(tmp_path: Path) -> None:
    path = write_lines(tmp_path, example("e1", "a", None), example("e2", "b", "合作"))
    with pytest.raises(DataError, match=r"d\.jsonl:1: label: is missing, give every row a label"):
        read(path, "dialogues")
    corpus = read(path, "dialogues", require_labels=False)
    assert [e.label for e in corpus.examples] == [None, "Collaboration"]


def test_client_turns_without_a_label_are_no_faults(tmp_path: Path) -> None:
    rows = [*session("s1"), *session("s1", "more", "")]
    corpus = read(write(tmp_path, rows))
    assert (len(corpus.examples), corpus.issues) == (1, ())
    assert corpus.counts["unlabelled"] == 1
    assert "1 client turns without a label make no example" in corpus.notes()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no rows"),
        (session("s", label=""), r"data\.options\.columns\.label=NAME"),
        ([["s", "client", "a", "合作"]], r"data\.no_intervention=keep"),
        ([["s", "counselor", "a", ""]], "no client turn"),
    ],
)
def test_a_file_that_leaves_no_example_says_why(
    tmp_path: Path, rows: list[list[str]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(write(tmp_path, rows))


def test_a_file_of_nothing_but_faults_is_an_error_even_where_they_are_skipped(
    tmp_path: Path,
) -> None:
    with pytest.raises(DataError, match="all 1 rows were rejected; the first"):
        read(write(tmp_path, [["s", "client", "", "合作"]]), on_error="skip")


def test_ids_and_sessions_that_occur_twice_are_faults_that_name_the_first(tmp_path: Path) -> None:
    turns = [
        {"speaker": "counselor", "text": "Why?"},
        {"speaker": "client", "text": "So", "label": "合作", "id": "u1"},
    ]
    path = write_lines(
        tmp_path,
        {"session": "s1", "turns": turns},
        {"session": "s2", "turns": turns},
        {"session": "s1", "turns": turns},
        example("u1", "a", "合作"),
        example("s1:1", "b", "合作"),
    )
    corpus = read(path, "dialogues", on_error="skip")
    assert [e.id for e in corpus.examples] == ["u1", "s1:1"]
    assert [(f.line, f.field) for f in corpus.issues] == [
        (2, "turns[1].id"),
        (3, "session"),
        (4, "id"),
    ]
    assert "id 'u1' is at line 1 already" in corpus.issues[0].reason


def duplicated(tmp_path: Path) -> Path:
    return write_lines(
        tmp_path,
        example("e1", "a", "合作"),
        example("e2", "a", "合作"),
        example("e3", "a", "挑战"),
        example("e4", "a", "合作", asked="How?"),
    )


def test_duplicates_are_judged_on_history_and_response_and_counted(tmp_path: Path) -> None:
    corpus = read(duplicated(tmp_path), "dialogues")
    assert len(corpus.examples) == 4
    assert corpus.counts["duplicates"] == 2
    assert corpus.counts["label_conflicts"] == 1


def test_dropping_duplicates_keeps_the_first_of_each(tmp_path: Path) -> None:
    corpus = read(duplicated(tmp_path), "dialogues", duplicates="drop")
    assert [e.id for e in corpus.examples] == ["e1", "e4"]
    assert corpus.counts["duplicates"] == 2


def test_duplicates_can_be_an_error_that_names_ids(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="id 'e2' repeats id 'e1'") as caught:
        read(duplicated(tmp_path), "dialogues", duplicates="error")
    assert "data.duplicates=drop" in str(caught.value)


@pytest.mark.parametrize("reader", ["table", "dialogues", "annomi", "transcript", "alpaca"])
def test_a_missing_file_is_one_message_with_the_mend(tmp_path: Path, reader: str) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv: there is no such file.*correct the path"):
        read(tmp_path / "nowhere.csv", reader)
    with pytest.raises(DataError, match=r"data\.path=FILE"):
        read(None, reader)


def test_wrong_names_and_values_are_told_with_what_is_possible(tmp_path: Path) -> None:
    path = write(tmp_path, session("s"))
    with pytest.raises(UnknownNameError, match="did you mean 'table'"):
        read(path, "tabel")
    with pytest.raises(ConfigError, match=r"data\.options\.colums: .*did you mean 'columns'"):
        read(path, options={"colums": {}})
    for option in ("on_error", "duplicates", "no_intervention"):
        with pytest.raises(ConfigError, match=rf"data\.{option} must be"):
            read(path, **{option: "perhaps"})


def test_the_built_in_corpus_is_marked_as_synthetic(tmp_path: Path) -> None:
    assert read(None, "demo", taxonomy=None, options={"size": 20}).synthetic
    assert not read(write(tmp_path, session("s"))).synthetic


def test_every_choice_of_conf_data_names_a_reader_and_options_that_it_takes(
    project_root: Path,
) -> None:
    import yaml

    from recap.data.readers.registry import check_options

    keys = {"name", "reader", "path", "language", "on_error", "duplicates", "merge_adjacent"}
    files = sorted((project_root / "conf" / "data").glob("*.yaml"))
    assert len(files) >= 9
    for file in files:
        text = file.read_text(encoding="utf-8")
        choice = yaml.safe_load(text)
        if text.startswith("# @package _global_"):
            choice = choice["data"]
        for base in set(choice.pop("defaults", ())) - {"_self_"}:
            below = (file.parent / f"{base}.yaml").read_text(encoding="utf-8")
            choice = {**yaml.safe_load(below), **choice}
        assert set(choice) == keys | {"no_intervention", "options"}, file.name
        assert choice["name"] == file.stem
        check_options(choice["reader"], get_reader(choice["reader"]), choice["options"])


def test_sessions_that_share_a_line_of_the_file_may_not_share_a_name(tmp_path: Path) -> None:
    turns = [{"speaker": "counselor", "text": "Why?"}, {"speaker": "client", "text": "So."}]
    path = tmp_path / "d.json"
    path.write_text(json.dumps([{"session": "s", "turns": turns}] * 3), "utf-8")
    corpus = read(path, "dialogues", on_error="skip", require_labels=False)
    assert (corpus.rows_read, corpus.rows_accepted) == (3, 1)
    assert [fault.field for fault in corpus.issues] == ["[1].session", "[2].session"]


@pytest.mark.parametrize("shown", ["#NAME?", " #REF! ", "#VALUE!"])
def test_the_error_of_a_spreadsheet_is_no_utterance(tmp_path: Path, shown: str) -> None:
    corpus = read(write(tmp_path, session("a", shown) + session("b", "fine")), on_error="skip")
    assert [example.response for example in corpus.examples] == ["fine"]
    assert "of a spreadsheet" in corpus.issues[0].reason


def test_a_text_as_long_as_a_book_is_a_fault(tmp_path: Path) -> None:
    rows = [example("a", "x" * 131_073, "合作"), example("b", "x" * 131_072, "合作")]
    corpus = read(write_lines(tmp_path, *rows), "dialogues", on_error="skip")
    assert [one.id for one in corpus.examples] == ["b"]
    assert "131,073 characters" in str(corpus.issues[0])


def test_a_label_of_a_megabyte_is_looked_up_in_no_time() -> None:
    begun = time.process_time()
    for piece in (" ", "-", " -", "a "):
        with pytest.raises(DataError, match="a text of 10000"):
            TAXONOMY.resolve("a" + piece * (1_000_000 // len(piece)) + "b")
    assert time.process_time() - begun < 5


def test_records_come_one_at_a_time(tmp_path: Path) -> None:
    rows = session("s1") + session("s2", "", "合作")
    issues = IssueLog("d.csv")
    records = read_records(
        reader="table",
        path=write(tmp_path, rows),
        taxonomy=TAXONOMY,
        issues=issues,
        require_labels=True,
    )
    assert next(records).session == "s1"
    assert not issues.issues


CELL = st.sampled_from(
    ["", "s1", "s2", "client", "counselor", "Collaboration", "合作", "a\nb", '"']
)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.lists(CELL, min_size=1, max_size=5), max_size=8), cut=st.integers(0, 40))
def test_rows_read_are_rows_accepted_plus_rows_with_faults(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], cut: int
) -> None:
    path = write(tmp_path_factory.mktemp("rows"), rows + session("last", "fine"))
    whole = path.read_bytes()
    path.write_bytes(whole[: max(len(whole) - cut, 0)])
    try:
        corpus = read(path, on_error="skip", no_intervention="keep", require_labels=False)
    except DataError:
        return
    # Names that are no speakers are listed once for all rows that hold them.
    rejected = {fault.line for fault in corpus.issues if "unknown speakers" not in fault.reason}
    named = [
        int(n)
        for fault in corpus.issues
        if "unknown speakers" in fault.reason
        for n in re.findall(r"\((\d+)\)", fault.reason)
    ]
    left_out = corpus.rows_read - corpus.rows_accepted
    assert max(len(rejected), sum(named)) <= left_out <= len(rejected) + sum(named)


TROUBLE: dict[str, list[Any]] = {
    "dialogues": [
        {"session": SECRET, "turns": [{"speaker": f"{SECRET} {SECRET}", "text": SECRET}]},
        {"id": SECRET, "response": SECRET, "label": SECRET},
        {"session": "s", "turns": [{"speaker": "client", "text": SECRET, "label": SECRET}]},
        {SECRET: SECRET},
        [SECRET],
        {"id": SECRET, "response": SECRET, "label": SECRET},
    ],
    "client_resistance": [{"text": SECRET, "label": SECRET}, {"text": SECRET}],
    "alpaca": [{"input": SECRET, "output": SECRET}, {"instruction": SECRET, "input": ""}],
    "doccano": [{"text": SECRET, "label": [SECRET, "b"]}, {"text": SECRET, "label": [[0, SECRET]]}],
    "psyguard": [{"idx": SECRET, "text": SECRET, "labels": [SECRET]}] * 2,
    "transcript": [{"file": SECRET, "text": SECRET}],
}


@pytest.mark.parametrize("reader", TROUBLE)
@pytest.mark.parametrize("extra", ["", '{"a": "' + SECRET, SECRET])
def test_no_message_or_log_of_a_json_reader_holds_client_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, reader: str, extra: str
) -> None:
    path = write_lines(tmp_path, *TROUBLE[reader])
    path.write_text(path.read_text("utf-8") + "\n" + extra, "utf-8")
    check_silence(path, reader, caplog)


@pytest.mark.parametrize(
    "text",
    [
        f"{SECRET},{SECRET} 2\n{SECRET},a\n",
        f"text,label\n{SECRET},{SECRET}\n",
        f"session,speaker,text,label\n{SECRET},{SECRET} {SECRET},{SECRET},{SECRET}\n",
        f"session,speaker,text\n{SECRET},client,a\ns,client,b\n{SECRET},client,c\n",
        f'speaker,text\nclient,"{SECRET}" {SECRET}\nclient,{SECRET},{SECRET}\n',
        f"id,text,label\n{SECRET},{SECRET},合作\n{SECRET},{SECRET},合作\n",
        f"{SECRET},{SECRET}\n",
    ],
)
@pytest.mark.parametrize("reader", ["table", "annomi", "doccano"])
def test_no_message_or_log_of_a_table_reader_holds_client_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, reader: str, text: str
) -> None:
    path = tmp_path / "d.csv"
    path.write_text(text, "utf-8")
    check_silence(path, reader, caplog)


def check_silence(path: Path, reader: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for duplicates in ("warn", "error"):
        with pytest.raises(UserError) as caught:
            read(path, reader, no_intervention="keep", duplicates=duplicates)
        error: BaseException | None = caught.value
        while error is not None:
            assert "zanzibar" not in str(error)
            assert "quicksilver" not in str(error)
            error = None if error.__suppress_context__ else error.__cause__ or error.__context__
    assert "zanzibar" not in caplog.text


def test_a_reader_of_ones_own_is_found_by_its_import_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_reader.py").write_text(
        "from recap.records import Example, Turn\n"
        "def read(path, *, issues, n=1):\n"
        "    asked = (Turn(speaker='counselor', text='Why?'),)\n"
        "    for i in range(n):\n"
        "        yield Example(id=str(i), history=asked, response=f'r{i}', label='合作')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    corpus = read(None, "own_reader:read", options={"n": 3})
    assert (len(corpus.examples), corpus.rows_read, corpus.rows_accepted) == (3, 3, 3)
    assert "own_reader:read" not in READERS.names()
