"""The cards that the experimental group of a study sees, in the order of its scenarios."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from recap.reporting.cards import Card, card_block
from recap.reporting.pages import html_page
from recap.reporting.sheets import printable

_WORDS = {"en": ("Feedback cards", "Scenario"), "zh": ("反馈卡", "情境")}


def study_cards_text(cards: Mapping[str, Card]) -> str:
    """Return cards as plain text.

    Args:
        cards: By the code of the scenario, in the participant's order; at least one.
    """
    first = next(iter(cards.values()))
    title, scenario = _WORDS[first.language]
    parts = [title, _note(first)]
    for place, (code, card) in enumerate(cards.items(), start=1):
        lines = [f"{scenario} {place} ({code})", f"{card.word('client')}: {card.response}"]
        lines += [
            f"{card.word(key)}: {text}"
            for key, text in (
                ("behavior", card.heading),
                ("meaning", card.meaning),
                ("contrast", card.contrast),
                ("rationale", card.rationale),
                ("sure", card.certainty),
            )
            if text
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(printable(part) for part in parts) + "\n"


def study_cards_html(cards: Mapping[str, Card]) -> str:
    """Return cards as one page that needs nothing beside it; arguments as for the text."""
    first = next(iter(cards.values()))
    title, scenario = _WORDS[first.language]
    body = [f"<h1>{escape(title)}</h1>", f'<p class="note">{escape(_note(first))}</p>']
    for place, (code, card) in enumerate(cards.items(), start=1):
        body.append(f"<h2>{escape(f'{scenario} {place} ({code})')}</h2>\n{card_block(card)}")
    return html_page(title=title, language=first.language, body="\n".join(body))


def _note(card: Card) -> str:
    aid = card.word("aid" if card.predicted else "aid_annotated")
    return f"{aid} {card.word('private')}"
