"""Files of single samples: the authors' JSON, alpaca, PsyGUARD."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recap.data.corpus import read_corpus
from recap.data.issues import IssueLog
from recap.data.readers.registry import get_reader
from recap.errors import ConfigError
from recap.records import Example
from recap.taxonomy import taxonomy_from_dict

# As the PsyGUARD paper names them (Table 2 there).
RISKS = (
    "自杀未遂",
    "自杀准备行为",
    "自杀计划",
    "主动自杀意图",
    "被动自杀意图",
    "用户攻击行为",
    "他人攻击行为",
    "自伤行为",
    "自伤意图",
    "关于自杀的探索",
    "与自杀/自伤/攻击行为无关",
)


def read(tmp_path: Path, reader: str, rows: Any, **options: Any) -> tuple[list[Example], IssueLog]:
    path = tmp_path / "s.json"
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    issues = IssueLog(path.name)
    return list(get_reader(reader)(path, issues=issues, **options)), issues


def said(example: Example) -> list[tuple[str, str]]:
    return [(turn.speaker, turn.text) for turn in example.history]


def test_the_authors_samples_split_at_the_last_blank_line(tmp_path: Path) -> None:
    text = "咨询师：最近怎么样？\n\n来访者：还行。\n咨询师：具体说说？\n \n来访者：不想说。"
    (found,), _ = read(tmp_path, "client_resistance", [{"text": text, "label": "否认-犹豫"}])
    assert said(found) == [
        ("counselor", "最近怎么样？"),
        ("client", "还行。"),
        ("counselor", "具体说说？"),
    ]
    assert (found.id, found.response, found.label) == ("s:1", "不想说。", "否认-犹豫")


def test_a_context_that_names_no_speaker_is_the_counselors_turn(tmp_path: Path) -> None:
    (found,), _ = read(tmp_path, "client_resistance", [{"text": "Why?\n\nNo idea.", "label": "x"}])
    assert (said(found), found.response) == ([("counselor", "Why?")], "No idea.")


def test_a_text_without_a_blank_line_is_all_response(tmp_path: Path) -> None:
    (found,), _ = read(tmp_path, "client_resistance", [{"text": "One.\nTwo.", "label": "x"}])
    assert (said(found), found.response) == ([], "One.\nTwo.")


def test_nothing_after_the_blank_line_is_an_empty_response(tmp_path: Path) -> None:
    (found,), _ = read(tmp_path, "client_resistance", [{"text": "Why?\r\n\r\n", "label": "x"}])
    assert found.response == ""


@pytest.mark.parametrize(
    "row", [{"label": "x"}, {"text": 3, "label": "x"}, {"text": "a", "label": ["x"]}]
)
def test_samples_without_text_or_with_a_label_that_is_none_are_faults(
    tmp_path: Path, row: dict[str, Any]
) -> None:
    found, issues = read(tmp_path, "client_resistance", [row, {"text": "a", "label": "x"}])
    assert [example.id for example in found] == ["s:2"]
    assert len(issues.issues) == 1


@pytest.mark.parametrize(
    ("output", "label", "rationale"),
    [
        ("Challenging", "Challenging", None),
        ("Behavior: Challenging\nReason: Attacks.", "Challenging", "Attacks."),
        ("行为：争辩-挑战\n理由：质疑\n咨询师。", "争辩-挑战", "质疑\n咨询师。"),
        ("Arguing - Challenging\nAttacks.", "Arguing - Challenging", "Attacks."),
        ("", None, None),
    ],
)
def test_an_alpaca_output_is_a_label_with_or_without_its_reason(
    tmp_path: Path, output: str, label: str | None, rationale: str | None
) -> None:
    row = {"instruction": "Classify.", "input": "Counselor: Why?\n\nSo.", "output": output}
    (found,), _ = read(tmp_path, "alpaca", [row])
    assert (found.label, found.rationale) == (label, rationale)
    assert (said(found), found.response) == ([("counselor", "Why?")], "So.")


def test_an_alpaca_dialogue_without_blank_lines_is_split_before_its_last_turn(
    tmp_path: Path,
) -> None:
    text = "Client: Hm.\nCounselor: Why?\nClient: So."
    (found,), _ = read(tmp_path, "alpaca", [{"instruction": "", "input": text, "output": "x"}])
    assert (said(found), found.response) == ([("client", "Hm."), ("counselor", "Why?")], "So.")


def test_an_alpaca_row_whose_dialogue_is_in_the_instruction_is_a_fault(tmp_path: Path) -> None:
    _, issues = read(tmp_path, "alpaca", [{"instruction": "all", "input": "", "output": "x"}])
    assert [(fault.field, fault.reason) for fault in issues.issues] == [("input", "is empty")]


def test_messages_of_several_labels_are_rejected_or_take_the_first_as_stated(
    tmp_path: Path,
) -> None:
    rows = [
        {"idx": 4, "text": "a", "labels": ["x"], "data_source": "web"},
        {"idx": 4, "text": "b", "labels": ["y", "x"], "data_source": "lab"},
    ]
    found, issues = read(tmp_path, "psyguard", rows)
    assert [(e.id, e.label) for e in found] == [("web:4", "x")]
    assert [fault.field for fault in issues.issues] == ["[1].labels"]
    found, issues = read(tmp_path, "psyguard", rows, multi_label="first")
    assert [(e.id, e.label) for e in found] == [("web:4", "x"), ("lab:4", "y")]
    assert not issues.issues
    with pytest.raises(ConfigError, match=r"data\.options\.multi_label must be reject or first"):
        read(tmp_path, "psyguard", rows, multi_label="last")


@pytest.mark.real_data
def test_psyguard_has_its_published_size_and_mean_length(real_data: Path) -> None:
    taxonomy = taxonomy_from_dict({"name": "risk", "categories": [{"name": n} for n in RISKS]})
    path = real_data / "psyguard" / "valid.json"
    options: dict[str, Any] = {"reader": "psyguard", "path": path, "taxonomy": taxonomy}
    corpus = read_corpus(
        **options, no_intervention="keep", options={"multi_label": "first"}, duplicates="error"
    )
    assert (corpus.rows_read, corpus.rows_accepted, len(corpus.examples)) == (1480, 1480, 1480)
    lengths = [len(example.response) for example in corpus.examples]
    assert round(sum(lengths) / len(lengths), 3) == 29.603
    assert corpus.counts["multi_label"] == 21
    assert {example.label for example in corpus.examples} == set(RISKS)
    assert sum(example.label == "自杀准备行为" for example in corpus.examples) == 2
    rejected = read_corpus(**options, no_intervention="keep", on_error="skip")
    assert (len(rejected.examples), len(rejected.issues)) == (1459, 21)
