"""The report's sentences: how the templates of its text files are filled in with facts.

``statements.yaml`` has what is stated of runs, ``notes.yaml`` what stands under the tables of each
section, ``checklists.yaml`` the items of guidelines.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from recap.errors import RecapError
from recap.output.format import duration_text
from recap.report.runs import span

if TYPE_CHECKING:
    from jinja2 import Environment

Facts = dict[str, Any]


def notes_of(section: str, **facts: Any) -> tuple[str, ...]:
    """Return the notes of a section that have something to state, in the order of notes.yaml."""
    notes: list[str] = []
    for entry in read_texts("notes.yaml")[section]:
        if isinstance(entry, str):
            notes.append(render(entry, facts))
        else:
            repeated = facts[entry["each"]]
            notes += [render(n, {**facts, **one}) for one in repeated for n in entry["notes"]]
    return tuple(dict.fromkeys(filter(None, notes)))


@cache
def read_texts(name: str) -> Any:
    """Return what a text file of this package holds.

    Raises:
        RecapError: When it is missing, which means a broken installation.
    """
    file = files("recap.report").joinpath(name)
    if not file.is_file():
        raise RecapError(f"recap's {name} is missing; install recap again")
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def render(text: str, facts: Mapping[str, Any]) -> str:
    """Return a template of plain text, filled in; a fact that it misses is an error."""
    return environment().from_string(text).render(facts).strip()


@cache
def environment() -> Environment:
    """Return what templates are filled in with: filters, and the words of statements.yaml."""
    from jinja2 import Environment, StrictUndefined

    made = Environment(undefined=StrictUndefined, autoescape=False)
    made.globals["words"] = read_texts("statements.yaml")["words"]
    made.filters |= {
        "counted": lambda of: ", ".join(f"{name} {n}" for name, n in of.items()),
        "duration": duration_text,
        "file_name": lambda path: Path(path).name,
        "percent_of": lambda part, whole: f"{100 * part / whole if whole else 0.0:.1f}",
        "span": lambda values: span(list(values)),
        "thousands": lambda n: f"{n:,}",
    }
    return made
