"""``action=supervision``: one page a session, for people who never open a terminal.

Where the client resisted, what it may mean, how sure that is, and the whole session.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recap.data.utterances import Utterance
from recap.errors import ConfigError, DataError, did_you_mean, quote_id
from recap.insights.cards import NO_COLOR, Card, card_of, card_words
from recap.insights.options import InsightsConfig
from recap.insights.source import AnnotatedSource, read_source
from recap.output.excel import CellValue, workbook_bytes
from recap.output.format import rounded_percent
from recap.output.html import render
from recap.output.report import Report
from recap.output.tables import ReportTable
from recap.taxonomy import Taxonomy


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
    """Labeled utterances under the threshold, resistant or not."""
    threshold: float
    taxonomy: Taxonomy
    language: str
    context: int

    @property
    def words(self) -> Mapping[str, str]:
        """The fixed words of pages."""
        return card_words()[self.language]

    @property
    def labeled(self) -> tuple[Utterance, ...]:
        """Utterances with a label."""
        return tuple(utterance for utterance in self.utterances if utterance.label is not None)

    @property
    def predicted(self) -> bool:
        """Whether a model gave the labels."""
        return any(utterance.predicted for utterance in self.utterances)

    @property
    def note(self) -> str:
        """That the page is an aid, which may be wrong."""
        return self.words["aid" if self.predicted else "aid_annotated"]

    def name(self, label: str | None) -> str:
        """Return a label as the page writes it."""
        return self.taxonomy.written(str(label), language=self.language)

    def color(self, label: str | None) -> str:
        """Return the color of a label's category."""
        return self.taxonomy[str(label)].color or NO_COLOR

    def card(self, utterance: Utterance) -> Card:
        """Return the card of one of the utterances."""
        return card_of(
            utterance,
            self.taxonomy,
            language=self.language,
            context=self.context,
            unsure=self.threshold,
        )

    def behaviors(self) -> list[tuple[str, int]]:
        """Return how often each resistant label occurs, the most frequent first."""
        return Counter(str(utterance.label) for utterance in self.resistant).most_common()


def supervision_html(page: SessionPage) -> str:
    """Return the page, self-contained."""
    resistant = {id(utterance) for utterance in page.resistant}
    return render(
        "insights/templates/supervision.html",
        title=f"{page.words['supervision']}: {page.session}",
        language=page.language,
        words=page.words,
        note=page.note,
        overview=overview_rows(page),
        bars=[(page.name(u.label), page.color(u.label), id(u) in resistant) for u in page.labeled],
        moments=[page.card(u) for u in page.resistant],
        others=[page.card(u) for u in page.unsure if id(u) not in resistant],
        dialogue=[(speaker, text, *_tag(page, u)) for speaker, text, u in dialogue_lines(page)],
    )


def _tag(page: SessionPage, utterance: Utterance | None) -> tuple[str, str]:
    """Return an utterance's label with its probability, and its color; empty without a label."""
    if utterance is None or utterance.label is None:
        return "", ""
    p = "" if utterance.probability is None else f" {rounded_percent(utterance.probability)}"
    return page.name(utterance.label) + p, page.color(utterance.label)


def overview_rows(page: SessionPage) -> list[tuple[str, str]]:
    """Return what is at the head of the page, as names and figures."""
    words, n = page.words, len(page.labeled)
    share = f" ({rounded_percent(len(page.resistant) / n)})" if n else ""
    behaviors = ", ".join(f"{page.name(label)} {times}" for label, times in page.behaviors())
    rows = [(words["session"], page.session)]
    rows += [(words["client"], page.client)] if page.client else []
    rows += [(words["counselor"], page.counselor)] if page.counselor else []
    rows.append((words["utterances"], str(n)))
    rows.append((words["resistant"], f"{len(page.resistant)}{share}"))
    rows += [(words["behaviors"], behaviors)] if behaviors else []
    if page.predicted:
        limit = rounded_percent(page.threshold)
        rows.append((words["unsure_count"].format(p=limit), str(len(page.unsure))))
    return rows


def dialogue_lines(page: SessionPage) -> list[tuple[str, str, Utterance | None]]:
    """Return speaker, text and annotation of every turn that is known, in order."""
    words = page.words
    if not any(len(u.dialogue) > u.before for u in page.utterances):
        # Rows of predictions, or examples, hold no dialogue: only what the client said.
        return [(words["client"], u.response or words["no_text"], u) for u in page.utterances]
    by_place = {u.before: u for u in page.utterances}
    return [
        (words[turn.speaker], turn.text, by_place.get(index) if turn.speaker == "client" else None)
        for index, turn in enumerate(page.utterances[0].dialogue)
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
            client=own[0].client,
            counselor=own[0].counselor,
            utterances=tuple(own),
            resistant=tuple(u for u in own if u.label is not None and resistant(u.label)),
            unsure=tuple(
                u for u in own if u.probability is not None and u.probability < config.unsure
            ),
            threshold=config.unsure,
            taxonomy=source.taxonomy,
            language=config.card.language or source.language,
            context=config.card.context,
        )
        for session, own in sessions.items()
    ]


def _row(page: SessionPage, file: str) -> dict[str, Any]:
    return {
        "session": page.session,
        "client": page.client,
        "n_utterances": len(page.labeled),
        "n_resistant": len(page.resistant),
        "n_unsure": len(page.unsure),
        "behaviors": "; ".join(f"{label} {n}" for label, n in page.behaviors()),
        "file": file,
    }


def _sheets(page: SessionPage) -> dict[str, tuple[Sequence[str], Sequence[Sequence[CellValue]]]]:
    words = page.words
    keys = ("turn", "response", "behavior", "sure", "meaning", "rationale")
    moments = [
        (
            None if u.turn is None else u.turn + 1,
            u.response,
            page.name(u.label),
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
    overview = [*overview_rows(page), ("", page.note), ("", words["private"])]
    return {
        words["overview"]: (("", ""), overview),
        words["moments"]: (tuple(words[key] for key in keys), moments),
        words["dialogue"]: (("", words["dialogue"], words["behavior"], words["sure"]), dialogue),
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
