"""What the test part of a fold shares with the data that shaped its model: ``leakage.json``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from recap.data.folds import content_key
from recap.data.resemblance import RESPONSE_SIMILARITY, SHORTEST, SIMILARITY, Resemblance
from recap.records import Example, Fold

MAX_IDS_LISTED = 50
"""Ids listed under each heading; the count beside them is always the full one."""


def leakage_report(examples: Sequence[Example], folds: Sequence[Fold]) -> Mapping[str, Any]:
    """Return, for every fold, what its test examples share with training and selection examples.

    A split by utterance shares much: the history of one turn holds the turn before it word for
    word, and that turn may be tested. Counts are of test examples; no text is in the report.

    Returns:
        A mapping that JSON can hold: ``examples``, ``in_folds``, ``without_session``,
        ``without_client`` (of those in folds; sharing cannot be judged for them),
        ``near_duplicates`` (what is taken for one: thresholds of :mod:`recap.data.resemblance`),
        ``repeats`` (examples in folds with the (context, response) of an earlier one, whether or
        not on the same side),
        and ``folds``, each with its sizes and

        - ``duplicates``: test examples whose (context, response) is also trained on;
        - ``near_duplicates``: test examples that are nearly the same as one that is trained on;
        - ``shared_sessions``, ``shared_clients``: how many of either lie on both sides (``count``),
          and the test examples in them;
        - ``history_overlap``: test examples whose response stands verbatim as a client turn in the
          history of a training example of the same session, or the other way round.
    """
    judge = _Judge(examples)
    inside = {i for fold in folds for i in (*fold.train, *fold.select, *fold.test)}
    return {
        "examples": len(examples),
        "in_folds": len(inside),
        "without_session": sum(not examples[i].session for i in inside),
        "without_client": sum(not examples[i].client for i in inside),
        "ids_listed_at_most": MAX_IDS_LISTED,
        "repeats": _listed(examples, judge.repeats(sorted(inside))),
        "near_duplicates": {
            "similarity": SIMILARITY,
            "response_similarity": RESPONSE_SIMILARITY,
            "shortest_characters": SHORTEST,
        },
        "folds": [
            {
                "fold": fold.index,
                "train": len(fold.train),
                "select": len(fold.select),
                "test": len(fold.test),
                # Under the paper's protocol the selection part is the test part itself and shares
                # nothing new.
                **judge.shared(sorted({*fold.train, *fold.select} - set(fold.test)), fold.test),
            }
            for fold in folds
        ],
    }


def with_shots(
    report: Mapping[str, Any],
    examples: Sequence[Example],
    folds: Sequence[Fold],
    shots: Mapping[int, Sequence[Example]],
) -> Mapping[str, Any]:
    """Return a leakage report that also says what the solved examples of prompts share.

    A prompted system has seen nothing but these. Each fold gets ``shots``: their ``ids``,
    ``in_test`` (those that are test examples themselves), and the headings of
    :func:`leakage_report`, counting test examples that share something with a shot.

    Args:
        report: What :func:`leakage_report` returned.
        examples: The data set.
        folds: Its folds.
        shots: The solved examples of each fold, by its index; they are of the data set.
    """
    judge = _Judge(examples)
    places = {example.id: place for place, example in enumerate(examples)}
    reports = {fold["fold"]: dict(fold) for fold in report["folds"]}
    for fold in folds:
        shown = [places[shot.id] for shot in shots[fold.index]]
        reports[fold.index]["shots"] = {
            "ids": [shot.id for shot in shots[fold.index]],
            "in_test": _listed(examples, set(shown) & set(fold.test)),
            **judge.shared(shown, fold.test),
        }
    return {**report, "folds": list(reports.values())}


class _Judge:
    """Says what test examples share with examples that a model has seen."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples
        self._keys = [content_key(example) for example in examples]
        self._resemblance = Resemblance(examples, self._keys)

    def repeats(self, indices: Sequence[int]) -> list[int]:
        """Return those of the indices whose context and response an earlier one has too."""
        first: dict[str, int] = {}
        return [i for i in indices if first.setdefault(self._keys[i], i) != i]

    def shared(self, seen: Sequence[int], test: Sequence[int]) -> dict[str, Any]:
        """Return a heading for each kind; both parts are indices into the examples."""
        examples, keys = self._examples, self._keys
        seen_keys = {keys[i] for i in seen}
        return {
            "duplicates": _listed(examples, [i for i in test if keys[i] in seen_keys]),
            "near_duplicates": _listed(examples, self._resemblance.near(test, seen)),
            "shared_sessions": _shared(
                {i: examples[i].session for i in test}, {examples[i].session for i in seen}
            ),
            "shared_clients": _shared(
                {i: examples[i].client for i in test}, {examples[i].client for i in seen}
            ),
            "history_overlap": _listed(examples, _history_overlap(examples, seen, test)),
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
