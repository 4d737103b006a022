"""Imported predictions joined with the labelled data: what is missing, and whose folds they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from recap.build import build_task
from recap.data.faults import LISTED_FAULTS
from recap.errors import DataError, quote_id
from recap.evaluation.imported import ImportedFile, ImportedRow, read_predictions
from recap.evaluation.labelled import LabelledData, known_ids, partition_of, read_labelled
from recap.evaluation.options import EvaluateConfig
from recap.evaluation.result import Evaluation, evaluate_predictions
from recap.records import Example, Fold, Prediction


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
    if file.faults.faults and run.data.on_error == "fail":
        raise file.faults.error()
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
    notes += [f"left out: {fault}" for fault in file.faults.faults[:LISTED_FAULTS]]
    more = len(file.faults.faults) - LISTED_FAULTS
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
