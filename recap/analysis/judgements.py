"""What annotators said: one label a judgement, and the table of examples by annotators."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MISSING = -1
"""Code of a cell without a label."""

FIRST_ROUND = "1"
"""Round of a judgement whose file names none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """The label that one annotator gave one example in one round of annotation."""

    id: str
    annotator: str
    label: str
    session: str | None = None
    round: str = FIRST_ROUND
    rationale: str | None = None


@dataclass(frozen=True, kw_only=True)
class JudgementTable:
    """Labels as a table of examples by annotators.

    ``codes`` has the shape (examples, annotators): the index of the label, or :data:`MISSING`.
    ``sessions`` names the session of every example, ``None`` where none of its judgements does.
    """

    ids: tuple[str, ...]
    annotators: tuple[str, ...]
    labels: tuple[str, ...]
    sessions: tuple[str | None, ...]
    codes: NDArray[np.int64]

    def counts(self) -> NDArray[np.int64]:
        """Return how many annotators gave each label, of shape (examples, labels)."""
        counts = np.zeros((len(self.ids), len(self.labels)), dtype=np.int64)
        for column in self.codes.T:
            rows = np.flatnonzero(column != MISSING)
            np.add.at(counts, (rows, column[rows]), 1)
        return counts


def tabulate(judgements: Iterable[Judgement], *, labels: Sequence[str] = ()) -> JudgementTable:
    """Return judgements as a table; examples and annotators stand in order of appearance.

    Where an annotator judged an example in several rounds, the last round counts.

    Args:
        judgements: In any order.
        labels: The order of labels; those that nobody gave are left out, others come after, sorted.
    """
    every = tuple(judgements)
    kept = _last_rounds(every)
    ids = tuple(dict.fromkeys(j.id for j in kept))
    annotators = tuple(dict.fromkeys(j.annotator for j in kept))
    given = {j.label for j in kept}
    ordered = (*(label for label in dict.fromkeys(labels) if label in given),)
    ordered += tuple(sorted(given - set(ordered)))
    row, column = _places(ids), _places(annotators)
    code = _places(ordered)
    codes = np.full((len(ids), len(annotators)), MISSING, dtype=np.int64)
    sessions: list[str | None] = [None] * len(ids)
    for judgement in kept:
        codes[row[judgement.id], column[judgement.annotator]] = code[judgement.label]
    for judgement in every:
        if sessions[row[judgement.id]] is None:
            sessions[row[judgement.id]] = judgement.session
    return JudgementTable(
        ids=ids, annotators=annotators, labels=ordered, sessions=tuple(sessions), codes=codes
    )


def rounds_of(judgements: Iterable[Judgement]) -> tuple[str, ...]:
    """Return the rounds in order, ``round2`` before ``round10``."""
    return tuple(sorted({judgement.round for judgement in judgements}, key=_natural))


def _last_rounds(judgements: Iterable[Judgement]) -> list[Judgement]:
    kept: dict[tuple[str, str], Judgement] = {}
    for judgement in judgements:
        key = (judgement.id, judgement.annotator)
        there = kept.get(key)
        if there is None or _natural(judgement.round) >= _natural(there.round):
            kept[key] = judgement
    return list(kept.values())


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = [part for part in re.split(r"(\d+)", name) if part]
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _places(names: Sequence[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(names)}
