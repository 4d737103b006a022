"""The client utterances of a file to annotate, one at a time: files of any size pass through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from recap.data.examples import (
    NoIntervention,
    examples_of,
    has_intervention,
    with_merged_history,
)
from recap.data.faults import FaultLog
from recap.data.reading import read_records
from recap.records import Dialogue, Example


def read_utterances(
    *,
    reader: str,
    path: Path | None,
    faults: FaultLog,
    merge_adjacent: bool = True,
    no_intervention: NoIntervention = "keep",
    options: Mapping[str, Any] | None = None,
) -> Iterator[Example]:
    """Yield every client utterance of a file in its order, labelled or not.

    An utterance without text comes with an empty response. Labels stay as they are written. What
    became of the turns is counted in ``faults.counts`` as :func:`recap.data.examples.examples_of`
    has it.
    """
    records = read_records(
        reader=reader,
        path=path,
        taxonomy=None,
        faults=faults,
        require_labels=False,
        options=options,
        to_annotate=True,
    )
    for record in records:
        yield from utterances_of(
            record,
            merge_adjacent=merge_adjacent,
            no_intervention=no_intervention,
            counts=faults.counts,
        )


def utterances_of(
    record: Dialogue | Example,
    *,
    merge_adjacent: bool = True,
    no_intervention: NoIntervention = "keep",
    counts: Counter[str] | None = None,
) -> Iterator[Example]:
    """Yield the client utterances of one dialogue, or the one of an example, to be annotated."""
    counted: Counter[str] = Counter() if counts is None else counts
    if isinstance(record, Dialogue):
        counted["dialogues"] += 1
        yield from examples_of(
            record,
            merge_adjacent=merge_adjacent,
            no_intervention=no_intervention,
            empty_apart=True,
            counts=counted,
        )
        return
    said = tuple(turn for turn in record.history if turn.text.strip())
    example = record if len(said) == len(record.history) else replace(record, history=said)
    if merge_adjacent:
        example = with_merged_history(example)
    counted["client_turns"] += 1
    if not example.response.strip():
        counted["empty"] += 1
    elif no_intervention == "skip" and not has_intervention(example):
        counted["no_intervention"] += 1
        return
    else:
        counted["examples"] += 1
    yield example
