"""Templates filled in with facts: HTML pages, and sentences in plain text.

Pages are self-contained: no script, nothing loaded, light and dark, printable. They extend
``templates/page.html``; a verb's own lie in its folder and are named from the package on, as in
``insights/templates/card.html``. Sentences are the texts of a verb's YAML files.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from recap.errors import RecapError
from recap.output.format import duration_text, rounded_percent, span
from recap.system.plain_text import code_span, plain_markdown, printable

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).parent / "templates"
_PACKAGE = _TEMPLATES.parents[1]


def render(template_name: str, **facts: object) -> str:
    """Return a template filled with facts; every text in them is escaped, but in plain text.

    Args:
        template_name: Of a file in ``output/templates``, or from the package on.
        facts: Under the names that the template uses; one that it lacks is an error.
    """
    return environment("html").get_template(template_name).render(**facts)


class Markdown(str):
    """Markdown that a template takes over as it is; all other texts are shown as they stand."""


def render_markdown(template_name: str, **facts: object) -> str:
    """Return a template of Markdown filled with facts, none of which is markup, but ``Markdown``.

    In a code span stands ``{{ fact | code }}``, without backticks of the template's own.
    """
    return environment("markdown").get_template(template_name).render(**facts)


def render_text(text: str, facts: Mapping[str, Any]) -> str:
    """Return a template of plain text, filled in; a fact that it misses is an error."""
    return environment("text").from_string(text).render(facts).strip()


def render_notes(file: str, section: str, **facts: Any) -> tuple[str, ...]:
    """Return the notes of a section of a YAML file that have something to state, in their order.

    A note is a text, or ``each: NAME`` with ``notes`` that are repeated for each of those facts.
    """
    notes: list[str] = []
    for entry in read_texts(file)[section]:
        if isinstance(entry, str):
            notes.append(render_text(entry, facts))
        else:
            each = facts[entry["each"]]
            notes += [render_text(n, {**facts, **one}) for one in each for n in entry["notes"]]
    return tuple(dict.fromkeys(filter(None, notes)))


@cache
def read_texts(name: str) -> Any:
    """Return what a YAML file of texts holds, ``report/notes.yaml`` say, from the package on.

    Raises:
        RecapError: When it is missing, which means a broken installation.
    """
    file = _PACKAGE / name
    if not file.is_file():
        raise RecapError(f"recap's {file.name} is missing; install recap again")
    return yaml.safe_load(file.read_text(encoding="utf-8"))


@cache
def environment(kind: Literal["html", "markdown", "text"]) -> Environment:
    """Return what templates of a kind are filled in with, and its filters."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    html = kind == "html"
    plain = plain_markdown if kind == "markdown" else printable

    def shown(value: Any) -> Any:
        ready = hasattr(value, "__html__") if html else kind == "text" or type(value) is Markdown
        return plain(value) if isinstance(value, str) and not ready else value

    made = Environment(
        loader=FileSystemLoader([_TEMPLATES, _PACKAGE]),
        # A file called .txt is no page.
        autoescape=lambda name: html and not (name or "").endswith(".txt"),
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=html,
        lstrip_blocks=html,
        keep_trailing_newline=html,
    )
    made.filters |= {
        "code": lambda text: Markdown(code_span(text)),
        "counted": lambda of: ", ".join(f"{name} {n}" for name, n in of.items()),
        "duration": duration_text,
        "file_name": lambda path: Path(path).name,
        "percent": rounded_percent,
        "percent_of": lambda part, whole: f"{100 * part / whole if whole else 0.0:.1f}",
        "span": lambda values: span(list(values)),
        "thousands": lambda n: f"{n:,}",
    }
    return made
