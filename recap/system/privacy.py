"""What may not be said: keys and passwords of the environment, and words that quote clients.

Tracebacks of errors that nobody foresaw say where they come from, without the words they bring:
libraries quote what they choke on, and here that is what clients said.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Mapping
from typing import Any

from recap.config import flatten
from recap.errors import ConfigError

_NAMED_SO = re.compile(r"(?:^|_)(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
_LEAST_CHARACTERS = 8
"""Shorter values are no keys, and may be part of any word."""


def secret_values() -> dict[str, str]:
    """Return the secrets of the environment as they are now, by the names of their variables.

    A variable counts whose name ends in ``KEY``, ``TOKEN``, ``SECRET``, ``PASSWORD`` or the like,
    and whose value is neither short, nor a path, nor several words.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if _NAMED_SO.search(name)
        and len(value) >= _LEAST_CHARACTERS
        and not re.search(r"^[/~.]|\s", value)
    }


def refuse_secrets(values: Mapping[str, Any]) -> None:
    """Check that no option holds a secret of the environment: options are written to files.

    Raises:
        ConfigError: Naming the option and the variable, never the value.
    """
    secrets = secret_values()
    for key, value in flatten(values).items():
        for name, secret in secrets.items():
            if secret in str(value) or secret in key:
                # The key itself may be what holds it.
                option = "an option" if secret in key else key
                raise ConfigError(
                    f"{option}: holds the value of the environment variable {name}, and options "
                    "are written to config.yaml; leave it out, for keys are read from the "
                    "environment when they are used"
                )


def without_secrets(text: str) -> str:
    """Return a text with every secret of the environment replaced by its variable's name."""
    for name, secret in secret_values().items():
        text = text.replace(secret, f"<{name}>")
    return text


FULL = "RECAP_FULL_TRACEBACK"
"""Environment variable: set to 1, errors keep their words."""

_OF_THE_MACHINE = (OSError, ImportError, MemoryError, SyntaxError)


def safe_traceback(error: BaseException) -> str:
    """Return an error's traceback, and those of its causes, with types in the place of messages.

    Files, lines and source code stand there as ever. What is said of the machine and of code (a
    file that cannot be opened, a missing package, memory that does not suffice, a slip of syntax)
    keeps its words; all else has its length, unless the environment variable
    ``RECAP_FULL_TRACEBACK`` is 1.
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
