"""Texts that no model or table can take: damaged characters, and whole files in a cell."""

from __future__ import annotations

import re

LONGEST_TEXT = 131_072
"""Characters of one text: more than two hours of speech, and what Python's CSV reader takes."""

ERROR_CELLS = frozenset({"#DIV/0!", "#N/A", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!"})
"""What a spreadsheet shows instead of a text that it took for a formula."""

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def damage(text: str) -> tuple[str, str] | None:
    """Return what is broken about a text and what to do, ``None`` for a sound one."""
    if "\0" in text:
        return "holds a NUL character", "remove it"
    if _HALF_CHARACTER.search(text):
        return "holds half of a character (a lone surrogate)", "export the file again as UTF-8"
    return None


def no_utterance(text: str) -> tuple[str, str] | None:
    """Return why a text can be nothing that somebody said, ``None`` where it can."""
    if text.strip() in ERROR_CELLS:
        return (
            f"is the error {text.strip()} of a spreadsheet",
            "write the words there again, in a cell formatted as text",
        )
    return too_long(len(text)) if len(text) > LONGEST_TEXT else damage(text)


def too_long(n: int) -> tuple[str, str]:
    """Return what is to be said of a text of ``n`` characters."""
    return (
        f"has {n:,} characters, more than the {LONGEST_TEXT:,} of one text",
        "split it (is a whole file in one field?)",
    )
