"""The planning command: memory per device, steps, operations, hours and disk of a run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from recap.cli.command import Command, run_command

if TYPE_CHECKING:
    from recap.plan.options import PlanConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Plan what ``argv`` describes; return 0 (done), 2 (the user's fault) or 1 (anything else).

    A run that does not fit is a finding, not a fault: 0.
    """
    return run_command(Command(name="plan", job=_plan), argv)


def _plan(config: PlanConfig) -> None:
    from pathlib import Path

    from recap.output.report import print_report, write_report
    from recap.plan.plan import make_plan, plan_report
    from recap.system.processes import limit_library_logging

    limit_library_logging()
    report = plan_report(make_plan(config.training, config.plan))
    print_report(report)
    if config.out is not None:
        write_report(report, Path(config.out))


if __name__ == "__main__":
    sys.exit(main())
