"""What ``--help`` and ``--options`` print: choices, options and examples of a command."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING
from functools import cache
from itertools import pairwise
from pathlib import Path
from textwrap import dedent, fill, indent
from typing import Any

from recap.cli.arguments import READER_OPTIONS, Kind, fields_of, options_of, schema_of
from recap.system.files import read_yaml

_WIDTH = 100
_USAGE = "[GROUP=CHOICE] [OPTION=VALUE] [-m] [--cfg job] [--config-dir DIR]"


def help_page(command: str, folders: Sequence[Path]) -> str:
    """Return what a command does, the choices of its groups, its options by name, and examples.

    Args:
        command: Name of the command.
        folders: Where files of groups are, recap's own first.
    """
    words = read_yaml(folders[0] / f"{command}.yaml")["hydra"]["help"]
    sections: dict[str, list[str]] = {}
    for option in options_of(command):
        section, _, name = option.rpartition(".")
        sections.setdefault(section or "without a section", []).append(name)
    options = options_of(command)
    firsts = {option.partition(".")[0] for option in options}
    groups: dict[str, set[str]] = {}
    for root in folders:
        for file in root.rglob("*/*.yaml"):
            group = file.parent.relative_to(root).as_posix()
            first = group.partition("/")[0]
            own = first in firsts if first != "privacy" else "privacy.allow_external" in options
            if own or (first == "experiment" and "trainer" in firsts):
                groups.setdefault(group, set()).add(file.stem)
    choices = {group: sorted(names) for group, names in sorted(groups.items())}
    lines = [
        *(fill(line, _WIDTH, break_on_hyphens=False) for line in words["header"].splitlines()),
        f"\nUsage: python -m recap.{command} {_USAGE}\n",
        *(["Groups and their choices", *_listed(choices)] if choices else []),
        "Options by their sections, written SECTION.OPTION=VALUE",
        *_listed(sections),
        "--options tells what each of them takes, its default and its meaning; --cfg job prints",
        "what all of them are set to; -m runs every combination of OPTION=A,B.\n",
        words["footer"].rstrip(),
    ]
    return "\n".join(lines)


def _listed(entries: Mapping[str, Iterable[str]]) -> Iterator[str]:
    for name, words in entries.items():
        yield fill(f"{name}: {', '.join(words)}", _WIDTH, subsequent_indent="    ")


def options_page(command: str, values: Mapping[str, Any]) -> str:
    """Return what each option of a command takes, its default among ``values``, and its meaning."""
    said = {f"data.options.{name}": meaning for name, (_, meaning) in READER_OPTIONS.items()}
    unset: dict[str, Any] = {}
    for key, _, section in fields_of(schema_of(command)):
        name = key.rpartition(".")[2]
        said[key] = _meanings(section).get(name, "")
        default = section.__dataclass_fields__[name].default
        unset[key] = getattr(default, "default", default)
    lines = []
    for option, kind in options_of(command).items():
        found: Any = values
        for key in option.split("."):
            found = found.get(key, MISSING) if isinstance(found, Mapping) else MISSING
        default = unset.get(option, MISSING) if found is MISSING else found
        plain = isinstance(default, str | int | float | list | tuple | None) or default == {}
        shown = default if isinstance(default, str) else json.dumps(default) if plain else ""
        lines.append(f"{option}: {_taken(kind)}{f' = {shown}' if shown else ''}")
        if said.get(option):
            lines.append(indent(fill(said[option], _WIDTH - 4), "    "))
    return "\n".join(lines)


def _taken(kind: Kind) -> str:
    """Return which values an option takes, as a person says it."""
    words = [*kind.words, *(["true", "false"] if kind.flag else [])]
    words += ["whole number" if kind.whole else "number"] if kind.number else []
    words += ["text"] if kind.text else []
    words += [f"[{_taken(kind.item)}, ...]"] if kind.item else []
    words += [f"{{NAME: {_taken(kind.value)}, ...}}"] if kind.value else []
    return " | ".join([*words, *(["null"] if kind.null else [])]) or "VALUE"


@cache
def _meanings(section: type) -> dict[str, str]:
    """Return the line that stands under each field of a dataclass, or of one that it is made of."""
    found: dict[str, str] = {}
    for part in reversed(section.__mro__[:-1]):
        body = ast.parse(dedent(inspect.getsource(part))).body[0].body  # type: ignore[attr-defined]
        for field, below in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                text = re.sub(r":\w+:`[~\w.]*?(\w+)`", r"\1", ast.literal_eval(below.value))
                text = text.replace("``None``", "null").replace("``", "'")
                found[ast.unparse(field.target)] = " ".join(text.split())
    return found
