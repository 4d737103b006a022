"""Pages are templates: every text in them is escaped, and no fact may be missing."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest

from recap.output.templates import render

PAGE = {"title": "<i>a</i> & \"b\" 'c'", "language": "en"}


def test_every_text_of_a_page_is_escaped() -> None:
    page = render("page.html", **PAGE)
    assert "<title>&lt;i&gt;a&lt;/i&gt; &amp; &#34;b&#34; &#39;c&#39;</title>" in page
    assert "default-src 'none'" in page


def test_a_fact_that_a_template_uses_and_nobody_gives_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="'title' is undefined"):
        render("page.html", language="en")


def test_templates_of_verbs_are_named_from_the_package_on(project_root: Path) -> None:
    names = [
        path.relative_to(project_root / "recap").as_posix()
        for path in (project_root / "recap").glob("*/templates/*.html")
        if "extends" in path.read_text("utf-8") and path.parent.parent.name != "output"
    ]
    assert "insights/templates/card.html" in names
    for name in names:
        with pytest.raises(jinja2.UndefinedError):
            # It is found, and complains of what it was not given.
            render(name)


def test_nothing_in_a_template_switches_escaping_off(project_root: Path) -> None:
    unescaped = {
        path.name
        for path in (project_root / "recap").rglob("templates/*")
        if "autoescape" in path.read_text("utf-8") or "| safe" in path.read_text("utf-8")
    }
    assert not unescaped
