"""Examples as batches, one file an annotator, and labels that predictions put in beforehand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from recap.analysis.assignment import Assignment
from recap.corpus_actions.annotations import named_path
from recap.corpus_actions.options import CorpusConfig
from recap.corpus_actions.sources import find_taxonomy, open_source
from recap.data.doccano_batches import batch_to_jsonl
from recap.data.examples import examples_of, has_intervention, with_merged_history
from recap.data.readers.registry import Record
from recap.errors import ConfigError, DataError
from recap.records import Dialogue, Example, Prediction
from recap.scoring.files import predictions_from_jsonl

_FILE_NAME = re.compile(r"[^/\\:*?\"<>|\x00-\x1f]+")


@dataclass(frozen=True, kw_only=True)
class Utterances:
    """Client turns, and what is to be said of where they come from."""

    examples: list[Example]
    notes: list[str]


def read_utterances(config: CorpusConfig) -> Utterances:
    """Return the client turns of the data as training sees them, labelled or not.

    Raises:
        DataError: When none is left, or two have one id.
    """
    source = open_source(config, find_taxonomy(config))
    examples = [example for record in source.records for example in examples_in(record, config)]
    if not examples:
        raise DataError(
            f"{source.file}: no client turn follows a counsellor turn; keep the others with "
            "data.no_intervention=keep"
        )
    return Utterances(examples=examples, notes=source.notes())


def examples_in(record: Record, config: CorpusConfig) -> Iterator[Example]:
    """Yield the client turns of one record as training sees them."""
    data = config.data
    if isinstance(record, Dialogue):
        yield from examples_of(
            record, merge_adjacent=data.merge_adjacent, no_intervention=data.no_intervention
        )
        return
    record = with_merged_history(record) if data.merge_adjacent else record
    if data.no_intervention == "keep" or has_intervention(record):
        yield record


def batch_pages(
    examples: Mapping[str, Example],
    assignments: Iterable[Assignment],
    *,
    round_name: str,
    language: str | None,
    batch_size: int | None = None,
    labels: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the files ``round<name>/<annotator>.jsonl`` that Doccano imports.

    Args:
        examples: By their ids.
        assignments: Who judges which of them.
        round_name: The round.
        language: Of the data.
        batch_size: Examples of one file (``<annotator>.1.jsonl``); ``None``: all in one.
        labels: Labels that stand there beforehand, by example id.

    Raises:
        ConfigError: When an annotator's name cannot be that of a file.
    """
    by_annotator: dict[str, list[Example]] = {}
    for assignment in assignments:
        for name in assignment.annotators:
            by_annotator.setdefault(name, []).append(examples[assignment.id])
    pages = {}
    for name, own in by_annotator.items():
        for part, batch in _parts(name, own, batch_size):
            pages[f"round{round_name}/{part}.jsonl"] = batch_to_jsonl(
                batch, round_name=round_name, language=language, labels=labels
            )
    return pages


def check_file_name(option: str, name: str) -> None:
    """Check that a name can be that of a file.

    Raises:
        ConfigError: When it cannot.
    """
    if not _FILE_NAME.fullmatch(name) or name.strip(". ") != name or re.search(r"\.\d+$", name):
        raise ConfigError(
            f"{option}: {name!r} cannot name a file; use letters, digits, '-' and '_'"
        )


def read_predictions(option: str, path: str) -> dict[str, Prediction]:
    """Return predictions by their ids, those without a label left out.

    Raises:
        ConfigError: When there is no such file.
        DataError: When it holds anything else.
    """
    try:
        text = named_path(option, path).read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError):
        raise DataError(f"{path}: is no text in UTF-8; name a predictions.jsonl") from None
    predictions = predictions_from_jsonl(text, source=path)
    return {p.id: p for p in predictions if p.label is not None}


def _parts(
    name: str, examples: Sequence[Example], batch_size: int | None
) -> Iterator[tuple[str, Sequence[Example]]]:
    if batch_size is None:
        yield name, examples
        return
    for number, begin in enumerate(range(0, len(examples), batch_size), start=1):
        yield f"{name}.{number}", examples[begin : begin + batch_size]
