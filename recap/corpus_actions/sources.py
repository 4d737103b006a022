"""The records and the task that a corpus command is about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from recap.build import configured_task, reader_options
from recap.corpus_actions.options import CorpusConfig
from recap.data.faults import FaultLog
from recap.data.readers.registry import Record
from recap.data.reading import read_records
from recap.errors import DataError
from recap.records import Dialogue, Example
from recap.tasks.task import Task
from recap.taxonomy import Taxonomy

MOST_RAW_LABELS = 100
"""Different labels that ``labels=raw`` accepts: a column of texts has more."""

LONGEST_RAW_LABEL = 60
"""Characters of the longest label that ``labels=raw`` accepts."""

SYNTHETIC = "this corpus is synthetic: it says nothing about real clients"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A corpus about to be read, once, record by record."""

    file: str
    """How messages call it."""
    faults: FaultLog
    """What was wrong with its rows; complete after the last record."""
    records: Iterator[Record] = field(repr=False)
    """Its records under canonical labels."""

    def notes(self) -> list[str]:
        """Return sentences on what kind of corpus it is, and on rows that were left out."""
        notes = [SYNTHETIC] if self.faults.counts["synthetic"] else []
        rejected, read = self.faults.rows_rejected, self.faults.rows_read
        if rejected:
            notes.append(f"{rejected} of {read} rows were left out; action=validate lists them")
        return notes


def find_task(config: CorpusConfig) -> Task:
    """Return the task, in the language of the data."""
    language = "zh" if config.data.language == "zh" else "en"
    return configured_task(config.task, language=language)


def find_taxonomy(config: CorpusConfig) -> Taxonomy | None:
    """Return the taxonomy that labels are looked up in, ``None`` for ``labels=raw``."""
    return find_task(config).taxonomy if config.labels == "canonical" else None


def open_source(
    config: CorpusConfig, taxonomy: Taxonomy | None, *, keep_empty: bool = False, judge: bool = True
) -> Source:
    """Return the corpus, labelled or not, its labels looked up in ``taxonomy``.

    With ``data.on_error=fail`` the iterator of records ends in an error when rows are at fault,
    which lists them.

    Args:
        config: Says which corpus.
        taxonomy: Where labels are looked up; ``None`` leaves them as they stand.
        keep_empty: Whether turns without a text are part of the corpus rather than faults.
        judge: Whether rows at fault, or no rows, end in an error at all.

    Raises:
        ConfigError: For an unknown reader or option.
    """
    data = config.data
    path = Path(data.path) if data.path is not None else None
    faults = FaultLog(str(path) if path is not None else data.reader)
    records = read_records(
        reader=data.reader,
        path=path,
        taxonomy=taxonomy,
        faults=faults,
        require_labels=False,
        keep_empty=keep_empty,
        options=reader_options(data),
    )
    records = _watched(records, faults)
    if taxonomy is None:
        records = _with_few_labels(records, faults)
    if judge:
        records = _checked(records, faults, data.on_error == "fail")
    return Source(file=faults.file, faults=faults, records=records)


def _watched(records: Iterator[Record], faults: FaultLog) -> Iterator[Record]:
    for record in records:
        faults.counts["synthetic"] += record.meta.get("synthetic") is True
        yield record


def _with_few_labels(records: Iterator[Record], faults: FaultLog) -> Iterator[Record]:
    """Yield the records; refuse labels that may be client text, which tables would print."""
    seen: set[str] = set()
    for record in records:
        turns = record.turns if isinstance(record, Dialogue) else ()
        labels = [record.label] if isinstance(record, Example) else [turn.label for turn in turns]
        seen.update(label for label in labels if label is not None)
        if len(seen) > MOST_RAW_LABELS or max(map(len, seen), default=0) > LONGEST_RAW_LABEL:
            raise DataError(
                f"{faults.file}: labels=raw: more than {MOST_RAW_LABELS} different labels, or one "
                f"of more than {LONGEST_RAW_LABEL} characters: is this the column of labels? "
                "data.options.columns.label=NAME names it"
            )
        yield record


def _checked(records: Iterator[Record], faults: FaultLog, fail: bool) -> Iterator[Record]:
    n = 0
    for record in records:
        n += 1
        yield record
    if faults.faults and fail:
        raise faults.error()
    if n == 0:
        left = f"all {faults.rows_read} rows were rejected" if faults.rows_read else "holds no rows"
        raise DataError(f"{faults.file}: {left}; action=validate lists what is wrong")
