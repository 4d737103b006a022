"""Keys and passwords of the environment, kept out of configurations, files and messages."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from recap.errors import ConfigError
from recap.result_options import flatten

_NAMED_SO = re.compile(r"(?:^|_)(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
_LEAST_CHARACTERS = 8
"""Shorter values are no keys, and may be part of any word."""


def secret_values() -> dict[str, str]:
    """Return the secrets of the environment as they are now, by the names of their variables.

    A variable counts whose name ends in ``KEY``, ``TOKEN``, ``SECRET``, ``PASSWORD`` or the like,
    and whose value is neither short, nor a path, nor several words.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if _NAMED_SO.search(name)
        and len(value) >= _LEAST_CHARACTERS
        and not re.search(r"^[/~.]|\s", value)
    }


def refuse_secrets(values: Mapping[str, Any]) -> None:
    """Check that no option holds a secret of the environment: options are written to files.

    Raises:
        ConfigError: Naming the option and the variable, never the value.
    """
    secrets = secret_values()
    for key, value in flatten(values).items():
        for name, secret in secrets.items():
            if secret in str(value) or secret in key:
                # The key itself may be what holds it.
                option = "an option" if secret in key else key
                raise ConfigError(
                    f"{option}: holds the value of the environment variable {name}, and options "
                    "are written to config.yaml; leave it out, for keys are read from the "
                    "environment when they are used"
                )


def without_secrets(text: str) -> str:
    """Return a text with every secret of the environment replaced by its variable's name."""
    for name, secret in secret_values().items():
        text = text.replace(secret, f"<{name}>")
    return text
