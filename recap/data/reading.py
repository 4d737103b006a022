"""The records of a file that nothing is wrong with, under canonical labels, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from recap.data.characters import damage, no_utterance
from recap.data.examples import turn_id
from recap.data.faults import FaultLog, Place
from recap.data.readers.registry import Record, check_options, get_reader
from recap.data.seen import FirstLines
from recap.errors import DataError, quote_id
from recap.records import Dialogue, Example, Turn
from recap.taxonomy import Taxonomy


def read_records(
    *,
    reader: str,
    path: Path | None,
    taxonomy: Taxonomy | None,
    faults: FaultLog,
    require_labels: bool,
    keep_empty: bool = False,
    options: Mapping[str, Any] | None = None,
    to_annotate: bool = False,
) -> Iterator[Record]:
    """Yield the dialogues and examples of a file that are free of faults, one at a time.

    Texts are not empty, ids are unique, labels are canonical. A row with a fault is noted in
    ``faults`` and left out whole: the dialogue where it is one row, the utterance where each has a
    row of its own. With ``keep_empty`` a text may be empty, as it may be where turns are counted.

    With ``to_annotate`` a text may be empty too, and ids made of session and turn are not kept in
    memory, since sessions are unique: only an id that imitates one would be missed.
    """
    read = get_reader(reader)
    options = dict(options or {})
    check_options(reader, read, options)
    check = _Check(taxonomy, faults, require_labels, keep_empty, to_annotate)
    for record in read(path, faults=faults, **options):
        places, by_turn = faults.take_places()
        if isinstance(record, Example):
            example = check.example(record, places[0])
            faults.lines = (places[0].line,)
            yield from () if example is None else (example,)
        else:
            for piece, lines in check.dialogue(record, places, by_turn):
                faults.lines = lines
                yield piece


class _Check:
    """What no reader can judge alone: empty texts, ids used twice, labels outside the taxonomy."""

    def __init__(
        self,
        taxonomy: Taxonomy | None,
        faults: FaultLog,
        require_labels: bool,
        keep_empty: bool,
        to_annotate: bool,
    ) -> None:
        self._taxonomy = taxonomy
        self._faults = faults
        self._require_labels = require_labels
        self._keep_empty = keep_empty or to_annotate
        self._to_annotate = to_annotate
        self._line_of_id = FirstLines()
        self._line_of_session = FirstLines()
        self._resolved: dict[str, str] = {}

    def example(self, example: Example, place: Place) -> Example | None:
        before = len(self._faults.faults)
        self._text("response", example.response, place)
        for index, turn in enumerate(example.history):
            self._text(f"history[{index}].text", turn.text, place)
        label = self._label("label", example.label, place)
        if self._require_labels and example.label is None:
            self._reject(place, "label", "is missing", "give every row a label")
        self._unique("id", example.id, place)
        if len(self._faults.faults) > before:
            return None
        return example if label == example.label else replace(example, label=label)

    def dialogue(
        self, dialogue: Dialogue, places: tuple[Place, ...], by_turn: bool
    ) -> list[tuple[Dialogue, tuple[int, ...]]]:
        """Return what is sound of a dialogue, each piece with the lines of its turns."""
        session = dialogue.session
        if not dialogue.turns:
            self._reject(places[0], "turns", "is empty", "write its turns, or remove the row")
            return []
        first = self._line_of_session.find(session)
        if first is not None:
            reason = f"session {quote_id(session)} is at line {first} already"
            mend = "give each dialogue an id of its own, its rows in one piece"
            for place in places:
                self._reject(place, "session", reason, mend)
            return []
        self._line_of_session.add(session, places[0].line)
        turns: list[Turn | None] = []
        for index, read in enumerate(dialogue.turns):
            place, within = (places[index], "") if by_turn else (places[0], f"turns[{index}].")
            turns.append(self._turn(session, index, read, place, within))
        sound = [index for index, turn in enumerate(turns) if turn is not None]
        if not by_turn:
            whole = tuple(turn for turn in turns if turn is not None)
            lines = (places[0].line,)
            return [(replace(dialogue, turns=whole), lines)] if len(sound) == len(turns) else []
        pieces = self._cut_at_gaps(sound, [place.line for place in places])
        self._faults.counts["cut_dialogues"] += max(0, len(pieces) - 1)
        return [
            (
                replace(
                    dialogue, turns=tuple(turn for i in piece if (turn := turns[i]) is not None)
                ),
                tuple(places[i].line for i in piece),
            )
            for piece in pieces
        ]

    def _cut_at_gaps(self, sound: list[int], lines: list[int]) -> list[list[int]]:
        """Return runs of turns with no rejected row between them.

        A turn that was left out would otherwise make neighbours of turns that are none: two client
        turns would be merged, and a history would miss what the client answered.
        """
        rejected = [fault.line for fault in self._faults.faults]
        pieces: list[list[int]] = []
        for index in sound:
            start = lines[pieces[-1][-1]] if pieces else 0
            gap = any(start < line < lines[index] for line in rejected)
            if gap or not pieces:
                pieces.append([])
            pieces[-1].append(index)
        return pieces

    def _turn(self, session: str, index: int, turn: Turn, place: Place, within: str) -> Turn | None:
        before = len(self._faults.faults)
        self._text("text", turn.text, place, within)
        if turn.speaker == "client":
            name = turn_id(session, index, turn)
            self._unique("id", name, place, within, made_up=name == f"{session}:{index}")
            label = self._label("label", turn.label, place, within)
            if label != turn.label:
                turn = replace(turn, label=label)
            turn = turn if turn.id == name else replace(turn, id=name)
        return turn if len(self._faults.faults) == before else None

    def _text(self, field: str, text: str, place: Place, within: str = "") -> None:
        if not text.strip() and not self._keep_empty:
            self._reject(place, field, "is empty", "write the utterance, or remove the row", within)
            return
        # What is too long for a model is annotated as skipped.
        found = damage(text) if self._to_annotate else no_utterance(text)
        if found is not None:
            self._reject(place, field, *found, within)

    def _unique(
        self,
        field: str,
        identifier: str,
        place: Place,
        within: str = "",
        *,
        made_up: bool = False,
    ) -> None:
        first = self._line_of_id.find(identifier)
        if first is not None:
            reason = f"id {quote_id(identifier)} is at line {first} already"
            self._reject(place, field, reason, "give each one an id of its own", within)
        elif not (made_up and self._to_annotate):
            self._line_of_id.add(identifier, place.line)

    def _label(self, field: str, label: str | None, place: Place, within: str = "") -> str | None:
        if label is None or self._taxonomy is None:
            return label
        if label not in self._resolved:
            try:
                self._resolved[label] = self._taxonomy.resolve(label)
            except DataError as error:
                self._reject(
                    place,
                    field,
                    str(error).removeprefix("label "),
                    "correct it, or add it to the taxonomy",
                    within,
                )
                return None
        return self._resolved[label]

    def _reject(self, place: Place, field: str, reason: str, mend: str, within: str = "") -> None:
        self._faults.reject(place.line, within + field, reason, mend, rows=place.rows)
