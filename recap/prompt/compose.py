"""The configuration of ``recap.prompt``, and how the folder of a prompted run is named."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from recap.cli.compose import command_config, compose, compose_run, run_name, written
from recap.prompt.options import PromptedConfig, prompted_options


def load_prompted(
    overrides: Sequence[str] = (), *, config_dir: str | Path | None = None
) -> PromptedConfig:
    """Return the configuration of ``recap.prompt``; arguments and errors as :func:`load_config`."""
    values, choices = compose_run("prompt", overrides, config_dir)
    config = _prompted_config(values, config_dir)
    if values["run"]:
        return config
    name = _name_of(config, choices, config_dir)
    return replace(config, training=replace(config.training, run=name))


def _prompted_config(values: Mapping[str, Any], config_dir: str | Path | None) -> PromptedConfig:
    # A client without a model is refused later, with the option to set.
    backbone = {**values["backbone"], "name": values["backbone"]["name"] or "unnamed"}
    return command_config(PromptedConfig, {**values, "backbone": backbone}, config_dir)


def _name_of(
    config: PromptedConfig, choices: Mapping[str, str | None], config_dir: str | Path | None
) -> str:
    """Return the folder name of a prompted run: its model takes the place of the fine-tuning."""
    groups = ["data", "task", "client", *([] if config.remote else ["backbone"])]
    base = [f"{group}={choices[group]}" for group in groups]
    base += [f"rationale={str(config.training.rationale).lower()}", f"shots={config.shots}"]
    values, _ = compose("prompt", base, config_dir)
    default = prompted_options(_prompted_config(values, config_dir))
    given = prompted_options(config)
    parts = [written(choices, group) for group in ("data", "task")]
    if config.remote:
        # The model stands in the name, and need not be in the hash.
        default |= {key: given[key] for key in ("client.model", "backbone.name")}
        parts += [config.client.name, re.sub(r"[^\w.-]", "_", str(config.client.model))]
    else:
        parts.append(written(choices, "backbone"))
    parts.append("oneshot" if config.shots else "zeroshot")
    parts += [] if config.training.rationale else ["labelonly"]
    return run_name(parts, given, default)
