"""The configuration of ``recap.evaluate``, and how the run folder of a baseline is named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from recap.cli.compose import command_config, compose, compose_run, run_name, written
from recap.config import result_options
from recap.evaluate.options import EvaluateConfig, baseline_run

_TASK = re.compile(r"\+{0,2}task[.=]")


def load_evaluation(
    overrides: Sequence[str] = (), *, config_dir: str | Path | None = None
) -> EvaluateConfig:
    """Return the configuration of ``recap.evaluate``, a baseline's run folder named.

    It is named as :func:`load_config` names one, after the choices that a baseline has.

    Raises:
        ConfigError: As :func:`load_config`.
    """
    values, choices = compose_run("evaluate", overrides, config_dir)
    config = command_config(EvaluateConfig, values, config_dir)
    config = replace(config, task_given=any(_TASK.match(override) for override in overrides))
    if values["run"] or config.method is None:
        return config
    groups = ("data", "task", *(["encoder"] if config.method == "encoder" else []))
    base = [f"method={config.method}", *(f"{group}={choices[group]}" for group in groups)]
    default = command_config(EvaluateConfig, compose("evaluate", base, config_dir)[0], config_dir)
    parts = [written(choices, group) for group in groups]
    parts.insert(2, config.method)
    given, usual = (result_options(baseline_run(each)) for each in (config, default))
    name = run_name(parts, given, usual)
    return replace(config, training=replace(config.training, run=name))
