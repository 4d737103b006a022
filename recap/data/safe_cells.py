"""Tables that people fill in with a spreadsheet program, whose cells never run as formulas."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

_FORMULA = re.compile(r"[\s\W]*[=+\-@＝＋－＠]|[\t\r\n]")
BYTE_ORDER_MARK = "\ufeff"
"""Without it Excel takes UTF-8 for something else; the readers pass over it."""


def protect_cell(text: str) -> str:
    """Return a text that no spreadsheet program takes for a formula, quoted where it would be.

    The characters are OWASP's (CSV Injection), also in full width and after white space and
    punctuation, which some programs pass over.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def bare_cell(text: str) -> str:
    """Return a cell without the quote that :func:`protect_cell` put in front."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text[1:]) else text


def sheet_to_csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a CSV file's text for a spreadsheet program, its cells protected."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([protect_cell(cell) for cell in row] for row in rows)
    return BYTE_ORDER_MARK + table.getvalue()
