"""Transcripts that name the speaker before each turn."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from recap.data.corpus import read_corpus
from recap.data.issues import IssueLog
from recap.data.readers.transcript import read_transcript
from recap.records import Dialogue


def read(path: Path, **options: Any) -> tuple[list[Dialogue], IssueLog]:
    issues = IssueLog(path.name)
    return list(read_transcript(path, issues=issues, **options)), issues


def write(tmp_path: Path, *texts: str) -> Path:
    path = tmp_path / "c.jsonl"
    rows = [{"file": f"case_{n}.txt", "text": text} for n, text in enumerate(texts)]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    return path


def said(dialogue: Dialogue) -> list[tuple[str, str]]:
    return [(turn.speaker, turn.text) for turn in dialogue.turns]


@pytest.mark.parametrize("counselor", ["心理咨询师", "咨询师", "Counselor", "THERAPIST"])
@pytest.mark.parametrize("client", ["来访者", "Client"])
@pytest.mark.parametrize("colon", ["：", ":", " : "])
def test_each_usual_name_of_a_speaker_begins_a_turn(
    tmp_path: Path, counselor: str, client: str, colon: str
) -> None:
    text = f"{client}{colon}咨询师，你好\r\n\r\n{counselor}{colon}请说"
    (found,), _ = read(write(tmp_path, text))
    assert found.session == "case_0"
    assert said(found) == [("client", "咨询师，你好"), ("counselor", "请说")]


def test_a_line_without_a_speaker_goes_on_with_the_turn_above(tmp_path: Path) -> None:
    (found,), _ = read(write(tmp_path, "来访者：一\n\n二\n咨询师：三"))
    assert said(found) == [("client", "一\n\n二"), ("counselor", "三")]


def test_lines_before_the_first_speaker_are_counted(tmp_path: Path) -> None:
    (found,), issues = read(write(tmp_path, "标题\n\n来访者：一"))
    assert said(found) == [("client", "一")]
    assert issues.counts["lines_before_first_speaker"] == 1


def test_other_names_can_be_given(tmp_path: Path) -> None:
    (found,), _ = read(write(tmp_path, "T: a\nC: b"), speakers={"T": "counselor", "C": "client"})
    assert said(found) == [("counselor", "a"), ("client", "b")]


def test_a_text_without_any_speaker_is_a_fault(tmp_path: Path) -> None:
    found, issues = read(write(tmp_path, "只是文字", "来访者：一"))
    assert [dialogue.session for dialogue in found] == ["case_1"]
    assert [(fault.line, fault.field) for fault in issues.issues] == [(1, "text")]


def test_a_plain_text_file_is_one_dialogue_with_a_row_a_turn(tmp_path: Path) -> None:
    path = tmp_path / "monday.txt"
    path.write_text("Client: Hello\nthere\n\nTherapist: Hi\nClient:\n", encoding="utf-8")
    (found,), issues = read(path)
    assert found.session == "monday"
    assert said(found) == [("client", "Hello\nthere"), ("counselor", "Hi"), ("client", "")]
    assert issues.rows_read == 3
    corpus = read_corpus(
        reader="transcript",
        path=path,
        taxonomy=None,
        on_error="skip",
        no_intervention="keep",
        require_labels=False,
    )
    assert [fault.line for fault in corpus.issues] == [5]


# As they speak, or as those who speak for them are called, in 20 dialogues.
OTHERS = ["妈妈", "女儿", "A", "B", "小强", "月月", "父母", "天远和文姗", "孩子"]
OTHERS += ["娜娜的母亲", "母亲", "来访者1", "来访者2"]
NOTES = ["姚先生", "程女士", "扮演自己", "天远", "文姗", "小李", "小王"]
PLAYED = ["扮演严肃女性", "扮演排挤者", "扮演老人", "扮演丈夫", "扮演外婆"]


@pytest.mark.real_data
def test_cpsycound_has_its_known_figures(real_data: Path) -> None:
    """The figures count none but 来访者： and 心理咨询师： as speakers, and no blank lines."""
    path = real_data / "cpsycound" / "cpsycound_raw.jsonl"
    names = [*OTHERS, *(f"来访者（{note}）" for note in NOTES)]
    names += [f"心理咨询师（{note}）" for note in PLAYED]
    found, issues = read(path, speakers=dict.fromkeys(names, "text"))
    turns = [turn for dialogue in found for turn in dialogue.turns]
    lines = {id(turn): "\n".join(filter(None, turn.text.split("\n"))) for turn in turns}
    client = [lines[id(turn)] for turn in turns if turn.speaker == "client"]
    counselor = [lines[id(turn)] for turn in turns if turn.speaker == "counselor"]
    assert (len(found), issues.rows_read, issues.issues) == (3084, 3084, [])
    # One dialogue is there twice, and a second one but for its blanks.
    assert len({tuple(said(dialogue)) for dialogue in found}) == 3082
    assert (len(client), len(counselor)) == (24_974, 24_806)
    assert round(mean(map(len, client)), 3) == 33.069
    assert round(mean(map(len, counselor)), 3) == 54.574
    assert client.count("") == 2
    assert {dialogue.turns[0].speaker for dialogue in found} == {"client"}
    adjacent = [
        a.speaker == b.speaker
        for dialogue in found
        for a, b in zip(dialogue.turns, dialogue.turns[1:], strict=False)
    ]
    assert sum(adjacent) == 609


@pytest.mark.real_data
def test_the_two_empty_turns_of_cpsycound_are_faults(real_data: Path) -> None:
    corpus = read_corpus(
        reader="transcript",
        path=real_data / "cpsycound" / "cpsycound_raw.jsonl",
        taxonomy=None,
        on_error="skip",
        require_labels=False,
    )
    empty = [fault.line for fault in corpus.issues if "empty" in fault.reason]
    assert (corpus.rows_read, len(empty)) == (3084, 2)
    # And those of 12 dialogues, which name speakers that are not known.
    assert (corpus.rows_accepted, len(corpus.issues)) == (3084 - 2 - 12, 3)
