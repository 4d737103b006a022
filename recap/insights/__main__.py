"""The insights command: prevalence, alliance, feedback cards and supervision pages."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recap.cli.command import Command, ended_by_sigterm, reader_for, run_command

if TYPE_CHECKING:
    from recap.insights.options import InsightsConfig


ACTIONS = {
    "sessions": "recap.insights.sessions:find_sessions",
    "alliance": "recap.insights.alliance:find_alliance",
    "study": "recap.insights.study:find_study",
    "study_materials": "recap.insights.study_materials:make_materials",
    "card": "recap.insights.cards:make_card",
    "supervision": "recap.insights.supervision:make_supervision",
}
"""What each action calls, as ``module:function``: takes the configuration, gives ``Findings``."""

_LISTS = frozenset({"on", "predictors", "outcomes", "outcomes.columns", "resistance"})


def main(argv: Sequence[str] | None = None) -> int:
    """Do the action ``argv`` names; return 0 (done), 2 (user's fault) or 1 (anything else)."""
    given = list(sys.argv[1:] if argv is None else argv)
    return run_command(Command(name="insights", load=_load, job=_act), with_usual_choices(given))


def with_usual_choices(given: Sequence[str]) -> list[str]:
    """Return the arguments as Hydra takes them, with ``data=`` by the file's ending.

    ``outcomes=[…]`` is short for ``outcomes.columns=[…]``, and a single name for a list of one.
    """
    arguments = []
    for argument in given:
        key, equals, value = argument.partition("=")
        if key in _LISTS and equals and value not in ("", "null") and value[:1] not in "[{":
            value = f"[{value}]"
        if key == "outcomes" and value.startswith("["):
            key = "outcomes.columns"
        arguments.append(f"{key}{equals}{value}")
    paths = [a.partition("=")[2] for a in arguments if a.startswith("data.path=")]
    if paths and not any(a.startswith("data=") for a in arguments):
        arguments.append(f"data={reader_for(paths[-1])}")
    return arguments


def _load(overrides: Sequence[str], *, config_dir: str | None = None) -> InsightsConfig:
    """Return the configuration that overrides describe."""
    from recap.cli.compose import load_own_command
    from recap.insights.options import InsightsConfig

    arguments = with_usual_choices(overrides)
    return load_own_command(InsightsConfig, "insights", arguments, config_dir=config_dir)


def _act(config: InsightsConfig) -> None:
    from importlib import import_module

    from recap.output.report import keep_inputs, print_findings, write_findings

    module, _, function = ACTIONS[config.action].partition(":")
    with ended_by_sigterm():
        findings = getattr(import_module(module), function)(config)
    inputs = {
        "data.path": config.data.path,
        "outcomes.path": config.outcomes.path,
        "predictions": config.predictions,
        "sessions.confusion": config.sessions.confusion,
    }
    keep_inputs(inputs, config.out, findings.file_names)
    print_findings(findings)
    if config.out is not None:
        write_findings(findings, Path(config.out))


if __name__ == "__main__":
    sys.exit(main())
