"""``action=study_materials``: what a counselor study hands out, step by step.

``draw`` makes sheets and cards, ``rate`` makes rating sheets of the filled sheets, ``score`` makes
scores of the filled rating sheets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recap.errors import ConfigError
from recap.insights.cards import Card, card_of, card_words
from recap.insights.options import InsightsConfig, StudyMaterialsOptions
from recap.insights.source import AnnotatedSource, read_source
from recap.insights.study_sheets import (
    GROUP_COLUMNS,
    KEY,
    RESPONSE_COLUMNS,
    SCENARIO_COLUMNS,
    SHEETS,
    Participant,
    Scenario,
    allocate,
    draw_scenarios,
    refuse_existing,
)
from recap.output.excel import sheet_file
from recap.output.html import render
from recap.output.report import Report
from recap.output.tables import ReportTable, printable
from recap.records import Turn


def study_cards(cards: Mapping[str, Card], language: str) -> dict[str, str]:
    """Return cards in a participant's order as a page and as plain text, by the files' names.

    Args:
        cards: By the code of the scenario; at least one.
        language: ``en`` or ``zh``.
    """
    words, first = card_words()[language], next(iter(cards.values()))
    headed = [
        (f"{words['scenario']} {place} ({code})", card)
        for place, (code, card) in enumerate(cards.items(), start=1)
    ]
    note = f"{first.note} {words['private']}"
    texts = [words["cards"], note]
    for heading, card in headed:
        lines = [heading, f"{words['client']}: {card.response}", *card.lines]
        texts.append("\n".join(lines))
    page = render(
        "insights/templates/study_cards.html",
        title=words["cards"],
        language=language,
        note=note,
        cards=headed,
    )
    return {"cards.html": page, "cards.txt": "\n\n".join(map(printable, texts)) + "\n"}


_SPEAKERS = {
    "en": {"counselor": "Counselor", "client": "Client"},
    "zh": {"counselor": "咨询师", "client": "来访者"},
}
_README = """\
participants/  a folder a participant: the sheet of each phase, and cards for the second group alone
key/           who is in which group, and what label a scenario has: not for participants or raters

1. Give each participant the sheet of the first phase; they write into the column response.
2. Give them the sheet of the second phase, and cards.html or cards.txt where their folder has
   them.
3. Put the filled sheets back under the names that they had, and run, FOLDER being this one:
   python -m recap.insights action=study_materials study_materials.step=rate out=FOLDER
4. Give ratings/rater1 and so on to raters, who write -1 (increases resistance), 0 (neutral) or 1
   (reduces resistance) into the column rating; put them back, and run
   python -m recap.insights action=study_materials study_materials.step=score out=FOLDER
5. Analyse the scores:
   python -m recap.insights action=study data.path=FOLDER/study_materials_score.csv
"""


def make_materials(config: InsightsConfig) -> Report:
    """Return the files of one step, for the folder ``out``.

    Raises:
        ConfigError: Without ``out``, or when the step's files are there already.
        DataError: When the corpus is too small, or sheets are at fault.
    """
    if config.out is None:
        raise ConfigError("action=study_materials writes files; add out=FOLDER")
    from recap.insights.study_rating import make_rating_sheets, make_scores

    step = config.study_materials.step
    folder = Path(config.out)
    if step == "rate":
        return make_rating_sheets(config, folder)
    if step == "score":
        return make_scores(config, folder)
    return _draw(config, folder)


def context_text(history: Sequence[Turn], limit: int, language: str) -> str:
    """Return the last turns before an utterance, a line each; all of them for a limit of 0."""
    shown = history[-limit:] if limit else history
    names = _SPEAKERS[language]
    return "\n".join(f"{names[turn.speaker]}: {turn.text}" for turn in shown)


def _draw(config: InsightsConfig, folder: Path) -> Report:
    refuse_existing(folder / SHEETS, "response sheets")
    options = config.study_materials
    for name, pair in (("groups", options.groups), ("phases", options.phases)):
        if len(set(pair)) < 2:
            raise ConfigError(f"study_materials.{name}: has one name twice; give two")
    source = read_source(config)
    language = options.language or source.language
    wanted = _wanted(source, options)
    scenarios = draw_scenarios(source.annotated.utterances, wanted, seed=config.seed)
    participants = allocate(
        options.participants,
        groups=options.groups,
        n_phases=len(options.phases),
        scenarios=[scenario.code for scenario in scenarios],
        seed=config.seed,
    )
    files: dict[str, str | bytes] = {}
    for participant in participants:
        files |= _handed_out(participant, scenarios, options, source, language, config.unsure)
    files |= _keys(participants, scenarios, options, language)
    counts = {group: sum(p.group == group for p in participants) for group in options.groups}
    return Report(
        action="study_materials",
        title=f"Materials of a study with {len(participants)} participants",
        figures={
            "seed": config.seed,
            "participants": len(participants),
            "groups": counts,
            "phases": list(options.phases),
            "scenarios": len(scenarios),
            "scenarios_by_label": _by_label(scenarios, source),
            "predicted": source.annotated.predicted,
        },
        sheets=(_drawn(scenarios, source),),
        notes=(
            *source.annotated.notes(),
            *(f"{group}: {n} participants" for group, n in counts.items()),
            f"Cards for {options.groups[1]} alone, in phase {options.phases[1]}.",
            "README.txt says who gets which file.",
        ),
        rows=[
            {"scenario": s.code, "id": s.utterance.id, "label": s.utterance.label}
            for s in scenarios
        ],
        pages={"README.txt": _README},
        private_pages=files,
    )


def _wanted(source: AnnotatedSource, options: StudyMaterialsOptions) -> dict[tuple[str, ...], int]:
    behaviors = source.behaviors
    others = tuple(label for label in source.labels if label not in behaviors)
    wanted: dict[tuple[str, ...], int] = {
        (label,): options.per_behavior for label in behaviors if options.per_behavior
    }
    if others and options.collaborative:
        wanted[others] = options.collaborative
    if not wanted:
        raise ConfigError(
            "study_materials: per_behavior=0 and collaborative=0 leave no scenario to draw"
        )
    return wanted


def _handed_out(
    participant: Participant,
    scenarios: Sequence[Scenario],
    options: StudyMaterialsOptions,
    source: AnnotatedSource,
    language: str,
    unsure: float,
) -> dict[str, str | bytes]:
    by_code = {scenario.code: scenario for scenario in scenarios}
    folder = f"{SHEETS}/{participant.code}"
    ending = "xlsx" if options.excel else "csv"
    files: dict[str, str | bytes] = {}
    for phase, order in zip(options.phases, participant.orders, strict=True):
        rows = []
        for place, code in enumerate(order, start=1):
            utterance = by_code[code].utterance
            context = context_text(utterance.history, options.context, language)
            rows.append((str(place), code, context, utterance.response, ""))
        sheet = sheet_file(RESPONSE_COLUMNS, rows, excel=options.excel)
        files[f"{folder}/{phase}.{ending}"] = sheet
    if participant.group == options.groups[1]:
        cards = {
            code: card_of(
                by_code[code].utterance,
                source.taxonomy,
                language=language,
                context=options.context,
                unsure=unsure,
            )
            for code in participant.orders[1]
        }
        for name, content in study_cards(cards, language).items():
            files[f"{folder}/{name}"] = content
    return files


def _keys(
    participants: Sequence[Participant],
    scenarios: Sequence[Scenario],
    options: StudyMaterialsOptions,
    language: str,
) -> dict[str, str | bytes]:
    drawn = []
    for scenario in scenarios:
        u = scenario.utterance
        context = context_text(u.history, options.context, language)
        drawn.append((scenario.code, u.id, u.session, u.label or "", context, u.response))
    header = (*SCENARIO_COLUMNS, "context", "client")
    groups = [(participant.code, participant.group) for participant in participants]
    return {
        f"{KEY}/participants.csv": sheet_file(GROUP_COLUMNS, groups, excel=False),
        f"{KEY}/scenarios.csv": sheet_file(header, drawn, excel=False),
    }


def _by_label(scenarios: Sequence[Scenario], source: AnnotatedSource) -> dict[str, Any]:
    drawn = [scenario.utterance.label for scenario in scenarios]
    return {label: drawn.count(label) for label in source.labels if label in drawn}


def _drawn(scenarios: Sequence[Scenario], source: AnnotatedSource) -> ReportTable:
    rows = [(label, str(n)) for label, n in _by_label(scenarios, source).items()]
    rows.append(("together", str(len(scenarios))))
    return ReportTable(title="Scenarios drawn", header=("category", "scenarios"), rows=tuple(rows))
