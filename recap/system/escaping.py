"""Cells that no spreadsheet program runs as formulas, and tables of them that people fill in."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
_EXECUTED = frozenset("=+-@")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
BYTE_ORDER_MARK = "\ufeff"
"""Without it Excel takes UTF-8 for something else; the readers pass over it."""


def protect_cell(text: str) -> str:
    """Return a text with an apostrophe in front where a spreadsheet would take it for a formula.

    The characters are OWASP's (CSV Injection): ``=``, ``+``, ``-`` and ``@``, also in full width
    and after what is not seen, a tab and a line end. Numbers stay as they are.

    >>> [protect_cell(text) for text in ("=1+1", " ＝A1", "-2.5", "- no", "no")]
    ["'=1+1", "' ＝A1", '-2.5', "'- no", 'no']
    """
    return f"'{text}" if _is_formula(text) else text


def bare_cell(text: str) -> str:
    """Return a cell without the quote that :func:`protect_cell` put in front."""
    return text[1:] if text.startswith("'") and _is_formula(text[1:]) else text


def plain_markdown(text: str) -> str:
    """Return Markdown in which no part of a text is HTML, by CommonMark's rules."""
    return _TAG.sub(r"\\<", text)


def sheet_to_csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a CSV file's text for a spreadsheet program, its cells protected."""
    records = [csv_record(header)]
    records += [csv_record([protect_cell(cell) for cell in row]) for row in rows]
    return BYTE_ORDER_MARK + "".join(records)


def csv_record(cells: Sequence[str]) -> str:
    """Return one record of a CSV file, which ends in a line feed."""
    text = io.StringIO()
    # The writer quotes a carriage return only where it ends lines itself (Python 3.11).
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return f"{text.getvalue()[:-2]}\n"


def _is_formula(text: str) -> bool:
    if text[:1] in ("\t", "\r", "\n"):
        return True
    return _first_visible(text) in _EXECUTED and not _NUMBER.fullmatch(text)


def _first_visible(text: str) -> str:
    """Return the first character that is seen, in half width; empty without one."""
    for character in text:
        if not character.isspace() and unicodedata.category(character) not in ("Cc", "Cf"):
            return unicodedata.normalize("NFKC", character)
    return ""
