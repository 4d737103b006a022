"""The cards that the experimental group of a study sees: behaviour, meaning and reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from recap.taxonomy import Taxonomy

_WORDS = {
    "en": {
        "title": "Feedback cards",
        "note": (
            "These cards are an aid: they come from annotators or a model, and may be wrong. You "
            "know what you see; trust your own judgement."
        ),
        "scenario": "Scenario",
        "behavior": "Behaviour",
        "meaning": "What it means",
        "reason": "Reason",
        "sure": "Probability",
    },
    "zh": {
        "title": "反馈卡片",
        "note": "卡片仅供参考：内容来自标注者或模型，可能有误。请相信您自己的专业判断。",
        "scenario": "情境",
        "behavior": "行为",
        "meaning": "含义",
        "reason": "理由",
        "sure": "概率",
    },
}
_STYLE = (
    "body{font-family:sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem;line-height:1.5}"
    "section{border:1px solid #bbb;border-left:.4rem solid var(--c,#777);border-radius:.3rem;"
    "padding:.4rem 1rem;margin:1rem 0;break-inside:avoid}blockquote{color:#333;margin:.5rem 0}"
    "dt{font-weight:bold}dd{margin:0 0 .4rem 0}"
)


@dataclass(frozen=True, kw_only=True)
class StudyCard:
    """One card, under the place that its scenario has in the participant's order."""

    order: int
    scenario: str
    response: str
    label: str
    rationale: str | None
    probability: float | None


def cards_text(cards: Sequence[StudyCard], taxonomy: Taxonomy, language: str) -> str:
    """Return cards as plain text."""
    words = _WORDS[language]
    parts = [f"{words['title']}\n\n{words['note']}\n"]
    for card in cards:
        lines = [f"{words['scenario']} {card.order} ({card.scenario})", f"> {card.response}"]
        lines += [f"{name}: {text}" for name, text in _fields(card, taxonomy, language)]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def cards_html(cards: Sequence[StudyCard], taxonomy: Taxonomy, language: str) -> str:
    """Return cards as one page that needs nothing beside it."""
    words = _WORDS[language]
    sections = []
    for card in cards:
        fields = "".join(
            f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>"
            for name, text in _fields(card, taxonomy, language)
        )
        color = taxonomy[card.label].color or "#777777"
        sections.append(
            f'<section style="--c:{escape(color)}"><h2>{words["scenario"]} {card.order} '
            f"({escape(card.scenario)})</h2><blockquote>{escape(card.response)}</blockquote>"
            f"<dl>{fields}</dl></section>"
        )
    return (
        f'<!doctype html>\n<html lang="{language}"><head><meta charset="utf-8">'
        f"<title>{words['title']}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{words['title']}</h1><p>{words['note']}</p>\n"
        + "\n".join(sections)
        + "\n</body></html>\n"
    )


def _fields(card: StudyCard, taxonomy: Taxonomy, language: str) -> list[tuple[str, str]]:
    words, category = _WORDS[language], taxonomy[card.label]
    fields = [(words["behavior"], taxonomy.written(card.label, language=language))]
    if language in category.definition:
        fields.append((words["meaning"], category.definition[language]))
    if card.rationale:
        fields.append((words["reason"], card.rationale))
    if card.probability is not None:
        fields.append((words["sure"], f"{100 * card.probability:.0f} %"))
    return fields
