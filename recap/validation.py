"""What pydantic finds at fault, said in the words of the command line."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from recap.errors import ConfigError, did_you_mean

Schema = TypeVar("Schema")


def validated(schema: type[Schema], values: Mapping[str, Any]) -> Schema:
    """Return the instance of a pydantic dataclass that plain values describe.

    Raises:
        ConfigError: With one line for every fault.
    """
    try:
        return TypeAdapter(schema).validate_python(values)
    except ValidationError as error:
        raise ConfigError(explain_faults(error, schema)) from None


def explain_faults(error: ValidationError, schema: type) -> str:
    """Return one line for every fault: the option's dotted name, and what is wrong with it.

    Args:
        error: What the validation found.
        schema: The dataclass that was validated, whose sections are dataclasses of its own module.
    """
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
        hints = {f.name: f.type for f in dataclasses.fields(section)}
        section = vars(sys.modules[schema.__module__]).get(str(hints.get(str(part), "")))
        if section is None:
            return ""
    return did_you_mean(str(location[-1]), [f.name for f in dataclasses.fields(section)])
