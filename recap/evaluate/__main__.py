"""The scoring command: saved models, predictions files, baselines and the cascade."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from recap.cli.command import Command, ended_by_sigterm, run_command
from recap.evaluate.options import EvaluateConfig, Scored, chosen_source, load_evaluation

if TYPE_CHECKING:
    from recap.evaluate.saved_model import Evaluation


def main(argv: Sequence[str] | None = None) -> int:
    """Score what ``argv`` names; return 0 (done), 2 (the user's fault) or 1 (anything else)."""
    command = Command(
        name="evaluate", own_load=load_evaluation, job=_evaluate, after_sweep=_compare
    )
    return run_command(command, argv)


def _evaluate(config: EvaluateConfig) -> None:
    from recap.system.processes import limit_library_logging

    source = chosen_source(config)
    limit_library_logging()
    if source == "method":
        from recap.evaluate.baselines import cross_validate_baseline
        from recap.folds.console import RunConsole

        cross_validate_baseline(config, listener=RunConsole())
        return
    _check_out(config)
    with ended_by_sigterm():
        evaluation = _scored(config, source)
    _show(evaluation, config)


def _scored(config: EvaluateConfig, source: Scored) -> Evaluation:
    if source == "model":
        from recap.evaluate.saved_model import evaluate_model

        return evaluate_model(config)
    if source == "predictions":
        from recap.evaluate.predictions_file import evaluate_file

        return evaluate_file(config)
    from recap.evaluate.cascade import evaluate_cascade

    return evaluate_cascade(config)


def _check_out(config: EvaluateConfig) -> None:
    from pathlib import Path

    from recap.evaluate.saved_model import check_out

    if config.out is not None:
        read = (config.predictions, config.training.data.path)
        check_out(Path(config.out), inputs=[Path(file) for file in read if file is not None])


def _show(evaluation: Evaluation, config: EvaluateConfig) -> None:
    from pathlib import Path

    from recap.evaluate.saved_model import print_evaluation, write_evaluation
    from recap.folds.console import print_answers
    from recap.folds.fold import N_SHOWN
    from recap.output.format import console_for

    if config.training.privacy.log_text:
        print_answers(console_for(), evaluation.predictions[:N_SHOWN])
    print_evaluation(evaluation)
    if config.out is not None:
        write_evaluation(evaluation, Path(config.out))


def _compare(configs: Sequence[EvaluateConfig]) -> None:
    from recap.folds.console import print_sweep

    runs = [config.training for config in configs if config.method is not None]
    if runs:
        print_sweep(runs)


if __name__ == "__main__":
    sys.exit(main())
