"""Imported predictions joined with the labelled data: what is missing, and whose folds they are.

Anybody's predictions: a file with ids and labels, joined with the labelled data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recap.data.issues import LISTED_FAULTS, IssueLog
from recap.data.readers.files import json_rows
from recap.data.readers.registry import Fields
from recap.data.readers.tables import (
    TABLE_ENDINGS,
    bare_row,
    finite_number,
    mapping_of,
    read_sheet,
    whole_number,
)
from recap.errors import DataError, did_you_mean, quote_id
from recap.evaluate.options import EvaluateConfig
from recap.evaluate.saved_model import Evaluation, evaluate_predictions
from recap.folds.partition import LabelledData, known_ids, partition_of, read_labelled
from recap.records import Example, Fold, Prediction
from recap.runs.build import build_task
from recap.tasks.answer import LabelReader
from recap.tasks.task import Task

_NO_LABEL = ("", "null", "none", "nan", "n/a")
_KNOWN = ("id", "label", "fold", "probabilities", "rationale", "text", "gold", "task")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportedRow:
    """One row of a predictions file; ``label`` is a label of the task, or ``None``."""

    id: str
    label: str | None
    fold: int | None
    probabilities: Mapping[str, float] | None
    rationale: str | None
    text: str
    gold: str | None
    task: str | None


@dataclass(frozen=True, kw_only=True)
class ImportedFile:
    """The rows that could be used, by id, and an account of all.

    ``counts``: ``read``, ``accepted``, ``rejected`` rows; of the accepted ones ``without_label``,
    ``unreadable`` (no spelling of the taxonomy) and ``other_labels`` (of the taxonomy, but not
    among the task's), all three of which count as wrong.
    """

    rows: Mapping[str, ImportedRow]
    counts: Mapping[str, int]
    issues: IssueLog


def read_predictions(path: Path, task: Task, known_ids: frozenset[str]) -> ImportedFile:
    """Return the predictions of a JSONL, JSON, CSV or Excel file.

    A row needs ``id`` and ``label``; ``fold``, ``probabilities``, ``rationale``, ``text``, ``gold``
    and ``task`` are used where they are there. A label may be written in any spelling of the
    taxonomy, and may lie below one of the task's.

    Args:
        path: The file.
        task: Its labels are looked for.
        known_ids: Ids of the data set: of all examples, also those that the task does not select,
            and of client turns that make none.

    Raises:
        DataError: When the file cannot be read, or lacks the columns.
    """
    issues = IssueLog(str(path))
    reader = _Reader(task, known_ids, issues)
    rows = (
        _table_rows(path, issues)
        if path.suffix.lower() in TABLE_ENDINGS
        else json_rows(path, issues)
    )
    for line, row in rows:
        reader.read(line, row)
    if issues.rows_read == 0:
        raise DataError(f"{path}: holds no rows; write one prediction a row, with id and label")
    rejected = issues.rows_rejected
    counts = {
        **reader.counts,
        "read": issues.rows_read,
        "accepted": issues.rows_read - rejected,
        "rejected": rejected,
    }
    return ImportedFile(rows=reader.rows, counts=counts, issues=issues)


def _table_rows(path: Path, issues: IssueLog) -> Iterator[tuple[int, dict[str, Any]]]:
    sheet = read_sheet(path, issues)
    for name in ("id", "label"):
        if name not in sheet.columns:
            raise DataError(
                f"{path}: has no column {name!r}{did_you_mean(name, sheet.columns)}; "
                f"name its columns id and label, and if need be {', '.join(_KNOWN[2:])}"
            )
    for line, cells in sheet.rows:
        # An empty cell is no value: of a label that means none, of the rest that there is none.
        bare = bare_row(cells)
        yield line, {name: cell for name, cell in bare.items() if cell != "" or name == "label"}


class _Reader:
    """Reads rows one by one; what is wrong with one is noted, and it is left out."""

    def __init__(self, task: Task, known_ids: frozenset[str], issues: IssueLog) -> None:
        self._task = task
        self._labels = LabelReader(task.taxonomy, task.labels)
        self._known_ids = known_ids
        self._faults = issues
        self._line_of_id: dict[str, int] = {}
        self.rows: dict[str, ImportedRow] = {}
        self.counts = Counter(without_label=0, unreadable=0, other_labels=0)

    def read(self, line: int, row: Mapping[str, Any]) -> None:
        fields = Fields(row, line=line, issues=self._faults)
        identifier = self._identifier(fields)
        if "label" not in row:
            fields.reject("label", "is missing", "write null where there is none")
        label = fields.optional_text("label")
        fold = self._fold(fields)
        probabilities = self._probabilities(fields)
        texts = {name: fields.optional_text(name) for name in ("rationale", "text", "gold", "task")}
        if not fields.sound or identifier is None:
            return
        self.rows[identifier] = ImportedRow(
            id=identifier,
            label=self._label(label),
            fold=fold,
            probabilities=probabilities,
            rationale=texts["rationale"],
            text=label or "" if texts["text"] is None else texts["text"],
            gold=texts["gold"],
            task=texts["task"],
        )

    def _identifier(self, fields: Fields) -> str | None:
        identifier = fields.identifier("id")
        if identifier is None:
            if fields.sound:
                fields.reject("id", "is missing", "write the example's id as the data have it")
            return None
        if identifier in self._line_of_id:
            first = self._line_of_id[identifier]
            reason = f"id {quote_id(identifier)} is at line {first} already"
            fields.reject("id", reason, "keep one prediction an example")
            return identifier
        self._line_of_id[identifier] = fields.line
        if identifier not in self._known_ids:
            reason = f"id {quote_id(identifier)} is not in the labelled data"
            fields.reject("id", reason, "give the data that was predicted, or remove the row")
        return identifier

    def _label(self, text: str | None) -> str | None:
        if text is None or text.casefold() in _NO_LABEL:
            self.counts["without_label"] += 1
            return None
        found = self._task.taxonomy.find(text)
        if found is None:
            self.counts["unreadable"] += 1
            return None
        label = self._labels.label_at_or_above(found)
        self.counts["other_labels"] += label is None
        return label

    def _fold(self, fields: Fields) -> int | None:
        value = fields.row.get("fold")
        if isinstance(value, str):
            found = whole_number(value.strip())
            value = value if found is None else found
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
            return value
        fields.reject("fold", "is no fold's index", "write 0, 1, …, or leave it out")
        return None

    def _probabilities(self, fields: Fields) -> Mapping[str, float] | None:
        """Return the probabilities of the task's labels, ``None`` where some cannot be read."""
        value = fields.row.get("probabilities")
        given = mapping_of(value) if isinstance(value, str) else fields.mapping("probabilities")
        if value is None or given is None:
            return None
        found: dict[str, float] = {}
        for name, p in given.items():
            label = self._labels.whole(str(name))
            number = finite_number(p)
            if number is None:
                fields.reject("probabilities", "holds no finite number", "write numbers, or null")
                return None
            if label is None:
                return None
            found[label] = found.get(label, 0.0) + number
        return found or None


def evaluate_file(config: EvaluateConfig) -> Evaluation:
    """Return the scores of a predictions file on the labelled data.

    Where every row names the fold that its example is tested in, each fold is scored by itself and
    only the examples of the folds that occur are expected; else all are scored together.

    Raises:
        ConfigError: For a fold that does not exist.
        DataError: When rows are at fault (``data.on_error=skip`` leaves them out), or examples have
            no prediction (``on_missing``).
    """
    run = config.training
    data = read_labelled(run, build_task(replace(run, rationale=False)))
    path = Path(str(config.predictions))
    file = read_predictions(path, data.task, known_ids(run, data))
    if file.issues.issues and run.data.on_error == "fail":
        raise file.issues.error()
    names_folds = any(row.fold is not None for row in file.rows.values())
    partition: tuple[Fold, ...] = ()
    if names_folds or run.cv.fold != "all":
        partition = partition_of(run, data)
    folds = _folds_of_file(data, partition, file) if names_folds else None
    examples = data.examples
    if isinstance(run.cv.fold, int):
        wanted = data.ids_in(partition[run.cv.fold].test)
        examples = tuple(example for example in examples if example.id in wanted)
    joined = _join(data, file.rows, examples, folds, on_missing=config.on_missing, path=path)
    return evaluate_predictions(
        joined.predictions,
        subject=str(path),
        task=data.task.name,
        labels=data.task.labels,
        notes=[
            *_account(file, path),
            *_fold_notes(file, folds),
            *_content_notes(data, file.rows, examples),
            *joined.notes,
        ],
        protocol=None if folds is None else run.cv.protocol,
        figures={"rows": dict(file.counts), "missing": joined.missing},
    )


@dataclass(frozen=True, kw_only=True)
class _Joined:
    predictions: list[Prediction]
    missing: int
    notes: list[str]


def _folds_of_file(
    data: LabelledData, partition: Sequence[Fold], file: ImportedFile
) -> dict[str, int] | None:
    """Return the fold of every example, ``None`` when the file's folds are not the data's."""
    of_example = {name: fold.index for fold in partition for name in data.ids_in(fold.test)}
    if any(row.fold is None or row.fold != of_example.get(row.id) for row in file.rows.values()):
        return None
    return of_example


def _join(
    data: LabelledData,
    rows: Mapping[str, ImportedRow],
    examples: Sequence[Example],
    folds: Mapping[str, int] | None,
    *,
    on_missing: str,
    path: Path,
) -> _Joined:
    if folds is not None:
        occurring = {folds[identifier] for identifier in rows}
        examples = [example for example in examples if folds[example.id] in occurring]
    missing = [example for example in examples if example.id not in rows]
    if missing and on_missing == "fail":
        raise DataError(_missing_message(path, missing, len(examples)))
    notes = []
    if missing:
        how = "count as wrong" if on_missing == "invalid" else "are left out"
        notes.append(
            f"{len(missing)} of {len(examples)} labelled examples have no prediction and {how} "
            f"(on_missing={on_missing})"
        )
    predictions = [
        _prediction(data, example, rows.get(example.id), folds)
        for example in examples
        if example.id in rows or on_missing == "invalid"
    ]
    if not predictions:
        raise DataError(
            f"{path}: has no prediction for any of the {len(examples)} examples that task "
            f"{data.task.name!r} selects; give the data and the task that were predicted"
        )
    return _Joined(predictions=predictions, missing=len(missing), notes=notes)


def _prediction(
    data: LabelledData,
    example: Example,
    row: ImportedRow | None,
    folds: Mapping[str, int] | None,
) -> Prediction:
    return Prediction(
        id=example.id,
        session=example.session,
        fold=None if folds is None else folds[example.id],
        task=data.task.name,
        gold=data.task.gold(example),
        label=row.label if row else None,
        probabilities=row.probabilities if row else None,
        rationale=row.rationale if row else None,
        text=row.text if row else "",
        parsed=row is not None and row.label is not None,
    )


def _missing_message(path: Path, missing: Sequence[Example], n: int) -> str:
    listed = "\n".join(f"  id {quote_id(example.id)}" for example in missing[:LISTED_FAULTS])
    more = len(missing) - LISTED_FAULTS
    tail = f"\n  and {more} more" if more > 0 else ""
    return (
        f"{path}: {len(missing)} of {n} labelled examples have no prediction:\n{listed}{tail}\n"
        "add them, count them as wrong with on_missing=invalid, or leave them out with "
        "on_missing=drop"
    )


def _account(file: ImportedFile, path: Path) -> list[str]:
    counts = file.counts
    notes = [
        (
            f"{path}: {counts['read']} rows read, {counts['accepted']} accepted, "
            f"{counts['rejected']} rejected"
        )
    ]
    notes += [f"left out: {fault}" for fault in file.issues.issues[:LISTED_FAULTS]]
    more = len(file.issues.issues) - LISTED_FAULTS
    notes += [f"left out: {more} more faults"] if more > 0 else []
    said = {
        "without_label": "rows have no label, which counts as wrong",
        "unreadable": "labels are no spelling of the taxonomy, which counts as wrong",
        "other_labels": "labels are not the task's, which counts as wrong",
    }
    return notes + [f"{counts[key]} {text}" for key, text in said.items() if counts.get(key)]


def _fold_notes(file: ImportedFile, folds: Mapping[str, int] | None) -> list[str]:
    if folds is not None:
        occurring = sorted({folds[identifier] for identifier in file.rows})
        return [f"folds of this partition: {', '.join(map(str, occurring))}"] if occurring else []
    if any(row.fold is not None for row in file.rows.values()):
        return [
            (
                "the file's folds are not those of this partition (cv.*), so all rows are scored "
                "together"
            )
        ]
    return []


def _content_notes(
    data: LabelledData, rows: Mapping[str, ImportedRow], examples: Sequence[Example]
) -> list[str]:
    """Return what the rows say of themselves that does not fit the data."""
    notes = []
    selected = {example.id for example in examples}
    beside = sum(identifier not in selected for identifier in rows)
    if beside:
        notes.append(f"{beside} rows are of examples that are not scored here, and are not used")
    find = data.task.taxonomy.find
    gold = {example.id: data.task.gold(example) for example in examples}
    other = sum(
        row.gold is not None and find(row.gold) not in (gold[row.id], None)
        and gold[row.id] not in data.task.taxonomy.lineage(str(find(row.gold)))
        for row in rows.values() if row.id in gold
    )  # fmt: skip
    if other:
        notes.append(f"{other} rows give another gold label than the data, which is what counts")
    tasks = sorted({row.task for row in rows.values() if row.task} - {data.task.name})
    if tasks:
        notes.append(f"the file says it is of another task than {data.task.name!r} (task=…)")
    return notes
