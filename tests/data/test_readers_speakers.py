"""Who speaks: marks before turns, other speakers, samples, captions, folders of files."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recap.corpus.__main__ import main as corpus
from recap.data.corpus import read_corpus
from recap.data.examples import answers_counselor, examples_of
from recap.data.issues import IssueLog
from recap.data.readers.native import read_dialogues, records_to_jsonl
from recap.data.readers.speakers import SpeakerNames
from recap.data.readers.transcript import read_transcript
from recap.records import Dialogue, Turn
from recap.tasks.library import get_task
from recap.tasks.task import history_lines, intervention

COUPLE = (
    "Therapist: What shall we look at?\nClient: The money.\nHusband: She hides it.\n"
    "Therapist: And you?\nClient: I am tired.\nHusband: Of what?\n"
)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8"))
    return path


def validate(tmp_path: Path, path: object, *options: str, data: str = "transcript") -> Any:
    out = tmp_path / "out"
    code = corpus(["action=validate", f"data={data}", f"data.path={path}", f"out={out}", *options])
    return code, json.loads((out / "validate.json").read_text("utf-8"))


def turns(path: Path, **options: Any) -> list[tuple[str, str | None, str]]:
    issues = IssueLog(path.name)
    dialogues = list(read_transcript(path, issues=issues, **options))
    assert issues.issues == []
    return [(t.speaker, t.name, t.text) for d in dialogues for t in d.turns]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Therapist: Hm?\nClient 1: No.\nTherapist: So?\nClient 1: Why.", ["Client 1"] * 2),
        (
            "Therapist: Hm?\nClient (low): No.\nTherapist (nods): So?\nClient: Why.",
            ["Client (low)", None],
        ),
        (
            "咨询师：嗯？\n来访者（低头）：不。\n咨询师：那么？\n来访者：嗯。",
            ["来访者（低头）", None],
        ),
        (
            "Therapist: Hm?\n[00:00:07] Client: No.\nTherapist: So?\n00:15 - Client: Why.",
            [None] * 2,
        ),
        ("**Therapist:** Hm?\n**Client**: No.\n**Therapist:** So?\n*Client:* Why.", [None] * 2),
        ("T: Hm?\nC: No.\nT: So?\nC: Why.", [None] * 2),
        ("C: Hm?\nP: No.\nC: So?\nP: Why.", [None] * 2),
        ("Ｔｈｅｒａｐｉｓｔ：Hm?\nＣｌｉｅｎｔ：No.\ntherapist：So?\nCLIENT ： Why.", [None] * 2),
        ("Therapist\nHm?\n\nClient\nNo.\n\nTherapist\nSo?\n\nClient\nWhy.", [None] * 2),
        (
            "Therapist  0:01\nHm?\nClient  0:04\nNo.\nTherapist  0:09\nSo?\nClient  0:11\nWhy.",
            [None] * 2,
        ),
        (
            (
                "[1/5/24, 1:00 AM] Therapist: Hm?\n5.1.2024 10:00 Client: No.\n2024年1月5日 9:01 "
                "Therapist:: So?\n10:02 Client: Why."
            ),
            [None] * 2,
        ),
        ("1. Therapist: Hm?\n2. Client: No.\n3. Therapist: So?\n4. Client: Why.", [None] * 2),
    ],
)
def test_number_note_and_time_belong_to_the_name(
    tmp_path: Path, text: str, names: list[str | None]
) -> None:
    path = write(tmp_path / "a.txt", text)
    code, found = validate(tmp_path, path)
    assert (code, found["utterances"], found["rows_read"], found["rows_rejected"]) == (0, 2, 4, 0)
    assert [name for speaker, name, _ in turns(path) if speaker == "client"] == names
    assert not any(":" in said or "：" in said for *_, said in turns(path))


def test_a_speaker_that_is_not_known_is_listed_once_with_its_count_and_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = validate(tmp_path, write(tmp_path / "a.txt", COUPLE))
    assert code == 2
    assert (found["rows_read"], found["rows_accepted"], found["rows_rejected"]) == (6, 4, 2)
    (fault,) = found["faults"]
    assert (fault["line"], fault["field"]) == (3, "speaker")
    assert fault["reason"].startswith("unknown speakers: Husband (2); known: Therapist, ")
    assert "data.options.speakers={Husband: other}" in fault["mend"]
    assert "hides" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "name", "option"),
    [
        (COUPLE, "Husband", "{Husband: other}"),
        (
            "咨询师：嗯？\n来访者：累。\n来访者母亲：他不睡。\n咨询师：哦。\n来访者：不是。\n",
            "来访者母亲",
            "{来访者母亲: other}",
        ),
        (
            "T: Hm?\nC: No.\nMrs. O'Hara: Yes!\nT: So?\nC: Why.\n",
            "Mrs. O'Hara",
            '{"Mrs. O\'Hara": other}',
        ),
    ],
)
def test_another_speaker_stands_in_the_history_under_its_own_name(
    tmp_path: Path, text: str, name: str, option: str
) -> None:
    path = write(tmp_path / "a.txt", text)
    code, found = validate(tmp_path, path, f"data.options.speakers={option}")
    assert (code, found["utterances"], found["rows_rejected"]) == (0, 2, 0)
    assert found["turns"][str(path)]["other_turns"] == text.count(f"\n{name}")
    (dialogue,) = read_transcript(path, issues=IssueLog("a"), speakers={name: "other"})
    assert isinstance(dialogue, Dialogue)
    *_, last = examples_of(dialogue)
    task = get_task("binary")
    assert any(line.startswith(f"{name}: ") for line in history_lines(task, last))


def test_a_name_that_stands_for_no_speaker_is_part_of_the_turn(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "Therapist: Hm?\nClient: Two things.\nMoney: none.\n")
    code, _ = validate(tmp_path, path)
    assert code == 2
    code, found = validate(tmp_path, path, "data.options.speakers={Money: text}")
    assert (code, found["utterances"]) == (0, 1)
    assert turns(path, speakers={"Money": "text"})[1][2] == "Two things.\nMoney: none."


@pytest.mark.parametrize(
    "line",
    [
        "1. Breathing: slowly",
        "- Walk: more",
        "http://example.org",
        "We met at 10:30",
        "He said: no",
        "(Please note: this is none)",
        "Well :)",
        "a long sentence that ends so: yes",
        "妈妈对我说：好",
        "首先，我：好",
        "1. 深呼吸：慢慢来",
        "（请注意：这是说明）",
        "半小时后，她发来信息说：好",
        "Note: no sleep",
        "P.S.: none",
        "My mother: ill",
        "Monday: bad",
        "Step 2: slowly",
        "Then he said: go",
        "* Walk: more",
        "10:30 Work",
        "注意：别急",
        "第一：睡",
        "周一：累",
        "我的问题：累",
        "patient",
    ],
)
def test_a_line_of_a_turn_is_no_speaker(tmp_path: Path, line: str) -> None:
    text = f"Therapist: Try it.\n{line}\nplease\nClient: No.\n"
    path = write(tmp_path / "a.txt", text)
    code, found = validate(tmp_path, path)
    assert (code, found["rows_read"], found["utterances"]) == (0, 2, 1)
    assert turns(path)[0] == ("counselor", None, f"Try it.\n{line}\nplease")


@pytest.mark.parametrize(
    "line",
    [
        "husband: No.",
        "A: No.",
        "妈妈：不。",
        "[SPEAKER_01]: No.",
        "Speaker 2  0:09",
        "Dr. Roe: No.",
        "Roe, Ann: No.",
        "15550104477: No.",
        "Client says: No.",
        "T: 38",
        "来访者的男朋友的妈妈：不。",
        "ann roe: No.\nTherapist: So?\nann roe: No.",
        "Maria Ann de la Roe: No.\nTherapist: So?\nMaria Ann de la Roe: No.",
    ],
)
def test_whoever_else_may_speak_is_refused(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "a.txt", f"Therapist: Hm?\nClient: Yes.\n{line}\n")
    code, found = validate(tmp_path, path)
    assert (code, found["rows_rejected"]) == (2, 1 + line.count("\n") // 2)
    assert "unknown speakers" in found["faults"][0]["reason"]


@pytest.mark.parametrize("gap", ["\n", "\n\n"])
@pytest.mark.parametrize("name", ["Husband", "Mrs. Roe", "妈妈"])
def test_whoever_else_may_speak_below_a_name_alone_on_its_line_is_refused(
    tmp_path: Path, name: str, gap: str
) -> None:
    said = ["Therapist\nHm?", "Client\nNo\nand no.", f"{name}\nShe hides it.", "Client\nFine"]
    code, found = validate(tmp_path, write(tmp_path / "a.txt", gap.join(said)))
    assert (code, found["rows_read"], found["rows_rejected"]) == (2, 4, 1)
    assert found["faults"][0]["reason"].startswith(f"unknown speakers: {name} (1);")


@pytest.mark.parametrize(
    "text",
    [
        "Therapist: How was it? Client: Bad. Therapist: So?",
        "Therapist: How was it Client: Bad",
        "T: How was it? C: Bad.",
        "咨询师：怎么了？来访者：累。",
        "Therapist: Well?\n[Client] No.",
        "Therapist: Well?\nClient - No.",
        "Therapist: Well?\nClient (weeping) No.",
    ],
)
def test_a_speaker_inside_a_line_or_without_a_colon_is_a_fault(tmp_path: Path, text: str) -> None:
    code, found = validate(tmp_path, write(tmp_path / "a.txt", text))
    assert code == 2
    assert "names a speaker inside a line" in found["faults"][0]["reason"]
    name, content = sample("client_resistance", text)
    code, found = validate(tmp_path, write(tmp_path / name, content), data="client_resistance")
    assert (code, found["rows_rejected"]) == (2, 1)
    table = f'history,response,label\n"{text}",No.,Collaboration\n'
    code, found = validate(tmp_path, write(tmp_path / "t.csv", table), data="table")
    assert (code, found["rows_rejected"], found["faults"][0]["field"]) == (2, 1, "history")


def test_a_sample_that_writes_all_its_speakers_without_a_colon_is_no_response(
    tmp_path: Path,
) -> None:
    name, content = sample("alpaca", "[Therapist] Well?\n[Client] No.")
    code, found = validate(tmp_path, write(tmp_path / name, content), data="alpaca")
    assert (code, found["rows_rejected"]) == (2, 1)


@pytest.mark.parametrize("name", ["talk", "talk.md", "talk.TXT", "row", "row.txt"])
def test_a_transcript_is_told_from_json_by_what_it_holds(tmp_path: Path, name: str) -> None:
    text = "**Therapist:** a\n**Client:** b\n"
    content = text if name.startswith("talk") else json.dumps([{"file": "a", "text": text}])
    code, found = validate(tmp_path, write(tmp_path / name, content))
    assert (code, found["utterances"], found["rows_rejected"]) == (0, 1, 0)


@pytest.mark.parametrize("end", ["\v", "\f", "\x85", "\u2028"])
def test_line_ends_of_word_processors_end_a_line(tmp_path: Path, end: str) -> None:
    path = write(tmp_path / "a.txt", f"Therapist: a{end}Client: b\nTherapist: c")
    code, found = validate(tmp_path, path)
    assert (code, found["rows_read"], found["utterances"]) == (0, 3, 1)


def test_a_letter_alone_is_refused_where_nobody_can_say_whose_it_is(tmp_path: Path) -> None:
    code, found = validate(tmp_path, write(tmp_path / "a.txt", "C: Hm?\nC: So.\n"))
    assert code == 2
    assert "unknown speakers: C (2);" in found["faults"][0]["reason"]


def test_a_dialogue_is_cut_where_an_unknown_speaker_was_left_out(tmp_path: Path) -> None:
    found = read_corpus(
        reader="transcript",
        path=write(
            tmp_path / "a.txt", "Therapist: a\nHusband: b\nClient: c\nTherapist: d\nClient: e"
        ),
        taxonomy=None,
        on_error="skip",
        require_labels=False,
    )
    assert [(e.response, [t.text for t in e.history]) for e in found.examples] == [
        ("e", ["c", "d"])
    ]


def test_blank_lines_inside_a_turn_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "Therapist: a\r\n\r\nb\r\n\r\n\r\nClient: c\r\n")
    assert turns(path) == [("counselor", None, "a\n\nb"), ("client", None, "c")]


def test_a_text_that_breaks_off_behind_a_name_holds_no_turn_of_it(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", json.dumps({"file": "x", "text": "来访者：嗯\n咨询师：好\n\n来访者"})
    )
    assert turns(path) == [("client", None, "嗯"), ("counselor", None, "好")]


def sample(reader: str, text: str) -> tuple[str, str]:
    """Return a file's name and its content: one sample of a format."""
    label = "Collaboration"
    return {
        "doccano": ("a.jsonl", json.dumps({"id": 1, "text": text, "label": [label]})),
        "alpaca": ("a.json", json.dumps([{"instruction": "", "input": text, "output": label}])),
        "client_resistance": ("a.json", json.dumps([{"text": text, "label": label}])),
    }[reader]


SAMPLES = ["doccano", "alpaca", "client_resistance"]


@pytest.mark.parametrize("reader", SAMPLES)
@pytest.mark.parametrize(
    "text",
    [
        "Client: I may not.\n\nCounselor: What would help?",
        "Client: I may not.\nCounselor: What would help?",
        "Counselor: Well?\n\nClient: Yes.\n\nCounselor: Good. And then?",
        "Counselor: Well?\n\nOne.\n\nTwo.",
        "Client: No.\nOther: Yes.",
        "A heading.\nCounselor: Well?\nClient: No.",
    ],
)
def test_a_sample_that_does_not_end_with_the_client_is_a_fault(
    tmp_path: Path, reader: str, text: str
) -> None:
    name, content = sample(reader, text)
    code, found = validate(tmp_path, write(tmp_path / name, content), data=reader)
    assert (code, found["rows_read"], found["rows_rejected"]) == (2, 1, 1)
    assert found["faults"][0]["field"] in ("text", "input")


@pytest.mark.parametrize("reader", SAMPLES)
@pytest.mark.parametrize(
    ("text", "history", "response"),
    [
        ("Counselor: Well?\nClient: I tried.\n\nSo no.", ["Well?"], "I tried.\n\nSo no."),
        ("Counselor: Well?\n\nClient: One.\n\nTwo.", ["Well?"], "One.\n\nTwo."),
        ("Counselor: Well?\n\nOne.\nTwo.", ["Well?"], "One.\nTwo."),
        ("Well?\n\nClient: No.", ["Well?"], "No."),
        ("Well?\n\nNo.", ["Well?"], "No."),
        ("No.", [], "No."),
    ],
)
def test_the_response_of_a_sample_is_the_whole_last_client_turn(
    tmp_path: Path, reader: str, text: str, history: list[str], response: str
) -> None:
    name, content = sample(reader, text)
    found = read_corpus(
        reader=reader,
        path=write(tmp_path / name, content),
        taxonomy=None,
        no_intervention="keep",
    )
    (example,) = found.examples
    assert ([turn.text for turn in example.history], example.response) == (history, response)


@pytest.mark.parametrize("reader", SAMPLES)
def test_an_unknown_speaker_of_a_sample_is_refused_or_mapped(tmp_path: Path, reader: str) -> None:
    name, content = sample(reader, "Therapist: Well?\nWife: He sleeps.\nClient: No.")
    path = write(tmp_path / name, content)
    code, found = validate(tmp_path, path, data=reader)
    assert code == 2
    assert "unknown speakers: Wife (1);" in found["faults"][0]["reason"]
    code, found = validate(tmp_path, path, "data.options.speakers={Wife: other}", data=reader)
    assert (code, found["utterances"]) == (0, 1)


@pytest.mark.parametrize(
    ("history", "response", "field"),
    [
        ("Client: No.", "Counselor: What would help?", "response"),
        ("Therapist: Hm?", "Client: No.\nTherapist: So?", "response"),
        ("Therapist: Hm?\nUncle: Ha.", "No.", "history"),
        ("Begin.\nTherapist: Hm?", "No.", "history"),
    ],
)
def test_cells_of_a_table_say_who_speaks_or_are_faults(
    tmp_path: Path, history: str, response: str, field: str
) -> None:
    text = f'history,response,label\n"{history}","{response}",Collaboration\n'
    code, found = validate(tmp_path, write(tmp_path / "t.csv", text), data="table")
    assert (code, found["rows_rejected"]) == (2, 1)
    assert found["faults"][0]["field"] == field


def test_speakers_of_a_column_are_compared_without_number_note_and_width(tmp_path: Path) -> None:
    rows = [
        "Therapist",
        "**CLIENT 2:**",
        "Therapist\u200b",
        "Ｃｌｉｅｎｔ",
        "Husband",
        "Husband",
        "T",
        "P",
    ]
    text = "session,speaker,text\n" + "".join(f"s,{who},said {n}\n" for n, who in enumerate(rows))
    path = write(tmp_path / "u.csv", text)
    code, found = validate(tmp_path, path, data="table")
    assert (code, found["rows_read"], found["rows_rejected"], found["utterances"]) == (2, 8, 2, 3)
    assert found["faults"][0]["reason"].startswith("unknown speakers: Husband (2);")
    code, found = validate(tmp_path, path, "data.options.speakers={Husband: other}", data="table")
    assert (code, found["turns"][str(path)]["other_turns"]) == (0, 2)


@pytest.mark.parametrize(
    ("names", "sides"),
    [
        ("T C T C", (2, 2)),
        ("P C P", (1, 2)),  # beside a patient C is the counselor, as in a text
        ("t: c: T1 C (sighs)", (2, 2)),
        ("C P C C", (3, 1)),
        ("C C", None),
        ("T P C", None),
        ("T C Client", None),  # the client is named in full, so C may be anybody
    ],
)
@pytest.mark.parametrize("form", ["table", "dialogues"])
def test_single_letters_are_told_from_the_other_names_of_their_column(
    tmp_path: Path, names: str, sides: tuple[int, int] | None, form: str
) -> None:
    said = [(name, f"said {n}") for n, name in enumerate(re.split(r" (?!\()", names))]
    turns = [{"speaker": name, "text": text} for name, text in said]
    text = json.dumps({"session": "s", "turns": turns})
    if form == "table":
        text = "\n".join(["session,speaker,text", *(f"s,{name},{text}" for name, text in said)])
    path = write(tmp_path / ("u.csv" if form == "table" else "u.jsonl"), text)
    code, found = validate(tmp_path, path, data=form)
    if sides is None:
        assert code == 2
        assert found["faults"][0]["reason"].startswith("unknown speakers: C (")
    else:
        counted = found["turns"][str(path)]
        assert (code, counted["counselor_turns"], counted["client_turns"]) == (0, *sides)


def test_a_column_of_texts_in_the_place_of_speakers_is_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"s,Uncle {n},yes\n" for n in range(21)]
    path = write(tmp_path / "u.csv", "session,speaker,text\n" + "".join(rows))
    code, found = validate(tmp_path, path, data="table")
    assert (code, found["rows_rejected"]) == (2, 21)
    assert "unknown speakers: 21 different ones (21);" in found["faults"][0]["reason"]
    assert "Uncle 1" not in capsys.readouterr().out
    long = "a name of more than three words"
    path = write(tmp_path / "u.csv", f"session,speaker,text\ns,{long},yes\n")
    _, found = validate(tmp_path, path, data="table")
    assert (
        f"unknown speakers: a text of {len(long)} characters (1);" in found["faults"][0]["reason"]
    )


def test_native_lines_keep_another_speaker_and_its_name(tmp_path: Path) -> None:
    said = (
        Turn(speaker="counselor", text="a"),
        Turn(speaker="other", name="Husband", text="b"),
        Turn(speaker="client", name="Client 2", text="c"),
    )
    path = write(tmp_path / "a.jsonl", records_to_jsonl([Dialogue(session="s", turns=said)]))
    assert json.loads(path.read_text())["turns"][1] == {
        "speaker": "other",
        "name": "Husband",
        "text": "b",
    }
    (found,) = read_dialogues(path, issues=IssueLog("a"))
    assert found == Dialogue(session="s", turns=said)


def of(*turns: tuple[str, str] | tuple[str, str, str]) -> tuple[Turn, ...]:
    made = []
    for speaker, text, *name in turns:
        made.append(Turn(speaker=speaker, text=text, name=name[0] if name else None))  # type: ignore[arg-type]
    return tuple(made)


def test_the_client_answers_the_counselor_across_what_others_say() -> None:
    history = of(("client", "a"), ("other", "b", "X"), ("counselor", "c"), ("other", "d", "X"))
    assert answers_counselor(history)
    assert [turn.text for turn in intervention(history)] == ["c", "d"]
    assert not answers_counselor(history[:2])
    assert intervention(history[:2]) == ()


def test_turns_are_merged_unless_their_names_say_that_two_people_speak() -> None:
    turns = of(
        ("counselor", "a"),
        *(("client", "b", "Client 1"), ("client", "c", "Client 2"), ("client", "d")),
        *(("other", "e", "X"), ("other", "f", "X"), ("other", "g", "Y")),
        ("client", "h"),
    )
    counts: Counter[str] = Counter()
    *_, last = examples_of(
        Dialogue(session="s", turns=turns), no_intervention="keep", counts=counts
    )
    assert [(t.name, t.text) for t in last.history] == [
        (None, "a"),
        *(("Client 1", "b"), ("Client 2", "c\nd"), ("X", "e\nf"), ("Y", "g")),
    ]
    assert (counts["merged_client_turns"], counts["merged_other_turns"]) == (1, 1)


CUES = [
    ("00:00:01.000", "00:00:04.000", "Therapist: How was it?"),
    ("00:00:05.000", "00:00:09.000", "Client: Bad &amp; long,"),
    ("00:00:10.000", "00:00:12.000", "<i>as always</i>."),
    ("00:00:13.000", "00:00:15.000", "Client: I left."),
    ("00:00:16.000", "00:00:18.000", "Therapist: And then?"),
    ("00:00:19.000", "00:00:21.000", "Client: Nothing."),
]
SAID = [
    ("counselor", "How was it?"),
    ("client", "Bad & long,\nas always."),
    ("client", "I left."),
    ("counselor", "And then?"),
    ("client", "Nothing."),
]


def vtt(cues: list[tuple[str, str, str]], *, head: str = "WEBVTT\n\n", end: str = "\n") -> str:
    blocks = [f"{n}\n{a} --> {b}\n{text}\n" for n, (a, b, text) in enumerate(cues, start=1)]
    return (head + "\n".join(blocks)).replace("\n", end)


CAPTIONS = {
    "zoom.vtt": vtt(CUES),
    "notes.vtt": vtt(
        CUES,
        head="\ufeffWEBVTT - talk\nKind: captions\n\nNOTE none\n--\n\nSTYLE\n::cue {}\n\n",
        end="\r\n",
    ),
    "teams.vtt": vtt(
        [(a, b, f"<v {t.replace(': ', '>', 1)}</v>" if ": " in t else t) for a, b, t in CUES]
    ),
    "whisper.srt": vtt(
        [(a.replace(".", ","), b.replace(".", ","), t) for a, b, t in CUES], head=""
    ),
    "short.vtt": vtt([(a[3:], f"{b[3:]} align:start", t) for a, b, t in CUES]),
    "x.srt": vtt(
        [(a, b, f"[{t.replace(':', ']:', 1)}" if ": " in t else t) for a, b, t in CUES], head=""
    ),
}


@pytest.mark.parametrize("name", CAPTIONS)
@pytest.mark.parametrize("data", ["vtt", "transcript", "renamed"])
def test_captions_are_read_a_turn_a_cue_that_names_its_speaker(
    tmp_path: Path, name: str, data: str
) -> None:
    path = write(tmp_path / name, CAPTIONS[name])
    if data == "renamed":
        path, data = path.rename(tmp_path / "talk.txt"), "transcript"
    code, found = validate(tmp_path, path, data=data)
    assert (code, found["rows_read"], found["rows_rejected"], found["utterances"]) == (0, 6, 0, 3)
    assert [(speaker, text) for speaker, _, text in turns(path)] == SAID


@pytest.mark.parametrize(
    ("cues", "line", "words"),
    [
        ([*CUES[:3], ("00:00:02.000", "00:00:03.000", "Client: x")], 15, "begins before the cue"),
        ([*CUES[:3], ("00:00:14.000", "00:00:13.000", "Client: x")], 15, "ends before it begins"),
        ([*CUES[:3], ("00:00:14", "00:xx:15", "Client: x")], 15, "cannot be read"),
        ([*CUES[:3], ("00:00:14.000", "00:00:15.000", ">> No.")], 15, "another one speaks"),
        ([*CUES[:3], ("00:00:14.000", "00:00:15.000", "- No.")], 15, "another one speaks"),
        ([("00:00:00.000", "00:00:00.500", "Hello."), *CUES], 3, "comes before any speaker"),
        (
            [*CUES[:3], ("00:00:14.000", "00:00:15.000", "Uncle: x")],
            15,
            "unknown speakers: Uncle (1)",
        ),
    ],
)
def test_a_cue_that_cannot_be_understood_is_a_rejected_row(
    tmp_path: Path, cues: list[tuple[str, str, str]], line: int, words: str
) -> None:
    code, found = validate(tmp_path, write(tmp_path / "a.vtt", vtt(cues)), data="vtt")
    assert (code, found["rows_read"], found["rows_rejected"]) == (2, len(cues), 1)
    assert found["faults"][0]["line"] == line
    assert words in found["faults"][0]["reason"]


@pytest.mark.parametrize("shown", ["", " ", "<i></i>"])
def test_a_cue_that_shows_nothing_is_no_row(tmp_path: Path, shown: str) -> None:
    cues = [*CUES[:3], ("00:00:14.000", "00:00:15.000", shown), *CUES[4:]]
    code, found = validate(tmp_path, write(tmp_path / "a.vtt", vtt(cues)), data="vtt")
    assert (code, found["rows_read"], found["rows_rejected"]) == (0, 5, 0)


def test_what_stands_behind_the_end_of_a_voice_may_be_another_s(tmp_path: Path) -> None:
    cues = [(CUES[0][0], CUES[0][1], "<v Therapist>Well?</v>\nClient: No.")]
    path = write(tmp_path / "a.vtt", vtt(cues))
    code, found = validate(tmp_path, path, data="vtt")
    assert (code, found["rows_read"], found["utterances"]) == (0, 1, 1)


def test_the_last_line_of_otter_is_nobody_s_words(tmp_path: Path) -> None:
    text = "Therapist  0:01\nHm?\n\nClient  0:04\nNo.\n\nTranscribed by https://otter.ai\n"
    assert turns(write(tmp_path / "a.txt", text))[-1] == ("client", None, "No.")


def test_captions_that_name_nobody_are_refused(tmp_path: Path) -> None:
    text = vtt([(a, b, "Nothing said.") for a, b, _ in CUES])
    code, found = validate(tmp_path, write(tmp_path / "a.srt", text), data="vtt")
    assert (code, found["rows_read"], found["rows_rejected"]) == (2, 6, 6)
    assert "names no speaker" in found["faults"][0]["reason"]


def talks(folder: Path) -> Path:
    write(folder / "b.txt", COUPLE)
    write(folder / "a.txt", "Therapist: Hm?\nClient: No.\n")
    write(folder / "c.vtt", vtt(CUES))
    write(folder / ".hidden.txt", "nothing")
    write(folder / "read.me", "nothing")
    return folder


def test_a_folder_and_a_pattern_are_read_file_by_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = talks(tmp_path / "talks")
    option = "data.options.speakers={Husband: other}"
    code, found = validate(tmp_path, folder, option)
    assert (code, found["rows_read"], found["utterances"]) == (0, 14, 6)
    assert {Path(file).name: list(counts.values()) for file, counts in found["turns"].items()} == {
        "a.txt": [1, 1, 0],
        "b.txt": [2, 2, 2],
        "c.vtt": [2, 3, 0],
    }
    code, found = validate(tmp_path, f"'{folder}/*.txt'", option)
    assert (code, found["utterances"], len(found["turns"])) == (0, 3, 2)
    capsys.readouterr()
    arguments = ["action=describe", "data=transcript", f"data.path={folder}/a.txt"]
    assert corpus(arguments) == 0
    assert "a.txt: 1 counselor, 1 client and 0 other turns" in capsys.readouterr().out


def test_a_fault_in_a_folder_names_its_file_and_line(tmp_path: Path) -> None:
    folder = talks(tmp_path / "talks")
    code, found = validate(tmp_path, folder)
    assert (code, [(Path(f["file"]).name, f["line"]) for f in found["faults"]]) == (
        2,
        [("b.txt", 3)],
    )
    write(folder / "b.srt", vtt(CUES, head=""))
    code, found = validate(tmp_path, folder, "data.options.speakers={Husband: other}")
    assert code == 2
    assert {Path(f["file"]).name for f in found["faults"]} == {"b.txt"}
    assert f"session 'b' is at {folder}/b.srt:1 already" in found["faults"][0]["reason"]


@pytest.mark.parametrize("path", ["empty", "'empty/*.txt'", "'[x]*.txt'"])
def test_a_folder_or_a_pattern_without_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert corpus(["action=validate", "data=transcript", f"data.path={path}"]) == 2
    assert "data.path=" in capsys.readouterr().err


WORDS = (
    st.lists(st.sampled_from(["a", "b", " ", "心，", "."]), min_size=1, max_size=6)
    .map(lambda parts: "".join(parts).strip())
    .filter(bool)
)
TEXT = st.lists(WORDS, min_size=1, max_size=3).flatmap(
    lambda lines: st.sampled_from(["\n", "\n\n"]).map(lambda gap: gap.join(lines))
)
FORMS = [
    *(
        "{name}: {text}",
        "{name} : {text}",
        "{name}：{text}",
        "**{name}:** {text}",
        "*{name}*: {text}",
    ),
    *(
        "[00:01:02] {name}: {text}",
        "00:07 {name}: {text}",
        "{name} (00:07): {text}",
        "[{name}]: {text}",
    ),
    *("(0:01) - {name}: {text}", "{name}\n{text}", "{name}  0:07\n{text}", "12. {name}: {text}"),
    *("{name} 2: {text}", "{name} (低头): {text}", "{name}（nods）：{text}", "> {name}: {text}"),
]
VOICES = {"Therapist": "counselor", "来访者": "client", "Client": "client", "咨询师": "counselor"}
OWN = {"Husband": "other", "妈妈": "other", "Dr. Roe": "counselor"}


@settings(max_examples=60, deadline=None)
@given(
    said=st.lists(
        st.tuples(st.sampled_from([*VOICES, *OWN]), st.sampled_from(FORMS), TEXT),
        min_size=1,
        max_size=6,
    ),
    gap=st.sampled_from(["\n", "\n\n", "\r\n"]),
)
def test_a_dialogue_is_read_back_from_each_form(said: list[tuple[str, str, str]], gap: str) -> None:
    text = gap.join(form.format(name=name, text=text) for name, form, text in said)
    written = SpeakerNames(OWN).read(text)
    assert (written.before, written.unknown) == (0, Counter())
    assert [(turn.turn().speaker, turn.text) for turn in written.turns] == [
        ({**VOICES, **OWN}[name], text) for name, _, text in said
    ]


@pytest.mark.real_data
def test_the_other_speakers_of_cpsycound_are_listed_and_can_be_mapped(real_data: Path) -> None:
    path = real_data / "cpsycound" / "cpsycound_raw.jsonl"
    issues = IssueLog(path.name)
    list(read_transcript(path, issues=issues))
    (fault,) = issues.issues
    others = {
        "妈妈": 9,
        "女儿": 8,
        "B": 5,
        "A": 4,
        "小强": 3,
        "月月": 3,
        "父母": 2,
        "天远和文姗": 2,
    }
    others |= {"孩子": 2, "娜娜的母亲": 1, "母亲": 1}
    listed = ", ".join(f"{name} ({n})" for name, n in others.items())
    assert f"unknown speakers: {listed}; known: " in fault.reason
    found = [
        turn
        for dialogue in read_transcript(
            path, issues=IssueLog("c"), speakers=dict.fromkeys(others, "other")
        )
        for turn in dialogue.turns
    ]
    assert Counter(t.name for t in found if t.speaker == "other") == others
    # 61 lines of 20 dialogues: 40 of others, 13 of clients and 8 of a counselor who plays someone.
    named = Counter(turn.speaker for turn in found if turn.name is not None)
    assert named == {"other": 40, "client": 13, "counselor": 8}
