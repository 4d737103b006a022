"""Plain values become a frozen dataclass, or one message with a line for every fault."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from recap.errors import ConfigError, did_you_mean

Schema = TypeVar("Schema")


def validated(schema: type[Schema], values: Mapping[str, Any]) -> Schema:
    """Return the instance of a pydantic dataclass that plain values describe.

    Raises:
        ConfigError: With one line for every fault, each beginning with the dotted name of the
            option.
    """
    try:
        return TypeAdapter(schema).validate_python(values)
    except ValidationError as error:
        raise ConfigError(_explain(error, schema)) from None


def _explain(error: ValidationError, schema: type) -> str:
    lines = []
    for fault in error.errors(include_url=False):
        where = ".".join(
            str(part) for part in fault["loc"] if not str(part).startswith("function-")
        )
        if fault["type"] == "unexpected_keyword_argument":
            lines.append(f"{where}: there is no such option{_closest(fault['loc'], schema)}")
        else:
            given = fault.get("input")
            shown = f", not {given!r}" if isinstance(given, str | int | float | bool) else ""
            lines.append(f"{where}: {fault['msg'].removeprefix('Value error, ')}{shown}")
    return "\n".join(dict.fromkeys(lines))


def _closest(location: tuple[int | str, ...], schema: type) -> str:
    section: Any = schema
    for part in location[:-1]:
        section = typing.get_type_hints(section).get(str(part))
        if not dataclasses.is_dataclass(section):
            return ""
    return did_you_mean(str(location[-1]), [f.name for f in dataclasses.fields(section)])
