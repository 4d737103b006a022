"""Labels that annotators gave: read from tables and Doccano exports, and put into one table.

A CSV, Excel or JSON-lines file holds a row an annotation, or a column an annotator. A zip or a
folder holds one file an annotator, named like the annotator (``ann.jsonl``, or ``ann.1.jsonl`` and
``ann.2.jsonl``), as Doccano exports them.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from recap.data.issues import IssueLog, RowIssue, damage, name_damage
from recap.data.names import identity, is_missing
from recap.data.readers.doccano import document_comments, document_label
from recap.data.readers.files import UNREADABLE, existing_file, json_rows, open_archive, unreadable
from recap.data.readers.json_samples import single_label
from recap.data.readers.registry import (
    CanonicalLabels,
    Fields,
    fold_name,
    require_column,
)
from recap.data.readers.tables import TABLE_ENDINGS, read_sheet
from recap.errors import ConfigError, DataError, did_you_mean, quote_id
from recap.system.files import bare_cell
from recap.taxonomy import Taxonomy

USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    role: tuple(names.split())
    for role, names in {
        "id": "example_id id item item_id 编号",
        "turn": "turn turn_index utterance_id 话轮",
        "annotator": "annotator annotator_id rater coder candidate 标注者 标注员 考生",
        "label": "label labels cats annotations category behavior behaviour code client_talk_type "
        "标签 类别 行为",
        "session": "session session_id dialogue_id dialog_id transcript_id conversation_id "
        "会话 会话编号 对话编号",
        "round": "round exam 轮次 考试",
        "rationale": "rationale reason explanation comments 理由 解释",
    }.items()
}
"""What a column can hold, with the names that are recognized in any case, the likeliest first."""


@dataclass(frozen=True, kw_only=True)
class AnnotationLayout:
    """How a file of annotations is laid out, where the usual names do not say it."""

    columns: Mapping[str, str | Sequence[str] | None] = field(default_factory=dict)
    """Names of columns by role (the keys of :data:`USUAL_NAMES`); several for the id are joined."""
    annotators: Sequence[str] = ()
    """The columns of a table that has one an annotator."""
    multi_label: str = "reject"
    """What to do with several labels of one annotator: ``reject`` them, or take the ``first``."""
    label_names: Mapping[Any, str] = field(default_factory=dict)
    """The label that each number stands for, in old Doccano exports."""


def check_layout(layout: AnnotationLayout) -> None:
    """Check the roles for which columns were named.

    Raises:
        ConfigError: For one that no column can have.
    """
    for role in layout.columns:
        if role not in USUAL_NAMES:
            raise ConfigError(
                f"annotations.columns.{role}: a column cannot hold that"
                f"{did_you_mean(role, USUAL_NAMES)}; what it can hold: {', '.join(USUAL_NAMES)}"
            )


def annotation_columns(
    path: Path, names: tuple[str, ...], layout: AnnotationLayout
) -> dict[str, tuple[str, ...]]:
    """Return the columns for each role that a file with the header ``names`` has.

    Raises:
        DataError: When a column that was named is not there, or none holds labels.
    """
    found: dict[str, tuple[str, ...]] = {}
    for role, usual in USUAL_NAMES.items():
        chosen = layout.columns.get(role)
        if chosen is not None:
            wanted = (chosen,) if isinstance(chosen, str) else tuple(chosen)
            hint = f"correct annotations.columns.{role}"
            found[role] = tuple(require_column(path, names, name, hint) for name in wanted)
            continue
        folded = {fold_name(name): name for name in reversed(names)}
        known = next((folded[name] for name in usual if name in folded), None)
        if known is not None and known not in layout.annotators:
            found[role] = (known,)
    for name in layout.annotators:
        require_column(path, names, name, "correct annotations.annotators")
    if "label" not in found and not layout.annotators:
        raise DataError(
            f"{path}: no column is called label; name it with annotations.columns.label=NAME"
        )
    return found


JSON_ENDINGS = (".json", ".jsonl")
"""Endings of files whose rows are JSON objects."""

_KIND, _MEND = "zip file", "export it again"
_NOTHING_INSIDE = "holds no .jsonl, .json, .csv or .xlsx file; put in one export an annotator"


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatorFile:
    """One file of annotations."""

    path: Path
    """Where it can be read."""
    shown: str
    """What messages call it; its stem is the annotator's name where the file is one's own."""
    of_one: bool
    """Whether it is one annotator's own."""


@contextmanager
def annotator_files(path: Path) -> Iterator[list[AnnotatorFile]]:
    """Yield the files behind a path; what a zip held is gone once the block is left.

    Raises:
        DataError: When there is no such file, or nothing usable in it.
    """
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if _is_annotation_file(p.name) and p.is_file())
        if not inside:
            raise DataError(f"{path}: {_NOTHING_INSIDE}")
        yield [AnnotatorFile(path=file, shown=str(file), of_one=True) for file in inside]
    elif path.suffix.lower() == ".zip":
        with tempfile.TemporaryDirectory() as folder, ExitStack() as held:
            yield _unpacked(existing_file(path), Path(folder), held)
    else:
        yield [AnnotatorFile(path=existing_file(path), shown=str(path), of_one=False)]


def _opened(file: Path, held: ExitStack) -> BinaryIO:
    """Return a file to be written; where the system can, memory holds what it holds (Linux).

    A kill then leaves no words of clients in a temporary folder.
    """
    if not hasattr(os, "memfd_create"):
        return file.open("wb")
    memory = os.memfd_create(file.name)
    held.callback(os.close, memory)
    file.symlink_to(f"/proc/{os.getpid()}/fd/{memory}")
    return os.fdopen(memory, "wb", closefd=False)


def _unpacked(path: Path, folder: Path, held: ExitStack) -> list[AnnotatorFile]:
    """Return the files of a zip; the folder gets their names, memory alone what they hold."""
    files = []
    with open_archive(path, kind=_KIND, hint=_MEND) as archive:
        named = [(_name_in_zip(part), part) for part in archive.infolist()]
        kept = [(name, part) for name, part in named if _is_annotation_file(name)]
        for number, (name, part) in enumerate(sorted(kept, key=lambda one: one[0])):
            if name_damage(name):
                raise DataError(
                    f"{path}: a file in it has a name with unprintable characters; rename it"
                )
            # Never under its own name, which may lead out of the folder.
            file = folder / f"{number}{Path(name).suffix.lower()}"
            try:
                with archive.open(part) as packed, _opened(file, held) as copy:
                    shutil.copyfileobj(packed, copy)
            except UNREADABLE as error:
                raise unreadable(path, _KIND, error, _MEND) from None
            files.append(AnnotatorFile(path=file, shown=f"{path}/{name}", of_one=True))
    if not files:
        raise DataError(f"{path}: {_NOTHING_INSIDE}")
    return files


_UTF8_FLAG = 0x800
_PAIR = re.compile(rb"[\x81-\xfe][\x80-\xfe]")


def _name_in_zip(part: zipfile.ZipInfo) -> str:
    """Return the name of a file in a zip, also where the archive does not say how it is encoded.

    Python takes such names for cp437. Chinese systems write them in GBK, whose characters are
    mostly two high bytes, others in UTF-8.
    """
    if part.flag_bits & _UTF8_FLAG or part.filename.isascii():
        return part.filename
    try:
        written = part.filename.encode("cp437")
    except UnicodeEncodeError:
        return part.filename
    for encoding in ("utf-8", "gb18030") if _PAIR.search(written) else ("utf-8",):
        try:
            return written.decode(encoding)
        except UnicodeDecodeError:
            continue
    return part.filename


def _is_annotation_file(name: str) -> bool:
    path = Path(name)
    hidden = path.name.startswith((".", "~")) or "__MACOSX" in path.parts
    return not hidden and path.suffix.lower() in (*JSON_ENDINGS, *TABLE_ENDINGS, ".txt")


MISSING = -1
"""Code of a cell without a label."""

FIRST_ROUND = "1"
"""Round of an annotation whose file names none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatorLabel:
    """The label that one annotator gave one example in one round of annotation."""

    id: str
    annotator: str
    label: str
    session: str | None = None
    round: str = FIRST_ROUND
    rationale: str | None = None


@dataclass(frozen=True, kw_only=True)
class AnnotationTable:
    """Labels as a table of examples by annotators.

    ``codes`` has the shape (examples, annotators): the index of the label, or :data:`MISSING`.
    ``sessions`` names the session of every example, ``None`` where none of its annotations does.
    """

    ids: tuple[str, ...]
    annotators: tuple[str, ...]
    labels: tuple[str, ...]
    sessions: tuple[str | None, ...]
    codes: NDArray[np.int64]

    def counts(self) -> NDArray[np.int64]:
        """Return how many annotators gave each label, of shape (examples, labels)."""
        counts = np.zeros((len(self.ids), len(self.labels)), dtype=np.int64)
        for column in self.codes.T:
            rows = np.flatnonzero(column != MISSING)
            np.add.at(counts, (rows, column[rows]), 1)
        return counts


def tabulate(
    annotations: Iterable[AnnotatorLabel], *, labels: Sequence[str] = ()
) -> AnnotationTable:
    """Return annotations as a table; examples and annotators stand in order of appearance.

    Where an annotator labeled an example in several rounds, the last round counts.

    Args:
        annotations: In any order.
        labels: The order of labels; those that nobody gave are left out, others come after, sorted.
    """
    every = tuple(annotations)
    kept = _last_rounds(every)
    ids = tuple(dict.fromkeys(j.id for j in kept))
    annotators = tuple(dict.fromkeys(j.annotator for j in kept))
    given = {j.label for j in kept}
    ordered = (*(label for label in dict.fromkeys(labels) if label in given),)
    ordered += tuple(sorted(given - set(ordered)))
    row, column = _places(ids), _places(annotators)
    code = _places(ordered)
    codes = np.full((len(ids), len(annotators)), MISSING, dtype=np.int64)
    sessions: list[str | None] = [None] * len(ids)
    for one in kept:
        codes[row[one.id], column[one.annotator]] = code[one.label]
    for one in every:
        if sessions[row[one.id]] is None:
            sessions[row[one.id]] = one.session
    return AnnotationTable(
        ids=ids, annotators=annotators, labels=ordered, sessions=tuple(sessions), codes=codes
    )


def rounds_of(annotations: Iterable[AnnotatorLabel]) -> tuple[str, ...]:
    """Return the rounds in order, ``round2`` before ``round10``."""
    return tuple(sorted({one.round for one in annotations}, key=_natural))


def _last_rounds(annotations: Iterable[AnnotatorLabel]) -> list[AnnotatorLabel]:
    kept: dict[tuple[str, str], AnnotatorLabel] = {}
    for one in annotations:
        key = (one.id, one.annotator)
        there = kept.get(key)
        if there is None or _natural(one.round) >= _natural(there.round):
            kept[key] = one
    return list(kept.values())


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = [part for part in re.split(r"(\d+)", name) if part]
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _places(names: Sequence[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(names)}


@dataclass(frozen=True, kw_only=True)
class AnnotatorLabels:
    """What was read: the annotations in order, and an account of the rows."""

    annotations: tuple[AnnotatorLabel, ...]
    rows_read: int
    rows_rejected: int
    issues: tuple[RowIssue, ...] = ()
    """What was wrong with the rows that were rejected."""
    unlabelled: int
    """Rows, or cells of a table with a column an annotator, that hold no label."""
    twins: tuple[str, ...] = ()
    """Names of annotators and sessions that are written in two forms, and count as one each."""


def read_annotations(
    paths: Sequence[Path],
    *,
    layout: AnnotationLayout,
    taxonomy: Taxonomy | None,
    skip_faults: bool = False,
) -> AnnotatorLabels:
    """Return the annotations of one or more files.

    Of several paths each is a round of annotation, unless a column names the round.

    Args:
        paths: The files.
        layout: What cannot be recognized.
        taxonomy: Where labels are looked up; ``None`` leaves them as they stand.
        skip_faults: Whether rows at fault are left out rather than listed in an error.

    Raises:
        DataError: When a file cannot be read, its rows are at fault, or no label is left.
        ConfigError: For a role that no column can have.
    """
    check_layout(layout)
    logs: list[IssueLog] = []
    reader = _Reader(layout, taxonomy)
    for number, path in enumerate(paths, start=1):
        with annotator_files(path) as files:
            for file in files:
                logs.append(IssueLog(file.shown))
                try:
                    reader.read(file, logs[-1], default_round=str(number))
                except DataError as error:
                    # A file of a zip has no path of its own.
                    raise DataError(str(error).replace(str(file.path), file.shown)) from None
    faulty = [str(log.error()) for log in logs if log.issues]
    if faulty and not skip_faults:
        raise DataError("\n".join(faulty))
    issues = tuple(fault for log in logs for fault in log.issues)
    if not reader.found:
        named = ", ".join(str(path) for path in paths)
        first = f"; the first fault: {issues[0]}" if issues else ""
        raise DataError(
            f"{named}: holds no label; name the column of labels with annotations.columns.label"
            f"{first}"
        )
    return AnnotatorLabels(
        annotations=tuple(reader.found),
        rows_read=sum(log.rows_read for log in logs),
        rows_rejected=sum(log.rows_rejected for log in logs),
        unlabelled=reader.unlabelled,
        twins=tuple(reader.names.twins),
        issues=issues,
    )


class _Reader:
    def __init__(self, layout: AnnotationLayout, taxonomy: Taxonomy | None) -> None:
        self._layout = layout
        self._taxonomy = taxonomy
        self._labels = CanonicalLabels(taxonomy)
        self._seen: set[tuple[str, str, str]] = set()
        self.found: list[AnnotatorLabel] = []
        self.unlabelled = 0
        self.names = IssueLog("annotations")
        """Of all files together, for an annotator has several."""

    def read(self, file: AnnotatorFile, issues: IssueLog, *, default_round: str) -> None:
        is_json = file.path.suffix.lower() in JSON_ENDINGS
        if is_json:
            rows = list(self._json_rows(file.path, issues))
            names = tuple(dict.fromkeys(key for _, row in rows for key in row))
            if issues.issues and not rows:
                return
        else:
            sheet = read_sheet(file.path, issues)
            rows, names = list(sheet.rows), sheet.columns
        found = annotation_columns(Path(file.shown), names, self._layout)
        named = bool(self._layout.annotators) or "annotator" in found
        if not (named or is_json or file.of_one):
            raise DataError(
                f"{file.shown}: no column is called annotator; name it with "
                "annotations.columns.annotator=NAME, or, where each annotator has a column, "
                "annotations.annotators=[A,B]"
            )
        # ``ann`` for ann.jsonl and ann.2.jsonl
        stem = re.sub(r"\.\d+$", "", Path(file.shown).stem)
        owner = None if named else self.names.name("annotator", stem) or stem
        for line, row in rows:
            written = {
                role: [bare_cell(row.get(name, "").strip()) for name in columns]
                for role, columns in found.items()
            }
            if self._damaged(line, written, issues):
                continue
            cells = {role: self._cell(role, parts) for role, parts in written.items()}
            given = self._given(row, cells, owner)
            session, turn = cells.get("session"), cells.get("turn")
            identifier = cells.get("id") or (f"{session}:{turn}" if session and turn else "")
            if not identifier:
                issues.reject(line, "id", "is missing", "give every example an id")
                continue
            labeled = [(a, label) for a, label in given if not is_missing(label, self._taxonomy)]
            annotations = [
                self._annotation(
                    AnnotatorLabel(
                        id=identifier,
                        annotator=annotator,
                        label=label,
                        session=session or None,
                        round=cells.get("round") or default_round,
                        rationale=cells.get("rationale") or None,
                    ),
                    line,
                    issues,
                    may_be_several=file.of_one,
                )
                for annotator, label in labeled
            ]
            sound = [annotation for annotation in annotations if annotation is not None]
            # A row with a fault is left out whole.
            if len(sound) == len(annotations):
                self.unlabelled += len(given) - len(labeled)
                self.found += sound
                self._seen.update((one.id, one.annotator, one.round) for one in sound)

    def _json_rows(self, path: Path, issues: IssueLog) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield rows of texts; labels in whatever form Doccano writes them become one text."""
        numbers = {str(number): name for number, name in self._layout.label_names.items()}
        for line, row in json_rows(path, issues):
            fields = Fields(row, line=line, issues=issues)
            texts = {
                str(key): str(value)
                for key, value in row.items()
                if isinstance(value, str | int) and not isinstance(value, bool)
            }
            chosen = self._layout.columns.get("label")
            label_key = (chosen if isinstance(chosen, str) else None) or next(
                (key for key in USUAL_NAMES["label"] if key in row), None
            )
            if label_key is not None and not isinstance(row.get(label_key), str):
                labeled = Fields({"label": row.get(label_key)}, line=line, issues=issues)
                texts[label_key] = document_label(labeled, numbers, self._layout.multi_label) or ""
                fields.sound = labeled.sound
            comments = document_comments(row)
            if comments:
                texts.setdefault("comments", comments)
            if fields.sound:
                yield line, texts

    def _given(
        self, row: Mapping[str, str], cells: Mapping[str, str], owner: str | None
    ) -> list[tuple[str, str]]:
        """Return annotators and what stands where their labels do."""
        if self._layout.annotators:
            named = [identity(name) for name in self._layout.annotators]
            return [(name, row.get(name, "").strip()) for name in named]
        # Initials of a file's owner may be NA; in a cell that says that there is none.
        name = cells.get("annotator", "") if owner is None else owner
        return [(name, cells.get("label", ""))]

    def _cell(self, role: str, parts: Sequence[str]) -> str:
        """Return what stands in the columns of one role, names as they are compared."""
        if role == "label":
            return ":".join(parts)
        if any(map(is_missing, parts)):
            return ""
        if role == "rationale":
            return ":".join(parts)
        if role in ("annotator", "session"):
            return ":".join(self.names.name(role, part) for part in parts)
        return ":".join(map(identity, parts))

    @staticmethod
    def _damaged(line: int, cells: Mapping[str, Sequence[str]], issues: IssueLog) -> bool:
        broken = {
            role: found
            for role, parts in cells.items()
            for part in parts
            if (found := (damage if role in ("label", "rationale") else name_damage)(part))
        }
        for role, found in broken.items():
            issues.reject(line, role, *found)
        return bool(broken)

    def _annotation(
        self, given: AnnotatorLabel, line: int, issues: IssueLog, *, may_be_several: bool
    ) -> AnnotatorLabel | None:
        """Return an annotation under its canonical label, ``None`` where it is at fault."""
        if not given.annotator:
            issues.reject(line, "annotator", "is empty", "write who gave this label")
            return None
        label: str | None = given.label
        if may_be_several and "#" in given.label:
            # Doccano's CSV joins several labels.
            fields = Fields({}, line=line, issues=issues)
            label = single_label(fields, "label", given.label.split("#"), self._layout.multi_label)
        if label is None:
            return None
        canonical, reason = self._labels.find(label)
        if canonical is None:
            issues.reject(line, "label", reason, "correct it, or keep labels with labels=raw")
            return None
        if (given.id, given.annotator, given.round) in self._seen:
            reason = (
                f"annotator {quote_id(given.annotator)} has labeled id {quote_id(given.id)} before"
            )
            hint = "keep one row, or number the rounds in a column round"
            issues.reject(line, "id", reason, hint)
            return None
        return replace(given, label=canonical)
