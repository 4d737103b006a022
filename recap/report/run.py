"""The whole report: which sections there are, and all of them as one.

The report as one self-contained HTML page: sections of tables, figures and notes.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from html import escape
from importlib import import_module

from recap.output.html import html_page
from recap.output.report import Report, svg_text
from recap.output.tables import ReportTable
from recap.report.options import ReportConfig
from recap.report.runs import ReportedRun
from recap.report.tables import headline

_OPEN_SHEETS = 4
"""Tables of a section that are open; more of them are folded."""

_STYLE = """
body { max-width: 72rem; }
nav { border: 1px solid var(--line); border-radius: .4rem; padding: .6rem 1rem; }
nav ul { margin: 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1rem; }
a { color: inherit; }
section { margin-top: 2.5rem; border-top: 2px solid var(--line); }
.scroll { overflow-x: auto; margin: 1rem 0; }
.scroll table { width: auto; min-width: min(100%, 32rem); font-size: .85rem;
  font-variant-numeric: tabular-nums; overflow-wrap: normal; }
.scroll td, .scroll th { padding: .25rem .7rem .25rem 0; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
thead th { font-weight: 600; color: var(--faint); border-bottom: 2px solid var(--line);
  vertical-align: bottom; }
td.figure, th.figure { text-align: right; white-space: nowrap; }
td.long { min-width: 14rem; overflow-wrap: anywhere; }
figure { margin: 1rem 0; background: #ffffff; border: 1px solid var(--line); border-radius: .4rem;
  padding: .6rem; overflow-x: auto; }
figure img { display: block; max-width: 100%; min-width: min(100%, 24rem); height: auto;
  margin: 0 auto; }
figcaption { color: #444; font-size: .8rem; }
ul.notes { color: var(--faint); font-size: .9rem; padding-left: 1.2rem; }
details { margin: 1rem 0; }
@media print { details > * { display: block; } nav { display: none; } }
"""

_LONG_CELL = 40


def report_page(title: str, lead: Sequence[str], sections: Sequence[Report]) -> str:
    """Return the page.

    Args:
        title: Heading.
        lead: Sentences under it.
        sections: In order; each becomes a section with its tables, figures and notes.
    """
    links = "".join(
        f'<li><a href="#{escape(section.action)}">{escape(section.title)}</a></li>'
        for section in sections
    )
    body = [
        f"<h1>{escape(title)}</h1>",
        *(f"<p>{escape(sentence)}</p>" for sentence in lead),
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>',
        "<main>",
        *map(_section, sections),
        "</main>",
    ]
    return html_page(title=title, language="en", body="\n".join(body), style=_STYLE)


def _section(section: Report) -> str:
    shown, folded = section.sheets[:_OPEN_SHEETS], section.sheets[_OPEN_SHEETS:]
    parts = [
        f'<section id="{escape(section.action)}">',
        f"<h2>{escape(section.title)}</h2>",
        *map(_table, shown),
    ]
    if folded:
        parts += [
            f"<details><summary>{len(folded)} more tables</summary>",
            *map(_table, folded),
            "</details>",
        ]
    parts += [picture for stem in section.charts if (picture := _picture(section, stem))]
    if section.notes:
        notes = "".join(f"<li>{escape(note)}</li>" for note in section.notes)
        parts.append(f'<ul class="notes">{notes}</ul>')
    return "\n".join([*parts, "</section>"])


def _table(sheet: ReportTable) -> str:
    head = "".join(
        f'<th scope="col"{_class(sheet, x, name)}>{escape(name)}</th>'
        for x, name in enumerate(sheet.header)
    )
    rows = "".join(
        f"<tr>{''.join(_cell(sheet, y, x, cell) for x, cell in enumerate(row))}</tr>"
        for y, row in enumerate(sheet.rows)
    )
    return (
        f'<div class="scroll" tabindex="0"><table><caption>{escape(sheet.title)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cell(sheet: ReportTable, y: int, x: int, cell: str) -> str:
    text = f"<strong>{escape(cell)}</strong>" if (y, x) in sheet.bold else escape(cell)
    return f"<td{_class(sheet, x, cell)}>{text}</td>"


def _class(sheet: ReportTable, column: int, cell: str) -> str:
    if column not in sheet.text_columns:
        return ' class="figure"'
    return ' class="long"' if len(cell) > _LONG_CELL else ""


def _picture(section: Report, stem: str) -> str | None:
    svg = svg_text(section.charts[stem], salt=stem)
    if svg is None:
        return None
    # As an image: ids inside one drawing cannot meet those of another, and nothing in it can run.
    encoded = base64.b64encode(svg.encode("utf-8")).decode("ascii")
    words = escape(re.sub(r"[_-]+", " ", stem))
    return (
        f'<figure><img alt="{words}" src="data:image/svg+xml;base64,{encoded}">'
        f"<figcaption>{words}</figcaption></figure>"
    )


Section = Callable[[Sequence[ReportedRun], ReportConfig], Report | None]

SECTIONS = {
    "overview": "recap.report.tables:overview_section",
    "tables": "recap.report.tables:tables_section",
    "variance": "recap.report.variance:variance_section",
    "comparison": "recap.report.comparison:comparison_section",
    "calibration": "recap.report.calibration:calibration_section",
    "errors": "recap.report.errors:error_section",
    "rationales": "recap.report.rationales:rationale_section",
    "leakage": "recap.report.leakage:leakage_section",
    "protocol": "recap.report.protocol:protocol_section",
    "checklist": "recap.report.checklist:checklist_section",
    "manifest": "recap.report.manifest:manifest_section",
}
"""What each section is made by, as ``module:function``, in the order of the page."""

_TITLE = "recap report"
_ON_CONSOLE = "Overall"


def build_report(
    runs: Sequence[ReportedRun],
    options: ReportConfig,
    *,
    on_section: Callable[[str], None] = lambda name: None,
) -> Report:
    """Return the report over runs: its sections as parts, and the page that shows them all.

    Args:
        runs: At least one.
        options: What was asked for.
        on_section: Told of each section before it is made, since some take a while.
    """
    sections = []
    for name, path in SECTIONS.items():
        on_section(name)
        module, _, function = path.partition(":")
        section = getattr(import_module(module), function)(runs, options)
        if section is not None:
            sections.append(section)
    by_name = {section.action: section for section in sections}
    tables = by_name["tables"]
    return Report(
        action="report",
        title=_TITLE,
        figures={section.action: dict(section.figures) for section in sections},
        sheets=_on_console(sections),
        notes=tuple(dict.fromkeys((*headline(runs), *by_name["overview"].notes, *tables.notes))),
        rows=tables.rows,
        pages={
            "report.html": report_page(_TITLE, headline(runs), sections),
            **_table_files(sections),
            **{name: page for section in sections for name, page in section.pages.items()},
        },
        private_pages={
            name: page for section in sections for name, page in section.private_pages.items()
        },
        private=options.privacy.include_text,
        parts=tuple(sections),
    )


def _on_console(sections: Sequence[Report]) -> tuple[ReportTable, ...]:
    """Return the tables that fit a console; all others are in the files."""
    return tuple(
        sheet
        for section in sections
        for sheet in section.sheets
        if sheet.title.startswith(_ON_CONSOLE)
    )


def _table_files(sections: Sequence[Report]) -> dict[str, str]:
    r"""Return every table as a LaTeX file of its own, for ``\input``."""
    files: dict[str, str] = {}
    for section in sections:
        for number, sheet in enumerate(section.sheets, start=1):
            files[f"tables/{section.action}_{number}.tex"] = sheet.latex()
    return files
