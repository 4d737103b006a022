"""The corpus command: what a corpus of dialogues holds, ``action`` by ``action``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from recap.cli.command import Command, ended_by_sigterm, run_command

if TYPE_CHECKING:
    from recap.corpus.options import CorpusConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Do what ``argv`` asks for; return 0 (done), 2 (the user's fault) or 1 (anything else)."""
    return run_command(Command(name="corpus", load=_load, job=_act), argv)


def _load(overrides: Sequence[str], *, config_dir: str | None) -> CorpusConfig:
    from recap.cli.compose import load_own_command
    from recap.corpus.options import CorpusConfig

    return load_own_command(CorpusConfig, "corpus", overrides, config_dir=config_dir)


def _act(config: CorpusConfig) -> None:
    from pathlib import Path

    from recap.corpus.options import find_action
    from recap.corpus.sources import keep_inputs
    from recap.errors import DataError
    from recap.output.report import print_report, write_report

    act = find_action(config.action)
    keep_inputs(config)
    with ended_by_sigterm():
        findings = act(config)
    print_report(findings)
    if config.out is not None:
        write_report(findings, Path(config.out))
    if findings.failure is not None:
        raise DataError(findings.failure)


if __name__ == "__main__":
    sys.exit(main())
