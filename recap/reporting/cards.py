"""The counsellor's feedback card for one utterance, as text and as HTML (Table 12 of the paper)."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from recap.analysis.utterances import Utterance
from recap.records import Turn
from recap.reporting.card_words import WORDS
from recap.reporting.pages import html_page
from recap.reporting.sheets import printable
from recap.taxonomy import Taxonomy

NEXT_LABELS = 2
"""So many other labels are named with their probability."""

LEAST_SHOWN = 0.01
"""Other labels of a lower probability are not named."""

_LINE = 78


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a card says, all of it as plain text."""

    language: str
    heading: str
    """``Pattern - Behaviour`` in the card's language."""
    color: str
    session: str
    turn: int | None
    context: tuple[tuple[str, str], ...]
    """``(speaker, text)`` of the turns before the utterance that are shown."""
    earlier: int
    """Turns before these."""
    response: str
    meaning: str
    contrast: str
    rationale: str
    certainty: str
    unsure: bool
    probability: float | None
    predicted: bool

    def word(self, key: str, **values: object) -> str:
        """Return one of the fixed words of a card."""
        return WORDS[self.language][key].format(**values)


def card_of(
    utterance: Utterance, taxonomy: Taxonomy, *, language: str, context: int, unsure: float
) -> Card:
    """Return the card of a labelled utterance.

    Args:
        utterance: Its ``label`` is a category of the taxonomy.
        taxonomy: Says what the label means.
        language: ``en`` or ``zh``.
        context: Turns before the utterance that are shown; 0: all.
        unsure: A label with a lower probability is marked.
    """
    assert utterance.label is not None
    words, category = WORDS[language], taxonomy[utterance.label]
    shown = tuple(utterance.history[-context:]) if context else tuple(utterance.history)
    probability = utterance.probability
    meaning = category.definition.get(language) or category.definition.get("en", "")
    return Card(
        language=language,
        heading=taxonomy.written(utterance.label, language=language),
        color=category.color or "#808080",
        session=utterance.session,
        turn=utterance.turn,
        context=tuple((_speaker(turn, language), turn.text) for turn in shown),
        earlier=len(utterance.history) - len(shown),
        response=utterance.response or words["no_text"],
        meaning=meaning,
        contrast=category.contrast.get(language, ""),
        rationale=utterance.rationale or words["no_rationale"],
        certainty=_certainty(utterance, taxonomy, language, unsure),
        unsure=probability is not None and probability < unsure,
        probability=probability,
        predicted=utterance.predicted,
    )


def card_text(card: Card) -> str:
    """Return a card as text for a terminal or a mail."""
    word = card.word
    parts = [f"{word('card')} · {place_of(card)}", "=" * _LINE]
    if card.context:
        parts.append(f"{word('context')}:")
        parts += [word("earlier", n=card.earlier)] if card.earlier else []
        parts += [_indented(f"{speaker}: {text}") for speaker, text in card.context]
    parts += [f"{word('response')}:", _indented(f"{word('client')}: {card.response}"), ""]
    for key, text in (
        ("behavior", card.heading),
        ("meaning", card.meaning),
        ("contrast", card.contrast),
        ("rationale", card.rationale),
        ("sure", card.certainty),
    ):
        parts += [f"{word(key)}: {text}"] if text else []
    parts += ["-" * _LINE, word("aid" if card.predicted else "aid_annotated"), word("private")]
    return "\n".join(printable(part) for part in parts) + "\n"


def card_html(card: Card) -> str:
    """Return a card as one self-contained page."""
    title = f"{card.word('card')} · {place_of(card)}"
    note = card.word("aid" if card.predicted else "aid_annotated")
    body = (
        f"<h1>{escape(title)}</h1>\n{card_block(card)}\n"
        f'<p class="note">{escape(note)}</p>\n'
        f'<p class="note">{escape(card.word("private"))}</p>'
    )
    return html_page(title=title, language=card.language, body=body)


def card_block(card: Card) -> str:
    """Return the card alone, as a part of a page."""
    word = card.word
    lines = [f'<article class="card" style="--tone:{escape(card.color)}">']
    lines.append(f"<h3>{escape(card.heading)}</h3>")
    if card.context:
        lines.append(f"<h4>{escape(word('context'))}</h4>")
        if card.earlier:
            lines.append(f'<p class="faint">{escape(word("earlier", n=card.earlier))}</p>')
        lines += [said(speaker, text) for speaker, text in card.context]
    lines.append(f"<h4>{escape(word('response'))}</h4>")
    lines.append(said(word("client"), card.response, mark=True))
    lines.append("<dl>")
    for key, text in (
        ("meaning", card.meaning),
        ("contrast", card.contrast),
        ("rationale", card.rationale),
    ):
        if text:
            lines.append(f"<dt>{escape(word(key))}</dt><dd>{escape(text)}</dd>")
    warned = ' class="unsure"' if card.unsure else ""
    lines.append(f"<dt>{escape(word('sure'))}</dt><dd{warned}>{escape(card.certainty)}</dd>")
    if card.probability is not None:
        width = f"{100 * min(max(card.probability, 0.0), 1.0):.1f}"
        lines.append(f'<dd><span class="bar"><i style="width:{width}%"></i></span></dd>')
    lines += ["</dl>", "</article>"]
    return "\n".join(lines)


def said(speaker: str, text: str, *, mark: bool = False) -> str:
    """Return one utterance as a paragraph, its line breaks kept."""
    kind = "said mark" if mark else "said"
    shown = escape(printable(text)).replace("\n", "<br>")
    return f'<p class="{kind}"><b>{escape(speaker)}:</b> {shown}</p>'


def place_of(card: Card) -> str:
    """Return where the utterance stands; people count turns from 1."""
    turn = "" if card.turn is None else f", {card.word('turn')} {card.turn + 1}"
    return f"{card.word('session')} {card.session}{turn}"


def percent_text(p: float) -> str:
    """Return a probability in per cent, never rounded up to certainty."""
    return ">99 %" if 0.99 < p < 1 else "<1 %" if 0 < p < 0.01 else f"{100 * p:.0f} %"


def _certainty(utterance: Utterance, taxonomy: Taxonomy, language: str, unsure: float) -> str:
    words = WORDS[language]
    if not utterance.predicted:
        return words["annotated"]
    p = utterance.probability
    if p is None or utterance.probabilities is None:
        return words["no_probability"]
    parts = [words["probability"].format(p=percent_text(p))]
    others = sorted(
        ((q, name) for name, q in utterance.probabilities.items() if name != utterance.label),
        key=lambda pair: -pair[0],
    )
    named = [
        f"{_name(name, taxonomy, language)} {percent_text(q)}"
        for q, name in others[:NEXT_LABELS]
        if q >= LEAST_SHOWN
    ]
    parts += [words["next"].format(others=", ".join(named))] if named else []
    parts += [words["unsure"]] if p < unsure else []
    return ("" if language == "zh" else " ").join(parts)


def _name(label: str, taxonomy: Taxonomy, language: str) -> str:
    found = taxonomy.find(label)
    return label if found is None else taxonomy.written(found, language=language, qualified=False)


def _speaker(turn: Turn, language: str) -> str:
    return WORDS[language]["client" if turn.speaker == "client" else "counselor"]


def _indented(text: str) -> str:
    return "  " + text.replace("\n", "\n    ")
