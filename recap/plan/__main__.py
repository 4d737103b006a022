"""The planning command: memory per device, steps, operations, hours and disk of a run."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from recap.cli.command import Command, run_command
from recap.plan.options import PlanConfig, load_plan
from recap.system.processes import quiet_libraries


def main(argv: Sequence[str] | None = None) -> int:
    """Plan what ``argv`` describes; return 0 (done), 2 (the user's fault) or 1 (anything else).

    A run that does not fit is a finding, not a fault: 0.
    """
    return run_command(Command(name="plan", own_load=load_plan, job=_plan), argv)


@quiet_libraries()
def _plan(config: PlanConfig) -> None:
    from recap.output.report import deliver
    from recap.plan.plan import make_plan, plan_report
    from recap.plan.prompted import prompted_report

    if config.prompted is not None:
        report = prompted_report(config.prompted, config.plan)
    else:
        report = plan_report(make_plan(config.training, config.plan))
    deliver(report, config.out)


if __name__ == "__main__":
    sys.exit(main())
