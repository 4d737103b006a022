"""``action=card``: the counselor's feedback card for one utterance (Table 12 of the paper).

A card is a value that is shown as text, as a page of its own, and among others: on the supervision
page of a session, and on the sheet of a study's participant. Its words are those of ``words.yaml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import yaml

from recap.data.utterances import Utterance
from recap.errors import DataError, did_you_mean, quote_id
from recap.insights.options import InsightsConfig
from recap.insights.source import AnnotatedSource, read_source
from recap.output.format import plain, rounded_percent
from recap.output.html import render
from recap.output.report import Report
from recap.output.tables import ReportTable, printable
from recap.taxonomy import Taxonomy

NEXT_LABELS = 2
"""So many other labels are named with their probability."""

LEAST_SHOWN = 0.01
"""Other labels of a lower probability are not named."""

NO_COLOR = "#808080"
"""Of labels whose category has none."""

_LINE = 78


@lru_cache(maxsize=1)
def card_words() -> Mapping[str, Mapping[str, str]]:
    """Return the fixed words of cards and supervision pages, by language."""
    text = files("recap.insights").joinpath("words.yaml").read_text(encoding="utf-8")
    words: Mapping[str, Mapping[str, str]] = yaml.safe_load(text)
    return words


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a card says, all of it as plain text in one language."""

    words: Mapping[str, str]
    """The fixed words."""
    heading: str
    """``Pattern - Behavior``."""
    color: str
    place: str
    """Session and turn; people count turns from 1."""
    context: tuple[tuple[str, str], ...]
    """``(speaker, text)`` of the turns before the utterance that are shown."""
    earlier: int
    """Turns before these."""
    response: str
    explanations: tuple[tuple[str, str], ...]
    """What the label means, what it is not, and why it was given, each under its name."""
    certainty: str
    unsure: bool
    probability: float | None
    note: str
    """That it is an aid, which may be wrong."""

    @property
    def lines(self) -> list[str]:
        """Heading, explanations and certainty, each under its name."""
        named = [(self.words["behavior"], self.heading), *self.explanations]
        named.append((self.words["sure"], self.certainty))
        return [f"{name}: {text}" for name, text in named]


def card_of(
    utterance: Utterance, taxonomy: Taxonomy, *, language: str, context: int, unsure: float
) -> Card:
    """Return the card of a labeled utterance.

    Args:
        utterance: Its ``label`` is a category of the taxonomy.
        taxonomy: Says what the label means.
        language: ``en`` or ``zh``.
        context: Turns before the utterance that are shown; 0: all.
        unsure: A label with a lower probability is marked.
    """
    assert utterance.label is not None
    words, category = card_words()[language], taxonomy[utterance.label]
    shown = utterance.history[-context:] if context else utterance.history
    turn = "" if utterance.turn is None else f", {words['turn']} {utterance.turn + 1}"
    explanations = {
        "meaning": category.definition.get(language) or category.definition.get("en", ""),
        "contrast": category.contrast.get(language, ""),
        "rationale": utterance.rationale or words["no_rationale"],
    }
    return Card(
        words=words,
        heading=taxonomy.written(utterance.label, language=language),
        color=category.color or NO_COLOR,
        place=f"{words['session']} {utterance.session}{turn}",
        context=tuple((words[turn.speaker], turn.text) for turn in shown),
        earlier=len(utterance.history) - len(shown),
        response=utterance.response or words["no_text"],
        explanations=tuple((words[key], text) for key, text in explanations.items() if text),
        certainty=_certainty(utterance, taxonomy, language, unsure),
        unsure=utterance.probability is not None and utterance.probability < unsure,
        probability=utterance.probability,
        note=words["aid" if utterance.predicted else "aid_annotated"],
    )


def card_text(card: Card) -> str:
    """Return a card as text for a terminal or a mail."""
    words = card.words
    parts = [f"{words['card']} · {card.place}", "=" * _LINE]
    if card.context:
        parts.append(f"{words['context']}:")
        parts += [words["earlier"].format(n=card.earlier)] if card.earlier else []
        parts += [_indented(f"{speaker}: {text}") for speaker, text in card.context]
    parts += [f"{words['response']}:", _indented(f"{words['client']}: {card.response}"), ""]
    parts += [*card.lines, "-" * _LINE, card.note, words["private"]]
    return "\n".join(printable(part) for part in parts) + "\n"


def _certainty(utterance: Utterance, taxonomy: Taxonomy, language: str, unsure: float) -> str:
    words = card_words()[language]
    if not utterance.predicted:
        return words["annotated"]
    p = utterance.probability
    if p is None or utterance.probabilities is None:
        return words["no_probability"]
    parts = [words["probability"].format(p=rounded_percent(p))]
    others = sorted(
        ((q, name) for name, q in utterance.probabilities.items() if name != utterance.label),
        key=lambda pair: -pair[0],
    )
    named = [
        f"{_name(name, taxonomy, language)} {rounded_percent(q)}"
        for q, name in others[:NEXT_LABELS]
        if q >= LEAST_SHOWN
    ]
    parts += [words["next"].format(others=", ".join(named))] if named else []
    parts += [words["unsure"]] if p < unsure else []
    return ("" if language == "zh" else " ").join(parts)


def _name(label: str, taxonomy: Taxonomy, language: str) -> str:
    found = taxonomy.find(label)
    return label if found is None else taxonomy.written(found, language=language, qualified=False)


def _indented(text: str) -> str:
    return "  " + text.replace("\n", "\n    ")


def make_card(config: InsightsConfig) -> Report:
    """Return the card of the utterance ``card.id``, or of the first resistant one.

    The words of the client are on the card alone, which nobody but the user may read.

    Raises:
        DataError: When there is no such utterance, or it has no label.
    """
    source = read_source(config)
    utterance = _chosen(config, source)
    assert utterance.label is not None
    language = config.card.language or source.language
    card = card_of(
        utterance,
        source.taxonomy,
        language=language,
        context=config.card.context,
        unsure=config.unsure,
    )
    probability = utterance.probability
    row = {
        "id": utterance.id,
        "session": utterance.session,
        "turn": utterance.turn,
        "label": utterance.label,
        "pattern": source.taxonomy.pattern(utterance.label) or utterance.label,
        "probability": probability,
        "predicted": utterance.predicted,
        "unsure": card.unsure,
        "has_rationale": utterance.rationale is not None,
    }
    probabilities = None if utterance.probabilities is None else dict(utterance.probabilities)
    shown = [(key.replace("_", " "), plain(v)) for key, v in row.items() if key != "turn"]
    text = card_text(card)
    page = render(
        "insights/templates/card.html",
        title=f"{card.words['card']} · {card.place}",
        language=language,
        card=card,
    )
    return Report(
        action="card",
        title=f"Feedback card of one utterance of {source.annotated.name}",
        figures={**row, "probabilities": probabilities},
        sheets=(ReportTable(title="The utterance", header=("what", "is"), rows=tuple(shown)),),
        rows=[row],
        private=True,
        private_pages={"card.txt": text, "card.html": page},
        on_console=text if config.out is None else "",
    )


def _chosen(config: InsightsConfig, source: AnnotatedSource) -> Utterance:
    utterances, wanted = source.annotated.utterances, config.card.id
    if wanted is None:
        resistant = source.is_resistant
        for utterance in utterances:
            if utterance.label is not None and resistant(utterance.label):
                return utterance
        raise DataError(
            "no utterance is labeled as resistant; name one with card.id=ID, or say what counts "
            "as resistance with resistance=[…]"
        )
    for utterance in utterances:
        if utterance.id == wanted:
            if utterance.label is None:
                raise DataError(f"card.id: the utterance of id {quote_id(wanted)} has no label")
            return utterance
    close = did_you_mean(wanted, [u.id for u in utterances if u.id[:1] == wanted[:1]])
    raise DataError(f"card.id: there is no client utterance of id {quote_id(wanted)}{close}")
