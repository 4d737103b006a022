"""Labels that annotators gave, put into one table of examples by annotators."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MISSING = -1
"""Code of a cell without a label."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatorLabel:
    """The label that one annotator gave one example in one round of annotation."""

    id: str
    annotator: str
    label: str
    session: str | None = None
    client: str | None = None
    counselor: str | None = None
    round: str = "1"
    rationale: str | None = None


@dataclass(frozen=True, kw_only=True)
class AnnotationTable:
    """Labels as a table of examples by annotators.

    ``codes`` has the shape (examples, annotators): the index of the label, or :data:`MISSING`.
    ``sessions`` names the session of every example, ``None`` where none of its annotations does.
    """

    ids: tuple[str, ...]
    annotators: tuple[str, ...]
    labels: tuple[str, ...]
    sessions: tuple[str | None, ...]
    codes: NDArray[np.int64]
    people: tuple[tuple[str | None, str | None], ...] = ()
    """Client and counselor of every example, likewise; none where no table names any."""

    def counts(self) -> NDArray[np.int64]:
        """Return how many annotators gave each label, of shape (examples, labels)."""
        counts = np.zeros((len(self.ids), len(self.labels)), dtype=np.int64)
        for code in range(len(self.labels)):
            counts[:, code] = (self.codes == code).sum(axis=1)
        return counts


def tabulate(
    annotations: Iterable[AnnotatorLabel], *, labels: Sequence[str] = ()
) -> AnnotationTable:
    """Return annotations as a table; examples and annotators stand in order of appearance.

    Where an annotator labeled an example in several rounds, the last round counts. ``labels`` is
    the order of labels; those that nobody gave are left out, others come after, sorted.
    """
    kept: dict[tuple[str, str], AnnotatorLabel] = {}
    of_id: dict[str, dict[str, str | None]] = {}
    for one in annotations:
        there = kept.get((one.id, one.annotator))
        if there is None or _natural(one.round) >= _natural(there.round):
            kept[one.id, one.annotator] = one
        said = of_id.setdefault(one.id, dict.fromkeys(("session", "client", "counselor")))
        said.update({role: getattr(one, role) for role, name in said.items() if name is None})
    annotators = tuple(dict.fromkeys(annotator for _, annotator in kept))
    given = {one.label for one in kept.values()}
    ordered = tuple(label for label in dict.fromkeys(labels) if label in given)
    ordered += tuple(sorted(given.difference(ordered)))
    row, column, code = (
        {name: place for place, name in enumerate(names)} for names in (of_id, annotators, ordered)
    )
    codes = np.full((len(row), len(column)), MISSING, dtype=np.int64)
    for one in kept.values():
        codes[row[one.id], column[one.annotator]] = code[one.label]
    return AnnotationTable(
        ids=tuple(of_id),
        annotators=annotators,
        labels=ordered,
        sessions=tuple(said["session"] for said in of_id.values()),
        people=tuple((said["client"], said["counselor"]) for said in of_id.values()),
        codes=codes,
    )


def rounds_of(annotations: Iterable[AnnotatorLabel]) -> tuple[str, ...]:
    """Return the rounds in order, ``round2`` before ``round10``."""
    return tuple(sorted({one.round for one in annotations}, key=_natural))


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = [part for part in re.split(r"(\d+)", name) if part]
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
