"""The same dialogues, written as people and tools write them, are the same examples."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sample_files import workbook

from recap.corpus.__main__ import main
from recap.data.corpus import read_corpus
from recap.records import Example
from recap.tasks.library import builtin_task

Said = tuple[str, str, str | None]
TALKS: dict[str, list[Said]] = {
    "anna-1": [
        ("counselor", "What brings you here? Take your time.", None),
        ("client", "My boss: he shouts, at 10:30 every day.\nI can't sleep.", "Blaming"),
        ("other", "That is not how it is!", None),
        ("counselor", "You both see it differently.\n\nShall we look at one day?", None),
        ("client", "No. What for?", "Challenging"),
    ],
    "王-2": [
        ("counselor", "这周怎么样？", None),
        ("client", "不想说。（沉默）", "Minimum Talk"),
        ("counselor", "没关系，慢慢来。", None),
        ("client", "嗯，我试过了：没有用。", "Pessimism"),
    ],
}
NAMES = {"counselor": "Therapist", "client": "Client", "other": "Husband"}
"""How the speakers are called where a format has names."""
SPEAKERS = "data.options.speakers={Husband: other}"


def line(said: Said, colon: str = ": ") -> str:
    return f"{NAMES[said[0]]}{colon}{said[1]}"


def json_lines(rows: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def judged() -> list[tuple[str, list[Said], Said]]:
    """Return the session, the turns before, and the turn, of each client turn."""
    return [
        (session, turns[:index], turn)
        for session, turns in TALKS.items()
        for index, turn in enumerate(turns)
        if turn[0] == "client"
    ]


def utterance_rows() -> list[dict[str, str]]:
    return [
        {"session": session, "speaker": NAMES[who], "text": text, "label": label or ""}
        for session, turns in TALKS.items()
        for who, text, label in turns
    ]


def table(rows: Sequence[dict[str, Any]]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode("utf-8-sig")


def dialogues(speaker: str, text: str, turns: str) -> bytes:
    return json_lines(
        {
            "session": session,
            turns: [
                {speaker: NAMES[who], text: said, **({"label": label} if label else {})}
                for who, said, label in of
            ],
        }
        for session, of in TALKS.items()
    )


def native_examples() -> bytes:
    return json_lines(
        {
            "session": session,
            "history": [
                {"speaker": "other", "name": "Husband", "text": text}
                if who == "other"
                else {"speaker": who, "text": text}
                for who, text, _ in before
            ],
            "response": turn[1],
            "label": turn[2],
        }
        for session, before, turn in judged()
    )


def documents(text: str, label: str, *, many: bool = False, apart: str = "\n") -> bytes:
    return json_lines(
        {
            text: apart.join(map(line, (*before, turn))),
            label: [turn[2]] if many else turn[2],
            "session": session,
        }
        for session, before, turn in judged()
    )


def histories() -> bytes:
    rows = [
        {"session": session, "history": "\n".join(map(line, before)), "response": turn[1]}
        | {"label": turn[2]}
        for session, before, turn in judged()
    ]
    return table(rows)


def shuffled() -> bytes:
    rows = utterance_rows()
    numbers = [i for turns in TALKS.values() for i in range(len(turns))]
    numbered = [{"turn": str(n), **row} for n, row in zip(numbers, rows, strict=True)]
    return table(numbered[::-1])


def transcripts() -> bytes:
    return json_lines(
        {"file": f"{session}.txt", "text": "\r\n\r\n".join(map(line, turns))}
        for session, turns in TALKS.items()
    )


def stamped(turns: Sequence[Said]) -> str:
    return "\n".join(f"[00:00:{i:02}] {line(said)}" for i, said in enumerate(turns))


def marked(turns: Sequence[Said]) -> str:
    return "\n\n".join(f"**{NAMES[who]}:** {text}" for who, text, _ in turns)


def above(turns: Sequence[Said]) -> str:
    return "\n\n".join(f"{NAMES[who]}  00:0{i}\n{text}" for i, (who, text, _) in enumerate(turns))


def captions(turns: Sequence[Said], head: str = "WEBVTT\n\n", dot: str = ".") -> str:
    cues = [
        f"00:00:{i:02}{dot}000 --> 00:00:{i:02}{dot}900\n{line(said)}\n"
        for i, said in enumerate((who, text.replace("\n\n", "\n"), None) for who, text, _ in turns)
    ]
    return head + "\n".join(f"{i}\n{cue}" for i, cue in enumerate(cues, start=1))


def label_studio() -> bytes:
    rows = [
        {
            "id": number,
            "data": {"text": "\n".join(map(line, (*before, turn))), "session": session},
            "annotations": [
                {
                    "completed_by": 1,
                    "result": [{"type": "choices", "value": {"choices": [turn[2]]}}],
                }
            ],
        }
        for number, (session, before, turn) in enumerate(judged(), start=1)
    ]
    return json.dumps(rows, ensure_ascii=False).encode()


def prodigy() -> bytes:
    return json_lines(
        {
            "text": "\n".join(map(line, (*before, turn))),
            "label": turn[2],
            "answer": "accept",
            "_input_hash": number,
        }
        for number, (_, before, turn) in enumerate(judged())
    )


FILES: dict[str, tuple[str, str, Callable[[], bytes], tuple[str, ...]]] = {
    "native": ("dialogues", "t.jsonl", lambda: dialogues("speaker", "text", "turns"), ()),
    "native examples": ("dialogues", "t.jsonl", native_examples, ()),
    "chats": (
        "dialogues",
        "t.jsonl",
        lambda: dialogues("role", "content", "messages"),
        ("data.options.columns={turns: messages, speaker: role, text: content}",),
    ),
    "csv": ("table", "t.csv", lambda: table(utterance_rows()), ()),
    "csv in another order": ("table", "t.csv", shuffled, ()),
    "excel": ("table", "t.xlsx", lambda: workbook(utterance_rows()), ()),
    "histories": ("table", "t.csv", histories, ()),
    "doccano": ("doccano", "t.jsonl", lambda: documents("text", "label", many=True), ()),
    "doccano of old": (
        "doccano",
        "t.jsonl",
        lambda: documents("data", "label", many=True, apart="\n\n"),
        (),
    ),
    "alpaca": ("alpaca", "t.jsonl", lambda: documents("input", "output"), ()),
    "samples": ("client_resistance", "t.jsonl", lambda: documents("text", "label"), ()),
    "label_studio": ("label_studio", "t.json", label_studio, ()),
    "prodigy": ("prodigy", "t.jsonl", prodigy, ()),
}
FOLDERS: dict[str, tuple[str, str, Callable[[Sequence[Said]], str]]] = {
    "transcripts": ("transcript", ".txt", lambda turns: "\n".join(map(line, turns))),
    "with times": ("transcript", ".txt", stamped),
    "in bold": ("transcript", ".txt", marked),
    "names above": ("transcript", ".txt", above),
    "webvtt": ("vtt", ".vtt", captions),
    "srt": ("vtt", ".srt", lambda turns: captions(turns, head="", dot=",")),
}


def shown(example: Example) -> tuple[Any, ...]:
    # Captions have no blank lines inside.
    before = [(t.speaker, t.name, t.text.replace("\n\n", "\n")) for t in example.history]
    return before, example.response


def expected() -> list[tuple[Any, ...]]:
    return [
        (
            [
                (who, "Husband" if who == "other" else None, text.replace("\n\n", "\n"))
                for who, text, _ in before
            ],
            turn[1],
        )
        for _, before, turn in judged()
    ]


def options_of(arguments: Sequence[str]) -> dict[str, Any]:
    options: dict[str, Any] = {"speakers": {"Husband": "other"}}
    for argument in arguments:
        assert argument.startswith("data.options.columns=")
        options["columns"] = {"turns": "messages", "speaker": "role", "text": "content"}
    return options


def check_command(reader: str, path: Path, out: Path, *more: str) -> None:
    arguments = [f"data={reader}", f"data.path={path}", SPEAKERS, *more, f"out={out}"]
    assert main(["action=validate", "labels=raw", *arguments]) == 0
    assert main(["action=describe", *arguments]) == 0
    found = json.loads((out / "describe.json").read_text("utf-8"))
    assert found["labelled"]["n"] in (0, len(judged()))


@pytest.mark.parametrize("form", FILES)
def test_labeled_dialogues_are_the_same_examples_in_every_format(tmp_path: Path, form: str) -> None:
    reader, name, content, more = FILES[form]
    path = tmp_path / name
    path.write_bytes(content())
    corpus = read_corpus(
        reader=reader,
        path=path,
        taxonomy=builtin_task("fine_grained").taxonomy,
        options=options_of(more),
    )
    in_order = sorted(corpus.examples, key=lambda e: expected().index(shown(e)))
    assert [shown(example) for example in in_order] == expected()
    assert [example.label for example in in_order] == [turn[2] for _, _, turn in judged()]
    check_command(reader, path, tmp_path / "out", *more)


@pytest.mark.parametrize("form", FOLDERS)
def test_transcripts_and_captions_are_the_same_dialogues_in_every_form(
    tmp_path: Path, form: str
) -> None:
    reader, ending, content = FOLDERS[form]
    folder = tmp_path / "talks"
    folder.mkdir()
    for session, turns in TALKS.items():
        (folder / f"{session}{ending}").write_text(content(turns), encoding="utf-8")
    corpus = read_corpus(
        reader=reader,
        path=folder,
        taxonomy=None,
        require_labels=False,
        options={"speakers": {"Husband": "other"}},
    )
    assert [shown(example) for example in corpus.examples] == expected()
    assert [example.session for example in corpus.examples] == [s for s, _, _ in judged()]
    check_command(reader, folder, tmp_path / "out")
