"""The report command: run folders become the paper's tables, figures, tests and one page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from recap.cli.command import Command, ended_by_sigterm, run_command

if TYPE_CHECKING:
    from recap.report.options import ReportConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Make the report ``argv`` asks for; return 0 (done), 2 (user's fault) or 1 (anything else)."""
    return run_command(Command(name="report", job=_report), argv)


def _report(config: ReportConfig) -> None:
    from rich.text import Text

    from recap.output.format import console_for
    from recap.output.report import deliver
    from recap.report.run import SECTIONS, build_report
    from recap.report.runs import find_runs, read_runs
    from recap.report.verify import verify_run
    from recap.system.plain_text import printable

    console = console_for(stderr=True)
    with ended_by_sigterm(), console.status("reading runs") as status:
        if config.verify:
            # Before anything is read for tables: a figure that was changed must not stop that.
            for folder in find_runs(config.runs):
                status.update(Text(printable(f"verifying {folder.path.name}")))
                console.print(verify_run(folder).line())
        status.update("reading runs")
        runs = read_runs(config.runs)
        done = iter(range(1, len(SECTIONS) + 1))
        report = build_report(
            runs,
            config,
            on_section=lambda name: status.update(f"{name} ({next(done)} of {len(SECTIONS)})"),
        )
    deliver(report, config.out)


if __name__ == "__main__":
    sys.exit(main())
