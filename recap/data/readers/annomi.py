"""AnnoMI: motivational interviewing, simple (a row an utterance) or full (a row an annotator).

Wu et al., Anno-MI: A dataset of expert-annotated counseling dialogues, ICASSP 2022.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from recap.data.issues import IssueLog
from recap.data.names import identity
from recap.data.readers.registry import TABLE_ENDINGS, one_of, register_reader, require_column
from recap.data.readers.row_order import Order, SessionRow, in_order
from recap.data.readers.speakers import SpeakerNames
from recap.data.readers.tables import read_sheet
from recap.errors import quote_id
from recap.records import Dialogue, Turn

_ACT, _TALK = "main_therapist_behaviour", "client_talk_type"
_NEEDED = ("transcript_id", "utterance_id", "interlocutor", "utterance_text", _ACT, _TALK)
_ANNOTATOR = "annotator_id"
_ORDER = Order(
    by="turn", field="utterance_id", hint="number the utterances of a transcript one by one"
)
_META = ("mi_quality", "topic")

Row = tuple[int, Mapping[str, str]]


@register_reader("annomi", endings=TABLE_ENDINGS)
def read_annomi(
    path: Path | None,
    *,
    issues: IssueLog,
    annotations: str = "majority",
    speakers: Mapping[str, str] | None = None,
) -> Iterator[Dialogue]:
    """Yield one dialogue a transcript; labels are the client's talk type and the therapist's act.

    Rows stand in any order: ``utterance_id`` is the number of a turn. ``annotations`` says what
    several experts on one utterance add up to: ``majority``, their most frequent label, and none
    for an even vote (counted as ``annotation_ties``); ``first``, that of the annotator who comes
    first in the file; ``reject``, as majority, but an even vote on client talk is a fault.
    """
    one_of("annotations", annotations, ("majority", "first", "reject"))
    table = read_sheet(path, issues)
    issues.text_column = "utterance_text"
    for column in _NEEDED:
        hint = "is this an AnnoMI file? (others: data=table)"
        require_column(table.path, table.columns, column, hint)
    table.texts.update(_NEEDED)
    names = SpeakerNames(speakers)
    table.texts.add(_ANNOTATOR)
    for transcript, rows in _transcripts(table.rows, issues).items():
        session = [
            SessionRow(
                line=annotated[0][0],
                turn=_turn(transcript, annotated, names, annotations, issues),
                order=identity(annotated[0][1]["utterance_id"]),
                rows=len(annotated),
            )
            for annotated in _by_utterance(rows)
        ]
        turns = [row.turn for row in in_order(transcript, session, order=_ORDER, issues=issues)]
        if turns:
            first = rows[0][1]
            meta = {key: first[key] for key in _META if key in first}
            yield Dialogue(session=transcript, meta=meta, turns=tuple(filter(None, turns)))


def _transcripts(rows: Iterator[Row], issues: IssueLog) -> dict[str, list[Row]]:
    """Return the rows of each transcript, from wherever they stand."""
    found: dict[str, list[Row]] = {}
    for line, row in rows:
        transcript = issues.name("transcript_id", row["transcript_id"])
        if transcript:
            found.setdefault(transcript, []).append((line, row))
        else:
            issues.reject(line, "transcript_id", "is empty", "write the transcript's number")
    return found


def _by_utterance(rows: Sequence[Row]) -> Iterable[list[Row]]:
    """Return the rows of each utterance; one without a number stays apart, as nobody's."""
    found: dict[tuple[str, int], list[Row]] = {}
    for line, row in rows:
        number = identity(row["utterance_id"])
        found.setdefault((number, 0 if number else line), []).append((line, row))
    return found.values()


def _turn(
    transcript: str,
    annotated: Sequence[Row],
    names: SpeakerNames,
    annotations: str,
    issues: IssueLog,
) -> Turn | None:
    """Return the turn that one annotator a row describes, ``None`` where they contradict."""
    line, first = annotated[0]
    contradiction = _contradiction(annotated)
    if contradiction is not None:
        hint = "give each utterance of a transcript a number of its own"
        issues.reject(line, *contradiction, hint, rows=len(annotated))
        return None
    n = len(annotated)
    voice = names.voice(issues, line, "interlocutor", first["interlocutor"], rows=n)
    if voice is None:
        return None
    speaker = voice.speaker
    column = _TALK if speaker == "client" else _ACT
    cells = [row[column].strip() for _, row in annotated]
    given = [cell for cell in cells if not issues.missing_label(cell)]
    if speaker == "client" and issues.taxonomy is not None:
        # One label may be spelled in several ways.
        given = [issues.taxonomy.find(cell) or cell for cell in given]
    label, tied = _vote(given, annotations)
    others = [] if label is None else [one for one in dict.fromkeys(given) if one != label]
    issues.several_labels(line, [str(label), *others] if speaker == "client" else ())
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
        id=f"{transcript}:{identity(first['utterance_id'])}",
        label=label,
    )


def _contradiction(annotated: Sequence[Row]) -> tuple[str, str] | None:
    """Return the column in which rows of one utterance do not go together, and why."""
    number = quote_id(identity(annotated[0][1]["utterance_id"]))
    at = "lines " + ", ".join(str(line) for line, _ in annotated[:5])
    for column in ("interlocutor", "utterance_text"):
        if len({identity(row[column]).casefold() for _, row in annotated}) > 1:
            return column, f"is not the same in all rows of utterance {number} ({at})"
    annotators = [identity(row[_ANNOTATOR]) for _, row in annotated if _ANNOTATOR in row]
    if len(set(annotators)) < len(annotators):
        return _ANNOTATOR, f"has one annotator twice for utterance {number} ({at})"
    return None


def _vote(given: Sequence[str], annotations: str) -> tuple[str | None, bool]:
    """Return the label that annotators add up to, and whether the vote was even."""
    if not given:
        return None, False
    ranked = Counter(given).most_common(2)
    tied = len(ranked) == 2 and ranked[0][1] == ranked[1][1]
    if annotations == "first":
        return given[0], tied
    return (None if tied else ranked[0][0]), tied
