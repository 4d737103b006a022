"""Which cells hold nothing, and in which form names and ids are compared."""

from __future__ import annotations

import re
import unicodedata

from recap.taxonomy import Taxonomy

EMPTY_WORDS = frozenset(
    {"", "na", "n/a", "nan", "+nan", "-nan", "<na>", "null", "none", ".", "-", "--", "–", "—"}
)
"""What stands in a cell, in folded case, that says that there is nothing."""


def is_missing(cell: str, taxonomy: Taxonomy | None = None) -> bool:
    """Return whether a cell holds nothing, or only a word for it.

    A category of that very name comes first, for ``N/A`` and ``None`` are labels of some schemes.

    Args:
        cell: As it stands in the file.
        taxonomy: Whose names and aliases are asked, in their exact spelling, where the cell is one
            of labels.

    >>> is_missing(" n/a "), is_missing("0"), is_missing("\N{ZERO WIDTH SPACE}")
    (True, False, True)
    """
    text = identity(cell)
    return text.casefold() in EMPTY_WORDS and (
        not text or taxonomy is None or text not in taxonomy.spellings()
    )


# Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties 16.0): never drawn by themselves.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
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
        visible = _BLANK.sub(" ", _INVISIBLE.sub("", name))
        name = unicodedata.normalize("NFC", visible)
    return name.strip(" ")
