"""A data set in memory: labelled examples, and an account of every row that was read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from recap.data.examples import (
    NoIntervention,
    examples_of,
    has_intervention,
    with_merged_history,
)
from recap.data.faults import LISTED_FAULTS, FaultLog, RowFault
from recap.data.folds import content_key
from recap.data.readers.registry import one_of
from recap.data.reading import read_records
from recap.errors import DataError, quote_id
from recap.records import Dialogue, Example
from recap.taxonomy import Taxonomy

OnError = Literal["fail", "skip"]
Duplicates = Literal["warn", "error", "drop"]

_NOTES = {
    "unlabelled": "client turns without a label make no example",
    "empty": "client turns hold no text",
    "no_intervention": "client turns do not follow a counsellor turn and are skipped",
    "merged_client_turns": "client turns were merged into the next of the same speaker",
    "merged_counselor_turns": "counsellor turns were merged into the next of the same speaker",
    "merged_label_conflicts": "labels differ from that of the client turn they were merged into",
    "merged_act_conflicts": "acts differ from that of the counsellor turn they were merged into",
    "duplicates": "examples repeat the history and the response of an earlier one",
    "label_conflicts": "of these carry another label than the first",
    "cut_dialogues": "dialogues were cut in two at a row that was left out",
    "not_drawn": "examples were not drawn (cv.max_examples), so that labels are about even",
    "annotation_ties": "client turns have an even vote of their annotators",
    "multi_label": "rows carry several labels",
    "unknown_turn_keys": "keys of turns are not known and were not used",
    "lines_before_first_speaker": "lines before the first speaker were not used",
}


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The examples of one data set, in the order of the file.

    ``rows_read`` is ``rows_accepted`` plus the rows that ``faults`` names. ``counts`` tells what
    became of the turns; its keys are explained by :meth:`notes`.
    """

    name: str
    examples: tuple[Example, ...]
    rows_read: int
    rows_accepted: int
    faults: tuple[RowFault, ...]
    counts: Mapping[str, int]
    synthetic: bool

    def notes(self) -> list[str]:
        """Return one sentence for everything that was left out, merged or found twice."""
        rejected = self.rows_read - self.rows_accepted
        notes = [f"{rejected} of {self.rows_read} rows were left out"] if rejected else []
        return notes + account_notes(self.counts)


def account_notes(counts: Mapping[str, int]) -> list[str]:
    """Return one sentence for everything that was counted as left out, merged or found twice."""
    return [f"{counts[key]} {note}" for key, note in _NOTES.items() if counts.get(key)]


def read_corpus(
    *,
    reader: str,
    path: Path | None,
    taxonomy: Taxonomy | None,
    name: str | None = None,
    on_error: OnError = "fail",
    duplicates: Duplicates = "warn",
    merge_adjacent: bool = True,
    no_intervention: NoIntervention = "skip",
    require_labels: bool = True,
    options: Mapping[str, Any] | None = None,
) -> Corpus:
    """Read a data set, its labels under their canonical names.

    Args:
        reader: Name of a registered reader, or ``package.module:function``.
        path: The file; ``None`` for readers that need none.
        taxonomy: Where labels are looked up; ``None`` leaves them as they stand.
        name: What to call the data set; by default the reader's name.
        on_error: ``fail`` lists every fault and stops, ``skip`` keeps the faults in the corpus.
        duplicates: What to do with examples of the same history and response: count them
            (``warn``), stop (``error``), or keep the first of each (``drop``).
        merge_adjacent: Whether several turns of one speaker in a row become one.
        no_intervention: Whether to ``skip`` or ``keep`` a client turn that no counsellor turn
            precedes.
        require_labels: Whether an example needs a label, as in training; false for prediction.
        options: The reader's own options.

    Raises:
        DataError: When the file cannot be read, rows are faulty, or no example is left.
        ConfigError: For an unknown reader, option or value.
    """
    one_of("on_error", on_error, ("fail", "skip"), prefix="data.")
    one_of("duplicates", duplicates, ("warn", "error", "drop"), prefix="data.")
    one_of("no_intervention", no_intervention, ("skip", "keep"), prefix="data.")
    faults = FaultLog(str(path) if path is not None else reader)
    records = read_records(
        reader=reader,
        path=path,
        taxonomy=taxonomy,
        faults=faults,
        require_labels=require_labels,
        options=options,
    )
    counts = faults.counts
    examples: list[Example] = []
    synthetic = False
    for record in records:
        synthetic = synthetic or record.meta.get("synthetic") is True
        if isinstance(record, Dialogue):
            counts["dialogues"] += 1
            examples += examples_of(
                record,
                merge_adjacent=merge_adjacent,
                no_intervention=no_intervention,
                require_labels=require_labels,
                counts=counts,
            )
        else:
            examples += _single(record, merge_adjacent, no_intervention, counts)
    if faults.faults and on_error == "fail":
        raise faults.error()
    examples = _judge_duplicates(examples, duplicates, faults)
    counts["examples"] = len(examples)
    if not examples:
        raise DataError(_why_empty(faults))
    return Corpus(
        name=name or reader,
        examples=tuple(examples),
        rows_read=faults.rows_read,
        rows_accepted=faults.rows_read - faults.rows_rejected,
        faults=tuple(faults.faults),
        counts=dict(counts),
        synthetic=synthetic,
    )


def _single(
    example: Example, merge_adjacent: bool, no_intervention: NoIntervention, counts: Counter[str]
) -> list[Example]:
    counts["client_turns"] += 1
    if merge_adjacent:
        example = with_merged_history(example)
    if no_intervention == "skip" and not has_intervention(example):
        counts["no_intervention"] += 1
        return []
    return [example]


def _judge_duplicates(
    examples: list[Example], duplicates: Duplicates, faults: FaultLog
) -> list[Example]:
    first: dict[str, Example] = {}
    kept: list[Example] = []
    repeats: list[tuple[Example, Example]] = []
    for example in examples:
        original = first.setdefault(content_key(example), example)
        if original is not example:
            repeats.append((example, original))
        if original is example or duplicates != "drop":
            kept.append(example)
    faults.counts["duplicates"] = len(repeats)
    faults.counts["label_conflicts"] = sum(
        repeat.label != original.label for repeat, original in repeats
    )
    if repeats and duplicates == "error":
        listed = "\n".join(
            f"  id {quote_id(repeat.id)} repeats id {quote_id(original.id)}"
            for repeat, original in repeats[:LISTED_FAULTS]
        )
        more = len(repeats) - LISTED_FAULTS
        tail = f"\n  and {more} more" if more > 0 else ""
        raise DataError(
            f"{faults.file}: {len(repeats)} examples have the history and response of another:\n"
            f"{listed}{tail}\n"
            "keep the first of each with data.duplicates=drop, or all with data.duplicates=warn"
        )
    return kept


def _why_empty(faults: FaultLog) -> str:
    counts = faults.counts
    if faults.rows_read == 0:
        return f"{faults.file}: holds no rows; write one dialogue or one example a row"
    if faults.rows_rejected == faults.rows_read:
        first = faults.faults[0]
        return f"{faults.file}: all {faults.rows_read} rows were rejected; the first: {first}"
    mends = {
        "unlabelled": "add labels (in a table: data.options.columns.label=NAME names their column)",
        "no_intervention": "keep utterances without a context with data.no_intervention=keep",
    }
    given = [key for key in mends if counts[key]]
    reasons = "; ".join(f"{counts[key]} {_NOTES[key]}" for key in given) or "no client turn"
    mend = "; ".join(mends[key] for key in given) or "check who speaks"
    return f"{faults.file}: leaves no example: {reasons}; {mend}"
