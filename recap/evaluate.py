"""The scoring command: saved models, predictions files, baselines and the cascade."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from recap.command_line import Command, run_command

if TYPE_CHECKING:
    from recap.evaluation.options import EvaluateConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Score what ``argv`` names; return 0 (done), 2 (the user's fault) or 1 (anything else)."""
    command = Command(name="evaluate", load=_load, job=_evaluate, after_sweep=_compare)
    return run_command(command, argv)


def _load(overrides: Sequence[str], *, config_dir: str | None) -> EvaluateConfig:
    from recap.compose import load_evaluation

    return load_evaluation(overrides, config_dir=config_dir)


def _evaluate(config: EvaluateConfig) -> None:
    from recap.evaluation.options import chosen_source

    source = chosen_source(config)
    if source == "method":
        _cross_validate(config)


def _cross_validate(config: EvaluateConfig) -> None:
    from recap.evaluation.baselines import cross_validate_baseline
    from recap.quiet import quiet_libraries
    from recap.reporting.console import ConsoleListener

    quiet_libraries()
    cross_validate_baseline(config, listener=ConsoleListener())


def _compare(configs: Sequence[EvaluateConfig]) -> None:
    from recap.reporting.console import print_sweep

    runs = [config.training for config in configs if config.method is not None]
    if runs:
        print_sweep(runs)


if __name__ == "__main__":
    sys.exit(main())
