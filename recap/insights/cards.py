"""``action=card``: the counsellor's feedback card for one utterance.

The words of feedback cards and supervision pages, in English and Chinese.

The counsellor's feedback card for one utterance, as text and as HTML (Table 12 of the paper).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from recap.data.utterances import Utterance
from recap.errors import DataError, did_you_mean, quote_id
from recap.insights.options import InsightsConfig
from recap.insights.source import AnnotatedSource, read_source
from recap.output.html import html_page
from recap.output.report import Report
from recap.output.tables import ReportTable, printable
from recap.records import Turn
from recap.taxonomy import Taxonomy

WORDS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "card": "Feedback card",
        "supervision": "Session for supervision",
        "session": "session",
        "client": "Client",
        "counselor": "Counsellor",
        "context": "What was said before",
        "response": "What the client said",
        "behavior": "Behaviour",
        "meaning": "What it means",
        "contrast": "Not to be confused",
        "rationale": "Why",
        "no_rationale": "No reason was given.",
        "sure": "How sure",
        "probability": "The model gives this label a probability of {p}.",
        "next": "Next likely: {others}.",
        "unsure": "The model is unsure here: look at it with particular care.",
        "no_probability": "The model gave no probability.",
        "annotated": "This label was given by people, not by a model.",
        "aid": "This was written by a machine as an aid. It can be wrong, it knows nothing beyond "
        "the words of the session, and it replaces neither your judgement nor supervision.",
        "aid_annotated": "This is an aid for reflection. Labels can be wrong, and they replace "
        "neither your judgement nor supervision.",
        "private": "Holds the words of a client: keep it as confidential as the session itself.",
        "overview": "Overview",
        "utterances": "client utterances with a label",
        "resistant": "resistant",
        "behaviors": "Behaviours",
        "unsure_count": "marked as unsure (probability under {p})",
        "moments": "Resistant moments",
        "no_moments": "No utterance of this session was labelled as resistant.",
        "also_unsure": "Other utterances that the model is unsure of",
        "dialogue": "The whole session",
        "turn": "turn",
        "unlabelled": "no label",
        "no_text": "(the text is not in the file)",
        "earlier": "… {n} earlier turns",
    },
    "zh": {
        "card": "反馈卡",
        "supervision": "督导用会谈记录",
        "session": "会谈",
        "client": "来访者",
        "counselor": "咨询师",
        "context": "此前的对话",
        "response": "来访者的回应",
        "behavior": "行为",
        "meaning": "含义",
        "contrast": "注意区分",
        "rationale": "理由",
        "no_rationale": "没有给出理由。",
        "sure": "把握程度",
        "probability": "模型给这个标签的概率是 {p}。",
        "next": "其次可能是：{others}。",
        "unsure": "模型在这里没有把握，请格外留意。",
        "no_probability": "模型没有给出概率。",
        "annotated": "这个标签由人标注，不是模型给出的。",
        "aid": "本页由机器生成，仅供参考。它可能出错，除了会谈的文字之外一无所知，"
        "不能代替您的判断或督导。",
        "aid_annotated": "本页供反思参考。标签可能出错，不能代替您的判断或督导。",
        "private": "含有来访者的话语，请与会谈本身一样保密。",
        "overview": "概览",
        "utterances": "句有标签的来访者话语",
        "resistant": "阻抗",
        "behaviors": "行为",
        "unsure_count": "标为没有把握（概率低于 {p}）",
        "moments": "阻抗时刻",
        "no_moments": "这次会谈没有被标为阻抗的话语。",
        "also_unsure": "模型没有把握的其他话语",
        "dialogue": "完整会谈",
        "turn": "话轮",
        "unlabelled": "无标签",
        "no_text": "（文件中没有原文）",
        "earlier": "……此前还有 {n} 个话轮",
    },
}


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


_DASH = "–"


def make_card(config: InsightsConfig) -> Report:
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
    return Report(
        action="card",
        title=f"Feedback card of one utterance of {source.annotated.name}",
        figures={**row, "probabilities": probabilities},
        sheets=(ReportTable(title="The utterance", header=("what", "is"), rows=tuple(shown)),),
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


def _chosen(config: InsightsConfig, source: AnnotatedSource) -> Utterance:
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
