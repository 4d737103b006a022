"""Labels that annotators gave, read from tables and from what annotation tools export.

A CSV, Excel or JSON-lines file holds a row an annotation, or a column an annotator. A zip or a
folder holds one file an annotator, named like the annotator (``ann.jsonl``, or ``ann.1.jsonl`` and
``ann.2.jsonl``), as Doccano exports them. Exports of other tools are told by what stands in them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recap.data.annotations import AnnotatorLabel
from recap.data.issues import IssueLog, RowIssue, damage, name_damage
from recap.data.names import identity, is_missing, whole_number
from recap.data.readers.annotation_tools import is_inception, tool_documents
from recap.data.readers.archives import AnnotatorFile, annotator_files
from recap.data.readers.doccano import document_comments, several_users, user_labels
from recap.data.readers.exports import (
    KEYS,
    Document,
    Given,
    Keys,
    Rows,
    documents,
    label_of,
    rationale_of,
    tool_of,
)
from recap.data.readers.files import json_rows
from recap.data.readers.registry import (
    JSON_ENDINGS,
    SESSION_NAMES,
    CanonicalLabels,
    Fields,
    check_roles,
    fold_name,
    names_by_role,
    one_of,
    require_column,
)
from recap.data.readers.registry import USUAL_NAMES as TABLE_NAMES
from recap.data.readers.speakers import SpeakerNames
from recap.data.readers.tables import read_sheet
from recap.data.sheets import raise_issues
from recap.errors import ConfigError, DataError, did_you_mean, quote_cell, quote_id
from recap.system.files import bare_cell
from recap.taxonomy import Taxonomy

USUAL_NAMES = names_by_role(
    id="example_id id item item_id 编号",
    turn="turn turn_index utterance_id 话轮",
    annotator="annotator annotator_id rater coder candidate 标注者 标注员 考生",
    label="label labels cats annotations category behavior behaviour code client_talk_type "
    "标签 类别 行为",
    session=SESSION_NAMES,
    client="client client_id",
    counselor="counselor counsellor counselor_id counsellor_id therapist_id",
    round="round exam 轮次 考试",
    rationale="rationale reason explanation comments 理由 解释",
)
"""What a column can hold, with the names that are recognized in any case, the likeliest first."""


@dataclass(frozen=True, kw_only=True)
class AnnotationLayout:
    """How a file of annotations is laid out, where the usual names do not say it."""

    columns: Mapping[str, str | Sequence[str] | None] = field(default_factory=dict)
    """Names of columns by role (the keys of :data:`USUAL_NAMES`); several for the id are joined."""
    form: str = "auto"
    """Of a table: ``long``, a row an annotation; ``wide``, a column an annotator; ``auto``: seen
    from its columns."""
    annotators: Sequence[str] = ()
    """The columns of a table that has one an annotator."""
    multi_label: str = "reject"
    """What to do with several labels of one annotator: ``reject`` them, or take the ``first``."""
    label_names: Mapping[Any, str] = field(default_factory=dict)
    """The label that each number stands for, in tables and old Doccano exports."""
    speakers: Mapping[str, str] | None = None
    """Names of speakers in the documents of an export, each with its role."""

    def __post_init__(self) -> None:
        """Refuse roles that no column can have, and columns that are named twice."""
        one_of("format", self.form, ("auto", "long", "wide"), prefix="annotations.")
        check_roles("annotations.columns", self.columns, USUAL_NAMES)
        if len(set(map(identity, self.annotators))) < len(self.annotators):
            raise ConfigError("annotations.annotators: names a column twice; name each once")

    def named(self, role: str) -> tuple[str, ...]:
        """Return the columns that are named for a role."""
        given = self.columns.get(role)
        return (given,) if isinstance(given, str) else tuple(given or ())


def annotation_columns(
    path: Path, names: tuple[str, ...], layout: AnnotationLayout
) -> dict[str, tuple[str, ...]]:
    """Return the columns of each role; a ``DataError`` where a named column is not there."""
    found: dict[str, tuple[str, ...]] = {}
    for role, usual in USUAL_NAMES.items():
        chosen = layout.named(role)
        if chosen:
            hint = f"correct annotations.columns.{role}"
            found[role] = tuple(require_column(path, names, name, hint) for name in chosen)
            continue
        folded = {fold_name(name): name for name in reversed(names)}
        known = next((folded[name] for name in usual if name in folded), None)
        if known is not None and known not in layout.annotators:
            found[role] = (known,)
    for name in layout.annotators:
        require_column(path, names, name, "correct annotations.annotators")
    return found


_OTHERS = frozenset(
    name
    for role in ("text", "speaker", "history", "client", "counselor")
    for name in TABLE_NAMES[role]
)
_SETTLED = re.compile(
    r"(labels?|code|.*_)?(gold|final|consensus|majority|agreed|resolved|adjudicated|settled"
    r"|reference|truth|predict(ion|ed)|model)s?(_.*)?|labels?|标签|.*(最终|共识|金标准).*"
)
"""Names of columns that may hold what annotators add up to, or what a model says."""
_NAME_THEM = "; name the annotators' columns with annotations.annotators=[A,B]"


def find_annotators(
    path: Path,
    names: Sequence[str],
    found: Mapping[str, Sequence[str]],
    rows: Rows,
    layout: AnnotationLayout,
    taxonomy: Taxonomy | None,
) -> tuple[str, ...]:
    """Return the columns of a table that has one an annotator; none where a row is an annotation.

    ``auto`` takes a table for one where no column is called annotator or label, there is an id, and
    two columns or more hold labels of the taxonomy. Columns count as an annotator's where most of
    their cells are labels, so that a label that is not known is a fault of its row. Without a
    taxonomy, what stands in several columns without a usual name counts as a label. Where it cannot
    be told which columns are annotators', a ``DataError`` asks for them.
    """
    if layout.annotators or layout.form == "long":
        return tuple(map(identity, layout.annotators))
    has_id = "id" in found or {"session", "turn"} <= found.keys()
    if layout.form == "auto" and (
        taxonomy is None or not has_id or "label" in found or "annotator" in found
    ):
        return ()
    apart = {name for role in found if role != "label" for name in found[role]}
    free = [n for n in names if n and n not in apart and fold_name(n) not in _OTHERS]
    columns = _label_columns(path, free, rows, layout, taxonomy)
    if len(columns) < 2:
        if layout.form == "auto":
            return ()
        raise DataError(f"{path}: fewer than two columns hold labels{_NAME_THEM}")
    settled = found.get("label", ())
    unsure = next((n for n in columns if n in settled or _SETTLED.fullmatch(fold_name(n))), None)
    if unsure is not None:
        raise DataError(
            f"{path}: column {quote_cell(unsure)} may hold what annotators add up to{_NAME_THEM}"
        )
    return tuple(columns)


def _label_columns(
    path: Path,
    names: Sequence[str],
    rows: Rows,
    layout: AnnotationLayout,
    taxonomy: Taxonomy | None,
) -> list[str]:
    """Return the columns most of whose cells are labels; several where the rest is unclear."""
    columns = {
        name: Counter(bare_cell(row.get(name, "").strip()) for _, row in rows) for name in names
    }
    shared = Counter(cell for cells in columns.values() for cell in cells)
    codes = {str(code) for code in layout.label_names}
    known = [] if taxonomy is None else [one.name for one in taxonomy.categories]

    def is_label(cell: str) -> bool:
        found = shared[cell] > 1 if taxonomy is None else taxonomy.find(cell) is not None
        return found or cell in codes

    labels, others, close = Counter[str](), Counter[str](), Counter[str]()
    for name, cells in columns.items():
        for cell, n in cells.items():
            if not is_missing(cell, taxonomy):
                (labels if is_label(cell) else others)[name] += n
                few = len(cells) < 200 and len(cell) < 25
                close[name] += n * (few and bool(did_you_mean(cell, known)))
    least = others if taxonomy is not None else Counter[str]()
    found = [name for name in names if labels[name] > least[name]]
    # Misspelled labels are labels: nobody's column is left out for them.
    apart = [n for n in names if n not in found and (labels[n] or 2 * close[n] > others[n])]
    if len(found) > 1 and apart and taxonomy is not None:
        raise DataError(
            f"{path}: column {quote_cell(apart[0])} holds {labels[apart[0]]} labels and "
            f"{others[apart[0]]} other texts{_NAME_THEM}"
        )
    return found


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
    columns: tuple[str, ...] = ()
    """Columns that were taken for annotators' without being named so."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What else was counted."""
    cut: Mapping[tuple[str, ...], int] = field(default_factory=dict)
    """Labels of annotations that had several, the one that was taken first."""


_COUNTED = ("multi_label", "answers_without_choice")


def read_annotations(
    paths: Sequence[Path],
    *,
    layout: AnnotationLayout,
    taxonomy: Taxonomy | None,
    skip_faults: bool = False,
) -> AnnotatorLabels:
    """Return the annotations of one or more files.

    Of several paths each is a round of annotation, unless a column names the round. Rows at fault
    are left out with ``skip_faults``, else listed in an error.

    Raises:
        DataError: When a file cannot be read, its rows are at fault, or no label is left.
    """
    logs: list[IssueLog] = []
    reader = _Reader(layout, taxonomy)
    for number, path in enumerate(paths, start=1):
        with annotator_files(path) as files:
            for file in files:
                logs.append(IssueLog(file.shown))
                logs[-1].taxonomy = taxonomy
                try:
                    reader.read(file, logs[-1], default_round=str(number))
                except DataError as error:
                    # A file of a zip has no path of its own.
                    raise DataError(str(error).replace(str(file.path), file.shown)) from None
    if not skip_faults:
        raise_issues(*logs)
    issues = tuple(fault for log in logs for fault in log.issues)
    if not reader.found:
        first = f"; the first fault: {issues[0]}" if issues else ""
        others = sum(log.counts["answers_without_choice"] for log in logs)
        said = f", nor are the {others} that are ratings or texts" if others else ""
        raise DataError(
            f"{', '.join(map(str, paths))}: holds no label (a rejected or skipped answer is none"
            f"{said}); name the column of labels with annotations.columns.label{first}"
        )
    return AnnotatorLabels(
        annotations=tuple(reader.found),
        rows_read=sum(log.rows_read for log in logs),
        rows_rejected=sum(log.rows_rejected for log in logs),
        unlabelled=reader.unlabelled,
        twins=tuple(reader.names.twins),
        counts={key: sum(log.counts[key] for log in logs) for key in _COUNTED},
        cut=sum((log.cut for log in logs), Counter[tuple[str, ...]]()),
        issues=issues,
        columns=tuple(reader.columns),
    )


_Row = tuple[int, dict[str, str], list[tuple[str, str]]]
"""A row's line, what stands where, and who gave which label."""


class _Reader:
    def __init__(self, layout: AnnotationLayout, taxonomy: Taxonomy | None) -> None:
        self._layout = layout
        self._taxonomy = taxonomy
        self._labels = CanonicalLabels(taxonomy)
        self._seen: set[tuple[str, str, str]] = set()
        self._numbers = {str(number): name for number, name in layout.label_names.items()}
        self.found: list[AnnotatorLabel] = []
        self.unlabelled = 0
        self.columns: dict[str, None] = {}
        self.names = IssueLog("annotations")
        """Of all files together, for an annotator has several."""

    def read(self, file: AnnotatorFile, issues: IssueLog, *, default_round: str) -> None:
        for line, cells, given in self._rows(file, issues):
            session, turn = cells.get("session"), cells.get("turn")
            identifier = cells.get("id") or (f"{session}:{turn}" if session and turn else "")
            if not identifier:
                issues.reject(line, "id", "is missing", "give every example an id")
                continue
            labeled = [(a, label) for a, label in given if not is_missing(label, self._taxonomy)]
            row = AnnotatorLabel(
                id=identifier,
                annotator="",
                label="",
                session=session or None,
                client=cells.get("client") or None,
                counselor=cells.get("counselor") or None,
                round=cells.get("round") or default_round,
                rationale=cells.get("rationale") or None,
            )
            written = [replace(row, annotator=name, label=label) for name, label in labeled]
            found = [self._annotation(one, line, issues, of_one=file.of_one) for one in written]
            sound = [annotation for annotation in found if annotation is not None]
            # A row with a fault is left out whole.
            if len(sound) == len(labeled):
                self.unlabelled += len(given) - len(labeled)
                self.found += sound
                issues.count_cut((line,))
                self._seen.update((one.id, one.annotator, one.round) for one in sound)

    def _rows(self, file: AnnotatorFile, issues: IssueLog) -> Iterator[_Row]:
        """Yield the rows of a file: what stands where, and who gave which label."""
        is_json = file.path.suffix.lower() in JSON_ENDINGS
        rows: list[tuple[int, Any]] = []
        names: tuple[str, ...] = ()
        tool = "inception" if is_inception(file.path) else None
        if is_json and tool is None:
            rows = list(json_rows(file.path, issues))
        elif tool is None:
            sheet = read_sheet(file.path, issues)
            sheet.texts.update(self._texts(sheet.columns))
            rows, names = list(sheet.rows), sheet.columns
        tool = tool or next(filter(None, (tool_of(row) for _, row in rows)), None)
        if tool is None and is_json and several_users(row for _, row in rows):
            tool = "doccano"
        if tool is not None:
            chosen = {role: name for role, name in self._layout.columns.items() if role in KEYS}
            names_of = SpeakerNames(self._layout.speakers)
            keys = Keys(chosen, option="annotations.columns", speakers=names_of, texts=False)
            found = (
                documents(rows, issues, keys, self._user_labels)
                if tool == "doccano"
                else tool_documents(tool, file.path, issues, keys, rows=rows)
            )
            yield from self._documents(file, found, issues)
            return
        if is_json:
            rows = list(self._json_texts(rows, issues))
            names = tuple(dict.fromkeys(key for _, row in rows for key in row))
        if rows or not (is_json and issues.issues):
            yield from self._table_rows(file, names, rows, issues)

    def _one(self, fields: Fields, given: Sequence[Given]) -> str | None:
        multi_label = self._layout.multi_label
        option = "annotations.multi_label"
        label = label_of(fields, "label", given, multi_label, option=option)
        return label if fields.sound else None

    def _user_labels(self, fields: Fields, _: Keys | None) -> tuple[Given, ...]:
        raw = self._taxonomy is None
        return user_labels(fields, self._numbers, option="annotations", raw=raw)

    def _texts(self, names: Sequence[str]) -> set[str]:
        """Return the columns of names, ids and labels."""
        usual = {name for role in USUAL_NAMES.values() for name in role}
        named = {name for role in self._layout.columns for name in self._layout.named(role)}
        named.update(self._layout.annotators)
        return {name for name in names if fold_name(name) in usual or name in named}

    def _table_rows(
        self, file: AnnotatorFile, names: tuple[str, ...], rows: Rows, issues: IssueLog
    ) -> Iterator[_Row]:
        is_json = file.path.suffix.lower() in JSON_ENDINGS
        shown = Path(file.shown)
        found = annotation_columns(shown, names, self._layout)
        columns = find_annotators(shown, names, found, rows, self._layout, self._taxonomy)
        if not self._layout.annotators:
            self.columns.update(dict.fromkeys(columns))
        if "label" not in found and not columns:
            raise DataError(
                f"{shown}: no column is called label; name it with annotations.columns.label=NAME, "
                "or, where each annotator has a column, say annotations.annotators=[A,B] or "
                "annotations.format=wide"
            )
        named = bool(columns) or "annotator" in found
        if not (named or is_json or file.of_one):
            raise DataError(
                f"{file.shown}: no column is called annotator; name it with "
                "annotations.columns.annotator=NAME, or, where each annotator has a column, "
                "annotations.annotators=[A,B]"
            )
        # Initials of a file's owner may be NA; in a cell that says that there is none.
        owner = None if named else self.names.name("annotator", file.owner) or file.owner
        for line, row in rows:
            written = {
                role: [bare_cell(row.get(name, "").strip()) for name in columns_of]
                for role, columns_of in found.items()
            }
            if self._damaged(line, written, issues):
                continue
            cells = {role: self._cell(role, parts) for role, parts in written.items()}
            if columns:
                given = [(name, row.get(name, "").strip()) for name in columns]
            else:
                name = cells.get("annotator", "") if owner is None else owner
                given = [(name, cells.get("label", ""))]
            yield line, cells, [(name, self._numbers.get(label, label)) for name, label in given]

    def _documents(
        self, file: AnnotatorFile, found: Sequence[Document], issues: IssueLog
    ) -> Iterator[_Row]:
        """Yield the rows of a tool's export, each with the labels that its annotators gave."""
        named = any(one.annotator for document in found for one in document.given)
        owner = "" if named else self.names.name("annotator", file.owner) or file.owner
        for document in found:
            people = dict.fromkeys(one.annotator for one in document.given)
            written = {
                role: [str(getattr(document, role) or "")] for role in ("id", "session", "round")
            }
            if self._damaged(document.line, {**written, "annotator": list(people)}, issues):
                continue
            fields = Fields({}, line=document.line, issues=issues, rows=document.rows)
            given = []
            for name in people:
                mine = [one for one in document.given if one.annotator == name]
                label = self._one(fields, mine)
                given.append((self.names.name("annotator", name) or owner, label or ""))
            cells = {role: self._cell(role, parts) for role, parts in written.items()}
            if len(given) == 1:
                cells["rationale"] = rationale_of(document.given) or ""
            if fields.sound:
                yield document.line, cells, given or [("", "")]

    def _json_texts(self, rows: Rows, issues: IssueLog) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield rows of texts; labels in whatever form Doccano writes them become one text."""
        for line, row in rows:
            fields = Fields(row, line=line, issues=issues)
            texts = {
                str(key): str(value)
                for key, value in row.items()
                if isinstance(value, str | int) and not isinstance(value, bool)
            }
            usual = next((key for key in USUAL_NAMES["label"] if key in row), None)
            key = self._layout.columns.get("label") or usual
            if isinstance(key, str) and not isinstance(row.get(key), str):
                labeled = Fields({"label": row.get(key)}, line=line, issues=issues)
                given = self._user_labels(labeled, None)
                texts[key] = self._one(labeled, given) or ""
                fields.sound = labeled.sound
            comments = document_comments(row)
            if comments:
                texts.setdefault("comments", comments)
            if fields.sound:
                yield line, texts

    def _cell(self, role: str, parts: Sequence[str]) -> str:
        """Return what stands in the columns of one role, names as they are compared."""
        if role != "label" and any(map(is_missing, parts)):
            return ""
        if role in ("annotator", "session", "client", "counselor"):
            return ":".join(self.names.name(role, part) for part in parts)
        if role in ("label", "rationale"):
            return ":".join(parts)
        names = [identity(part) for part in parts]
        if role == "turn":
            # Columns of numbers in which one is missing come as 1.0, 2.0.
            numbers = [whole_number(name) for name in names]
            names = [n if i is None else str(i) for n, i in zip(names, numbers, strict=True)]
        return ":".join(names)

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
        self, given: AnnotatorLabel, line: int, issues: IssueLog, *, of_one: bool
    ) -> AnnotatorLabel | None:
        """Return an annotation under its canonical label, ``None`` where it is at fault."""
        if not given.annotator:
            issues.reject(line, "annotator", "is empty", "write who gave this label")
            return None
        label: str | None = given.label
        if of_one and "#" in given.label:
            # Doccano's CSV joins several labels.
            fields = Fields({}, line=line, issues=issues)
            label = self._one(fields, [Given(labels=tuple(given.label.split("#")))])
        if label is None:
            return None
        hint = "correct them, or keep labels with labels=raw"
        if label.isdecimal() and len(label) <= 4:
            hint = "say what each number means: annotations.label_names={NAME: LABEL}"
        canonical = self._labels.find(issues, line, "label", label, hint=hint)
        if canonical is None:
            return None
        if (given.id, given.annotator, given.round) in self._seen:
            reason = (
                f"annotator {quote_id(given.annotator)} has labeled id {quote_id(given.id)} before"
            )
            hint = "keep one row, or number the rounds in a column round"
            issues.reject(line, "id", reason, hint)
            return None
        return replace(given, label=canonical)
