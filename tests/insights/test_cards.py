from __future__ import annotations

import json
import re
import stat
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from recap.insights.__main__ import main

EVIL = '<script>alert(1)</script> "quoted" & more'
FORMULA = '=HYPERLINK("http://example.org","x")'


class Text(HTMLParser):
    """Collects tags and texts of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(path: Path) -> Text:
    found = Text()
    found.feed(path.read_text("utf-8"))
    return found


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Two dialogues, one with hostile texts, and predictions about them; returns the overrides."""
    talks = [
        {
            "session": "S/1",
            "client": "K",
            "turns": [
                {"speaker": "client", "text": "first words"},
                {"speaker": "counselor", "text": "second words"},
                {"speaker": "client", "text": EVIL},
                {"speaker": "counselor", "text": "fourth words"},
                {"speaker": "client", "text": FORMULA},
                {"speaker": "counselor", "text": "last words"},
            ],
        },
        {"session": "S_1", "turns": [{"speaker": "client", "text": "calm"}]},
    ]
    rows = [
        ("S/1:0", "S/1", "Collaboration", {"Collaboration": 0.55, "Excusing": 0.45}),
        ("S/1:2", "S/1", "Challenging", {"Challenging": 0.83, "Excusing": 0.16, "Blaming": 0.01}),
        ("S/1:4", "S/1", "Excusing", {"Excusing": 0.4, "Blaming": 0.35, "Collaboration": 0.25}),
        ("S_1:0", "S_1", "Collaboration", {"Collaboration": 0.99}),
    ]
    answers = [
        {
            "id": i,
            "session": s,
            "turn": int(i[-1]),
            "label": label,
            "probabilities": p,
            "rationale": f"because of {EVIL}",
            "parsed": True,
        }
        for i, s, label, p in rows
    ]
    for name, content in (("talks", talks), ("answers", answers)):
        text = "".join(json.dumps(row) + "\n" for row in content)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return [f"data.path={tmp_path}/talks.jsonl", f"predictions={tmp_path}/answers.jsonl"]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_card_tells_context_behaviour_meaning_reason_certainty_and_that_it_may_err(
    files: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert main(["action=card", *files, "card.id='S/1:2'", f"out={out}"]) == 0
    text, page = (out / "card.txt").read_text("utf-8"), page_of(out / "card.html")
    for said in (
        "first words",
        "second words",
        "Arguing - Challenging",
        "Disputes that something the counselor has said",
        "because of",
        "a probability of 83 %",
        "Next likely: Excusing 16 %, Blaming 1 %",
        "It can be wrong",
    ):
        assert said in text
        assert said in page.text
    assert EVIL in text
    assert EVIL in page.text
    assert "unsure here" not in text
    figures = json.loads((out / "card.json").read_text("utf-8"))
    assert (figures["label"], figures["probability"], figures["predicted"]) == (
        "Challenging",
        0.83,
        True,
    )


def test_a_card_is_self_contained_and_escaped(files: list[str], tmp_path: Path) -> None:
    assert main(["action=card", *files, "card.id='S/1:2'", f"out={tmp_path}"]) == 0
    source, page = (tmp_path / "card.html").read_text("utf-8"), page_of(tmp_path / "card.html")
    assert "script" not in page.tags
    assert page.links == []
    assert not re.search(r"url\(|@import|https?:", source)
    assert "prefers-color-scheme: dark" in source
    assert "default-src 'none'" in source


def test_words_of_clients_are_on_the_cards_alone_and_those_are_private(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for action in ("card", "supervision"):
        assert main([f"action={action}", *files, "supervision.excel=true", f"out={tmp_path}"]) == 0
    printed = capsys.readouterr()
    private = [*tmp_path.glob("card.txt"), *tmp_path.glob("*.html"), *tmp_path.glob("*.xlsx")]
    assert len(private) == 6
    assert all(mode(path) == 0o600 for path in private)
    others = {*tmp_path.iterdir()} - {
        *private,
        tmp_path / "talks.jsonl",
        tmp_path / "answers.jsonl",
    }
    assert len(others) == 8
    shared = [path.read_text("utf-8") for path in others]
    for words in ("first words", "alert(1)", "HYPERLINK", "because of"):
        assert not any(words in text for text in [*shared, printed.out, printed.err])


def test_a_file_that_was_readable_before_becomes_private(files: list[str], tmp_path: Path) -> None:
    (tmp_path / "card.txt").write_text("old", encoding="utf-8")
    (tmp_path / "card.txt").chmod(0o644)
    assert main(["action=card", *files, f"out={tmp_path}"]) == 0
    assert mode(tmp_path / "card.txt") == 0o600


def test_without_out_the_card_is_printed(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["action=card", *files, "card.id='S/1:4'", "card.context=1"]) == 0
    printed = capsys.readouterr().out
    assert "fourth words" in printed
    assert "second words" not in printed
    assert "… 3 earlier turns" in printed
    assert "The model is unsure here" in printed


def test_a_card_is_written_in_chinese(files: list[str], tmp_path: Path) -> None:
    command = ["action=card", *files, "card.id='S/1:2'", "card.language=zh", f"out={tmp_path}"]
    assert main(command) == 0
    text = (tmp_path / "card.txt").read_text("utf-8")
    assert "争辩-挑战" in text
    assert "概率是 83 %" in text
    assert "可能出错" in text


def test_people_who_annotated_are_not_called_a_model(tmp_path: Path) -> None:
    assert main(["action=card", "data.options.size=30", f"out={tmp_path}"]) == 0
    text = (tmp_path / "card.txt").read_text("utf-8")
    assert "given by people" in text
    assert "machine" not in text


def test_a_supervision_page_shows_moments_uncertainty_and_the_whole_session(
    files: list[str], tmp_path: Path
) -> None:
    command = ["action=supervision", *files, f"out={tmp_path / 'out'}"]
    assert main(command) == 0
    # Two sessions whose names differ in characters that no file name holds.
    pages = sorted(path.name for path in (tmp_path / "out").glob("*.html"))
    assert pages == ["supervision-S_1-2.html", "supervision-S_1.html"]
    page = page_of(tmp_path / "out" / "supervision-S_1.html")
    assert "script" not in page.tags
    assert page.links == []
    assert "2 (67 %)" in page.text
    assert EVIL in page.text
    assert "Other utterances that the model is unsure of" in page.text
    assert "last words" in page.text
    assert page.text.index("Arguing - Challenging") < page.text.index("Denying - Excusing 40 %")
    calm = page_of(tmp_path / "out" / "supervision-S_1-2.html")
    assert "No utterance of this session was labeled as resistant." in calm.text
    rows = json.loads((tmp_path / "out" / "supervision.json").read_text("utf-8"))["sessions"]
    assert [(r["session"], r["n_resistant"], r["n_unsure"]) for r in rows] == [
        ("S/1", 2, 2),
        ("S_1", 0, 0),
    ]


def test_cells_of_the_workbook_are_never_formulas(files: list[str], tmp_path: Path) -> None:
    command = ["action=supervision", *files, "supervision.session='S/1'", f"out={tmp_path}"]
    assert main([*command, "supervision.excel=true"]) == 0
    book = openpyxl.load_workbook(tmp_path / "supervision-S_1.xlsx")
    cells: list[Any] = [c for sheet in book for row in sheet.iter_rows() for c in row if c.value]
    assert not [c for c in cells if c.data_type == "f"]
    texts = [c.value for c in cells if isinstance(c.value, str)]
    assert f"'{FORMULA}" in texts
    assert not [text for text in texts if text.lstrip()[:1] in ("=", "+", "-", "@")]
    assert 0.83 in [c.value for c in cells]
    assert "last words" in texts


def test_a_dialogue_with_an_empty_turn_has_a_card_and_a_page(tmp_path: Path) -> None:
    texts = (("client", "first"), ("counselor", "second"), ("client", ""), ("client", "last"))
    talk = {"session": "S", "turns": [{"speaker": s, "text": t} for s, t in texts]}
    rows = [
        {"id": f"S:{turn}", "session": "S", "turn": turn, "label": label, "parsed": bool(label)}
        | {"skipped": None if label else "empty"}
        for turn, label in ((0, "Collaboration"), (2, None), (3, "Blaming"))
    ]
    for name, content in (("talks", [talk]), ("answers", rows)):
        text = "".join(json.dumps(row) + "\n" for row in content)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    given = [f"data.path={tmp_path}/talks.jsonl", f"predictions={tmp_path}/answers.jsonl"]
    for action in ("card", "supervision"):
        assert main([f"action={action}", *given, f"out={tmp_path / 'out'}"]) == 0
    assert "last" in page_of(tmp_path / "out" / "card.html").text
    assert "last" in page_of(tmp_path / "out" / "supervision-S.html").text


def test_predictions_alone_make_a_page_of_what_the_client_said(
    files: list[str], tmp_path: Path
) -> None:
    answers = files[1].removeprefix("predictions=")
    assert main(["action=supervision", f"data.path={answers}", f"out={tmp_path / 'o'}"]) == 0
    page = page_of(tmp_path / "o" / "supervision-S_1.html")
    assert "the text is not in the file" in page.text
    assert "Arguing - Challenging" in page.text


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["action=supervision"], "out=FOLDER"),
        (["action=supervision", "out=o", "supervision.session=S_2"], "did you mean 'S_1'"),
        (["action=card", "card.id='S/1:3'"], "no client utterance of id 'S/1:3'"),
        (["action=card", "resistance=[Blaming]"], "no utterance is labeled as resistant"),
    ],
)
def test_what_does_not_fit_ends_with_2(
    overrides: list[str],
    said: str,
    files: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*files, *overrides]) == 2
    assert said in capsys.readouterr().err


def test_control_characters_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turn = {"speaker": "client", "text": "a\x1b[2Jb\x07", "label": "Blaming"}
    file = tmp_path / "t.jsonl"
    file.write_text(json.dumps({"session": "S", "turns": [turn]}) + "\n", encoding="utf-8")
    assert main(["action=card", f"data.path={file}"]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\x07" not in printed
