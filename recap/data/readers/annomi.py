"""AnnoMI: motivational interviewing, simple (a row an utterance) or full (a row an annotator).

Wu et al., Anno-MI: A dataset of expert-annotated counseling dialogues, ICASSP 2022.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from recap.data.issues import IssueLog, Place
from recap.data.readers.registry import one_of, register_reader, require_column
from recap.data.readers.speakers import SpeakerNames
from recap.data.readers.tables import TABLE_ENDINGS, read_sheet
from recap.records import Dialogue, Turn

_ACT, _TALK = "main_therapist_behaviour", "client_talk_type"
_NEEDED = ("transcript_id", "utterance_id", "interlocutor", "utterance_text", _ACT, _TALK)
_META = ("mi_quality", "topic")

Rows = Sequence[tuple[int, Mapping[str, str]]]


@register_reader("annomi", endings=TABLE_ENDINGS)
def read_annomi(
    path: Path | None, *, issues: IssueLog, annotations: str = "majority"
) -> Iterator[Dialogue]:
    """Yield one dialogue a transcript; labels are the client's talk type and the therapist's act.

    Where several experts annotated an utterance, an even vote is counted as ``annotation_ties``.

    Args:
        path: The file.
        issues: Where bad rows are noted.
        annotations: What several experts on one utterance add up to. ``majority``: their most
            frequent label, and none for an even vote; ``first``: that of the annotator who comes
            first in the file; ``reject``: as majority, but an even vote on client talk is a fault.

    Raises:
        DataError: When a column of AnnoMI is missing.
    """
    one_of("annotations", annotations, ("majority", "first", "reject"))
    table = read_sheet(path, issues)
    for column in _NEEDED:
        hint = "is this an AnnoMI file? (others: data=table)"
        require_column(table.path, table.columns, column, hint)
    names = SpeakerNames()
    for transcript, rows in groupby(table.rows, key=lambda numbered: numbered[1]["transcript_id"]):
        turns: list[Turn] = []
        places: list[Place] = []
        meta: dict[str, str] = {}
        for _, group in groupby(rows, key=lambda numbered: numbered[1]["utterance_id"]):
            annotated = list(group)
            line, first = annotated[0]
            turn = _turn(transcript, annotated, names, annotations, issues)
            meta = meta or {key: first[key] for key in _META if key in first}
            if turn is not None:
                turns.append(turn)
                places.append(Place(line=line, rows=len(annotated)))
        if turns:
            issues.at_turns(places)
            yield Dialogue(session=transcript, meta=meta, turns=tuple(turns))


def _turn(
    transcript: str, annotated: Rows, names: SpeakerNames, annotations: str, issues: IssueLog
) -> Turn | None:
    line, first = annotated[0]
    voice = names.find(first["interlocutor"])
    if voice is None:
        names.reject_cell(issues, line, "interlocutor", first["interlocutor"], rows=len(annotated))
        return None
    speaker = voice.speaker
    column = _TALK if speaker == "client" else _ACT
    label, tied = _vote([row[column] for _, row in annotated], annotations)
    if tied and speaker == "client":
        issues.counts["annotation_ties"] += 1
        if annotations == "reject":
            reason = f"the {len(annotated)} annotators are evenly split"
            hint = "adjudicate it, or leave it unlabeled with data.options.annotations=majority"
            issues.reject(line, column, reason, hint, rows=len(annotated))
            return None
    return Turn(
        speaker=speaker,
        text=first["utterance_text"].strip(),
        id=f"{transcript}:{first['utterance_id']}",
        label=label,
    )


def _vote(values: Sequence[str], annotations: str) -> tuple[str | None, bool]:
    """Return the label that annotators add up to, and whether the vote was even."""
    given = [value.strip() for value in values if value.strip() not in ("", "n/a")]
    if not given:
        return None, False
    ranked = Counter(given).most_common(2)
    tied = len(ranked) == 2 and ranked[0][1] == ranked[1][1]
    if annotations == "first":
        return given[0], tied
    return (None if tied else ranked[0][0]), tied
