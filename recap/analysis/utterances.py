"""Client utterances with their labels, as analyses of sessions and feedback cards see them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recap.records import Dialogue, Example, Turn
from recap.taxonomy import Taxonomy


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """One client utterance and what was said of it.

    ``label`` is ``None`` where it has none: it was not annotated, or the model's answer could not
    be read. ``turn`` is the index in the dialogue; ``act`` the label of the counsellor turn before
    it. ``probabilities`` and ``rationale`` are there where the annotation came with them.
    ``dialogue`` holds all turns that are known, ``before`` of which precede this one.
    """

    id: str
    session: str
    response: str
    label: str | None
    turn: int | None = None
    dialogue: Sequence[Turn] = field(default=(), repr=False)
    before: int = 0
    act: str | None = None
    predicted: bool = False
    probabilities: Mapping[str, float] | None = None
    rationale: str | None = None
    client: str | None = None
    counselor: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def history(self) -> Sequence[Turn]:
        """The turns before it."""
        return self.dialogue[: self.before]

    @property
    def probability(self) -> float | None:
        """Probability of the label, ``None`` where it is not known."""
        if self.probabilities is None or self.label is None:
            return None
        return self.probabilities.get(self.label)


def list_client_turns(record: Dialogue | Example) -> list[Utterance]:
    """Return the client turns of a dialogue, or the response of an example, as annotated.

    Turns are not merged: each one is an utterance. An example without a session counts as a session
    of its own.
    """
    if isinstance(record, Example):
        return [
            Utterance(
                id=record.id,
                session=record.session or record.id,
                response=record.response,
                label=record.label,
                turn=record.turn,
                dialogue=record.history,
                before=len(record.history),
                act=_act(record.history, len(record.history)),
                rationale=record.rationale,
                client=record.client,
                meta=record.meta,
            )
        ]
    return [
        Utterance(
            id=turn.id or f"{record.session}:{index}",
            session=record.session,
            response=turn.text,
            label=turn.label,
            turn=index,
            dialogue=record.turns,
            before=index,
            act=_act(record.turns, index),
            rationale=turn.rationale,
            client=record.client,
            counselor=record.counselor,
            meta=record.meta,
        )
        for index, turn in enumerate(record.turns)
        if turn.speaker == "client"
    ]


def _act(turns: Sequence[Turn], index: int) -> str | None:
    before = turns[index - 1] if index else None
    return before.label if before is not None and before.speaker == "counselor" else None


def labels_in_use(taxonomy: Taxonomy, labels: Iterable[str]) -> tuple[str, ...]:
    """Return the categories that annotations tell apart, in canonical order.

    These are the labels that occur, and all leaves, unless the annotations stop at a category above
    a leaf: where ``Resistance`` itself is a label, a behaviour that never occurs was not asked for.

    Args:
        taxonomy: Of the labels.
        labels: As they occur; may repeat.
    """
    found = set(labels)
    leaves = set(taxonomy.leaves)
    kept = {leaf for leaf in leaves if leaf in found or not found & set(taxonomy.lineage(leaf)[1:])}
    return tuple(c.name for c in taxonomy.categories if c.name in found | kept)


def membership(taxonomy: Taxonomy, tops: Iterable[str]) -> Callable[[str], bool]:
    """Return a function that tells whether a label is one of ``tops`` or lies below one."""
    chosen = frozenset(tops)
    below = {
        category.name: bool(chosen & set(taxonomy.lineage(category.name)))
        for category in taxonomy.categories
    }
    return lambda label: below[label]
