"""Tables of exams: the correct labels, and accuracies that were worked out elsewhere."""

from __future__ import annotations

from recap.corpus_actions.annotations import named_path
from recap.data.faults import FaultLog
from recap.data.readers.columns import require_column
from recap.data.readers.sheets import read_sheet
from recap.data.safe_cells import bare_cell
from recap.errors import DataError, quote_id
from recap.taxonomy import Taxonomy


def read_key(path: str, taxonomy: Taxonomy | None) -> dict[str, str]:
    """Return the correct label of each item, from columns ``id`` and ``label``.

    Raises:
        DataError: When the table cannot be read, listing every faulty row.
    """
    faults = FaultLog(path)
    table = read_sheet(named_path("exam.key", path), faults)
    for column in ("id", "label"):
        require_column(table.path, table.columns, column, "exam.key needs columns id and label")
    key: dict[str, str] = {}
    for line, row in table.rows:
        item, label = bare_cell(row["id"].strip()), row["label"].strip()
        if not item or not label:
            faults.reject(line, "label" if item else "id", "is empty", "fill it in")
            continue
        if taxonomy is not None:
            try:
                label = taxonomy.resolve(label)
            except DataError as error:
                faults.reject(line, "label", str(error).removeprefix("label "), "correct it")
                continue
        if key.setdefault(item, label) != label:
            reason = f"id {quote_id(item)} has two correct labels"
            faults.reject(line, "label", reason, "keep one row")
    if faults.faults:
        raise faults.error()
    return key


def read_scores(path: str) -> tuple[tuple[str, ...], dict[str, tuple[float | None, ...]]]:
    """Return the exams in order of appearance, and each candidate's accuracy in each.

    The table has the columns ``candidate``, ``exam`` and ``accuracy`` (a fraction).

    Raises:
        DataError: When it cannot be read, listing every faulty row.
    """
    faults = FaultLog(path)
    table = read_sheet(named_path("exam.scores", path), faults)
    for column in ("candidate", "exam", "accuracy"):
        mend = "exam.scores needs columns candidate, exam and accuracy"
        require_column(table.path, table.columns, column, mend)
    found: dict[str, dict[str, float]] = {}
    exams: dict[str, None] = {}
    for line, row in table.rows:
        candidate, name = row["candidate"].strip(), row["exam"].strip()
        value = _fraction(row["accuracy"])
        if not candidate or not name:
            faults.reject(line, "exam" if candidate else "candidate", "is empty", "fill it in")
        elif value is None:
            reason = "is no number from 0 to 1"
            faults.reject(line, "accuracy", reason, "write 0.62 for 62 %")
        elif name in found.get(candidate, {}):
            reason = f"candidate {quote_id(candidate)} has it twice"
            faults.reject(line, "exam", reason, "keep one row")
        else:
            exams.setdefault(name)
            found.setdefault(candidate, {})[name] = value
    if faults.faults:
        raise faults.error()
    if not found:
        raise DataError(f"{path}: holds no rows; write one a candidate and exam")
    return tuple(exams), {
        candidate: tuple(own.get(name) for name in exams) for candidate, own in found.items()
    }


def _fraction(text: str) -> float | None:
    try:
        value = float(text.strip())
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None
