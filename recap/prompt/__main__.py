"""The prompting command: zero-shot and few-shot baselines under the folds of a training."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from recap.cli.command import Command, ended_by_sigterm, run_command
from recap.cli.prompted import PromptedConfig, load_prompted
from recap.system.processes import quiet_libraries


def main(argv: Sequence[str] | None = None) -> int:
    """Run what ``argv`` describes; return 0 (done), 2 (the user's fault) or 1 (anything else)."""
    command = Command(name="prompt", own_load=load_prompted, job=_prompt, after_sweep=_compare)
    return run_command(command, argv)


@quiet_libraries()
def _prompt(config: PromptedConfig) -> None:
    from recap.folds.console import RunConsole
    from recap.prompt.run import print_estimate, print_usage, prompt_folds

    with ended_by_sigterm():
        if config.dry_run:
            print_estimate(config)
            return
        prompt_folds(config, listener=RunConsole(bar=config.training.trainer.progress))
        print_usage(config)


def _compare(configs: Sequence[PromptedConfig]) -> None:
    from recap.folds.console import print_sweep

    print_sweep([config.training for config in configs])


if __name__ == "__main__":
    sys.exit(main())
