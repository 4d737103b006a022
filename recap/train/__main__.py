"""The main command: fine-tune under cross-validation, decode, score, aggregate."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from recap.cli.command import Command, ended_by_sigterm, run_command
from recap.config import RunConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Run what ``argv`` describes; return 0 (done), 2 (the user's fault) or 1 (anything else)."""
    command = Command(name="train", job=_train, after_sweep=_compare)
    return run_command(command, argv)


def _train(config: RunConfig) -> int:
    """Do what a configuration describes; return 0.

    Raises:
        RecapError: When it cannot be done.
        SystemExit: When a signal asked for an end.
    """
    from recap.folds.console import RunConsole
    from recap.folds.fold import FoldListener
    from recap.folds.tuned import cross_validate
    from recap.system.processes import is_first_process

    with ended_by_sigterm():
        cross_validate(config, listener=RunConsole() if is_first_process() else FoldListener())
    return 0


def _compare(configs: Sequence[RunConfig]) -> None:
    from recap.folds.console import print_sweep
    from recap.system.processes import is_first_process

    if is_first_process():
        print_sweep(configs)


if __name__ == "__main__":
    sys.exit(main())
