"""Anybody's predictions: a file with ids and labels, joined with the labeled data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recap.data.issues import LISTED_FAULTS, IssueLog, listed
from recap.data.names import is_missing, whole_number
from recap.data.readers.files import json_rows
from recap.data.readers.registry import TABLE_ENDINGS, Fields
from recap.data.readers.tables import bare_row, read_sheet
from recap.data.utterances import read_answers, read_utterances
from recap.errors import DataError, did_you_mean, quote_id
from recap.evaluate.options import EvaluateConfig
from recap.evaluate.saved_model import Evaluation, evaluate_predictions
from recap.folds.run import Run, check_fold, read_labeled
from recap.metrics.files import prediction_of
from recap.records import Example
from recap.tasks.answer import LabelReader, spoken
from recap.tasks.library import build_task
from recap.tasks.task import Task

_TEXTS = ("label", "rationale", "text", "gold", "task")
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
    """Return the predictions of a JSONL, JSON, CSV or Excel file; a ``DataError`` for any other.

    A row needs ``id`` and ``label``; ``fold``, ``probabilities``, ``rationale``, ``text``, ``gold``
    and ``task`` are used where they are there. A label may be written in any spelling of the
    taxonomy, and may lie below one of the task's. ``known_ids`` are those of all examples of the
    data, also of those that the task does not select, and of client turns that make none.
    """
    issues = IssueLog(str(path))
    labels = LabelReader(task.taxonomy, task.labels)
    accepted: dict[str, ImportedRow] = {}
    counts = Counter(without_label=0, unreadable=0, other_labels=0)
    is_table = path.suffix.lower() in TABLE_ENDINGS
    rows = (_table_rows if is_table else json_rows)(path, issues)
    ids = {"id": "write the example's id as the data have it"}
    unique = "keep one prediction an example"
    for fields, (own,), numbers in read_answers(rows, issues, ids=ids, unique=unique):
        if own is not None and own not in known_ids:
            reason = f"id {quote_id(own)} is not in the labeled data"
            fields.reject("id", reason, "give the data that was predicted, or remove the row")
        if "label" not in fields.row:
            fields.reject("label", "is missing", "write null where there is none")
        fold = _fold(fields)
        said = {name: fields.optional_text(name) for name in _TEXTS}
        if fields.sound and own is not None:
            written, text = said.pop("label") or "", said.pop("text")
            label, doubt = _label(written, labels)
            counts.update([doubt] if doubt else [])
            accepted[own] = ImportedRow(
                id=own,
                label=label,
                fold=fold,
                probabilities=_of_labels(numbers, labels),
                text=written if text is None else text,
                **said,
            )
    read, rejected = issues.rows_read, issues.rows_rejected
    if read == 0:
        raise DataError(f"{path}: holds no rows; write one prediction a row, with id and label")
    of_rows = {"read": read, "accepted": read - rejected, "rejected": rejected}
    return ImportedFile(rows=accepted, counts={**counts, **of_rows}, issues=issues)


def _table_rows(path: Path, issues: IssueLog) -> Iterator[tuple[int, dict[str, Any]]]:
    sheet = read_sheet(path, issues)
    for name in ("id", "label"):
        if name not in sheet.columns:
            raise DataError(
                f"{path}: has no column {name!r}{did_you_mean(name, sheet.columns)}; "
                f"name its columns id and label, and if need be {', '.join(_KNOWN[2:])}"
            )
    sheet.texts.update(("id", *_TEXTS))
    for line, cells in sheet.rows:
        # An empty cell is no value: of a label that means none, of the rest that there is none.
        bare = bare_row(cells)
        yield line, {name: cell for name, cell in bare.items() if cell != "" or name == "label"}


def _label(written: str, labels: LabelReader) -> tuple[str | None, str | None]:
    """Return a label of the task; ``None``, and under which count it goes, where it is none."""
    text = spoken(written).strip()
    if is_missing(text, labels.taxonomy):
        return None, "without_label"
    found = labels.taxonomy.find(text)
    label = None if found is None else labels.label_at_or_above(found)
    return label, "unreadable" if found is None else "other_labels" if label is None else None


def _fold(fields: Fields) -> int | None:
    value = fields.row.get("fold")
    if isinstance(value, str):
        found = whole_number(value.strip())
        value = value if found is None else found
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    fields.reject("fold", "is no fold's index", "write 0, 1, …, or leave it out")
    return None


def _of_labels(
    given: Mapping[str, float] | None, labels: LabelReader
) -> Mapping[str, float] | None:
    """Return the probabilities of the task's labels, ``None`` where one is no label of it."""
    found: dict[str, float] = {}
    for name, number in (given or {}).items():
        label = labels.whole(name)
        if label is None:
            return None
        found[label] = found.get(label, 0.0) + number
    return found or None


def evaluate_file(config: EvaluateConfig) -> Evaluation:
    """Return the scores of a predictions file on the labeled data.

    Where every row names the fold that its example is tested in, each fold is scored by itself and
    only the examples of the folds that occur are expected; else all are scored together. A
    ``DataError`` for rows at fault (``data.on_error=skip`` leaves them out), or for examples
    without a prediction (``on_missing``).
    """
    run = config.training
    data = read_labeled(run, build_task(replace(run, rationale=False)))
    path = Path(str(config.predictions))
    file = read_predictions(path, data.task, known_ids(data))
    if file.issues.issues and run.data.on_error == "fail":
        raise file.issues.error()
    names_folds = any(row.fold is not None for row in file.rows.values())
    check_fold(run.cv)
    folds = _folds_of_file(data, file) if names_folds else None
    examples = _scored_examples(data, file, folds)
    missing = [example for example in examples if example.id not in file.rows]
    of_missing = _missing_notes(path, missing, len(examples), config.on_missing)
    predictions = [
        prediction_of(
            example,
            file.rows.get(example.id),
            task=data.task.name,
            gold=data.task.gold(example),
            fold=None if folds is None else folds[example.id],
        )
        for example in examples
        if example.id in file.rows or config.on_missing == "invalid"
    ]
    if not predictions:
        raise DataError(
            f"{path}: has no prediction for any of the {len(examples)} examples that task "
            f"{data.task.name!r} selects; give the data and the task that were predicted"
        )
    return evaluate_predictions(
        predictions,
        subject=str(path),
        task=data.task.name,
        labels=data.task.labels,
        notes=[
            *_account(file, path),
            *_fold_notes(file, folds),
            *_content_notes(data, file.rows, examples),
            *of_missing,
        ],
        protocol=None if folds is None else run.cv.protocol,
        figures={"rows": dict(file.counts), "missing": len(missing)},
    )


def _scored_examples(
    data: Run, file: ImportedFile, folds: Mapping[str, int] | None
) -> tuple[Example, ...]:
    """Return the examples of the fold that was asked for, in the folds that the file names."""
    fold = data.config.cv.fold
    indices = data.folds[fold].test if isinstance(fold, int) else None
    examples = data.examples(indices)
    if folds is None:
        return examples
    occurring = {folds[identifier] for identifier in file.rows}
    return tuple(example for example in examples if folds[example.id] in occurring)


def known_ids(data: Run) -> frozenset[str]:
    """Return the ids of all examples, and of all client turns that make none.

    Such turns open a dialogue, hold no text, have no label or were merged into another;
    ``recap.predict`` may have answered them.
    """
    # What is at fault was told when the labeled data were read.
    given = replace(data.config.data, no_intervention="keep", merge_adjacent=False)
    turns = read_utterances(given, IssueLog(given.name))
    return frozenset(example.id for example in (*data.corpus.examples, *turns))


def _folds_of_file(data: Run, file: ImportedFile) -> dict[str, int] | None:
    """Return the fold of every example, ``None`` when the file's folds are not the data's."""
    ids = [example.id for example in data.corpus.examples]
    of_example = {ids[i]: fold.index for fold in data.folds for i in fold.test}
    if any(row.fold is None or row.fold != of_example.get(row.id) for row in file.rows.values()):
        return None
    return of_example


def _missing_notes(
    path: Path, missing: Sequence[Example], n_examples: int, on_missing: str
) -> list[str]:
    """Return what becomes of examples without a prediction; refuse them where nobody says."""
    if not missing:
        return []
    said = f"{len(missing)} of {n_examples} labeled examples have no prediction"
    if on_missing == "fail":
        ids = listed([f"id {quote_id(example.id)}" for example in missing])
        raise DataError(
            f"{path}: {said}:\n{ids}\nadd them, count them as wrong with on_missing=invalid, or "
            "leave them out with on_missing=drop"
        )
    how = "count as wrong" if on_missing == "invalid" else "are left out"
    return [f"{said} and {how} (on_missing={on_missing})"]


def _account(file: ImportedFile, path: Path) -> list[str]:
    counts = file.counts
    accepted, rejected = counts["accepted"], counts["rejected"]
    notes = [f"{path}: {counts['read']} rows read, {accepted} accepted, {rejected} rejected"]
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
    others = "the file's folds are not those of this partition (cv.*), so all rows are scored"
    named = any(row.fold is not None for row in file.rows.values())
    return [f"{others} together"] if named else []


def _content_notes(
    data: Run, rows: Mapping[str, ImportedRow], examples: Sequence[Example]
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
