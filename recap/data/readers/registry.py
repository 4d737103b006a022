"""The readers that configuration can name."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from recap.errors import ConfigError, did_you_mean
from recap.records import Dialogue, Example
from recap.registry import Registry

Record = Dialogue | Example

Reader = Callable[..., Iterator[Record]]
"""``read(path, *, faults, **options)``: yields records and notes bad rows in ``faults``."""

READERS: Registry[Reader] = Registry("data reader")

_BUILT_IN = {
    "alpaca": "recap.data.readers.alpaca",
    "annomi": "recap.data.readers.annomi",
    "client_resistance": "recap.data.readers.client_resistance",
    "demo": "recap.data.demo",
    "dialogues": "recap.data.readers.native",
    "doccano": "recap.data.readers.doccano",
    "psyguard": "recap.data.readers.psyguard",
    "table": "recap.data.readers.table",
    "transcript": "recap.data.readers.transcript",
}


def register_reader(name: str, *, aliases: Iterable[str] = ()) -> Callable[[Reader], Reader]:
    """Return a decorator that makes a function available as ``data.reader=name``."""
    return READERS.register(name, aliases=aliases)


def get_reader(name: str) -> Reader:
    """Return the reader that ``name`` (or ``package.module:function``) stands for.

    Raises:
        UnknownNameError: With the closest known name, when there is none.
    """
    # Each module registers its reader when imported; all of them only to list what there is.
    wanted = (
        [_BUILT_IN[name]] if name in _BUILT_IN else _BUILT_IN.values() if ":" not in name else []
    )
    for module in wanted:
        importlib.import_module(module)
    return READERS.get(name)


def check_options(name: str, reader: Reader, options: Mapping[str, Any]) -> None:
    """Check that a reader takes every option it is given.

    Raises:
        ConfigError: When it is no reader, or naming the first option that it does not take.
    """
    try:
        named = inspect.signature(reader).parameters
    except (TypeError, ValueError):
        named = MappingProxyType({})
    if "faults" not in named:
        raise ConfigError(
            f"data.reader: {name!r} is no reader, for it does not take faults=; a reader is a "
            "function read(path, *, faults, ...)"
        )
    parameters = named.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "faults"]
    for option in options:
        if option not in known:
            raise ConfigError(
                f"data.options.{option}: reader {name!r} has no such option"
                f"{did_you_mean(option, known)}; it takes {', '.join(known) or 'none'}"
            )


def one_of(
    option: str, value: object, choices: Iterable[str], *, prefix: str = "data.options."
) -> str:
    """Return ``value`` when it is one of ``choices``.

    Raises:
        ConfigError: Naming the option and its choices.
    """
    choices = list(choices)
    if value not in choices:
        raise ConfigError(
            f"{prefix}{option} must be {' or '.join(choices)}, not {value!r}"
            f"{did_you_mean(str(value), choices)}"
        )
    return str(value)
