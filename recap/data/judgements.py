"""What annotators said, from a table (a row a judgement, or a column an annotator) or Doccano."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recap.analysis.judgements import FIRST_ROUND, Judgement
from recap.data.characters import damage
from recap.data.faults import FaultLog, RowFault
from recap.data.judgement_columns import (
    USUAL_NAMES,
    JudgementLayout,
    check_layout,
    judgement_columns,
)
from recap.data.judgement_files import JSON_ENDINGS, judgement_files
from recap.data.readers.doccano import document_comments, document_label
from recap.data.readers.fields import Fields
from recap.data.readers.files import json_rows
from recap.data.readers.samples import single_label
from recap.data.readers.sheets import read_sheet
from recap.data.safe_cells import bare_cell
from recap.errors import DataError, quote_id
from recap.taxonomy import Taxonomy

_NO_LABEL = ("", "n/a", "nan", "null")


@dataclass(frozen=True, kw_only=True)
class Judgements:
    """What was read: the judgements in order, and an account of the rows."""

    judgements: tuple[Judgement, ...]
    rows_read: int
    rows_rejected: int
    faults: tuple[RowFault, ...] = ()
    """What was wrong with the rows that were rejected."""
    unlabelled: int
    """Rows, or cells of a table with a column an annotator, that hold no label."""


def read_judgements(
    paths: Sequence[Path],
    *,
    layout: JudgementLayout,
    taxonomy: Taxonomy | None,
    skip_faults: bool = False,
) -> Judgements:
    """Return the judgements of one or more files.

    A CSV, Excel or JSON-lines file holds a row a judgement, or a column an annotator. A zip or a
    folder holds one file an annotator, named like the annotator (``ann.jsonl``, or ``ann.1.jsonl``
    and ``ann.2.jsonl``), as Doccano exports them. Of several paths each is a round of annotation,
    unless a column names the round.

    Args:
        paths: The files.
        layout: What cannot be recognised.
        taxonomy: Where labels are looked up; ``None`` leaves them as they stand.
        skip_faults: Whether rows at fault are left out rather than listed in an error.

    Raises:
        DataError: When a file cannot be read, its rows are at fault, or no label is left.
        ConfigError: For a role that no column can have.
    """
    check_layout(layout)
    logs: list[FaultLog] = []
    reader = _Reader(layout, taxonomy)
    for number, path in enumerate(paths, start=1):
        with judgement_files(path) as files:
            for file in files:
                logs.append(FaultLog(file.shown))
                try:
                    reader.read(file.path, logs[-1], _Defaults(str(number), file.of_one))
                except DataError as error:
                    # A file of a zip has no path of its own.
                    raise DataError(str(error).replace(str(file.path), file.shown)) from None
    faulty = [str(log.error()) for log in logs if log.faults]
    if faulty and not skip_faults:
        raise DataError("\n".join(faulty))
    faults = tuple(fault for log in logs for fault in log.faults)
    if not reader.found:
        named = ", ".join(str(path) for path in paths)
        first = f"; the first fault: {faults[0]}" if faults else ""
        raise DataError(
            f"{named}: holds no label; name the column of labels with annotations.columns.label"
            f"{first}"
        )
    return Judgements(
        judgements=tuple(reader.found),
        rows_read=sum(log.rows_read for log in logs),
        rows_rejected=sum(log.rows_rejected for log in logs),
        unlabelled=reader.counts["unlabelled"],
        faults=faults,
    )


@dataclass(frozen=True)
class _Defaults:
    round: str
    holds_one: bool
    """Whether the file holds the judgements of one annotator, after whom it is named."""


class _Reader:
    def __init__(self, layout: JudgementLayout, taxonomy: Taxonomy | None) -> None:
        self._layout = layout
        self._taxonomy = taxonomy
        self._resolved: dict[str, str] = {}
        self._seen: set[tuple[str, str, str]] = set()
        self.found: list[Judgement] = []
        self.counts: Counter[str] = Counter()

    def read(self, path: Path, faults: FaultLog, defaults: _Defaults) -> None:
        is_json = path.suffix.lower() in JSON_ENDINGS
        if is_json:
            rows = list(self._json_rows(path, faults))
            names = tuple(dict.fromkeys(key for _, row in rows for key in row))
        else:
            sheet = read_sheet(path, faults)
            rows, names = list(sheet.rows), sheet.columns
        shown = Path(faults.file)
        found = judgement_columns(shown, names, self._layout)
        if not self._layout.annotators and "annotator" not in found:
            if not (is_json or defaults.holds_one):
                raise DataError(
                    f"{shown}: no column is called annotator; name it with "
                    "annotations.columns.annotator=NAME, or, where each annotator has a column, "
                    "annotations.annotators=[A,B]"
                )
            self._each(rows, found, faults, defaults, annotator=_owner(shown))
        else:
            self._each(rows, found, faults, defaults, annotator=None)

    def _json_rows(self, path: Path, faults: FaultLog) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield rows of texts; labels in whatever form Doccano writes them become one text."""
        numbers = {str(number): name for number, name in self._layout.label_names.items()}
        for line, row in json_rows(path, faults):
            fields = Fields(row, line=line, faults=faults)
            texts = {
                str(key): str(value)
                for key, value in row.items()
                if isinstance(value, str | int) and not isinstance(value, bool)
            }
            label_key = self._one(self._layout.columns.get("label")) or next(
                (key for key in USUAL_NAMES["label"] if key in row), None
            )
            if label_key is not None and not isinstance(row.get(label_key), str):
                labelled = Fields({"label": row.get(label_key)}, line=line, faults=faults)
                texts[label_key] = document_label(labelled, numbers, self._layout.multi_label) or ""
                fields.sound = labelled.sound
            comments = document_comments(row)
            if comments:
                texts.setdefault("comments", comments)
            if fields.sound:
                yield line, texts

    def _each(
        self,
        rows: Sequence[tuple[int, Mapping[str, str]]],
        found: Mapping[str, tuple[str, ...]],
        faults: FaultLog,
        defaults: _Defaults,
        *,
        annotator: str | None,
    ) -> None:
        for line, row in rows:
            cells = {
                role: ":".join(bare_cell(row.get(name, "").strip()) for name in names)
                for role, names in found.items()
            }
            identifier = cells.get("id") or self._from_turn(cells)
            if self._damaged(line, cells, faults):
                continue
            if not identifier:
                faults.reject(line, "id", "is missing", "give every example an id")
                continue
            if self._layout.annotators:
                said = [(name, row.get(name, "").strip()) for name in self._layout.annotators]
            else:
                name = cells.get("annotator", "") if annotator is None else annotator
                said = [(name, cells.get("label", ""))]
            given = [(name, label) for name, label in said if label.casefold() not in _NO_LABEL]
            judged = [
                self._judgement(
                    line,
                    _Said(
                        id=identifier,
                        annotator=name,
                        session=cells.get("session") or None,
                        round=cells.get("round") or defaults.round,
                        rationale=cells.get("rationale") or None,
                    ),
                    label,
                    faults,
                    defaults.holds_one,
                )
                for name, label in given
            ]
            sound = [judgement for judgement in judged if judgement is not None]
            # A row with a fault is left out whole.
            if len(sound) == len(judged):
                self.counts["unlabelled"] += len(said) - len(given)
                self.found += sound
                self._seen.update((one.id, one.annotator, one.round) for one in sound)

    @staticmethod
    def _damaged(line: int, cells: Mapping[str, str], faults: FaultLog) -> bool:
        broken = {role: found for role, cell in cells.items() if (found := damage(cell))}
        for role, found in broken.items():
            faults.reject(line, role, *found)
        return bool(broken)

    def _judgement(
        self, line: int, said: _Said, label: str, faults: FaultLog, may_be_several: bool
    ) -> Judgement | None:
        if not said.annotator:
            faults.reject(line, "annotator", "is empty", "write who gave this label")
            return None
        if may_be_several and "#" in label:
            # Doccano's CSV joins several labels.
            fields = Fields({}, line=line, faults=faults)
            one = single_label(fields, "label", label.split("#"), self._layout.multi_label)
            if one is None:
                return None
            label = one
        canonical = self._canonical(line, label, faults)
        if canonical is None:
            return None
        if (said.id, said.annotator, said.round) in self._seen:
            reason = (
                f"annotator {quote_id(said.annotator)} has judged id {quote_id(said.id)} before"
            )
            mend = "keep one row, or number the rounds in a column round"
            faults.reject(line, "id", reason, mend)
            return None
        return Judgement(
            id=said.id,
            annotator=said.annotator,
            label=canonical,
            session=said.session,
            round=said.round,
            rationale=said.rationale,
        )

    def _canonical(self, line: int, label: str, faults: FaultLog) -> str | None:
        if self._taxonomy is None:
            return label
        if label not in self._resolved:
            try:
                self._resolved[label] = self._taxonomy.resolve(label)
            except DataError as error:
                reason = str(error).removeprefix("label ")
                faults.reject(line, "label", reason, "correct it, or keep labels with labels=raw")
                return None
        return self._resolved[label]

    def _from_turn(self, cells: Mapping[str, str]) -> str:
        session, turn = cells.get("session"), cells.get("turn")
        return f"{session}:{turn}" if session and turn else ""

    @staticmethod
    def _one(chosen: str | Sequence[str] | None) -> str | None:
        return chosen if isinstance(chosen, str) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Said:
    id: str
    annotator: str
    session: str | None
    round: str = FIRST_ROUND
    rationale: str | None = None


def _owner(path: Path) -> str:
    """Return the annotator after whom a file is named: ``ann`` for ann.jsonl and ann.2.jsonl."""
    return re.sub(r"\.\d+$", "", path.stem)
