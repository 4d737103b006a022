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
from recap.tasks.task import Task
from recap.taxonomy import Taxonomy


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
        """Return a sentence on rows that were left out, when some were."""
        rejected = self.faults.rows_rejected
        return [
            f"{rejected} of {self.faults.rows_read} rows were left out; action=validate lists them"
        ] * bool(rejected)


def find_task(config: CorpusConfig) -> Task | None:
    """Return the task, ``None`` for ``task=null``."""
    if config.task is None:
        return None
    language = "zh" if config.data.language == "zh" else "en"
    return configured_task(config.task, language=language)


def find_taxonomy(config: CorpusConfig) -> Taxonomy | None:
    """Return the task's taxonomy, ``None`` for ``task=null``."""
    task = find_task(config)
    return None if task is None else task.taxonomy


def open_source(config: CorpusConfig, taxonomy: Taxonomy | None) -> Source:
    """Return the corpus, labelled or not, its labels looked up in ``taxonomy``.

    With ``data.on_error=fail`` the iterator of records ends in an error when rows are at fault,
    which lists them.

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
        options=reader_options(data),
    )
    checked = _checked(records, faults, data.on_error == "fail")
    return Source(file=faults.file, faults=faults, records=checked)


def _checked(records: Iterator[Record], faults: FaultLog, fail: bool) -> Iterator[Record]:
    n = 0
    for record in records:
        n += 1
        yield record
    if faults.faults and fail:
        raise faults.error()
    if n == 0:
        raise DataError(f"{faults.file}: leaves no dialogue and no example")
