"""Self-contained HTML pages: no script, nothing loaded, light and dark, printable.

``templates/page.html`` is what all of them extend. A verb's own templates lie in its folder and are
named from the package on, as in ``insights/templates/card.html``.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from recap.output.format import rounded_percent
from recap.output.tables import printable

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).parent / "templates"


def render(template_name: str, **facts: object) -> str:
    """Return a template filled with facts; every text in them is escaped.

    Args:
        template_name: Of a file in ``output/templates``, or from the package on.
        facts: Under the names that the template uses; one that it lacks is an error.
    """
    return _environment().get_template(template_name).render(**facts)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([_TEMPLATES, _TEMPLATES.parents[1]]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"printable": printable, "percent": rounded_percent}
    return environment


def html_page(*, title: str, language: str, body: str, style: str = "") -> str:
    """Return a whole page.

    Args:
        title: Plain text.
        language: ``en`` or ``zh``.
        body: HTML in which every text is escaped already; pictures are ``data:`` addresses.
        style: CSS beside that of all pages.
    """
    return render("page_with_body.html", title=title, language=language, body=body, style=style)
