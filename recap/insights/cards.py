"""Cards and pages for counselors, whose words are those of ``words.yaml``.

``action=card`` gives the feedback card of one utterance (Table 12 of the paper): a value that is
shown as text, as a page of its own, and among others. ``action=supervision`` gives one page a
session, for people who never open a terminal: where the client resisted, what it may mean, how sure
that is, and the whole session.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recap.data.names import identity
from recap.data.utterances import Utterance
from recap.errors import ConfigError, DataError, did_you_mean, quote_id
from recap.insights.options import InsightsConfig
from recap.insights.source import NO_COLOR, AnnotatedSource, card_words, read_source
from recap.output.excel import CellValue, workbook_bytes
from recap.output.format import plain, rounded_percent
from recap.output.report import Report
from recap.output.tables import ReportTable, table_of
from recap.output.templates import render
from recap.runs.provenance import provenance_text
from recap.system.plain_text import printable
from recap.taxonomy import Taxonomy

NEXT_LABELS = 2
"""So many other labels are named with their probability."""

LEAST_SHOWN = 0.01
"""Other labels of a lower probability are not named."""

_LINE = 78


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
    resistance: str
    """``P(resistance)`` of the utterance; empty where nobody says how likely that is."""
    note: str
    """That it is an aid, which may be wrong."""
    origins: tuple[str, ...]
    """Which models gave the label, and how turns are counted."""

    @property
    def lines(self) -> list[str]:
        """Heading, explanations and certainty, each under its name."""
        beside = f" ({self.resistance})" if self.resistance else ""
        named = [(self.words["behavior"], f"{self.heading}{beside}"), *self.explanations]
        named.append((self.words["sure"], self.certainty))
        return [f"{name}: {text}" for name, text in named]


def card_of(
    utterance: Utterance, source: AnnotatedSource, *, language: str, context: int, unsure: float
) -> Card:
    """Return the card of a labeled utterance.

    It shows so many turns of ``context``, 0: all, and marks a label whose probability is lower than
    ``unsure``.
    """
    assert utterance.label is not None
    words, taxonomy = card_words()[language], source.taxonomy
    category = taxonomy[utterance.label]
    shown = utterance.history[-context:] if context else utterance.history
    said = "rationale_model" if utterance.predicted else "rationale"
    explanations = {
        "meaning": category.definition.get(language) or category.definition.get("en", ""),
        "contrast": category.contrast.get(language, ""),
        said if utterance.rationale else "why": utterance.rationale or words["no_rationale"],
    }
    p = source.resistance_probability(utterance)
    return Card(
        words=words,
        heading=taxonomy.written(utterance.label, language=language),
        color=category.color or NO_COLOR,
        place=_place(utterance, words),
        context=tuple((turn.called(words), turn.text) for turn in shown),
        earlier=len(utterance.history) - len(shown),
        response=utterance.response or words["no_text"],
        explanations=tuple((words[key], text) for key, text in explanations.items() if text),
        certainty=_certainty(utterance, source, language, unsure),
        unsure=utterance.probability is not None and utterance.probability < unsure,
        probability=utterance.probability,
        resistance="" if p is None else f"P({words['resistance']}) {rounded_percent(p)}",
        note=words["aid" if utterance.predicted else "aid_annotated"],
        origins=source.origins(language),
    )


def _place(utterance: Utterance, words: Mapping[str, str]) -> str:
    """Return session and turn, under the numbers and names that files have for them."""
    kind, name = words["session"], utterance.session
    named = name if name.casefold().startswith(kind.casefold()) else f"{kind} {name}"
    return named if utterance.turn is None else f"{named}, {words['turn']} {utterance.turn}"


def card_text(card: Card) -> str:
    """Return a card as text for a terminal or a mail."""
    words = card.words
    parts = [f"{words['card']} · {card.place}", "=" * _LINE]
    if card.context:
        parts.append(f"{words['context']}:")
        parts += [words["earlier"].format(n=card.earlier)] if card.earlier else []
        parts += [_indented(f"{speaker}: {text}") for speaker, text in card.context]
    parts += [f"{words['response']}:", _indented(f"{words['client']}: {card.response}"), ""]
    parts += [*card.lines, "-" * _LINE, card.note, *card.origins, words["private"]]
    return "\n".join(printable(part) for part in parts) + "\n"


def _certainty(utterance: Utterance, source: AnnotatedSource, language: str, unsure: float) -> str:
    words, taxonomy = card_words()[language], source.taxonomy
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
    if source.resistance_probability(utterance) is None:
        parts.append(words["no_resistance"])
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
    language, context = config.card.language or source.language, config.card.context
    card = card_of(utterance, source, language=language, context=context, unsure=config.unsure)
    row = {
        "id": utterance.id,
        "session": utterance.session,
        "turn": utterance.turn,
        "label": utterance.label,
        "pattern": source.taxonomy.pattern(utterance.label) or utterance.label,
        "probability": utterance.probability,
        "resistance_probability": source.resistance_probability(utterance),
        "predicted": utterance.predicted,
        "unsure": card.unsure,
        "has_rationale": utterance.rationale is not None,
    }
    probabilities = None if utterance.probabilities is None else dict(utterance.probabilities)
    shown = [(key.replace("_", " "), plain(v)) for key, v in row.items()]
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
        figures={**row, "probabilities": probabilities, "models": source.annotated.model_figures},
        sheets=(ReportTable(title="The utterance", header=("what", "is"), rows=tuple(shown)),),
        rows=[row],
        private=True,
        private_pages={"card.txt": text, "card.html": page},
        on_console=text if config.out is None else "",
    )


def _chosen(config: InsightsConfig, source: AnnotatedSource) -> Utterance:
    utterances, wanted = source.annotated.utterances, identity(config.card.id or "")
    if config.card.id is None:
        resistant = source.is_resistant
        for each in utterances:
            if each.label is not None and resistant(each.label):
                return each
        raise DataError(
            "no utterance is labeled as resistant; name one with card.id=ID, or say what counts "
            "as resistance with resistance=[…]"
        )
    utterance = next((u for u in utterances if u.id == wanted), None)
    if utterance is None:
        close = did_you_mean(wanted, [u.id for u in utterances if u.id[:1] == wanted[:1]])
        raise DataError(f"card.id: there is no client utterance of id {quote_id(wanted)}{close}")
    if utterance.label is None:
        raise DataError(f"card.id: the utterance of id {quote_id(wanted)} has no label")
    return utterance


@dataclass(frozen=True, kw_only=True)
class SessionPage:
    """One session, ready to be laid out."""

    utterances: tuple[Utterance, ...]
    """Its client utterances in order."""
    source: AnnotatedSource
    language: str
    context: int
    threshold: float

    @property
    def session(self) -> str:
        """Its id."""
        return self.utterances[0].session

    @property
    def words(self) -> Mapping[str, str]:
        """The fixed words of pages."""
        return card_words()[self.language]

    @property
    def labeled(self) -> list[Utterance]:
        """Utterances with a label."""
        return [utterance for utterance in self.utterances if utterance.label is not None]

    @property
    def resistant(self) -> list[Utterance]:
        """Those whose label counts as resistance."""
        is_resistant = self.source.is_resistant
        return [utterance for utterance in self.labeled if is_resistant(str(utterance.label))]

    @property
    def unsure(self) -> list[Utterance]:
        """Labeled utterances under the threshold, resistant or not."""
        return [
            u for u in self.labeled if u.probability is not None and u.probability < self.threshold
        ]

    @property
    def note(self) -> str:
        """That the page is an aid, which may be wrong."""
        return self.words["aid" if any(u.predicted for u in self.utterances) else "aid_annotated"]

    def turn(self, number: int | None) -> str:
        """Return the number of a turn as files have it, with its name; empty without one."""
        return "" if number is None else f"{self.words['turn']} {number}"

    def name(self, label: str | None) -> str:
        """Return a label as the page writes it."""
        return self.source.taxonomy.written(str(label), language=self.language)

    def behaviors(self) -> list[tuple[str, int]]:
        """Return how often each resistant label occurs, the most frequent first."""
        return Counter(str(utterance.label) for utterance in self.resistant).most_common()


def supervision_html(page: SessionPage) -> str:
    """Return the page, self-contained."""
    resistant, color = page.resistant, page.source.color
    how: dict[str, Any] = {"language": page.language, "context": page.context}
    cards = {u.id: card_of(u, page.source, unsure=page.threshold, **how) for u in page.labeled}
    bars = [(page.turn(u.turn), cards[u.id], u in resistant) for u in page.labeled]
    dialogue = []
    for number, speaker, text, u in dialogue_lines(page):
        tag = tone = ""
        if u is not None and u.label is not None:
            p = "" if u.probability is None else f" {rounded_percent(u.probability)}"
            tag = " · ".join(filter(None, (page.name(u.label) + p, cards[u.id].resistance)))
            tone = color(u.label)
        dialogue.append((page.turn(number), speaker, text, tag, tone))
    return render(
        "insights/templates/supervision.html",
        title=f"{page.words['supervision']}: {page.session}",
        language=page.language,
        words=page.words,
        note=page.note,
        origins=page.source.origins(page.language),
        overview=overview_rows(page),
        bars=bars,
        colors=list(dict.fromkeys((card.heading, card.color) for _, card, _ in bars)),
        moments=[cards[u.id] for u in resistant],
        others=[cards[u.id] for u in page.unsure if u not in resistant],
        dialogue=dialogue,
    )


def overview_rows(page: SessionPage) -> list[tuple[str, str]]:
    """Return what is at the head of the page, as names and figures."""
    words, first = page.words, page.utterances[0]
    n, n_resistant = len(page.labeled), len(page.resistant)
    rows = {
        "session_name": page.session,
        "client": first.client,
        "counselor": first.counselor,
        "utterances": str(n),
        "resistant": f"{n_resistant} ({rounded_percent(n_resistant / n)})" if n else "0",
        "behaviors": ", ".join(f"{page.name(label)} {times}" for label, times in page.behaviors()),
        "unsure_count": str(len(page.unsure)) if any(u.predicted for u in page.utterances) else "",
    }
    limit = rounded_percent(page.threshold)
    return [(words[name].format(p=limit), text) for name, text in rows.items() if text]


def dialogue_lines(page: SessionPage) -> list[tuple[int | None, str, str, Utterance | None]]:
    """Return number, speaker, text and annotation of every turn that is known, in order."""
    words, own = page.words, page.utterances
    if not any(len(u.dialogue) > u.before for u in own):
        # Rows of predictions, or examples, hold no dialogue: only what the client said.
        return [(u.turn, words["client"], u.response or words["no_text"], u) for u in own]
    by_place = {(u.before, "client"): u for u in own}
    return [
        (place, turn.called(words), turn.text, by_place.get((place, turn.speaker)))
        for place, turn in enumerate(own[0].dialogue)
    ]


MOST_SHOWN = 20
"""Sessions that the console lists."""

_LONGEST_NAME = 120
"""Bytes of a session's name that stand in the name of its file."""


def make_supervision(config: InsightsConfig) -> Report:
    """Return the page of ``supervision.session``, or one for every session.

    Pages hold the words of clients: nobody but the user may read them. All other files hold none.

    Raises:
        ConfigError: Without ``out``, or without openpyxl where Excel files are asked for.
        DataError: When there is no such session.
    """
    if config.out is None:
        raise ConfigError("action=supervision writes pages; name a folder for them with out=FOLDER")
    source = read_source(config)
    pages = _pages(config, source)
    rows, files = [], dict[str, str | bytes]()
    names = _file_names([page.session for page in pages])
    for page, name in zip(pages, names, strict=True):
        files[f"{name}.html"] = supervision_html(page)
        if config.supervision.excel:
            files[f"{name}.xlsx"] = workbook_bytes(_sheets(page))
        rows.append(_row(page, f"{name}.html"))
    notes = [*source.annotated.notes(), *map(provenance_text, source.annotated.models)]
    if len(rows) > MOST_SHOWN:
        notes.append(f"{len(rows) - MOST_SHOWN} more sessions are in supervision.csv.")
    notes.append(
        f"Unsure: the model gives its label a probability under {config.unsure:g}. The pages hold "
        "the words of clients; only your account may read them (mode 0600)."
    )
    return Report(
        action="supervision",
        title=f"Supervision pages of {len(pages)} sessions of {source.annotated.name}",
        figures={
            "predicted": source.annotated.predicted,
            "models": source.annotated.model_figures,
            "unsure": config.unsure,
            "sessions": rows,
        },
        sheets=(
            table_of(
                "Sessions",
                rows[:MOST_SHOWN],
                {
                    "session": lambda row: row["session"],
                    "utterances": lambda row: str(row["n_utterances"]),
                    "resistant": lambda row: str(row["n_resistant"]),
                    "unsure": lambda row: str(row["n_unsure"]),
                },
            ),
        ),
        notes=tuple(notes),
        rows=rows,
        private=True,
        private_pages=files,
    )


def _pages(config: InsightsConfig, source: AnnotatedSource) -> list[SessionPage]:
    sessions: dict[str, list[Utterance]] = {}
    for utterance in source.annotated.utterances:
        sessions.setdefault(utterance.session, []).append(utterance)
    if config.supervision.session is not None:
        wanted = identity(config.supervision.session)
        if wanted not in sessions:
            close = did_you_mean(wanted, sessions)
            raise DataError(f"supervision.session: there is no session {quote_id(wanted)}{close}")
        sessions = {wanted: sessions[wanted]}
    return [
        SessionPage(
            utterances=tuple(own),
            source=source,
            language=config.card.language or source.language,
            context=config.card.context,
            threshold=config.unsure,
        )
        for own in sessions.values()
    ]


def _row(page: SessionPage, file: str) -> dict[str, Any]:
    return {
        "session": page.session,
        "client": page.utterances[0].client,
        "n_utterances": len(page.labeled),
        "n_resistant": len(page.resistant),
        "n_unsure": len(page.unsure),
        "behaviors": "; ".join(f"{label} {n}" for label, n in page.behaviors()),
        "file": file,
    }


def _sheets(page: SessionPage) -> dict[str, tuple[Sequence[str], Sequence[Sequence[CellValue]]]]:
    words, source = page.words, page.source
    rationale = "rationale_model" if source.annotated.predicted else "rationale"
    keys = ("turn", "response", "behavior", "sure", "resistance", "meaning", rationale)
    moments = [
        (
            u.turn,
            u.response,
            page.name(u.label),
            u.probability,
            source.resistance_probability(u),
            source.taxonomy[str(u.label)].definition.get(page.language, ""),
            u.rationale,
        )
        for u in page.resistant
    ]
    dialogue = []
    for number, speaker, text, u in dialogue_lines(page):
        name = None if u is None or u.label is None else page.name(u.label)
        sure = (None, None) if u is None else (u.probability, source.resistance_probability(u))
        dialogue.append((number, speaker, text, name, *sure))
    said = (page.note, *source.origins(page.language), words["private"])
    overview = [*overview_rows(page), *(("", text) for text in said)]
    return {
        words["overview"]: (("", ""), overview),
        words["moments"]: (tuple(words[key] for key in keys), moments),
        words["dialogue"]: (
            (words["turn"], "", words["dialogue"], *(words[key] for key in keys[2:5])),
            dialogue,
        ),
    }


def _file_names(sessions: Sequence[str]) -> list[str]:
    """Return a file's stem for each session: safe characters, no two alike in any case."""
    names: list[str] = []
    taken: set[str] = set()
    for session in sessions:
        cut = re.sub(r"[^\w.-]+", "_", session).encode("utf-8", "ignore")[:_LONGEST_NAME]
        base = cut.decode("utf-8", "ignore").strip(".") or "session"
        name, n = base, 1
        while name.casefold() in taken:
            n += 1
            name = f"{base}-{n}"
        taken.add(name.casefold())
        names.append(f"supervision-{name}")
    return names
