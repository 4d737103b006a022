"""The prompting command: zero-shot and few-shot baselines under the folds of a training."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from recap.command_line import Command, run_command

if TYPE_CHECKING:
    from recap.prompting.options import PromptedConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Run what ``argv`` describes; return 0 (done), 2 (the user's fault) or 1 (anything else)."""
    command = Command(name="prompt", load=_load, job=_prompt, after_sweep=_compare)
    return run_command(command, argv)


def _load(overrides: Sequence[str], *, config_dir: str | None) -> PromptedConfig:
    from recap.command_configs import load_prompted

    return load_prompted(overrides, config_dir=config_dir)


def _prompt(config: PromptedConfig) -> None:
    from recap.prompted import prompt_folds
    from recap.quiet import quiet_libraries
    from recap.reporting.prompted import PromptConsole

    quiet_libraries()
    with _ended_by_sigterm():
        prompt_folds(config, listener=PromptConsole(bar=config.training.trainer.progress))


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Have SIGTERM end the block as Ctrl-C does: answers under way are waited for and kept."""
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise SIGTERMException

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _compare(configs: Sequence[PromptedConfig]) -> None:
    from recap.reporting.console import print_sweep

    print_sweep([config.training for config in configs])


if __name__ == "__main__":
    sys.exit(main())
