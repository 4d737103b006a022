"""The supervision page of one session: where the client resisted, what it may mean, how sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from recap.analysis.utterances import Utterance
from recap.reporting.card_words import WORDS
from recap.reporting.cards import card_block, card_of, percent_text, place_of, said
from recap.reporting.pages import html_page
from recap.taxonomy import Taxonomy

_STRIP_WIDTH, _STRIP_HEIGHT = 1000, 60


@dataclass(frozen=True, kw_only=True)
class SessionPage:
    """One session, ready to be laid out."""

    session: str
    client: str | None
    counselor: str | None
    utterances: tuple[Utterance, ...]
    """Its client utterances in order."""
    resistant: tuple[Utterance, ...]
    unsure: tuple[Utterance, ...]
    """Labelled utterances under the threshold, resistant or not."""
    threshold: float
    taxonomy: Taxonomy
    language: str
    context: int

    @property
    def labelled(self) -> int:
        """Utterances with a label."""
        return sum(utterance.label is not None for utterance in self.utterances)

    @property
    def predicted(self) -> bool:
        """Whether a model gave the labels."""
        return any(utterance.predicted for utterance in self.utterances)

    def word(self, key: str, **values: object) -> str:
        """Return one of the fixed words."""
        return WORDS[self.language][key].format(**values)

    def name(self, label: str) -> str:
        """Return a label as the page writes it."""
        return self.taxonomy.written(label, language=self.language)

    def behaviors(self) -> dict[str, int]:
        """Return how often each resistant label occurs, the most frequent first."""
        counts: dict[str, int] = {}
        for utterance in self.resistant:
            counts[str(utterance.label)] = counts.get(str(utterance.label), 0) + 1
        return dict(sorted(counts.items(), key=lambda pair: -pair[1]))


def supervision_html(page: SessionPage) -> str:
    """Return the page, self-contained."""
    title = f"{page.word('supervision')}: {page.session}"
    note = page.word("aid" if page.predicted else "aid_annotated")
    chosen = {id(utterance) for utterance in page.resistant}
    others = [utterance for utterance in page.unsure if id(utterance) not in chosen]
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="note">{escape(note)} {escape(page.word("private"))}</p>',
        f"<h2>{escape(page.word('overview'))}</h2>",
        _overview(page),
        _strip(page),
        f"<h2>{escape(page.word('moments'))}</h2>",
        _cards(page, page.resistant) or f"<p>{escape(page.word('no_moments'))}</p>",
    ]
    if others:
        parts += [f"<h2>{escape(page.word('also_unsure'))}</h2>", _cards(page, others)]
    parts.append(_dialogue(page))
    return html_page(title=title, language=page.language, body="\n".join(parts))


def overview_rows(page: SessionPage) -> list[tuple[str, str]]:
    """Return what is at the head of the page, as names and figures."""
    share = f" ({percent_text(len(page.resistant) / page.labelled)})" if page.labelled else ""
    behaviors = ", ".join(f"{page.name(label)} {n}" for label, n in page.behaviors().items())
    rows = [(page.word("session"), page.session)]
    rows += [(page.word("client"), page.client)] if page.client else []
    rows += [(page.word("counselor"), page.counselor)] if page.counselor else []
    rows.append((page.word("utterances"), str(page.labelled)))
    rows.append((page.word("resistant"), f"{len(page.resistant)}{share}"))
    rows += [(page.word("behaviors"), behaviors)] if behaviors else []
    if page.predicted:
        limit = percent_text(page.threshold)
        rows.append((page.word("unsure_count", p=limit), str(len(page.unsure))))
    return rows


def _overview(page: SessionPage) -> str:
    rows = [
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
        for name, value in overview_rows(page)
    ]
    return "<table>" + "".join(rows) + "</table>"


def _strip(page: SessionPage) -> str:
    """Return the session from left to right: a bar an utterance, tall where it is resistant."""
    said_labels = [u for u in page.utterances if u.label is not None]
    if not said_labels:
        return ""
    chosen = {id(utterance) for utterance in page.resistant}
    width = _STRIP_WIDTH / len(said_labels)
    bars = []
    for index, utterance in enumerate(said_labels):
        label = str(utterance.label)
        tall = id(utterance) in chosen
        height = _STRIP_HEIGHT if tall else _STRIP_HEIGHT / 4
        color = page.taxonomy[label].color or "#808080"
        bars.append(
            f'<rect x="{index * width:.2f}" y="{_STRIP_HEIGHT - height:.2f}" '
            f'width="{max(width - 1, 0.5):.2f}" height="{height:.2f}" fill="{escape(color)}">'
            f"<title>{escape(page.name(label))}</title></rect>"
        )
    return (
        f'<svg viewBox="0 0 {_STRIP_WIDTH} {_STRIP_HEIGHT}" role="img" '
        f'aria-label="{escape(page.word("moments"))}">{"".join(bars)}</svg>'
    )


def _cards(page: SessionPage, utterances: Sequence[Utterance]) -> str:
    blocks = []
    for utterance in utterances:
        card = card_of(
            utterance,
            page.taxonomy,
            language=page.language,
            context=page.context,
            unsure=page.threshold,
        )
        blocks.append(f'<p class="faint">{escape(place_of(card))}</p>\n{card_block(card)}')
    return "\n".join(blocks)


def dialogue_lines(page: SessionPage) -> list[tuple[str, str, Utterance | None]]:
    """Return speaker, text and annotation of every turn that is known, in order."""
    turns = page.utterances[0].dialogue if page.utterances else ()
    if not any(len(u.dialogue) > u.before for u in page.utterances):
        # Rows of predictions, or examples, hold no dialogue: only what the client said.
        return [
            (page.word("client"), u.response or page.word("no_text"), u) for u in page.utterances
        ]
    by_place = {u.before: u for u in page.utterances}
    lines: list[tuple[str, str, Utterance | None]] = []
    for index, turn in enumerate(turns):
        utterance = by_place.get(index) if turn.speaker == "client" else None
        lines.append((page.word(turn.speaker), turn.text, utterance))
    return lines


def _dialogue(page: SessionPage) -> str:
    lines = []
    for speaker, text, utterance in dialogue_lines(page):
        tag = ""
        if utterance is not None and utterance.label is not None:
            color = page.taxonomy[utterance.label].color or "#808080"
            p = "" if utterance.probability is None else f" {percent_text(utterance.probability)}"
            shown = escape(page.name(utterance.label) + p)
            tag = f' <span class="tag" style="--tone:{escape(color)}">{shown}</span>'
        lines.append(said(speaker, text).replace("</p>", f"{tag}</p>"))
    body = "\n".join(lines)
    return f"<details><summary>{escape(page.word('dialogue'))}</summary>\n{body}\n</details>"
