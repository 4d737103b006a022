"""Every reader of users' files, with sound files for it and one way to ask what became of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from mutations import CANARIES, SECRET, Sample

from recap.analysis.study_ratings import Key
from recap.analysis.study_table import arrange_scores
from recap.annotate.check import Source, check_source
from recap.corpus_actions import batches, exam_tables
from recap.corpus_actions.adjudicated import read_decisions
from recap.corpus_actions.options import CorpusConfig
from recap.corpus_actions.rating_sheets import read_ratings
from recap.data import study_sheets
from recap.data.annotated import read_annotated
from recap.data.corpus import read_corpus
from recap.data.faults import FaultLog, Place, RowFault
from recap.data.judgement_columns import JudgementLayout
from recap.data.judgements import read_judgements
from recap.data.reading import read_records
from recap.data.scores import ScoreColumns, read_scores
from recap.data.session_table import read_session_table
from recap.errors import DataError
from recap.evaluation.imported import read_predictions
from recap.tasks.library import builtin_task

FLAT = builtin_task("flat")
TALK = builtin_task("annomi_talk")
IDS = ("e0", "e1", "e2", "e3")


@dataclass(frozen=True, kw_only=True)
class Account:
    """What became of a file's rows; ``accepted`` is counted from what came out."""

    read: int
    accepted: int
    rejected: int
    faults: Sequence[RowFault]


@dataclass(frozen=True, kw_only=True)
class InputReader:
    """A way in for users' files: which modules it goes through, and sound files for it."""

    name: str
    modules: tuple[str, ...]
    samples: tuple[Sample, ...]
    read: Callable[[Path], Account | None]
    """``None`` where all rows were sound, and the reader gives no account of that."""


def _account(log: FaultLog, accepted: int) -> Account:
    return Account(
        read=log.rows_read, accepted=accepted, rejected=log.rows_rejected, faults=log.faults
    )


# --- the readers that configuration names ---------------------------------------------------------


class _CountingLog(FaultLog):
    """Remembers how many rows of the file make up each turn."""

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self.rows_of: dict[int, int] = {}

    def at_turns(self, places: Sequence[Place]) -> None:
        """Say where the turns of a dialogue stand."""
        super().at_turns(places)
        self.rows_of.update({place.line: place.rows for place in places})


def _through_registry(reader: str, path: Path) -> Account:
    options = {
        "reader": reader,
        "path": path,
        "taxonomy": (TALK if reader == "annomi" else FLAT).taxonomy,
    }
    log = _CountingLog(str(path))
    accepted = sum(
        log.rows_of.get(line, 1)
        for _ in read_records(faults=log, require_labels=False, **options)
        for line in log.lines
    )
    for on_error, duplicates in (("skip", "warn"), ("fail", "error")):
        try:
            corpus = read_corpus(
                on_error=on_error, duplicates=duplicates, require_labels=False, **options
            )
            assert (corpus.rows_read, corpus.rows_accepted) == (log.rows_read, accepted)
        except DataError as error:
            refuse_words(str(error))
    return _account(log, accepted)


def refuse_words(message: str) -> None:
    """Check that a message holds no word of a client."""
    assert not any(word in message for word in CANARIES), message


def _said(number: int) -> str:
    return f"naïve 心 {SECRET} {number}"


def _examples(**renamed: str) -> list[dict[str, Any]]:
    labels = ("Blaming", "合作", "Excusing", "Minimum Talk")
    rows: list[dict[str, Any]] = [
        {
            "id": name,
            "session": f"s{number // 2}",
            "history": [{"speaker": "counselor", "text": _said(9)}],
            "response": _said(number),
            "label": label,
            "rationale": _said(8),
        }
        for number, (name, label) in enumerate(zip(IDS, labels, strict=True))
    ]
    return [{renamed.get(key, key): value for key, value in row.items()} for row in rows]


def _sessions() -> list[dict[str, Any]]:
    return [
        {
            "session": f"s{number}",
            "turns": [
                {"speaker": "counselor", "text": _said(0)},
                {"speaker": "client", "text": _said(number + 1), "label": "Blaming", "id": name},
            ],
        }
        for number, name in enumerate(IDS)
    ]


def _utterances(**columns: str) -> list[dict[str, Any]]:
    rows = []
    for number, name in enumerate(IDS):
        session = f"s{number // 2}"
        for speaker, label in (("counselor", None), ("client", "Blaming")):
            row = {
                "session": session,
                "speaker": speaker,
                "text": _said(len(rows)),
                "label": label,
                "id": f"{name}{speaker}",
            }
            rows.append({columns.get(key, key): value for key, value in row.items()})
    return rows


def _documents(text: str = "text", **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "id": number,
            text: f"Counselor: {_said(9)}\n\nClient: {_said(number)}",
            "label": ["Blaming"] if more.get("lists") else "Blaming",
        }
        for number in range(4)
    ]


_ANNOMI = [
    {
        "mi_quality": "high",
        "transcript_id": str(number // 2),
        "topic": "sleep",
        "utterance_id": str(number),
        "interlocutor": "client" if number % 2 else "therapist",
        "utterance_text": _said(number),
        "annotator_id": "1",
        "main_therapist_behaviour": "n/a" if number % 2 else "question",
        "client_talk_type": "change" if number % 2 else "n/a",
    }
    for number in range(6)
]
_TRANSCRIPT = [
    {"file": f"t{number}.txt", "text": f"咨询师：{_said(0)}\n来访者：{_said(number)}"}
    for number in range(3)
]
_ALPACA = [
    {
        "instruction": "?",
        "input": f"Counselor: {_said(9)}\n\nClient: {_said(number)}",
        "output": f"Behavior: Blaming\nReason: {_said(8)}",
        "id": name,
    }
    for number, name in enumerate(IDS)
]
_PSYGUARD = [
    {"idx": number, "text": _said(number), "labels": ["Blaming"], "data_source": "web"}
    for number in range(4)
]

REGISTERED: dict[str, tuple[Sample, ...]] = {
    "alpaca": (
        Sample(rows=_ALPACA, ending=".json", text=("input",), label=("output",)),
        Sample(rows=_ALPACA, text=("input",), label=("output",)),
    ),
    "annomi": tuple(
        Sample(
            rows=_ANNOMI,
            ending=ending,
            text=("utterance_text",),
            label=("client_talk_type", "interlocutor"),
            id=("utterance_id", "transcript_id"),
        )
        for ending in (".csv", ".xlsx")
    ),
    "client_resistance": (
        Sample(rows=_documents(), ending=".json"),
        Sample(rows=_documents()),
    ),
    "dialogues": (
        Sample(rows=_sessions(), label=("label", "speaker"), id=("session", "id")),
        Sample(rows=_examples(), text=("text", "response", "rationale")),
        Sample(rows=_examples() + _sessions()[:0], ending=".json", text=("text", "response")),
    ),
    "doccano": (
        Sample(rows=_documents("data", lists=True), text=("data",)),
        Sample(rows=_documents("data"), ending=".csv", text=("data",)),
    ),
    "psyguard": (Sample(rows=_PSYGUARD, label=("labels",), id=("idx", "data_source")),),
    "table": tuple(
        Sample(rows=rows, ending=ending, text=("text", "response", "history"), id=("id", "session"))
        for ending in (".csv", ".xlsx")
        for rows in (_utterances(), _examples())
    ),
    "transcript": (
        Sample(rows=_TRANSCRIPT, id=("file",)),
        Sample(rows=_utterances(), ending=".txt", label=("speaker",)),
    ),
}
"""Sound files for every registered reader that reads one."""


# --- all other ways in ----------------------------------------------------------------------------

_PREDICTIONS = [
    {
        "id": name,
        "session": f"s{number // 2}",
        "turn": number,
        "fold": None,
        "task": "flat",
        "gold": "Blaming",
        "label": "Blaming",
        "probabilities": {"Blaming": 0.75, "Excusing": 0.25},
        "rationale": _said(7),
        "text": f"Behavior: Blaming\nReason: {_said(7)}",
        "parsed": True,
        "response": _said(number),
    }
    for number, name in enumerate(IDS)
]


def _predictions_of_anybody(path: Path) -> Account:
    file = read_predictions(path, FLAT, frozenset(IDS))
    assert file.counts["read"] == file.faults.rows_read
    assert file.counts["accepted"] == len(file.rows)
    return _account(file.faults, len(file.rows))


def _stored_predictions(path: Path) -> None:
    batches.read_predictions("ratings.predictions", str(path))


def _annotated_predictions(path: Path) -> None:
    for on_error in ("skip", "fail"):
        read_annotated(reader="dialogues", path=path, taxonomy=FLAT.taxonomy, on_error=on_error)


def _to_annotate(reader: str, path: Path) -> Account:
    source = Source(path=path, reader=reader, on_error="skip", merge_adjacent=False, options={})
    log = FaultLog(str(path))
    accepted = sum(1 for _ in source.utterances(log))
    checked = check_source(source)
    assert (checked.rows_read, checked.rows_rejected) == (log.rows_read, log.rows_rejected)
    check_source(Source(path=path, reader=reader, on_error="fail", options={}))
    return _account(log, accepted)


def _judgements(path: Path) -> Account:
    kwargs = {"layout": JudgementLayout(), "taxonomy": FLAT.taxonomy}
    found = read_judgements([path], skip_faults=True, **kwargs)
    if not found.rows_rejected:
        read_judgements([path], **kwargs)
    return Account(
        read=found.rows_read,
        accepted=len(found.judgements) + found.unlabelled,
        rejected=found.rows_rejected,
        faults=found.faults,
    )


def _judgement_columns(path: Path) -> None:
    read_judgements([path], layout=JudgementLayout(annotators=["ann", "bo"]), taxonomy=None)


def _study_scores(path: Path) -> Account:
    log = FaultLog(str(path))
    rows = read_scores(path, ScoreColumns(), faults=log)
    try:
        arrange_scores(rows, file=str(path), groups=[], phases=[], repeated="mean")
    except DataError as error:
        refuse_words(str(error))
    return _account(log, len(rows))


def _session_table(path: Path) -> None:
    table = read_session_table(path)
    table.keys(["session"])
    table.numbers("goal")


def _study_sheet(read: Callable[[Path, FaultLog], Any], path: Path) -> Account:
    log = FaultLog(str(path))
    return _account(log, len(read(path, log)))


@cache
def _corpus_config() -> CorpusConfig:
    from recap.compose import load_own_command

    return load_own_command(CorpusConfig, "corpus", ["action=adjudicate"])


def _decisions(path: Path) -> None:
    from dataclasses import replace

    config = _corpus_config()
    options = replace(config.adjudicate, decisions=str(path))
    read_decisions(replace(config, adjudicate=options), frozenset(IDS))


def _rows(n: int = 4, **columns: Any) -> list[dict[str, Any]]:
    """Return rows whose values are texts, or made from the row's number."""
    return [
        {key: value(number) if callable(value) else value for key, value in columns.items()}
        for number in range(n)
    ]


def _in(*endings: str, rows: list[dict[str, Any]], **roles: tuple[str, ...]) -> tuple[Sample, ...]:
    return tuple(Sample(rows=rows, ending=ending, **roles) for ending in endings)


_RESPONSES = partial(
    study_sheets.read_responses, participant="p", phase="pre", scenarios=("e0", "e1", "e2", "e3")
)
_KEYS = {name: Key(participant="p", group="a", phase="pre", scenario=name) for name in IDS}
_RATED = partial(study_sheets.read_ratings, rater="rater1", keys=_KEYS)


def _of_study(function: Callable[..., Any]) -> Callable[[Path, FaultLog], Any]:
    return lambda path, log: function(path, faults=log)


OTHERS: tuple[InputReader, ...] = (
    InputReader(
        name="predictions of anybody",
        modules=("evaluation.imported",),
        samples=_in(
            ".jsonl", ".json", ".csv", ".xlsx", rows=_PREDICTIONS, text=("text", "rationale")
        ),
        read=_predictions_of_anybody,
    ),
    InputReader(
        name="stored predictions",
        modules=("corpus_actions.batches",),
        samples=_in(".jsonl", rows=_PREDICTIONS, text=("text", "rationale")),
        read=_stored_predictions,
    ),
    InputReader(
        name="predictions to count",
        modules=("data.annotated",),
        samples=_in(".jsonl", ".csv", rows=_PREDICTIONS, text=("response", "rationale")),
        read=_annotated_predictions,
    ),
    InputReader(
        name="dialogues to annotate",
        modules=("annotate.check", "data.utterances"),
        samples=_in(".jsonl", rows=_examples(), text=("text", "response")),
        read=partial(_to_annotate, "dialogues"),
    ),
    InputReader(
        name="tables to annotate",
        modules=("annotate.check", "data.utterances"),
        samples=_in(".csv", ".xlsx", rows=_examples(), text=("response", "history")),
        read=partial(_to_annotate, "table"),
    ),
    InputReader(
        name="judgements",
        modules=("data.judgements", "data.judgement_files"),
        samples=(
            *_in(
                ".csv",
                ".xlsx",
                rows=_rows(
                    example_id=lambda n: IDS[n], annotator="ann", label="Blaming", reason=_said
                ),
                text=("reason",),
                id=("example_id", "annotator"),
            ),
            *_in(".jsonl", ".zip", rows=_documents("data", lists=True), text=("data",)),
        ),
        read=_judgements,
    ),
    InputReader(
        name="judgements, a column an annotator",
        modules=("data.judgements",),
        samples=_in(
            ".csv",
            ".xlsx",
            rows=_rows(id=lambda n: IDS[n], ann="Blaming", bo="Excusing", comments=_said),
            text=("comments",),
            label=("ann", "bo"),
        ),
        read=_judgement_columns,
    ),
    InputReader(
        name="scores of a study",
        modules=("data.scores",),
        samples=_in(
            ".csv",
            ".xlsx",
            rows=_rows(
                participant=lambda n: f"p{n // 2}",
                group=lambda n: "ab"[n // 2],
                phase=lambda n: ("pre", "post")[n % 2],
                score=lambda n: 0.5 * n,
                remark=_said,
            ),
            text=("remark",),
            label=("score", "group"),
            id=("participant", "phase"),
        ),
        read=_study_scores,
    ),
    InputReader(
        name="outcomes of sessions",
        modules=("data.session_table",),
        samples=_in(
            ".csv",
            ".xlsx",
            rows=_rows(session=lambda n: f"s{n}", goal=lambda n: 1.5 * n, remark=_said),
            text=("remark",),
            label=("goal",),
            id=("session",),
        ),
        read=_session_table,
    ),
    InputReader(
        name="ratings of rationales",
        modules=("corpus_actions.rating_sheets",),
        samples=_in(
            ".csv",
            ".xlsx",
            rows=_rows(id=lambda n: IDS[n], dialogue=_said, clarity=4, depth="3"),
            text=("dialogue",),
            label=("clarity", "depth"),
        ),
        read=lambda path: read_ratings([path], criteria=["clarity", "depth"], points=5) and None,
    ),
    InputReader(
        name="key of an exam",
        modules=("corpus_actions.exam_tables",),
        samples=_in(
            ".csv", rows=_rows(id=lambda n: IDS[n], label="Blaming", text=_said), text=("text",)
        ),
        read=lambda path: exam_tables.read_key(str(path), FLAT.taxonomy) and None,
    ),
    InputReader(
        name="scores of exams",
        modules=("corpus_actions.exam_tables",),
        samples=_in(
            ".csv",
            rows=_rows(candidate=lambda n: f"c{n}", exam="1", accuracy=0.5, remark=_said),
            text=("remark",),
            label=("accuracy", "exam"),
            id=("candidate",),
        ),
        read=lambda path: exam_tables.read_scores(str(path)) and None,
    ),
    InputReader(
        name="decisions",
        modules=("corpus_actions.adjudicated",),
        samples=_in(
            ".csv",
            ".xlsx",
            rows=_rows(id=lambda n: IDS[n], final_label="Blaming", text=_said),
            text=("text",),
            label=("final_label",),
        ),
        read=_decisions,
    ),
    *(
        InputReader(
            name=f"study sheet: {name}",
            modules=("data.study_sheets",),
            samples=_in(".csv", ".xlsx", rows=rows, text=("client", "response"), **roles),
            read=partial(_study_sheet, function),
        )
        for name, function, rows, roles in (
            (
                "groups",
                study_sheets.read_groups,
                _rows(participant=lambda n: f"p{n}", group="a", client=_said),
                {"id": ("participant",), "label": ("group",)},
            ),
            (
                "scenarios",
                study_sheets.read_scenarios,
                _rows(scenario=lambda n: IDS[n], context=_said, client=_said),
                {"id": ("scenario",), "label": ("context",)},
            ),
            (
                "key",
                study_sheets.read_key,
                _rows(
                    rating_id=lambda n: IDS[n],
                    participant="p",
                    group="a",
                    phase="pre",
                    scenario="x",
                    client=_said,
                ),
                {"id": ("rating_id",), "label": ("phase",)},
            ),
            (
                "responses",
                _of_study(_RESPONSES),
                _rows(scenario=lambda n: IDS[n], response=_said),
                {"id": ("scenario",), "label": ("response",)},
            ),
            (
                "ratings",
                _of_study(_RATED),
                _rows(rating_id=lambda n: IDS[n], client=_said, rating=1),
                {"id": ("rating_id",), "label": ("rating",)},
            ),
        )
    ),
)


def _registered(name: str) -> InputReader:
    return InputReader(
        name=name,
        modules=("data.reading", "data.corpus", "data.readers"),
        samples=REGISTERED[name],
        read=partial(_through_registry, name),
    )


INPUT_READERS: tuple[InputReader, ...] = (*map(_registered, sorted(REGISTERED)), *OTHERS)


def rejected_rows(faults: Sequence[RowFault]) -> int:
    """Return how many rows faults name; of rows on one line, by the index that their field has."""
    return len(
        {
            (f.file, f.line, f.field.partition("]")[0] if f.field.startswith("[") else "")
            for f in faults
        }
    )
