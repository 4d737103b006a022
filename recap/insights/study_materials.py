"""``action=study_materials``: what a counselor study hands out, step by step.

``draw`` makes sheets and cards, ``rate`` makes rating sheets of the filled sheets, ``score`` makes
scores of the filled rating sheets, ``pairs`` sets original and rewritten responses side by side.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path

from recap.data.examples import answers_counselor
from recap.data.utterances import Utterance
from recap.errors import ConfigError, DataError
from recap.insights.cards import Card, card_of
from recap.insights.options import InsightsConfig, StudyMaterialsOptions
from recap.insights.source import AnnotatedSource, card_words, read_source
from recap.insights.study_pairs import make_pairs
from recap.insights.study_rating import (
    KEY,
    KEY_COLUMNS,
    SHEETS,
    make_rating_sheets,
    make_scores,
    refuse_existing,
)
from recap.output.excel import sheet_file
from recap.output.report import Report
from recap.output.tables import table_of
from recap.output.templates import render
from recap.records import Turn
from recap.system.plain_text import printable

_RESPONSE_COLUMNS = ("order", "scenario", "context", "client", "response")
_SCENARIO_COLUMNS = ("scenario", "id", "session", "label", "rationale", "context", "client")


@dataclass(frozen=True, kw_only=True)
class Participant:
    """Someone who responds: a code, a group, and the order of scenarios in each phase."""

    code: str
    group: str
    orders: tuple[tuple[str, ...], ...]
    """Codes of the scenarios, a tuple a phase."""


def draw_scenarios(
    utterances: Iterable[Utterance], wanted: Mapping[tuple[str, ...], int], *, seed: int
) -> dict[str, Utterance]:
    """Return scenarios to respond to, drawn at random from the utterances that answer a counselor.

    They have codes that say nothing of their labels. ``wanted`` says how many of each set of labels
    together. No utterance and history is drawn twice, and sessions repeat only where there are not
    enough of them. The draw does not depend on the order of the utterances.

    Raises:
        DataError: When there are not as many of some labels.
    """
    usable: dict[str, dict[bytes, Utterance]] = {}
    for utterance in sorted(utterances, key=lambda u: u.id):
        history = utterance.history
        if utterance.label is not None and answers_counselor(history):
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
    return {f"S{place:0{width}d}": u for place, u in enumerate(drawn, start=1)}


def allocate(
    n: int,
    *,
    groups: tuple[str, str],
    n_phases: int,
    scenarios: Sequence[str],
    seed: int,
) -> tuple[Participant, ...]:
    """Return participants, dealt at random into groups of equal size (or one apart).

    Each gets an order of the scenarios, given by their codes, of their own in each phase.
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


def _content(utterance: Utterance) -> bytes:
    """Return a digest of what was said up to and with an utterance."""
    texts = [utterance.response, *(f"{turn.voice} {turn.text}" for turn in utterance.history)]
    return blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _refuse_shortage(
    usable: Mapping[str, Mapping[bytes, Utterance]], wanted: Mapping[tuple[str, ...], int]
) -> None:
    there = {labels: sum(len(usable.get(label, {})) for label in labels) for labels in wanted}
    short = [
        f"{' or '.join(labels)} (has {there[labels]}, needs {n})"
        for labels, n in wanted.items()
        if there[labels] < n
    ]
    if short:
        raise DataError(
            "too few different utterances that answer a counselor: "
            f"{', '.join(short)}; lower study_materials.per_behavior or .collaborative, "
            "or give a larger corpus"
        )


def study_cards(cards: Mapping[str, Card], language: str) -> dict[str, str]:
    """Return cards in a participant's order as a page and as plain text, by the files' names.

    There is at least one card, under the code of its scenario.
    """
    words, first = card_words()[language], next(iter(cards.values()))
    headed = [
        (f"{words['scenario']} {place} ({code})", card)
        for place, (code, card) in enumerate(cards.items(), start=1)
    ]
    note = " ".join((first.note, *first.origins, words["private"]))
    texts = [words["cards"], note]
    for heading, card in headed:
        texts.append("\n".join([heading, f"{words['client']}: {card.response}", *card.lines]))
    page = render(
        "insights/templates/study_cards.html",
        title=words["cards"],
        language=language,
        note=note,
        cards=headed,
    )
    return {"cards.html": page, "cards.txt": "\n\n".join(map(printable, texts)) + "\n"}


def make_materials(config: InsightsConfig) -> Report:
    """Return the files of one step, for the folder ``out``.

    Raises:
        ConfigError: Without ``out``, or when the step's files are there already.
        DataError: When the corpus is too small, or sheets are at fault.
    """
    if config.out is None:
        raise ConfigError("action=study_materials writes files; add out=FOLDER")
    steps = {"rate": make_rating_sheets, "score": make_scores, "pairs": make_pairs}
    return steps.get(config.study_materials.step, _draw)(config, Path(config.out))


def context_text(history: Sequence[Turn], limit: int, language: str) -> str:
    """Return the last turns before an utterance, a line each; all of them for a limit of 0."""
    shown = history[-limit:] if limit else history
    return "\n".join(f"{turn.called(card_words()[language])}: {turn.text}" for turn in shown)


def _draw(config: InsightsConfig, folder: Path) -> Report:
    refuse_existing(folder / SHEETS, "response sheets")
    options = config.study_materials
    for name, pair in (("groups", options.groups), ("phases", options.phases)):
        if len(set(pair)) < 2:
            raise ConfigError(f"study_materials.{name}: is twice the same; give two names")
    source = read_source(config)
    drawn_from, wanted = source.annotated.utterances, _wanted(source, options)
    scenarios = draw_scenarios(drawn_from, wanted, seed=config.seed)
    participants = allocate(
        options.participants,
        groups=options.groups,
        n_phases=len(options.phases),
        scenarios=list(scenarios),
        seed=config.seed,
    )
    counts = {group: sum(p.group == group for p in participants) for group in options.groups}
    labels = [utterance.label for utterance in scenarios.values()]
    by_label = {label: labels.count(label) for label in source.labels if label in labels}
    return Report(
        action="study_materials",
        title=f"Materials of a study with {len(participants)} participants",
        figures={
            "seed": config.seed,
            "participants": len(participants),
            "groups": counts,
            "phases": list(options.phases),
            "scenarios": len(scenarios),
            "scenarios_by_label": by_label,
            "predicted": source.annotated.predicted,
        },
        sheets=(
            table_of(
                "Scenarios drawn",
                [*by_label.items(), ("together", len(scenarios))],
                {"category": lambda row: row[0], "scenarios": lambda row: str(row[1])},
            ),
        ),
        notes=(
            *source.annotated.notes(),
            *(f"{group}: {n} participants" for group, n in counts.items()),
            f"Cards for {options.groups[1]} alone, in phase {options.phases[1]}.",
            "README.txt says who gets which file.",
        ),
        rows=[
            {"scenario": code, "id": utterance.id, "label": utterance.label}
            for code, utterance in scenarios.items()
        ],
        pages={"README.txt": render("insights/templates/study_readme.txt")},
        private_pages=_files(participants, scenarios, source, config),
    )


def _wanted(source: AnnotatedSource, options: StudyMaterialsOptions) -> dict[tuple[str, ...], int]:
    behaviors = source.behaviors
    others = tuple(label for label in source.labels if label not in behaviors)
    asked: dict[tuple[str, ...], int] = {(label,): options.per_behavior for label in behaviors}
    asked |= {others: options.collaborative} if others else {}
    wanted = {labels: n for labels, n in asked.items() if n}
    if not wanted:
        raise ConfigError(
            "study_materials: per_behavior=0 and collaborative=0 leave no scenario to draw"
        )
    return wanted


def _files(
    participants: Sequence[Participant],
    scenarios: Mapping[str, Utterance],
    source: AnnotatedSource,
    config: InsightsConfig,
) -> dict[str, str | bytes]:
    """Return what participants get, a folder each, and the key, by the files' names."""
    options = config.study_materials
    language, excel = options.language or source.language, options.excel
    card = partial(card_of, language=language, context=options.context, unsure=config.unsure)
    cards = {code: card(utterance, source) for code, utterance in scenarios.items()}
    said = {
        code: (context_text(u.history, options.context, language), u.response)
        for code, u in scenarios.items()
    }
    files: dict[str, str | bytes] = {}
    for participant in participants:
        folder = f"{SHEETS}/{participant.code}"
        for phase, order in zip(options.phases, participant.orders, strict=True):
            rows = [(str(n), code, *said[code], "") for n, code in enumerate(order, start=1)]
            sheet = sheet_file(_RESPONSE_COLUMNS, rows, excel=excel)
            files[f"{folder}/{phase}.{'xlsx' if excel else 'csv'}"] = sheet
        if participant.group == options.groups[1]:
            shown = study_cards({code: cards[code] for code in participant.orders[1]}, language)
            files |= {f"{folder}/{name}": content for name, content in shown.items()}
    groups = [(participant.code, participant.group) for participant in participants]
    drawn = [
        (code, u.id, u.session, u.label or "", u.rationale or "", *said[code])
        for code, u in scenarios.items()
    ]
    return files | {
        f"{KEY}/participants.csv": sheet_file(KEY_COLUMNS["participants"], groups, excel=False),
        f"{KEY}/scenarios.csv": sheet_file(_SCENARIO_COLUMNS, drawn, excel=False),
    }
