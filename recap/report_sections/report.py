"""The whole report: which sections there are, and all of them as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

from recap.report_sections.options import ReportConfig
from recap.report_sections.overview import headline
from recap.report_sections.runs import ReportedRun
from recap.reporting.findings import Findings
from recap.reporting.report_page import report_page
from recap.reporting.sheets import Sheet

Section = Callable[[Sequence[ReportedRun], ReportConfig], Findings | None]

SECTIONS = {
    "overview": "recap.report_sections.overview:overview_section",
    "tables": "recap.report_sections.tables:tables_section",
    "variance": "recap.report_sections.variance:variance_section",
    "comparison": "recap.report_sections.comparison:comparison_section",
    "calibration": "recap.report_sections.calibration:calibration_section",
    "errors": "recap.report_sections.errors:error_section",
    "rationales": "recap.report_sections.rationales:rationale_section",
    "leakage": "recap.report_sections.leakage:leakage_section",
    "protocol": "recap.report_sections.protocol:protocol_section",
    "checklist": "recap.report_sections.checklist:checklist_section",
    "manifest": "recap.report_sections.manifest:manifest_section",
}
"""What each section is made by, as ``module:function``, in the order of the page."""

_TITLE = "recap report"
_ON_CONSOLE = "Overall"


def build_report(
    runs: Sequence[ReportedRun],
    options: ReportConfig,
    *,
    on_section: Callable[[str], None] = lambda name: None,
) -> Findings:
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
    return Findings(
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


def _on_console(sections: Sequence[Findings]) -> tuple[Sheet, ...]:
    """Return the tables that fit a console; all others are in the files."""
    return tuple(
        sheet
        for section in sections
        for sheet in section.sheets
        if sheet.title.startswith(_ON_CONSOLE)
    )


def _table_files(sections: Sequence[Findings]) -> dict[str, str]:
    r"""Return every table as a LaTeX file of its own, for ``\input``."""
    files: dict[str, str] = {}
    for section in sections:
        for number, sheet in enumerate(section.sheets, start=1):
            files[f"tables/{section.action}_{number}.tex"] = sheet.latex()
    return files
