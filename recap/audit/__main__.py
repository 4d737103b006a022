"""The audit command: what a trained model has kept of its training texts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from recap.cli.command import Command, ended_by_sigterm, run_command
from recap.system.processes import quiet_libraries

if TYPE_CHECKING:
    from recap.audit.options import AuditConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Audit what ``argv`` describes; return 0 (done), 2 (user's fault) or 1 (anything else).

    A model that has kept texts is a finding, not a fault: 0.
    """
    return run_command(Command(name="audit", job=_audit), argv)


@quiet_libraries()
def _audit(config: AuditConfig) -> None:
    from recap.audit.run import audit_model, plant_canaries
    from recap.output.report import deliver

    with ended_by_sigterm():
        report = plant_canaries(config) if config.step == "plant" else audit_model(config)
    inputs = {
        "data.path": config.training.data.path,
        "canaries": config.canaries,
        "held_out": config.held_out,
    }
    deliver(report, config.out, inputs=inputs)


if __name__ == "__main__":
    sys.exit(main())
