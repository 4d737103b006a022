"""``action=supervision``: one page a session, for people who never open a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from recap.analysis.utterances import Utterance
from recap.errors import ConfigError, DataError, did_you_mean, quote_id
from recap.insight_actions.options import InsightsConfig
from recap.insight_actions.source import Source, read_source
from recap.reporting.findings import Findings
from recap.reporting.sheets import Sheet
from recap.reporting.supervision import (
    SessionPage,
    dialogue_lines,
    overview_rows,
    supervision_html,
)
from recap.reporting.workbook import Cell, workbook_bytes

MOST_SHOWN = 20
"""Sessions that the console lists."""

_LONGEST_NAME = 120
"""Bytes of a session's name that stand in the name of its file."""


def make_supervision(config: InsightsConfig) -> Findings:
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
    return Findings(
        action="supervision",
        title=f"Supervision pages of {len(pages)} sessions of {source.annotated.name}",
        figures={
            "predicted": source.annotated.predicted,
            "unsure": config.unsure,
            "sessions": rows,
        },
        sheets=(
            Sheet(
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


def _pages(config: InsightsConfig, source: Source) -> list[SessionPage]:
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


def _sheets(page: SessionPage) -> dict[str, tuple[Sequence[str], Sequence[Sequence[Cell]]]]:
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
