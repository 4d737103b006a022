"""Tracebacks of errors that nobody foresaw: where they come from, without the words they bring.

Libraries quote what they choke on, and here that is what clients said.
"""

from __future__ import annotations

import os
import traceback

FULL = "RECAP_FULL_TRACEBACK"
"""Environment variable: set to 1, errors keep their words."""

_OF_THE_MACHINE = (OSError, ImportError, MemoryError)


def safe_traceback(error: BaseException) -> str:
    """Return an error's traceback, and those of its causes, with types in the place of messages.

    Files, lines and source code stand there as ever. What is said of the machine itself (a file
    that cannot be opened, a missing package, memory that does not suffice) keeps its words; all
    else has its length, unless the environment variable ``RECAP_FULL_TRACEBACK`` is 1.
    """
    if os.environ.get(FULL) == "1":
        return "".join(traceback.format_exception(error)).rstrip()
    parts: list[str] = []
    for number, one in enumerate(_causes_first(error)):
        parts += ["\nAnd then, because of it or while it was dealt with:\n"] if number else []
        parts += ["Traceback (most recent call last):\n"]
        parts += traceback.format_list(traceback.extract_tb(one.__traceback__))
        parts += [f"{_kind(one)}{_words(one)}\n"]
    return "".join(parts).rstrip()


def _causes_first(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and not any(found is seen for seen in chain):
        chain.append(found)
        hidden = found.__suppress_context__
        found = found.__cause__ or (None if hidden else found.__context__)
    return chain[::-1]


def _kind(error: BaseException) -> str:
    module = type(error).__module__
    name = type(error).__qualname__
    return name if module in ("builtins", "__main__") else f"{module}.{name}"


def _words(error: BaseException) -> str:
    if isinstance(error, OSError):
        # Its arguments may be anything; these two are the system's, and a path.
        said = error.strerror or ""
        return f": {said}: {error.filename!r}" if error.filename is not None else f": {said}"
    text = str(error)
    if isinstance(error, _OF_THE_MACHINE) or type(error).__name__ == "OutOfMemoryError":
        return f": {text}"
    if not text:
        return ""
    return f" (a message of {len(text)} characters, which may quote data; {FULL}=1 shows it)"
