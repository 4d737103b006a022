"""``action=card``: the counsellor's feedback card for one utterance."""

from __future__ import annotations

from recap.analysis.utterances import Utterance
from recap.errors import DataError, did_you_mean, quote_id
from recap.insight_actions.options import InsightsConfig
from recap.insight_actions.source import Source, read_source
from recap.reporting.cards import card_html, card_of, card_text
from recap.reporting.findings import Findings
from recap.reporting.sheets import Sheet

_DASH = "–"


def make_card(config: InsightsConfig) -> Findings:
    """Return the card of the utterance ``card.id``, or of the first resistant one.

    The words of the client are on the card alone, which nobody but the user may read.

    Raises:
        DataError: When there is no such utterance, or it has no label.
    """
    source = read_source(config)
    utterance = _chosen(config, source)
    assert utterance.label is not None
    card = card_of(
        utterance,
        source.taxonomy,
        language=config.card.language or source.language,
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
    shown = [(key.replace("_", " "), _cell(v)) for key, v in row.items() if key != "turn"]
    text = card_text(card)
    return Findings(
        action="card",
        title=f"Feedback card of one utterance of {source.annotated.name}",
        figures={**row, "probabilities": probabilities},
        sheets=(Sheet(title="The utterance", header=("what", "is"), rows=tuple(shown)),),
        rows=[row],
        private=True,
        private_pages={"card.txt": text, "card.html": card_html(card)},
        on_console=text if config.out is None else "",
    )


def _cell(value: object) -> str:
    if value is None:
        return _DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _chosen(config: InsightsConfig, source: Source) -> Utterance:
    utterances, wanted = source.annotated.utterances, config.card.id
    if wanted is None:
        resistant = source.is_resistant
        for utterance in utterances:
            if utterance.label is not None and resistant(utterance.label):
                return utterance
        raise DataError(
            "no utterance is labelled as resistant; name one with card.id=ID, or say what counts "
            "as resistance with resistance=[…]"
        )
    for utterance in utterances:
        if utterance.id == wanted:
            if utterance.label is None:
                raise DataError(f"card.id: the utterance of id {quote_id(wanted)} has no label")
            return utterance
    close = did_you_mean(wanted, [u.id for u in utterances if u.id[:1] == wanted[:1]])
    raise DataError(f"card.id: there is no client utterance of id {quote_id(wanted)}{close}")
