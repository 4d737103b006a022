"""``action=supervision``: one page a session, for people who never open a terminal.

The supervision page of one session: where the client resisted, what it may mean, how sure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from recap.data.utterances import Utterance
from recap.errors import ConfigError, DataError, did_you_mean, quote_id
from recap.insights.cards import WORDS, card_block, card_of, percent_text, place_of, said
from recap.insights.options import InsightsConfig
from recap.insights.source import AnnotatedSource, read_source
from recap.output.excel import CellValue, workbook_bytes
from recap.output.html import html_page
from recap.output.report import Report
from recap.output.tables import ReportTable
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
    for page in pages:
        name = names[page.session]
        files[f"{name}.html"] = supervision_html(page)
        if config.supervision.excel:
            files[f"{name}.xlsx"] = workbook_bytes(_sheets(page))
        rows.append(_row(page, f"{name}.html"))
    shown = [
        (str(r["session"]), str(r["n_utterances"]), str(r["n_resistant"]), str(r["n_unsure"]))
        for r in rows[:MOST_SHOWN]
    ]
    notes = source.annotated.notes()
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
            "unsure": config.unsure,
            "sessions": rows,
        },
        sheets=(
            ReportTable(
                title="Sessions",
                header=("session", "utterances", "resistant", "unsure"),
                rows=tuple(shown),
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
    wanted = config.supervision.session
    if wanted is not None:
        if wanted not in sessions:
            close = did_you_mean(wanted, sessions)
            raise DataError(f"supervision.session: there is no session {quote_id(wanted)}{close}")
        sessions = {wanted: sessions[wanted]}
    resistant = source.is_resistant
    return [
        SessionPage(
            session=session,
            client=said[0].client,
            counselor=said[0].counselor,
            utterances=tuple(said),
            resistant=tuple(u for u in said if u.label is not None and resistant(u.label)),
            unsure=tuple(
                u for u in said if u.probability is not None and u.probability < config.unsure
            ),
            threshold=config.unsure,
            taxonomy=source.taxonomy,
            language=config.card.language or source.language,
            context=config.card.context,
        )
        for session, said in sessions.items()
    ]


def _row(page: SessionPage, file: str) -> dict[str, Any]:
    return {
        "session": page.session,
        "client": page.client,
        "n_utterances": page.labelled,
        "n_resistant": len(page.resistant),
        "n_unsure": len(page.unsure),
        "behaviors": "; ".join(f"{label} {n}" for label, n in page.behaviors().items()),
        "file": file,
    }


def _sheets(page: SessionPage) -> dict[str, tuple[Sequence[str], Sequence[Sequence[CellValue]]]]:
    header = (
        page.word("turn"),
        page.word("response"),
        page.word("behavior"),
        page.word("sure"),
        page.word("meaning"),
        page.word("rationale"),
    )
    moments = [
        (
            None if u.turn is None else u.turn + 1,
            u.response,
            page.name(str(u.label)),
            u.probability,
            page.taxonomy[str(u.label)].definition.get(page.language, ""),
            u.rationale,
        )
        for u in page.resistant
    ]
    dialogue = [
        (
            speaker,
            text,
            None if u is None or u.label is None else page.name(u.label),
            None if u is None else u.probability,
        )
        for speaker, text, u in dialogue_lines(page)
    ]
    note = page.word("aid" if page.predicted else "aid_annotated")
    overview = [*overview_rows(page), ("", note), ("", page.word("private"))]
    columns = ("", page.word("dialogue"), page.word("behavior"), page.word("sure"))
    return {
        page.word("overview"): (("", ""), overview),
        page.word("moments"): (header, moments),
        page.word("dialogue"): (columns, dialogue),
    }


def _file_names(sessions: Sequence[str]) -> dict[str, str]:
    """Return a file's stem for each session: safe characters, no two alike in any case."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for session in sessions:
        cut = re.sub(r"[^\w.-]+", "_", session).encode("utf-8", "ignore")[:_LONGEST_NAME]
        base = cut.decode("utf-8", "ignore").strip(".") or "session"
        name, n = base, 1
        while name.casefold() in taken:
            n += 1
            name = f"{base}-{n}"
        taken.add(name.casefold())
        names[session] = f"supervision-{name}"
    return names
