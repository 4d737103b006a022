"""Which cells hold nothing or a whole number, and in which form names and ids are compared."""

from __future__ import annotations

import re
import unicodedata

from recap.taxonomy import INVISIBLE, Taxonomy

EMPTY_WORDS = frozenset(
    {"", "na", "n/a", "nan", "+nan", "-nan", "<na>", "null", "none", ".", "-", "--", "–", "—"}
)
"""What stands in a cell, in folded case, that says that there is nothing."""


def is_missing(cell: str, taxonomy: Taxonomy | None = None) -> bool:
    """Return whether a cell holds nothing, or only a word for it.

    A category of that very name comes first, for ``N/A`` and ``None`` are labels of some schemes.
    Of a cell of labels, the names and aliases of the ``taxonomy`` are asked, in their exact
    spelling.

    >>> is_missing(" n/a "), is_missing("0"), is_missing("\N{ZERO WIDTH SPACE}")
    (True, False, True)
    """
    text = identity(cell)
    return text.casefold() in EMPTY_WORDS and (
        not text or taxonomy is None or text not in taxonomy.spellings()
    )


_WHOLE = re.compile(r"(\d{1,9})(?:\.0+)?")


def whole_number(cell: str) -> int | None:
    """Return a whole number of up to nine digits, in any script; ``None`` for anything else.

    >>> whole_number("10"), whole_number("3.0"), whole_number("2a"), whole_number("-1")
    (10, 3, None, None)
    """
    found = _WHOLE.fullmatch(cell)
    return int(found[1]) if found else None


# The four information separators count as blanks for Python, as control characters here.
_BLANK = re.compile(r"[^\S\x1c-\x1f]")


def identity(name: str) -> str:
    """Return the form in which a name or an id is compared, stored and written.

    Letters are composed (Unicode NFC), characters that are never seen are gone, every kind of blank
    is a space, and there are none at the ends. ``1`` and ``01`` stay two names.

    >>> identity(" Jose\u0301\ufeff\u00a0B. ") == "José B."
    True
    """
    if not (name.isascii() and name.isprintable()):
        visible = _BLANK.sub(" ", INVISIBLE.sub("", name))
        name = unicodedata.normalize("NFC", visible)
    return name.strip(" ")
