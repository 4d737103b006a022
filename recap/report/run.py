"""The whole report: which sections there are, and all of them as one, with their page."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Sequence

from recap.cli.command import load_function
from recap.output.charts import svg_text
from recap.output.report import Report
from recap.output.templates import render
from recap.report.options import ReportConfig
from recap.report.runs import ReportedRun
from recap.report.tables import headline, synthetic_note

_OPEN_SHEETS = 4
"""Tables of a section that are open; more of them are folded."""


def _pictures(section: Report, runs: Sequence[ReportedRun]) -> Iterator[tuple[str, str]]:
    """Yield what each figure shows, and the figure in base64; none without matplotlib.

    As an image: ids inside one drawing cannot meet those of another, and nothing in it can run.
    """
    for stem, draw in section.charts.items():
        svg = svg_text(draw, salt=stem)
        if svg is not None:
            run = next((run for run in runs if stem.endswith(f"_{run.name}")), None)
            kind = stem.removesuffix(f"_{run.name}") if run else stem
            words = re.sub(r"[_-]+", " ", kind) + (f": {run.title}" if run else "")
            yield words, base64.b64encode(svg.encode("utf-8")).decode("ascii")


SECTIONS = {
    "overview": "recap.report.tables:overview_section",
    "tables": "recap.report.tables:tables_section",
    "variance": "recap.report.comparison:variance_section",
    "comparison": "recap.report.comparison:comparison_section",
    "calibration": "recap.report.calibration:calibration_section",
    "errors": "recap.report.errors:error_section",
    "rationales": "recap.report.rationales:rationale_section",
    "leakage": "recap.report.manifest:leakage_section",
    "protocol": "recap.report.statements:protocol_section",
    "checklist": "recap.report.statements:checklist_section",
    "manifest": "recap.report.manifest:manifest_section",
}
"""What each section is made by, as ``module:function``, in the order of the page."""

_TITLE = "recap report"


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
        on_section: Called with the name of each section before it is made, since some take a while.
    """
    sections = []
    for name, path in SECTIONS.items():
        on_section(name)
        section = load_function(path)(runs, options)
        if section is not None:
            sections.append(section)
    by_name = {section.action: section for section in sections}
    tables = by_name["tables"]
    return Report(
        action="report",
        title=_TITLE,
        figures={section.action: dict(section.figures) for section in sections},
        # All others are in the files.
        sheets=tuple(
            sheet
            for section in sections
            for sheet in section.sheets
            if sheet.title.startswith("Overall")
        ),
        notes=tuple(dict.fromkeys((*headline(runs), *by_name["overview"].notes, *tables.notes))),
        rows=tables.rows,
        charts={stem: draw for section in sections for stem, draw in section.charts.items()},
        pages={
            "report.html": render(
                "report/templates/report.html",
                title=_TITLE,
                language="en",
                lead=[*filter(None, [synthetic_note(runs)]), *headline(runs)],
                sections=sections,
                open_sheets=_OPEN_SHEETS,
                pictures={section.action: list(_pictures(section, runs)) for section in sections},
            ),
            # A file a table, for LaTeX to read in.
            **{
                f"tables/{section.action}_{number}.tex": sheet.latex()
                for section in sections
                for number, sheet in enumerate(section.sheets, start=1)
            },
            **{name: page for section in sections for name, page in section.pages.items()},
        },
        private_pages={
            name: page for section in sections for name, page in section.private_pages.items()
        },
        private=options.privacy.include_text,
        parts=tuple(sections),
    )
