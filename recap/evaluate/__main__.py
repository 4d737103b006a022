"""The scoring command: saved models, predictions files, baselines and the cascade."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from recap.cli.command import Command, ended_by_sigterm, load_function, run_command
from recap.evaluate.options import EvaluateConfig, chosen_source, load_evaluation
from recap.system.processes import quiet_libraries


def main(argv: Sequence[str] | None = None) -> int:
    """Score what ``argv`` names; return 0 (done), 2 (the user's fault) or 1 (anything else)."""
    command = Command(
        name="evaluate", own_load=load_evaluation, job=_evaluate, after_sweep=_compare
    )
    return run_command(command, argv)


_SCORED = {
    "model": "recap.evaluate.saved_model:evaluate_model",
    "predictions": "recap.evaluate.predictions_file:evaluate_file",
    "cascade": "recap.evaluate.cascade:evaluate_cascade",
}


@quiet_libraries()
def _evaluate(config: EvaluateConfig) -> None:
    source = chosen_source(config)
    if source == "method":
        from recap.evaluate.baselines import cross_validate_baseline
        from recap.folds.console import RunConsole

        cross_validate_baseline(config, listener=RunConsole())
        return
    from recap.evaluate.saved_model import check_out, show_evaluation

    check_out(config)
    with ended_by_sigterm():
        evaluation = load_function(_SCORED[source])(config)
    show_evaluation(evaluation, config)


def _compare(configs: Sequence[EvaluateConfig]) -> None:
    from recap.folds.console import print_sweep

    runs = [config.training for config in configs if config.method is not None]
    if runs:
        print_sweep(runs)


if __name__ == "__main__":
    sys.exit(main())
