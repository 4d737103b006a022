"""The sheets of a counselor study: what is drawn and handed out, and read back filled in."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

from recap.data.issues import IssueLog
from recap.data.sheets import filled_rows, raise_issues
from recap.data.utterances import Utterance
from recap.errors import ConfigError, DataError, quote_id


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
    """Return scenarios, drawn at random from the utterances that answer a counselor.

    No utterance and history is drawn twice, and sessions repeat only where there are not enough of
    them. The draw does not depend on the order of the utterances.

    Args:
        utterances: Labeled ones; others are passed over.
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
    texts = [utterance.response, *(f"{turn.speaker} {turn.text}" for turn in utterance.history)]
    return blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


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
            "too few different utterances that answer a counselor: "
            f"{', '.join(short)}; lower study_materials.per_behavior or .collaborative, "
            "or give a larger corpus"
        )


RESPONSE_COLUMNS = ("order", "scenario", "context", "client", "response")
RATING_COLUMNS = ("rating_id", "context", "client", "response", "rating", "remark")
KEY_COLUMNS = ("rating_id", "participant", "group", "phase", "scenario")
GROUP_COLUMNS = ("participant", "group")
SCENARIO_COLUMNS = ("scenario", "id", "session", "label")

T = TypeVar("T")

_ENDINGS = (".csv", ".xlsx")
_HINT = "leave the columns of the sheet as they were"


def find_sheet(folder: Path, stem: str) -> Path:
    """Return ``folder/stem.csv`` or ``.xlsx``, whichever is there; the later saved of two.

    Raises:
        DataError: When neither is there.
    """
    there = [path for ending in _ENDINGS if (path := folder / f"{stem}{ending}").is_file()]
    if not there:
        raise DataError(
            f"{folder}: holds no {stem}.csv and no {stem}.xlsx; put the sheet back there, "
            "or begin with study_materials.step=draw in another folder"
        )
    return max(there, key=lambda path: path.stat().st_mtime)


def own_sheet(read: Callable[[Path, IssueLog], T], path: Path) -> T:
    """Return what ``read`` finds in a sheet that was not handed out, and so has no faults.

    Raises:
        DataError: Listing the rows that somebody has damaged since.
    """
    issues = IssueLog(str(path))
    found = read(path, issues)
    raise_issues(issues)
    return found


def read_groups(path: Path, issues: IssueLog) -> dict[str, str]:
    """Return the group of every participant."""
    rows = _by(path, GROUP_COLUMNS, issues)
    return {participant: row["group"] for participant, row in rows.items()}


def read_scenarios(path: Path, issues: IssueLog) -> dict[str, tuple[str, str]]:
    """Return context and client utterance of every scenario, by its code."""
    rows = _by(path, ("scenario", "context", "client"), issues)
    return {scenario: (row["context"], row["client"]) for scenario, row in rows.items()}


def read_key(path: Path, issues: IssueLog) -> dict[str, StudyKey]:
    """Return whose response each rating id stands for."""
    return {
        rating_id: StudyKey(**{column: row[column] for column in KEY_COLUMNS[1:]})
        for rating_id, row in _by(path, KEY_COLUMNS, issues).items()
    }


def read_responses(
    path: Path, *, participant: str, phase: str, scenarios: Sequence[str], issues: IssueLog
) -> list[Response]:
    """Return the responses of a filled sheet; empty ones and missing scenarios are faults."""
    found: dict[str, Response] = {}
    for line, row in filled_rows(path, ("scenario", "response"), issues, hint=_HINT):
        scenario = row["scenario"]
        if scenario not in scenarios:
            reason = f"{quote_id(scenario)} is no scenario of this study"
            issues.reject(line, "scenario", reason, "leave the column as it was")
        elif scenario in found:
            issues.reject(line, "scenario", f"{scenario} is there twice", "remove one row")
        elif not row["response"]:
            hint = "have it written, or leave it out with data.on_error=skip"
            issues.reject(line, "response", f"to {scenario} is empty", hint)
        else:
            found[scenario] = Response(
                participant=participant, phase=phase, scenario=scenario, text=row["response"]
            )
    return list(found.values())


def read_ratings(
    path: Path, *, rater: str, keys: Mapping[str, StudyKey], issues: IssueLog
) -> list[BlindRating]:
    """Return the ratings of a filled sheet; anything but -1, 0 and 1 is a fault."""
    found: dict[str, BlindRating] = {}
    for line, row in filled_rows(path, ("rating_id", "rating"), issues, hint=_HINT):
        rating_id = row["rating_id"]
        value = row["rating"].removeprefix("+").removesuffix(".0").replace("−", "-")
        if rating_id not in keys:
            reason = f"{quote_id(rating_id)} is not in the key"
            issues.reject(line, "rating_id", reason, "leave the column as it was")
        elif rating_id in found:
            issues.reject(line, "rating_id", f"{rating_id} is there twice", "remove one row")
        elif value not in SCALE:
            reason = "is empty" if not value else "is none of -1, 0 and 1"
            issues.reject(line, "rating", reason, "rate it, or leave it out: data.on_error=skip")
        else:
            found[rating_id] = BlindRating(rater=rater, rating_id=rating_id, value=int(value))
    return list(found.values())


def _by(path: Path, columns: Sequence[str], issues: IssueLog) -> dict[str, dict[str, str]]:
    """Return rows by what stands in the first of the columns; a second one of it is a fault."""
    found: dict[str, dict[str, str]] = {}
    for line, row in filled_rows(path, columns, issues, hint=_HINT):
        key = row[columns[0]]
        if not key:
            issues.reject(line, columns[0], "is empty", "put the sheet back as it was")
        elif key in found:
            reason = f"{quote_id(key)} is there twice"
            issues.reject(line, columns[0], reason, "put the sheet back as it was")
        else:
            found[key] = row
    return found


SCALE = ("-1", "0", "1")
"""Increases resistance, neutral, reduces resistance (paper, Section 7, after Rosengren 2008)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlindRating:
    """What one rater gave one response."""

    rater: str
    rating_id: str
    value: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyKey:
    """Whose response a rating id stands for; raters do not see it."""

    participant: str
    group: str
    phase: str
    scenario: str


SHEETS, RATINGS, KEY = "participants", "ratings", "key"
"""Folders under ``out``: what participants get, what raters get, and what neither may see."""


def refuse_existing(folder: Path, what: str) -> None:
    """Raise an error where a folder holds something that people may have filled in.

    Raises:
        ConfigError: Naming the folder.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(
            f"{folder}: holds {what} already, which may be filled in; move it away, or name "
            "another folder with out=FOLDER"
        )
