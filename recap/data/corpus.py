"""The records of a file that nothing is wrong with, and a data set of them in memory."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from recap.config import Duplicates, NoIntervention, OnError
from recap.data.examples import examples_of, turn_id
from recap.data.folds import content_key
from recap.data.issues import (
    FirstLines,
    IssueLog,
    Place,
    RowIssue,
    damage,
    listed,
    name_damage,
    no_utterance,
    turn_notes,
)
from recap.data.names import identity, is_missing
from recap.data.readers.registry import (
    CanonicalLabels,
    Record,
    check_options,
    files_to_read,
    get_reader,
    one_of,
)
from recap.errors import DataError, quote_id
from recap.records import Dialogue, Example, Turn
from recap.taxonomy import Taxonomy


def read_records(
    *,
    reader: str,
    path: Path | None,
    taxonomy: Taxonomy | None,
    issues: IssueLog,
    require_labels: bool,
    keep_empty: bool = False,
    options: Mapping[str, Any] | None = None,
    to_annotate: bool = False,
) -> Iterator[Record]:
    """Yield the dialogues and examples of a file that are free of faults, one at a time.

    Texts are not empty, ids are unique, labels are canonical, names in the form in which they are
    compared. A row with a fault is noted in
    ``issues`` and left out whole: the dialogue where it is one row, the utterance where each has a
    row of its own. With ``keep_empty`` a text may be empty, as it may be where turns are counted.

    With ``to_annotate`` a text may be empty too, and ids made of session and turn are not kept in
    memory, since sessions are unique: only an id that imitates one would be missed.
    """
    read = get_reader(reader)
    options = dict(options or {})
    check_options(reader, read, options)
    issues.taxonomy = taxonomy
    check = _Check(taxonomy, issues, require_labels, keep_empty, to_annotate)
    given = issues.file
    for file in [None] if path is None else files_to_read(reader, path):
        issues.begin(given if file is None else str(file))
        issues.count_turns(())
        check.begin()
        for record in read(file, issues=issues, **options):
            places, by_turn = issues.take_places()
            if isinstance(record, Example):
                example = check.example(record, places[0])
                issues.lines = (places[0].line,)
                issues.count_cut(issues.lines if example is not None else ())
                yield from () if example is None else (example,)
            else:
                for piece, lines in check.dialogue(record, places, by_turn):
                    issues.lines = lines
                    issues.count_cut(lines)
                    yield piece
    issues.begin(given)
    if path is None:
        issues.turns.clear()


_R = TypeVar("_R", Example, Dialogue, Turn)
_Labeled = TypeVar("_Labeled", Example, Turn)


class _Check:
    """What no reader can judge alone: empty texts, ids used twice, labels outside the taxonomy."""

    def __init__(
        self,
        taxonomy: Taxonomy | None,
        issues: IssueLog,
        require_labels: bool,
        keep_empty: bool,
        to_annotate: bool,
    ) -> None:
        self._labels = CanonicalLabels(taxonomy)
        self._issues = issues
        self._require_labels = require_labels
        self._keep_empty = keep_empty or to_annotate
        self._to_annotate = to_annotate
        # Where each file begins, in lines of all files together.
        self._files: list[tuple[int, str]] = []
        self._latest = 0
        self._line_of_id = FirstLines()
        self._line_of_session = FirstLines()

    def example(self, example: Example, place: Place) -> Example | None:
        before = self._issues.n_faults
        self._text("response", example.response, place)
        for index, turn in enumerate(example.history):
            self._text(f"history[{index}].text", turn.text, place)
        label = self._label(example.label, place)
        if self._require_labels and self._none(example.label):
            self._reject(place, "label", "is missing", "give every row a label")
        example = self._named(example, ("id", "session", "client", "counselor"), (place,))
        self._unique("id", example.id, place)
        if self._issues.n_faults > before:
            return None
        self._count(example.history, ("client",))
        example = self._with_reason(example)
        return example if label == example.label else replace(example, label=label)

    def _named(
        self, record: _R, roles: tuple[str, ...], places: tuple[Place, ...], within: str = ""
    ) -> _R:
        """Return a record or a turn with its names as they are compared."""
        changed: dict[str, Any] = {}
        for role in roles:
            name = getattr(record, role)
            form = None if name is None else identity(name)
            if form is None or (form == name and form.isprintable()):
                continue
            if (broken := name_damage(name)) is not None:
                for place in places:
                    self._reject(place, role, *broken, within)
            changed[role] = form
        return replace(record, **changed) if changed else record

    def begin(self) -> None:
        """Note that another file begins, so that faults name the file of an earlier line."""
        self._files.append((self._latest, self._issues.file))

    def _add(self, lines: FirstLines, name: str, line: int) -> None:
        self._latest = max(self._latest, self._files[-1][0] + line)
        lines.add(name, self._files[-1][0] + line)

    def _where(self, line: int) -> str:
        """Return the place of a name that was noted before."""
        before, file = self._files[bisect_left(self._files, (line, "")) - 1]
        here = file == self._issues.file
        return f"line {line - before}" if here else f"{file}:{line - before}"

    def _count(self, turns: Sequence[Turn], more: Sequence[str] = ()) -> None:
        labeled = sum(turn.speaker == "other" and turn.label is not None for turn in turns)
        if labeled:
            self._issues.counts["labels_of_others"] += labeled
        self._issues.count_turns([*(turn.speaker for turn in turns), *more])

    def dialogue(
        self, dialogue: Dialogue, places: tuple[Place, ...], by_turn: bool
    ) -> list[tuple[Dialogue, tuple[int, ...]]]:
        """Return what is sound of a dialogue, each piece with the lines of its turns."""
        if not dialogue.turns:
            self._reject(places[0], "turns", "is empty", "write its turns, or remove the row")
            return []
        before = self._issues.n_faults
        dialogue = self._named(dialogue, ("session", "client", "counselor"), places)
        session = dialogue.session
        if self._issues.n_faults > before:
            return []
        first = self._line_of_session.find(session)
        if first is not None:
            reason = f"session {quote_id(session)} is at {self._where(first)} already"
            hint = "give each dialogue an id of its own, its rows in one piece"
            for place in places:
                self._reject(place, "session", reason, hint)
            return []
        self._add(self._line_of_session, session, places[0].line)
        turns: list[Turn | None] = []
        for index, read in enumerate(dialogue.turns):
            place, within = (places[index], "") if by_turn else (places[0], f"turns[{index}].")
            turns.append(self._turn(session, index, read, place, within))
        sound = {index: turn for index, turn in enumerate(turns) if turn is not None}
        if not by_turn and len(sound) < len(turns):
            return []
        self._count([*sound.values()])
        if not by_turn:
            return [(replace(dialogue, turns=(*sound.values(),)), (places[0].line,))]
        pieces = self._cut_at_gaps([*sound], places)
        self._issues.counts["cut_dialogues"] += max(0, len(pieces) - 1)
        return [
            (
                replace(dialogue, turns=tuple(sound[index] for index in piece)),
                tuple(places[index].line for index in piece),
            )
            for piece in pieces
        ]

    def _cut_at_gaps(self, sound: list[int], places: tuple[Place, ...]) -> list[list[int]]:
        """Return runs of turns between which nothing is missing.

        A turn that was left out would otherwise make neighbors of turns that are none: two client
        turns would be merged, and a history would miss what the client answered.
        """
        rejected = self._issues.rejected_lines()
        if not rejected and len(sound) == len(places) and not any(p.gap for p in places):
            return [sound]
        pieces: list[list[int]] = []
        for index in sound:
            last = pieces[-1][-1] if pieces else -1
            start, end = places[last].line if pieces else 0, places[index].line
            told = [place.gap for place in places[last + 1 : index + 1]]
            gap = index > last + 1 or any(told)
            if None in told:
                gap = gap or any(start < line < end for line in rejected)
            if gap or not pieces:
                pieces.append([])
            pieces[-1].append(index)
        return pieces

    def _turn(self, session: str, index: int, turn: Turn, place: Place, within: str) -> Turn | None:
        before = self._issues.n_faults
        self._text("text", turn.text, place, within)
        turn = self._named(turn, ("id",), (place,), within)
        if turn.speaker == "client":
            name = turn_id(session, index, turn)
            self._unique("id", name, place, within, made_up=name == f"{session}:{index}")
            label = self._label(turn.label, place)
            turn = self._with_reason(turn)
            if label != turn.label:
                turn = replace(turn, label=label)
            turn = turn if turn.id == name else replace(turn, id=name)
        elif turn.label is not None and is_missing(turn.label):
            # Acts of counselors are of no task.
            turn = replace(turn, label=None)
        return turn if self._issues.n_faults == before else None

    def _text(self, field: str, text: str, place: Place, within: str = "") -> None:
        if not text.strip() and not self._keep_empty:
            self._reject(place, field, "is empty", "write the utterance, or remove the row", within)
            return
        # What is too long for a model is annotated as skipped.
        found = damage(text) if self._to_annotate else no_utterance(text)
        if found is not None:
            self._reject(place, field, *found, within)

    def _unique(
        self, field: str, identifier: str, place: Place, within: str = "", *, made_up: bool = False
    ) -> None:
        first = self._line_of_id.find(identifier)
        if first is not None:
            reason = f"id {quote_id(identifier)} is at {self._where(first)} already"
            self._reject(place, field, reason, "give each one an id of its own", within)
        elif not (made_up and self._to_annotate):
            self._add(self._line_of_id, identifier, place.line)

    def _none(self, label: str | None) -> bool:
        return label is None or self._issues.missing_label(label)

    def _label(self, label: str | None, place: Place) -> str | None:
        if label is None or self._none(label):
            self._issues.counts["words_for_no_label"] += bool(label and identity(label))
            return None
        return self._labels.find(self._issues, place.line, "label", label, rows=place.rows)

    @staticmethod
    def _with_reason(record: _Labeled) -> _Labeled:
        """Return it without a rationale that only says that there is none."""
        reason = record.rationale
        return replace(record, rationale=None) if reason and is_missing(reason) else record

    def _reject(self, place: Place, field: str, reason: str, hint: str, within: str = "") -> None:
        self._issues.reject(place.line, within + field, reason, hint, rows=place.rows)


_NOTES = {
    "unlabelled": "client turns without a label make no example",
    "empty": "client turns hold no text",
    "no_intervention": "client turns do not follow a counselor turn and are skipped",
    "merged_client_turns": "client turns were merged into the next of the same speaker",
    "merged_counselor_turns": "counselor turns were merged into the next of the same speaker",
    "merged_label_conflicts": "labels differ from that of the client turn they were merged into",
    "merged_act_conflicts": "acts differ from that of the counselor turn they were merged into",
    "duplicates": "examples repeat the history and the response of an earlier one",
    "label_conflicts": "of these carry another label than the first",
    "cut_dialogues": "dialogues were cut in two at a row that was left out",
    "not_drawn": "examples were not drawn (cv.max_examples); labels keep their shares",
    "not_drawn_evenly": "examples were not drawn (cv.max_examples), so that the task's labels are "
    "about even (cv.sample=balanced)",
    "words_for_no_label": "labels only say that there is none (n/a, none, - and the like)",
    "names_in_two_forms": "names are written in two forms that look alike, and count as one each",
    "annotation_ties": "client turns have an even vote of their annotators",
    "multi_label": "rows carry several labels, of which one was taken",
    "answers_without_label": "answers of annotators are no label (skipped, ignored or rejected)",
    "answers_without_choice": "answers of annotators hold ratings, texts or the like and no choice "
    "of labels: what they are about is read as unlabeled",
    "unknown_turn_keys": "keys of turns are not known and were not used",
    "other_sheets": "more sheets of the workbook are not read (data.options.sheet names one)",
    "merged_other_turns": "turns of others were merged into the next of the same speaker",
    "labels_of_others": "labels of other speakers than the client and the counselor were not used",
    "texts_cut_off": "texts break off behind the name of a speaker",
    "lines_before_first_speaker": "lines before the first speaker were not used",
}


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The examples of one data set, in the order of the file.

    ``rows_read`` is ``rows_accepted`` plus the rows that ``issues`` names. ``counts`` tells what
    became of the turns; its keys are explained by :meth:`notes`.
    """

    name: str
    examples: tuple[Example, ...]
    rows_read: int
    rows_accepted: int
    issues: tuple[RowIssue, ...]
    counts: Mapping[str, int]
    synthetic: bool
    turns: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Turns of every file by who speaks: ``counselor``, ``client``, ``other``."""

    def notes(self) -> list[str]:
        """Return what corpus it is, what was left out, merged or found twice, and who speaks."""
        rejected = self.rows_read - self.rows_accepted
        notes = [SYNTHETIC] if self.synthetic else []
        notes += [f"{rejected} of {self.rows_read} rows were left out"] if rejected else []
        return [*notes, *account_notes(self.counts), *turn_notes(self.turns)]


SYNTHETIC = (
    "This corpus is synthetic: it shows that the software works, and says nothing about real "
    "clients."
)
"""What is said of such a corpus wherever it is read."""


def is_synthetic(meta: Mapping[str, Any]) -> bool:
    """Return whether a dialogue says of itself that it was made up, as the demo's do."""
    return str(meta.get("synthetic")).casefold() in ("true", "yes", "1")


def account_notes(counts: Mapping[str, int]) -> list[str]:
    """Return one sentence for everything that was counted as left out, merged or found twice."""
    return [f"{counts[key]} {note}" for key, note in _NOTES.items() if counts.get(key)]


def read_corpus(
    *,
    reader: str,
    path: Path | None,
    taxonomy: Taxonomy | None,
    name: str | None = None,
    on_error: OnError = "fail",
    duplicates: Duplicates = "warn",
    merge_adjacent: bool = True,
    no_intervention: NoIntervention = "skip",
    require_labels: bool = True,
    options: Mapping[str, Any] | None = None,
) -> Corpus:
    """Read a data set, its labels under their canonical names.

    All but the taxonomy (``None`` leaves labels as they stand) is as in
    :class:`recap.config.DataConfig`; without a ``name`` the data set is called after its reader. An
    example needs a label, as in training, unless ``require_labels`` is false.

    Raises:
        DataError: When the file cannot be read, rows are faulty, or no example is left.
        ConfigError: For an unknown reader, option or value.
    """
    one_of("on_error", on_error, ("fail", "skip"), prefix="data.")
    one_of("duplicates", duplicates, ("warn", "error", "drop"), prefix="data.")
    one_of("no_intervention", no_intervention, ("skip", "keep"), prefix="data.")
    issues = IssueLog(str(path) if path is not None else reader)
    records = read_records(
        reader=reader,
        path=path,
        taxonomy=taxonomy,
        issues=issues,
        require_labels=require_labels,
        options=options,
    )
    counts = issues.counts
    examples: list[Example] = []
    synthetic = False
    for record in records:
        synthetic = synthetic or is_synthetic(record.meta)
        examples += examples_of(
            record,
            merge_adjacent=merge_adjacent,
            no_intervention=no_intervention,
            require_labels=require_labels,
            counts=counts,
        )
    if issues.issues and on_error == "fail":
        raise issues.error()
    examples = _check_duplicates(examples, duplicates, issues)
    counts["examples"] = len(examples)
    if not examples:
        raise DataError(_why_empty(issues))
    return Corpus(
        name=name or reader,
        examples=tuple(examples),
        rows_read=issues.rows_read,
        rows_accepted=issues.rows_read - issues.rows_rejected,
        issues=tuple(issues.issues),
        counts=dict(counts),
        synthetic=synthetic,
        turns=issues.turns,
    )


def _check_duplicates(
    examples: list[Example], duplicates: Duplicates, issues: IssueLog
) -> list[Example]:
    originals: dict[str, Example] = {}
    first_ones = [originals.setdefault(content_key(example), example) for example in examples]
    pairs = zip(examples, first_ones, strict=True)
    repeats = [(example, first) for example, first in pairs if first is not example]
    issues.counts["duplicates"] = len(repeats)
    issues.counts["label_conflicts"] = sum(one.label != first.label for one, first in repeats)
    if repeats and duplicates == "error":
        told = [f"id {quote_id(one.id)} repeats id {quote_id(first.id)}" for one, first in repeats]
        raise DataError(
            f"{issues.file}: {len(repeats)} examples have the history and response of another:\n"
            f"{listed(told)}\n"
            "keep the first of each with data.duplicates=drop, or all with data.duplicates=warn"
        )
    return list(originals.values()) if duplicates == "drop" else examples


def _why_empty(issues: IssueLog) -> str:
    counts = issues.counts
    if issues.rows_read == 0:
        return f"{issues.file}: holds no rows; write one dialogue or one example a row"
    first = f"{issues.unrecognized}; as it is, it " if issues.unrecognized else ""
    if issues.rows_rejected == issues.rows_read and not first:
        lost = f"all {issues.rows_read} rows were rejected"
        return f"{issues.file}: {lost}; the first: {issues.issues[0]}"
    hints = {
        "unlabelled": "add labels (in a table: data.options.columns.label=NAME names their column)",
        "no_intervention": "keep utterances without a context with data.no_intervention=keep",
    }
    given = [key for key in hints if counts[key]]
    reasons = "; ".join(f"{counts[key]} {_NOTES[key]}" for key in given) or "no client turn"
    # Of a table without speakers, no turn can follow a counselor's.
    mends = [hints[key] for key in given if not (first and key == "no_intervention")]
    hint = "; ".join(mends) or ("" if first else "check who speaks")
    return f"{issues.file}: {first}leaves no example: {reasons}" + (f"; {hint}" if hint else "")
