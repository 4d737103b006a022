"""What the test part of a fold shares with the data that shaped its model: ``leakage.json``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from recap.data.folds import content_key
from recap.records import Example, Fold

MAX_IDS_LISTED = 50
"""Ids listed under each heading; the count beside them is always the full one."""


def leakage_report(examples: Sequence[Example], folds: Sequence[Fold]) -> Mapping[str, Any]:
    """Return, for every fold, what its test examples share with training and selection examples.

    A split by utterance shares much: the history of one turn holds the turn before it word for
    word, and that turn may be tested. Counts are of test examples; no text is in the report.

    Returns:
        A mapping that JSON can hold: ``examples``, ``in_folds``, ``without_session``,
        ``without_client`` (of those in folds; sharing cannot be judged for them), and ``folds``,
        each with its sizes and

        - ``duplicates``: test examples whose (context, response) is also trained on;
        - ``shared_sessions``, ``shared_clients``: how many of either lie on both sides (``count``),
          and the test examples in them;
        - ``history_overlap``: test examples whose response stands verbatim as a client turn in the
          history of a training example of the same session, or the other way round.
    """
    keys = [content_key(example) for example in examples]
    inside = {i for fold in folds for i in (*fold.train, *fold.select, *fold.test)}
    return {
        "examples": len(examples),
        "in_folds": len(inside),
        "without_session": sum(not examples[i].session for i in inside),
        "without_client": sum(not examples[i].client for i in inside),
        "ids_listed_at_most": MAX_IDS_LISTED,
        "folds": [_fold_report(examples, keys, fold) for fold in folds],
    }


def _fold_report(examples: Sequence[Example], keys: Sequence[str], fold: Fold) -> dict[str, Any]:
    test = set(fold.test)
    # Under the paper's protocol the selection part is the test part itself and shares nothing new.
    seen = sorted({*fold.train, *fold.select} - test)
    trained_keys = {keys[i] for i in seen}
    return {
        "fold": fold.index,
        "train": len(fold.train),
        "select": len(fold.select),
        "test": len(fold.test),
        "duplicates": _listed(examples, [i for i in fold.test if keys[i] in trained_keys]),
        "shared_sessions": _shared(
            {i: examples[i].session for i in fold.test}, {examples[i].session for i in seen}
        ),
        "shared_clients": _shared(
            {i: examples[i].client for i in fold.test}, {examples[i].client for i in seen}
        ),
        "history_overlap": _listed(examples, _history_overlap(examples, seen, fold.test)),
    }


def _listed(examples: Sequence[Example], indices: Collection[int]) -> dict[str, Any]:
    ids = sorted(examples[i].id for i in indices)
    return {"count": len(ids), "ids": ids[:MAX_IDS_LISTED]}


def _shared(tested: Mapping[int, str | None], trained: Collection[str | None]) -> dict[str, int]:
    inside = [value for value in tested.values() if value and value in trained]
    return {"count": len(set(inside)), "test_examples": len(inside)}


def _history_overlap(
    examples: Sequence[Example], seen: Sequence[int], test: Sequence[int]
) -> list[int]:
    responses: dict[str, set[str]] = {}
    histories: dict[str, set[str]] = {}
    for i in seen:
        session = examples[i].session
        if session:
            responses.setdefault(session, set()).add(examples[i].response)
            histories.setdefault(session, set()).update(_client_texts(examples[i]))
    found = []
    for i in test:
        session = examples[i].session
        if not session or session not in responses:
            continue
        backward = examples[i].response in histories[session]
        if backward or not responses[session].isdisjoint(_client_texts(examples[i])):
            found.append(i)
    return found


def _client_texts(example: Example) -> list[str]:
    return [turn.text for turn in example.history if turn.speaker == "client"]
