"""The insights command: prevalence, alliance, feedback cards and supervision pages."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recap.cli.command import Command, ended_by_sigterm, run_command
from recap.insights.options import ACTIONS, load, with_usual_choices

if TYPE_CHECKING:
    from recap.insights.options import InsightsConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Do the action ``argv`` names; return 0 (done), 2 (user's fault) or 1 (anything else)."""
    given = list(sys.argv[1:] if argv is None else argv)
    return run_command(Command(name="insights", load=load, job=_act), with_usual_choices(given))


def _act(config: InsightsConfig) -> None:
    from importlib import import_module

    from recap.output.report import keep_inputs, print_report, write_report

    module, _, function = ACTIONS[config.action].partition(":")
    with ended_by_sigterm():
        findings = getattr(import_module(module), function)(config)
    inputs = {
        "data.path": config.data.path,
        "outcomes.path": config.outcomes.path,
        "predictions": config.predictions,
        "sessions.confusion": config.sessions.confusion,
    }
    keep_inputs(inputs, config.out, findings.file_names)
    print_report(findings)
    if config.out is not None:
        write_report(findings, Path(config.out))


if __name__ == "__main__":
    sys.exit(main())
