"""Configurations of commands whose runs are named otherwise than those of ``recap.train``."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from recap.compose import (
    command_config,
    compose,
    expand_task,
    refuse_hidden_choices,
)
from recap.config import validate
from recap.evaluation.options import EvaluateConfig, baseline_run
from recap.prompting.options import PromptedConfig, prompted_options
from recap.result_options import hash_of_changes, result_options
from recap.validation import validated

_TASK = re.compile(r"\+{0,2}task[.=]")


def load_evaluation(
    overrides: Sequence[str] = (), *, config_dir: str | Path | None = None
) -> EvaluateConfig:
    """Return the configuration of ``recap.evaluate``, a baseline's run folder named.

    It is named as :func:`load_config` names one, after the choices that a baseline has.

    Raises:
        ConfigError: As :func:`load_config`.
    """
    values, choices = compose("evaluate", overrides, config_dir)
    given = values["run"]
    values["run"] = given or "unnamed"
    config = command_config(EvaluateConfig, values, choices, config_dir)
    config = replace(config, task_given=any(_TASK.match(override) for override in overrides))
    if given or config.method is None:
        return config
    groups = ("data", "task", *(["encoder"] if config.method == "encoder" else []))
    base = [f"method={config.method}", *(f"{group}={choices[group]}" for group in groups)]
    plain, plain_choices = compose("evaluate", [*base, "run=unnamed"], config_dir)
    default = command_config(EvaluateConfig, plain, plain_choices, config_dir)
    parts = [_written(choices, group) for group in groups]
    parts.insert(2, config.method)
    given_options, usual = (result_options(baseline_run(each)) for each in (config, default))
    name = "-".join([*parts, *hash_of_changes(given_options, usual)])
    return replace(config, training=replace(config.training, run=name))


def load_prompted(
    overrides: Sequence[str] = (), *, config_dir: str | Path | None = None
) -> PromptedConfig:
    """Return the configuration of ``recap.prompt``; arguments and errors as :func:`load_config`."""
    values, choices = compose("prompt", overrides, config_dir)
    refuse_hidden_choices(choices, config_dir)
    config = _prompted_config(values, config_dir)
    if values["run"]:
        return config
    name = _prompted_name(config, choices, config_dir)
    return replace(config, training=replace(config.training, run=name))


def _prompted_config(values: Mapping[str, Any], config_dir: str | Path | None) -> PromptedConfig:
    own = {field.name for field in dataclasses.fields(PromptedConfig)} - {"training"}
    added = {key: value for key, value in values.items() if key in own}
    training = {key: value for key, value in values.items() if key not in own}
    training["task"] = expand_task(values["task"], config_dir)
    training["run"] = values["run"] or "unnamed"
    # A client without a model is refused later, with the option to set.
    training["backbone"]["name"] = values["backbone"]["name"] or "unnamed"
    return validated(PromptedConfig, {**added, "training": validate(training)})


def _prompted_name(
    config: PromptedConfig, choices: dict[str, str | None], config_dir: str | Path | None
) -> str:
    """Return the folder name of a prompted run: its model takes the place of the fine-tuning."""
    groups = ["data", "task", "client", *([] if config.remote else ["backbone"])]
    base = [f"{group}={choices[group]}" for group in groups]
    base += [f"rationale={str(config.training.rationale).lower()}", f"shots={config.shots}"]
    values, _ = compose("prompt", base, config_dir)
    default = prompted_options(_prompted_config(values, config_dir))
    given = prompted_options(config)
    parts = [_written(choices, group) for group in ("data", "task")]
    if config.remote:
        # The model stands in the name, and need not be in the hash.
        default |= {key: given[key] for key in ("client.model", "backbone.name")}
        parts += [config.client.name, re.sub(r"[^\w.-]", "_", str(config.client.model))]
    else:
        parts.append(_written(choices, "backbone"))
    parts.append("oneshot" if config.shots else "zeroshot")
    parts += [] if config.training.rationale else ["labelonly"]
    return "-".join([*parts, *hash_of_changes(given, default)])


def _written(choices: Mapping[str, str | None], group: str) -> str:
    return str(choices[group]).replace("/", "_")
