"""The errors that recap raises, and the words they use.

Every error that a user can cause derives from :class:`UserError` and ends a command with exit code
2; anything else derives from :class:`RecapError` and ends it with 1. Messages carry ids, line
numbers and lengths, never the text of a client.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

MAX_QUOTED_CHARACTERS = 30
"""An unknown label longer than this is described by its length, since it may be client text."""

_PLAIN_ID = re.compile(r"[A-Za-z0-9_.:/@#+-]{1,64}")


class RecapError(Exception):
    """Base of all errors of this library; a command that ends with it exits with ``exit_code``."""

    exit_code = 1


class UserError(RecapError):
    """Configuration, data or command line are at fault, and the message says how to mend it."""

    exit_code = 2


class ConfigError(UserError):
    """An option, or a combination of options, cannot be used."""


class WrittenError(ConfigError):
    """A value in a mapping, as YAML has it, is not of the kind that its key wants.

    ``keys`` lead to it from the top, list indices among them.
    """

    def __init__(self, message: str, keys: tuple[str | int, ...]) -> None:
        super().__init__(message)
        self.keys = keys


class UnknownNameError(ConfigError):
    """A name is not registered."""


class DataError(UserError):
    """A file cannot be read as what it was said to be, or its rows break the rules of the task."""


class VerificationError(RecapError):
    """A run's files contradict each other: a recorded figure does not follow from the others."""


class RecapWarning(UserWarning):
    """What a user of ``import recap`` has to know before results are believed."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest known name, ``""`` when none is close."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    return f" (did you mean {by_folded[close[0]]!r}?)" if close else ""


def quote_label(text: str, known: Iterable[str]) -> str:
    """Return an unknown label in a form that is safe to print.

    Quoted only when it is short and close to a known label: a column mix-up would otherwise print
    client text. Anything else becomes ``"a text of N characters"``.
    """
    known = list(known)
    if len(text) <= MAX_QUOTED_CHARACTERS and did_you_mean(text, known):
        return f"{text!r}"
    return f"a text of {len(text)} characters"


def quote_cell(text: str) -> str:
    """Return a label, a name of a person or a column, or a number, in a form that is safe to print.

    As it stands up to 24 characters and three words; else ``"a text of N characters"``.
    """
    if len(text) <= 24 and len(text.split()) <= 3:
        return f"{text!r}"
    return f"a text of {len(text)} characters"


def quote_id(identifier: str) -> str:
    """Return an identifier in a form that is safe to print.

    Quoted only when it looks like one: a column mix-up would otherwise print client text.
    """
    if _PLAIN_ID.fullmatch(identifier):
        return f"{identifier!r}"
    return f"of {len(identifier)} characters"
