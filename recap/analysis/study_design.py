"""A counsellor study before it is run: scenarios, groups, orders, and raters who know neither."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from recap.analysis.utterances import Utterance
from recap.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One client utterance that participants respond to; its code says nothing of its label."""

    code: str
    utterance: Utterance


@dataclass(frozen=True, kw_only=True)
class Participant:
    """Someone who responds: a code, a group, and the order of scenarios in each phase."""

    code: str
    group: str
    orders: tuple[tuple[str, ...], ...]
    """Codes of the scenarios, a tuple a phase."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """What one participant wrote to one scenario in one phase."""

    participant: str
    phase: str
    scenario: str
    text: str


def draw_scenarios(
    utterances: Iterable[Utterance], wanted: Mapping[tuple[str, ...], int], *, seed: int
) -> tuple[Scenario, ...]:
    """Return scenarios, drawn at random from the utterances that answer a counsellor.

    No utterance and history is drawn twice, and sessions repeat only where there are not enough of
    them. The draw does not depend on the order of the utterances.

    Args:
        utterances: Labelled ones; others are passed over.
        wanted: How many of each set of labels together.
        seed: Another seed, another draw.

    Raises:
        DataError: When there are not as many of some labels.
    """
    usable: dict[str, dict[bytes, Utterance]] = {}
    for utterance in sorted(utterances, key=lambda u: u.id):
        history = utterance.history
        if utterance.label is not None and history and history[-1].speaker == "counselor":
            usable.setdefault(utterance.label, {}).setdefault(_content(utterance), utterance)
    _refuse_shortage(usable, wanted)
    sessions: set[str] = set()
    drawn: list[Utterance] = []
    for labels, n in wanted.items():
        generator = random.Random(f"{seed}:{'/'.join(labels)}")
        candidates = [u for label in labels for u in usable.get(label, {}).values()]
        generator.shuffle(candidates)
        for _ in range(n):
            # The first of a session not yet drawn from, else the first.
            fresh = next((u for u in candidates if u.session not in sessions), candidates[0])
            candidates.remove(fresh)
            sessions.add(fresh.session)
            drawn.append(fresh)
    random.Random(f"{seed}:codes").shuffle(drawn)
    width = len(str(len(drawn)))
    return tuple(
        Scenario(code=f"S{place:0{width}d}", utterance=utterance)
        for place, utterance in enumerate(drawn, start=1)
    )


def allocate(
    n: int,
    *,
    groups: tuple[str, str],
    n_phases: int,
    scenarios: Sequence[str],
    seed: int,
) -> tuple[Participant, ...]:
    """Return participants, dealt at random into groups of equal size (or one apart).

    Each gets an order of the scenarios of their own in each phase.

    Args:
        n: How many.
        groups: Names of the groups.
        n_phases: Phases, each with all scenarios.
        scenarios: Their codes.
        seed: Another seed, another allocation.
    """
    generator = random.Random(f"{seed}:participants")
    # With an odd number, chance says which group has one more.
    first = generator.sample(groups, 2)
    dealt = [first[place % 2] for place in range(n)]
    generator.shuffle(dealt)
    width = max(2, len(str(n)))
    return tuple(
        Participant(
            code=f"P{place:0{width}d}",
            group=group,
            orders=tuple(
                tuple(generator.sample(list(scenarios), len(scenarios))) for _ in range(n_phases)
            ),
        )
        for place, group in enumerate(dealt, start=1)
    )


def blind(responses: Iterable[Response], *, seed: int) -> dict[str, Response]:
    """Return responses in random order under ids that say nothing of who wrote them and when."""
    shuffled = sorted(responses, key=lambda r: (r.participant, r.phase, r.scenario))
    random.Random(f"{seed}:ratings").shuffle(shuffled)
    width = max(3, len(str(len(shuffled))))
    return {f"R{place:0{width}d}": r for place, r in enumerate(shuffled, start=1)}


def _content(utterance: Utterance) -> bytes:
    """Return a digest of what was said up to and with an utterance."""
    said = [utterance.response, *(f"{turn.speaker} {turn.text}" for turn in utterance.history)]
    return blake2b("\0".join(said).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _refuse_shortage(
    usable: Mapping[str, Mapping[bytes, Utterance]], wanted: Mapping[tuple[str, ...], int]
) -> None:
    short = []
    for labels, n in wanted.items():
        there = sum(len(usable.get(label, {})) for label in labels)
        if there < n:
            short.append(f"{' or '.join(labels)} (has {there}, needs {n})")
    if short:
        raise DataError(
            "too few different utterances that answer a counsellor: "
            f"{', '.join(short)}; lower study_materials.per_behavior or .collaborative, "
            "or give a larger corpus"
        )
