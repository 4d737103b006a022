"""A sound file, in every format that it may have, for each reader."""

from __future__ import annotations

import json
from typing import Any

from sample_files import SECRET, Sample

IDS = ("e0", "e1", "e2", "e3")


def id_of(number: int) -> str:
    """Return an example's id."""
    return IDS[number]


def said(number: int) -> str:
    return f"naïve 心 {SECRET} {number}"


def examples(**renamed: str) -> list[dict[str, Any]]:
    labels = ("Blaming", "合作", "Excusing", "Minimum Talk")
    rows: list[dict[str, Any]] = [
        {
            "id": name,
            "session": f"s{number // 2}",
            "history": [{"speaker": "counselor", "text": said(9)}],
            "response": said(number),
            "label": label,
            "rationale": said(8),
        }
        for number, (name, label) in enumerate(zip(IDS, labels, strict=True))
    ]
    return [{renamed.get(key, key): value for key, value in row.items()} for row in rows]


def sessions() -> list[dict[str, Any]]:
    return [
        {
            "session": f"s{number}",
            "turns": [
                {"speaker": "counselor", "text": said(0)},
                {"speaker": "client", "text": said(number + 1), "label": "Blaming", "id": name},
            ],
        }
        for number, name in enumerate(IDS)
    ]


def utterances(**columns: str) -> list[dict[str, Any]]:
    rows = []
    for number, name in enumerate(IDS):
        session = f"s{number // 2}"
        for speaker, label in (("counselor", None), ("client", "Blaming")):
            row = {
                "session": session,
                "speaker": speaker,
                "text": said(len(rows)),
                "label": label,
                "id": f"{name}{speaker}",
            }
            rows.append({columns.get(key, key): value for key, value in row.items()})
    return rows


def documents(text: str = "text", **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "id": number,
            text: f"Counselor: {said(9)}\n\nClient: {said(number)}",
            "label": ["Blaming"] if more.get("lists") else "Blaming",
        }
        for number in range(4)
    ]


ANNOMI = [
    {
        "mi_quality": "high",
        "transcript_id": str(number // 2),
        "topic": "sleep",
        "utterance_id": str(number),
        "interlocutor": "client" if number % 2 else "therapist",
        "utterance_text": said(number),
        "annotator_id": "1",
        "main_therapist_behaviour": "n/a" if number % 2 else "question",
        "client_talk_type": "change" if number % 2 else "n/a",
    }
    for number in range(6)
]
TRANSCRIPT = [
    {"file": f"t{number}.txt", "text": f"咨询师：{said(0)}\n来访者：{said(number)}"}
    for number in range(3)
]
ALPACA = [
    {
        "instruction": "?",
        "input": f"Counselor: {said(9)}\n\nClient: {said(number)}",
        "output": f"Behavior: Blaming\nReason: {said(8)}",
        "id": name,
    }
    for number, name in enumerate(IDS)
]
PSYGUARD = [
    {"idx": number, "text": said(number), "labels": ["Blaming"], "data_source": "web"}
    for number in range(4)
]

LABEL_STUDIO = [
    {
        "id": number,
        "data": {"text": f"Counselor: {said(9)}\n\nClient: {said(number)}", "session": "s"},
        "annotations": [
            {
                "completed_by": 1,
                "result": [
                    {
                        "from_name": "code",
                        "type": "choices",
                        "value": {"choices": ["Blaming"]},
                    }
                ],
            }
        ],
    }
    for number in range(4)
]
LABEL_STUDIO_FLAT = [
    {"text": said(number), "id": name, "code": "Blaming", "annotator": 1, "annotation_id": number}
    for number, name in enumerate(IDS)
]
PRODIGY = [
    {"text": said(number), "label": "Blaming", "answer": answer, "meta": {"id": name}}
    for number, (name, answer) in enumerate(
        zip(IDS, ("accept", "reject", "accept", "ignore"), strict=True)
    )
]
POTATO = [
    {"id": name, "displayed_text": said(number), "label_annotations": {"code": {"Blaming": "true"}}}
    for number, name in enumerate(IDS)
]
POTATO_TABLE = [
    {"user": "ann", "instance_id": name, "displayed_text": said(number), "code:::Blaming": "true"}
    for number, name in enumerate(IDS)
]


MARKED = [{"id": name, "text": said(n), "label": "Blaming"} for n, name in enumerate(IDS)]


class Cas(Sample):
    """One document of INCEpTION, a client turn for each row."""

    def inner(self) -> bytes:
        """Return the document as UIMA CAS JSON."""
        turns = [f"Client: {row.get('text')}" for row in self.rows]
        marks = []
        for number, row in enumerate(self.rows):
            begin = len("\n".join([*turns[:number], ""]).encode("utf-16-le", "surrogatepass")) // 2
            place = {"begin": begin, "end": begin + 3}
            marks.append({"%TYPE": "custom.Code", **place, "label": row.get("label")})
        sofa = {"%TYPE": "uima.cas.Sofa", "sofaString": "\n".join(turns)}
        document = {"%TYPES": {}, "%FEATURE_STRUCTURES": [sofa, *marks]}
        return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")


REGISTERED: dict[str, tuple[Sample, ...]] = {
    "alpaca": (
        Sample(rows=ALPACA, ending=".json", text=("input",), label=("output",)),
        Sample(rows=ALPACA, text=("input",), label=("output",)),
    ),
    "annomi": tuple(
        Sample(
            rows=ANNOMI,
            ending=ending,
            text=("utterance_text",),
            label=("client_talk_type", "interlocutor"),
            id=("utterance_id", "transcript_id"),
        )
        for ending in (".csv", ".xlsx")
    ),
    "client_resistance": (
        Sample(rows=documents(), ending=".json"),
        Sample(rows=documents()),
    ),
    "dialogues": (
        Sample(rows=sessions(), label=("label", "speaker"), id=("session", "id")),
        Sample(rows=examples(), text=("text", "response", "rationale")),
        Sample(rows=examples() + sessions()[:0], ending=".json", text=("text", "response")),
    ),
    "doccano": (
        Sample(rows=documents("data", lists=True), text=("data",)),
        Sample(rows=documents("data"), ending=".csv", text=("data",)),
    ),
    "inception": (Cas(rows=MARKED, ending=".json"),),
    "label_studio": (
        Sample(rows=LABEL_STUDIO, ending=".json", label=("choices",)),
        Sample(rows=LABEL_STUDIO_FLAT, ending=".csv", label=("code",)),
    ),
    "potato": (
        Sample(rows=POTATO, text=("displayed_text",), label=("Blaming",)),
        Sample(rows=POTATO_TABLE, ending=".csv", text=("displayed_text",), id=("instance_id",)),
    ),
    "prodigy": (Sample(rows=PRODIGY, label=("label", "answer")),),
    "psyguard": (Sample(rows=PSYGUARD, label=("labels",), id=("idx", "data_source")),),
    "table": tuple(
        Sample(rows=rows, ending=ending, text=("text", "response", "history"), id=("id", "session"))
        for ending in (".csv", ".xlsx")
        for rows in (utterances(), examples())
    ),
    "transcript": (
        Sample(rows=TRANSCRIPT, id=("file",)),
        Sample(rows=utterances(), ending=".txt", label=("speaker",)),
    ),
    "vtt": (Sample(rows=utterances(), ending=".vtt", label=("speaker",)),),
}
"""Sound files for every registered reader that reads one."""

PREDICTIONS = [
    {
        "id": name,
        "session": f"s{number // 2}",
        "turn": number,
        "fold": None,
        "task": "flat",
        "gold": "Blaming",
        "label": "Blaming",
        "probabilities": {"Blaming": 0.75, "Excusing": 0.25},
        "rationale": said(7),
        "text": f"Behavior: Blaming\nReason: {said(7)}",
        "parsed": True,
        "response": said(number),
    }
    for number, name in enumerate(IDS)
]


def rows_of(n: int = 4, **columns: Any) -> list[dict[str, Any]]:
    """Return rows whose values are texts, or made from the row's number."""
    return [
        {key: value(number) if callable(value) else value for key, value in columns.items()}
        for number in range(n)
    ]


def samples_in(
    *endings: str, rows: list[dict[str, Any]], **roles: tuple[str, ...]
) -> tuple[Sample, ...]:
    return tuple(Sample(rows=rows, ending=ending, **roles) for ending in endings)


_BOTH = (".csv", ".xlsx")

OTHERS: dict[str, tuple[Sample, ...]] = {
    "predictions of anybody": samples_in(
        *(".jsonl", ".json", *_BOTH), rows=PREDICTIONS, text=("text", "rationale")
    ),
    "stored predictions": samples_in(".jsonl", rows=PREDICTIONS, text=("text", "rationale")),
    "predictions to count": samples_in(
        *(".jsonl", ".csv"), rows=PREDICTIONS, text=("response", "rationale")
    ),
    "dialogues to annotate": samples_in(".jsonl", rows=examples(), text=("text", "response")),
    "tables to annotate": samples_in(*_BOTH, rows=examples(), text=("response", "history")),
    "annotations": (
        *samples_in(
            *_BOTH,
            rows=rows_of(example_id=id_of, annotator="ann", label="Blaming", reason=said),
            text=("reason",),
            id=("example_id", "annotator"),
        ),
        *samples_in(".jsonl", ".zip", rows=documents("data", lists=True), text=("data",)),
    ),
    "annotations, a column an annotator": samples_in(
        *_BOTH,
        rows=rows_of(id=id_of, ann="Blaming", bo="Excusing", comments=said),
        text=("comments",),
        label=("ann", "bo"),
    ),
    "scores of a study": samples_in(
        *_BOTH,
        rows=rows_of(
            participant=lambda n: f"p{n // 2}",
            group=lambda n: "ab"[n // 2],
            phase=lambda n: ("pre", "post")[n % 2],
            score=lambda n: 0.5 * n,
            remark=said,
        ),
        text=("remark",),
        label=("score", "group"),
        id=("participant", "phase"),
    ),
    "participants of a study": samples_in(
        *_BOTH,
        rows=rows_of(
            participant=id_of,
            group=lambda n: "ab"[n % 2],
            age=lambda n: 20 + n,
            remark=said,
        ),
        text=("remark",),
        label=("age", "group"),
        id=("participant",),
    ),
    "outcomes of sessions": samples_in(
        *_BOTH,
        rows=rows_of(session=id_of, goal=lambda n: 1.5 * n, remark=said),
        text=("remark",),
        label=("goal",),
        id=("session",),
    ),
    "ratings of rationales": samples_in(
        *_BOTH,
        rows=rows_of(id=id_of, dialogue=said, clarity=4, depth="3"),
        text=("dialogue",),
        label=("clarity", "depth"),
    ),
    "key of an exam": samples_in(".csv", rows=rows_of(id=id_of, label="Blaming", text=said)),
    "scores of exams": samples_in(
        ".csv",
        rows=rows_of(candidate=id_of, exam="1", accuracy=0.5, remark=said),
        text=("remark",),
        label=("accuracy", "exam"),
        id=("candidate",),
    ),
    "decisions": samples_in(
        *_BOTH,
        rows=rows_of(id=id_of, final_label="Blaming", text=said),
        label=("final_label",),
    ),
    "groups of a study": samples_in(
        *_BOTH,
        rows=rows_of(participant=id_of, group="a", remark=said),
        text=("remark",),
        label=("group",),
        id=("participant",),
    ),
    "scenarios of a study": samples_in(
        *_BOTH,
        rows=rows_of(scenario=id_of, context=said, client=said),
        text=("context", "client"),
        id=("scenario",),
    ),
    "key of a study": samples_in(
        *_BOTH,
        rows=rows_of(
            rating_id=id_of, participant="p", group="a", phase="pre", scenario="x", remark=said
        ),
        text=("remark",),
        label=("phase",),
        id=("rating_id",),
    ),
    "responses of a study": samples_in(
        *_BOTH, rows=rows_of(scenario=id_of, response=said), text=("response",), id=("scenario",)
    ),
    "ratings of a study": samples_in(
        *_BOTH,
        rows=rows_of(rating_id=id_of, client=said, rating=1),
        text=("client",),
        label=("rating",),
        id=("rating_id",),
    ),
}
"""Sound files for every other way in."""
