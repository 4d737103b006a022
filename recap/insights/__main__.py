"""The insights command: prevalence, alliance, feedback cards and supervision pages."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from recap.cli.command import Command, ended_by_sigterm, load_function, run_command
from recap.insights.options import ACTIONS

if TYPE_CHECKING:
    from recap.insights.options import InsightsConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Do the action ``argv`` names; return 0 (done), 2 (user's fault) or 1 (anything else)."""
    return run_command(Command(name="insights", job=_act), argv)


def _act(config: InsightsConfig) -> None:
    from recap.output.report import deliver

    with ended_by_sigterm():
        report = load_function(ACTIONS[config.action])(config)
    inputs = {
        "data.path": config.data.path,
        "outcomes.path": config.outcomes.path,
        "predictions": config.predictions,
        "study.participants": config.study.participants,
        "sessions.confusion": config.sessions.confusion,
    }
    deliver(report, config.out, inputs=inputs)


if __name__ == "__main__":
    sys.exit(main())
