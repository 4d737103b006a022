"""``action=validate``: every fault of every row, and what looks wrong in the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from recap.analysis.consistency import KINDS, MENDS, ConsistencyChecker, Hint, count_hints
from recap.corpus_actions.options import CorpusConfig
from recap.corpus_actions.sources import Source, find_task, find_taxonomy, open_source
from recap.data.examples import examples_of
from recap.data.faults import RowFault
from recap.records import Dialogue
from recap.reporting.findings import Findings
from recap.reporting.sheets import Sheet


def validate(config: CorpusConfig) -> Findings:
    """Return what is wrong with a corpus; nothing of its texts.

    The findings end in failure when a row is at fault, unless ``data.on_error`` is ``skip``.
    """
    source = open_source(config, find_taxonomy(config), judge=False)
    checked = _check(config, source)
    faults = source.faults
    return Findings(
        action="validate",
        title=f"What is wrong with {faults.file}",
        figures={
            "data": config.data.name,
            "file": faults.file,
            "rows_read": faults.rows_read,
            "rows_accepted": faults.rows_read - faults.rows_rejected,
            "rows_rejected": faults.rows_rejected,
            "utterances": checked.utterances,
            "labelled": checked.labelled,
            "without_rationale": checked.without_rationale,
            "texts_of_several_labels": checked.texts_of_several_labels,
            "hint_counts": count_hints(checked.hints),
            "faults": [asdict(fault) for fault in faults.faults],
            "hints": [asdict(hint) for hint in checked.hints],
        },
        sheets=(
            _overview(source, checked),
            *_fault_sheet(faults.faults, config.validate.listed),
            *_hint_sheet(checked.hints, config.validate.listed),
        ),
        notes=tuple(_notes(config)),
        rows=[*_fault_rows(faults.faults), *_hint_rows(faults.file, checked.hints)],
        failure=_failure(config, source),
        # Turns without an id are called after their sessions.
        private=True,
    )


@dataclass(frozen=True, kw_only=True)
class _Checked:
    hints: tuple[Hint, ...]
    utterances: int
    labelled: int
    without_rationale: int
    texts_of_several_labels: int


def _check(config: CorpusConfig, source: Source) -> _Checked:
    checker = ConsistencyChecker(
        task=find_task(config) if config.labels == "canonical" else None,
        near_duplicates=config.validate.near_duplicates,
        shortest=config.validate.shortest,
    )
    counts: Counter[str] = Counter()
    for record in source.records:
        lines = source.faults.lines
        examples = (
            [record]
            if not isinstance(record, Dialogue)
            else examples_of(record, merge_adjacent=False, no_intervention="keep")
        )
        for example in examples:
            checker.add(example, _line(lines, example.turn))
            counts["utterances"] += 1
            labelled = example.label is not None
            counts["labelled"] += labelled
            counts["without_rationale"] += labelled and not (example.rationale or "").strip()
        if isinstance(record, Dialogue):
            for index, turn in enumerate(record.turns):
                if turn.speaker == "counselor":
                    checker.add_text(
                        turn.text, turn.id or f"{record.session}:{index}", _line(lines, index)
                    )
        else:
            checker.add_history(record, lines[0])
    return _Checked(
        hints=checker.hints(),
        utterances=counts["utterances"],
        labelled=counts["labelled"],
        without_rationale=counts["without_rationale"],
        texts_of_several_labels=checker.texts_of_several_labels,
    )


def _line(lines: Sequence[int], turn: int | None) -> int:
    return lines[turn] if turn is not None and len(lines) > 1 else lines[0]


def _failure(config: CorpusConfig, source: Source) -> str | None:
    faults = source.faults
    if faults.rows_read == 0:
        return f"{faults.file}: holds no rows; write one dialogue or one example a row"
    if not faults.faults or config.data.on_error == "skip":
        return None
    return (
        f"{faults.file}: {faults.rows_rejected} of {faults.rows_read} rows cannot be used; mend "
        "them as listed, or leave them out with data.on_error=skip"
    )


def _overview(source: Source, checked: _Checked) -> Sheet:
    faults = source.faults
    counts = count_hints(checked.hints)
    rows = [
        ("rows read", faults.rows_read),
        ("rows accepted", faults.rows_read - faults.rows_rejected),
        ("rows rejected", faults.rows_rejected),
        ("client utterances", checked.utterances),
        ("labelled", checked.labelled),
        ("labelled without a rationale", checked.without_rationale),
        ("texts of several labels, in whatever context", checked.texts_of_several_labels),
    ]
    cells = [(name, f"{n:,}", "") for name, n in rows]
    cells += [(KINDS[kind], f"{n:,}", MENDS[kind] if n else "") for kind, n in counts.items()]
    return Sheet(
        title="Rows and hints",
        header=("what", "number", "what to do"),
        rows=tuple(cells),
        text_columns=(0, 2),
    )


def _fault_sheet(faults: Sequence[RowFault], listed: int) -> list[Sheet]:
    if not faults[:listed]:
        return []
    rows = [(str(f.line), f.field, f.reason, f.mend) for f in faults[:listed]]
    more = f", the first {listed} of {len(faults)}" if len(faults) > listed else ""
    return [
        Sheet(
            title=f"Faults{more}",
            header=("line", "field", "reason", "what to do"),
            rows=tuple(rows),
            text_columns=(1, 2, 3),
        )
    ]


def _hint_sheet(hints: Sequence[Hint], listed: int) -> list[Sheet]:
    shown: Counter[str] = Counter()
    rows = []
    for hint in hints:
        shown[hint.kind] += 1
        if shown[hint.kind] <= listed:
            rows.append((str(hint.line), hint.id, hint.reason))
    if not rows:
        return []
    more = f", up to {listed} of a kind" if max(shown.values()) > listed else ""
    return [
        Sheet(
            title=f"Hints{more}",
            header=("line", "id", "what"),
            rows=tuple(rows),
            text_columns=(1, 2),
        )
    ]


def _fault_rows(faults: Sequence[RowFault]) -> Iterator[dict[str, object]]:
    for fault in faults:
        yield {
            "severity": "fault",
            "kind": "row",
            "file": fault.file,
            "line": fault.line,
            "id": None,
            "field": fault.field,
            "reason": fault.reason,
            "mend": fault.mend,
        }


def _hint_rows(file: str, hints: Sequence[Hint]) -> Iterator[dict[str, object]]:
    for hint in hints:
        yield {
            "severity": "hint",
            "kind": hint.kind,
            "file": file,
            "line": hint.line,
            "id": hint.id,
            "field": None,
            "reason": hint.reason,
            "mend": hint.mend,
        }


def _notes(config: CorpusConfig) -> Iterator[str]:
    yield "a fault keeps a row out; a hint does not, it wants a second look"
    if config.labels == "canonical":
        yield f"labels are those of task {config.task.name}"
    if config.validate.near_duplicates is not None:
        yield (
            f"near-duplicates: similarity of at least {config.validate.near_duplicates:g}, texts "
            f"of at least {config.validate.shortest} characters, each named with an earlier one"
        )
    yield "personal details are counted by their form alone: names are not looked for"
