"""The data that was annotated: texts for those who decide, records under their final labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace

from recap.analysis.adjudication import Verdict
from recap.corpus_actions.annotations import named_path
from recap.corpus_actions.batches import examples_in
from recap.corpus_actions.options import CorpusConfig
from recap.corpus_actions.sources import find_taxonomy, open_source
from recap.data.examples import turn_id
from recap.data.faults import FaultLog
from recap.data.readers.columns import require_column
from recap.data.readers.registry import Record
from recap.data.readers.sheets import read_sheet
from recap.data.safe_cells import bare_cell
from recap.errors import DataError, quote_id
from recap.records import Dialogue, Example


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The data that was annotated, as far as it is there."""

    records: tuple[Record, ...]
    examples: dict[str, Example]
    """What annotators saw, by id."""
    unknown: int
    """Judged examples that are not in the data."""
    notes: tuple[str, ...] = ()
    """What is to be said of the data."""


def read_texts(config: CorpusConfig, judged: Set[str]) -> Texts:
    """Return the data; none where no file of it was named and the demo holds nothing of the kind.

    Without ``annotations.path``, ``data.path`` names the annotations; a reader of dialogues has to
    be chosen for it to be read as data too.

    Raises:
        DataError: When the data cannot be read, or a file that was named holds no judged example.
    """
    if not config.annotations.path and config.data.reader == "demo":
        return Texts(records=(), examples={}, unknown=len(judged))
    source = open_source(config, find_taxonomy(config))
    records = tuple(source.records)
    examples = {e.id: e for record in records for e in examples_in(record, config)}
    there = {identifier for record in records for identifier in _ids(record)}
    unknown = len(judged - there)
    if unknown == len(judged):
        if config.data.path is None:
            return Texts(records=(), examples={}, unknown=unknown)
        raise DataError(
            f"{source.file}: holds none of the {unknown} judged examples; their ids must be those "
            "of the data (SESSION:TURN where it has none)"
        )
    return Texts(records=records, examples=examples, unknown=unknown, notes=tuple(source.notes()))


def label_records(records: Iterable[Record], verdicts: Sequence[Verdict]) -> Iterator[Record]:
    """Yield the records, client turns under their final labels and under no other."""
    final = {verdict.id: verdict for verdict in verdicts}
    for record in records:
        if isinstance(record, Example):
            verdict = final.get(record.id)
            yield replace(
                record,
                label=verdict.label if verdict else None,
                rationale=verdict.rationale if verdict else None,
            )
            continue
        turns = []
        for index, turn in enumerate(record.turns):
            if turn.speaker == "client":
                verdict = final.get(turn_id(record.session, index, turn))
                turn = replace(
                    turn,
                    label=verdict.label if verdict else None,
                    rationale=verdict.rationale if verdict else None,
                )
            turns.append(turn)
        yield replace(record, turns=tuple(turns))


def read_decisions(config: CorpusConfig, judged: Set[str]) -> dict[str, str]:
    """Return the labels that were filled in by hand, by example id.

    Raises:
        DataError: When the file cannot be read, listing every faulty row.
    """
    path = config.adjudicate.decisions
    if path is None:
        return {}
    faults = FaultLog(path)
    table = read_sheet(named_path("adjudicate.decisions", path), faults)
    for column in ("id", "final_label"):
        require_column(
            table.path, table.columns, column, "give back the to-do file with its header"
        )
    taxonomy = find_taxonomy(config)
    decisions: dict[str, str] = {}
    for line, row in table.rows:
        identifier, label = bare_cell(row["id"].strip()), bare_cell(row["final_label"].strip())
        if not label:
            continue
        if identifier not in judged:
            reason = f"id {quote_id(identifier)} was judged by nobody"
            faults.reject(line, "id", reason, "correct it, or remove the row")
            continue
        if taxonomy is not None:
            try:
                label = taxonomy.resolve(label)
            except DataError as error:
                reason = str(error).removeprefix("label ")
                faults.reject(line, "final_label", reason, "write a label of the taxonomy")
                continue
        if decisions.setdefault(identifier, label) != label:
            reason = f"id {quote_id(identifier)} is decided twice, and differently"
            faults.reject(line, "final_label", reason, "keep one row")
    if faults.faults:
        raise faults.error()
    return decisions


def _ids(record: Record) -> Iterator[str]:
    if not isinstance(record, Dialogue):
        yield record.id
        return
    for index, turn in enumerate(record.turns):
        if turn.speaker == "client":
            yield turn_id(record.session, index, turn)
