"""The planning command: memory per device, steps, operations, hours and disk of a run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from recap.cli.command import Command, run_command
from recap.system.processes import quiet_libraries

if TYPE_CHECKING:
    from recap.plan.options import PlanConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Plan what ``argv`` describes; return 0 (done), 2 (the user's fault) or 1 (anything else).

    A run that does not fit is a finding, not a fault: 0.
    """
    return run_command(Command(name="plan", load=_load, job=_plan), argv)


def _load(overrides: Sequence[str], *, config_dir: str | None) -> PlanConfig:
    from recap.cli.compose import load_command
    from recap.plan.options import PlanConfig

    return load_command(PlanConfig, "plan", overrides, config_dir=config_dir)


@quiet_libraries()
def _plan(config: PlanConfig) -> None:
    from pathlib import Path

    from recap.output.report import print_report, write_report
    from recap.plan.plan import make_plan, plan_report

    report = plan_report(make_plan(config.training, config.plan))
    print_report(report)
    if config.out is not None:
        write_report(report, Path(config.out))


if __name__ == "__main__":
    sys.exit(main())
