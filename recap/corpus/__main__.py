"""The corpus command: what a corpus of dialogues holds, ``action`` by ``action``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from recap.cli.command import Command, ended_by_sigterm, load_function, run_command

if TYPE_CHECKING:
    from recap.corpus.options import CorpusConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Do what ``argv`` asks for; return 0 (done), 2 (the user's fault) or 1 (anything else)."""
    return run_command(Command(name="corpus", job=_act), argv)


def _act(config: CorpusConfig) -> None:
    from recap.corpus.options import ACTIONS
    from recap.output.report import FILE_ENDINGS, deliver, keep_inputs

    act = load_function(ACTIONS[config.action])
    inputs = {
        "data.path": config.data.path,
        "annotations.path": config.annotations.path,
        "assign.predictions": config.assign.predictions,
        "adjudicate.decisions": config.adjudicate.decisions,
        "exam.key": config.exam.key,
        "exam.scores": config.exam.scores,
        "ratings.path": config.ratings.path,
        "ratings.predictions": config.ratings.predictions,
    }
    # Before anything is read: that may take a while.
    keep_inputs(inputs, config.out, [f"{config.action}.{ending}" for ending in FILE_ENDINGS])
    with ended_by_sigterm():
        report = act(config)
    deliver(report, config.out, inputs=inputs)


if __name__ == "__main__":
    sys.exit(main())
