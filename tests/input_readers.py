"""Every reader of users' files, with sound files for it and one way to ask what became of rows."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from sample_files import CANARIES, Sample
from sound_files import (
    IDS,
    OTHERS,
    REGISTERED,
)

from recap.cli.compose import load_verb
from recap.config import DataConfig
from recap.corpus import assign as batches
from recap.corpus import exam as exam_tables
from recap.corpus.adjudicate import read_decisions
from recap.corpus.options import CorpusConfig
from recap.data.annotation_files import AnnotationLayout, read_annotations
from recap.data.annotations import AnnotatorLabel
from recap.data.corpus import read_corpus, read_records
from recap.data.issues import IssueLog, Place, RowIssue
from recap.data.sheets import read_ratings
from recap.data.utterances import read_annotated, read_utterances
from recap.errors import DataError, UserError
from recap.evaluate.predictions_file import read_predictions
from recap.insights import study_rating
from recap.insights.alliance import read_session_table
from recap.insights.options import StudyOptions
from recap.insights.participants import find_people
from recap.insights.study import arrange_scores, read_scores
from recap.insights.study_rating import KEY_COLUMNS, Response
from recap.predict.output import check_input
from recap.tasks.library import builtin_task

FLAT = builtin_task("flat")
TALK = builtin_task("annomi_talk")


LEAK = "a message holds words of a client"


@dataclass(frozen=True, kw_only=True)
class Account:
    """What became of a file's rows; ``accepted`` is counted from what came out."""

    read: int
    accepted: int
    rejected: int
    issues: Sequence[RowIssue]


@dataclass(frozen=True, kw_only=True)
class InputReader:
    """A way in for users' files: which modules it goes through, and sound files for it."""

    name: str
    modules: tuple[str, ...]
    samples: tuple[Sample, ...]
    read: Callable[[Path], Account | None]
    """``None`` where all rows were sound, and the reader gives no account of that."""


def _account(log: IssueLog, accepted: int) -> Account:
    return Account(
        read=log.rows_read, accepted=accepted, rejected=log.rows_rejected, issues=log.issues
    )


# --- the readers that configuration names ---------------------------------------------------------


class _CountingLog(IssueLog):
    """Remembers how many rows of the file make up each turn."""

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self.rows_of: dict[int, int] = {}

    def at_turns(self, places: Sequence[Place]) -> None:
        """Say where the turns of a dialogue stand."""
        super().at_turns(places)
        self.rows_of.update({place.line: place.rows for place in places})

    def at(self, line: int, *, rows: int = 1) -> None:
        """Say where a record stands, and how many rows it is."""
        super().at(line, rows=rows)
        self.rows_of[line] = rows


def _through_registry(reader: str, path: Path) -> Account:
    options = {
        "reader": reader,
        "path": path,
        "taxonomy": (TALK if reader == "annomi" else FLAT).taxonomy,
    }
    log = _CountingLog(str(path))
    accepted = sum(
        log.rows_of.get(line, 1)
        for _ in read_records(issues=log, require_labels=False, **options)
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
    assert not any(word in message for word in CANARIES), f"{LEAK}: {message}"


# --- all other ways in ----------------------------------------------------------------------------


def _predictions_of_anybody(path: Path) -> Account:
    file = read_predictions(path, FLAT, frozenset(IDS))
    assert file.counts["read"] == file.issues.rows_read
    assert file.counts["accepted"] == len(file.rows)
    return _account(file.issues, len(file.rows))


def _stored_predictions(path: Path) -> None:
    batches.read_predictions("ratings.predictions", str(path))


def _annotated_predictions(path: Path) -> None:
    data = DataConfig(name="dialogues", reader="dialogues", path=str(path), on_error="skip")
    for given in (data, replace(data, on_error="fail")):
        read_annotated(given, FLAT.taxonomy)


def _to_annotate(reader: str, path: Path) -> Account:
    data = DataConfig(
        name=reader,
        reader=reader,
        path=str(path),
        on_error="skip",
        merge_adjacent=False,
        no_intervention="keep",
    )
    log = IssueLog(str(path))
    accepted = sum(1 for _ in read_utterances(data, log))
    checked = check_input(data)
    assert (checked.rows_read, checked.rows_rejected) == (log.rows_read, log.rows_rejected)
    check_input(replace(data, on_error="fail", merge_adjacent=True))
    return _account(log, accepted)


def _annotations(path: Path) -> Account:
    kwargs = {"layout": AnnotationLayout(), "taxonomy": FLAT.taxonomy}
    found = read_annotations([path], skip_faults=True, **kwargs)
    if not found.rows_rejected:
        read_annotations([path], **kwargs)
    return Account(
        read=found.rows_read,
        accepted=len(found.annotations) + found.unlabelled,
        rejected=found.rows_rejected,
        issues=found.issues,
    )


def _annotation_columns(path: Path) -> None:
    read_annotations([path], layout=AnnotationLayout(annotators=["ann", "bo"]), taxonomy=None)


def _study_scores(path: Path) -> Account:
    log = IssueLog(str(path))
    options = StudyOptions(repeated="mean")
    rows = read_scores(path, options, issues=log)
    try:
        arrange_scores(rows, options, file=str(path))
    except DataError as error:
        refuse_words(str(error))
    return _account(log, len(rows))


def _study_people(path: Path) -> None:
    config = load_verb("insights", ["action=study"])
    options = replace(config.study, participants=str(path))
    find_people(replace(config, study=options), groups=None)


def _session_table(path: Path) -> None:
    table = read_session_table(path)
    table.keys(["session"])
    table.numbers("goal")


def _study_sheet(read: Callable[[Path, IssueLog], Any], path: Path) -> Account:
    log = IssueLog(str(path))
    return _account(log, len(read(path, log)))


def _ratings_of_rationales(path: Path) -> None:
    read_ratings([path], criteria=["clarity", "depth"], points=5)


def _exam_key(path: Path) -> None:
    exam_tables.read_key(str(path), FLAT.taxonomy)


def _exam_scores(path: Path) -> None:
    exam_tables.read_scores(str(path))


@cache
def _corpus_config() -> CorpusConfig:
    from recap.cli.compose import load_verb

    return load_verb("corpus", ["action=adjudicate"])


def _decisions(path: Path) -> None:
    from dataclasses import replace

    config = _corpus_config()
    options = replace(config.adjudicate, decisions=str(path))
    read_decisions(replace(config, adjudicate=options), frozenset(IDS))


_STUDY = ("data.sheets", "insights.study_rating")


def _study_key(sheet: str) -> Callable[[Path, IssueLog], Any]:
    return lambda path, issues: study_rating.read_rows_by(path, KEY_COLUMNS[sheet], issues)


def _study_responses(path: Path, issues: IssueLog) -> list[Response]:
    return study_rating.read_responses(
        path, participant="p", phase="pre", scenarios=IDS, issues=issues
    )


def _study_ratings(path: Path, issues: IssueLog) -> list[AnnotatorLabel]:
    keys = {name: {"participant": "p", "group": "a", "phase": "pre"} for name in IDS}
    return study_rating.read_ratings(path, rater="rater1", keys=keys, issues=issues)


_WAYS_IN: dict[str, tuple[tuple[str, ...], Callable[[Path], Account | None]]] = {
    "predictions of anybody": (("evaluate.predictions_file",), _predictions_of_anybody),
    "stored predictions": (("corpus.assign",), _stored_predictions),
    "predictions to count": (("data.utterances",), _annotated_predictions),
    "dialogues to annotate": (
        ("predict.output", "data.utterances"),
        partial(_to_annotate, "dialogues"),
    ),
    "tables to annotate": (("predict.output", "data.utterances"), partial(_to_annotate, "table")),
    "annotations": (("data.annotation_files",), _annotations),
    "annotations, a column an annotator": (("data.annotation_files",), _annotation_columns),
    "scores of a study": (("insights.study",), _study_scores),
    "participants of a study": (("insights.participants",), _study_people),
    "outcomes of sessions": (("insights.alliance",), _session_table),
    "ratings of rationales": (("data.sheets",), _ratings_of_rationales),
    "key of an exam": (("corpus.exam", "data.sheets"), _exam_key),
    "scores of exams": (("corpus.exam", "data.sheets"), _exam_scores),
    "decisions": (("corpus.adjudicate", "data.sheets"), _decisions),
    "groups of a study": (_STUDY, partial(_study_sheet, _study_key("participants"))),
    "scenarios of a study": (_STUDY, partial(_study_sheet, _study_key("scenarios"))),
    "key of a study": (_STUDY, partial(_study_sheet, _study_key("ratings"))),
    "responses of a study": (_STUDY, partial(_study_sheet, _study_responses)),
    "ratings of a study": (_STUDY, partial(_study_sheet, _study_ratings)),
}
"""The modules that each of the other ways in goes through, and how it is gone."""


def _registered(name: str) -> InputReader:
    return InputReader(
        name=name,
        modules=("data.corpus", "data.corpus", "data.readers"),
        samples=REGISTERED[name],
        read=partial(_through_registry, name),
    )


INPUT_READERS: tuple[InputReader, ...] = (
    *map(_registered, sorted(REGISTERED)),
    *(
        InputReader(name=name, modules=modules, samples=OTHERS[name], read=read)
        for name, (modules, read) in _WAYS_IN.items()
    ),
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a file was received."""

    told: bool
    """Whether anything was said to be wrong with it."""
    complaint: str = ""
    """What was wrong with that; empty when nothing was."""


def receive(reader: InputReader, path: Path) -> Verdict:
    """Give a file to a reader: it has to account for every row, or end in one message."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            account = reader.read(path)
        told = account is not None and account.rejected > 0
        complaint = "" if account is None else _complaint_about(account, path)
    except UserError as error:
        told, complaint = True, _complaint_about_message(str(error), path)
    except AssertionError as error:
        told, complaint = True, str(error) or traceback.format_exc(limit=-4)
    except Exception:  # noqa: BLE001 - this is what is looked for
        told, complaint = False, traceback.format_exc(limit=-6)
    return Verdict(told=told, complaint=complaint)


def _complaint_about(account: Account, path: Path) -> str:
    if account.read != account.accepted + account.rejected:
        return f"read {account.read}, accepted {account.accepted}, rejected {account.rejected}"
    named = _named_rows(account.issues)
    if named > account.rejected or (account.rejected and not named):
        return f"{account.rejected} rows rejected, {named} named"
    for fault in account.issues:
        if not (fault.file.startswith(str(path)) and fault.line >= 1):
            return f"fault without a place: {fault}"
        if not (fault.field and fault.reason and fault.hint):
            return f"fault without field, reason or mend: {fault}"
        refuse_words(str(fault))
    return ""


def _complaint_about_message(message: str, path: Path) -> str:
    refuse_words(message)
    if path.name not in message:
        return f"message without the file: {message}"
    return "" if len(message) < 10_000 else f"message of {len(message)} characters"


def _named_rows(issues: Sequence[RowIssue]) -> int:
    """Return how many rows faults name; of rows on one line, by the index that their field has."""
    return len(
        {
            (f.file, f.line, f.field.partition("]")[0] if f.field.startswith("[") else "")
            for f in issues
            if f.rows
        }
    )
