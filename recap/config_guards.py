"""What a composed configuration may not do: read the environment, or have Hydra build things.

Overrides and YAML of others are data. Interpolations such as ``${oc.env:NAME}`` would copy secrets
into configurations, which are written down, and Hydra builds what a ``_target_`` of its own part
names, its logging whatever stands at ``()`` or ``class``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from omegaconf import OmegaConf
from omegaconf.resolvers import oc

from recap.errors import ConfigError

_PLUGINS = ("hydra._internal.core_plugins.", "hydra_plugins.")
_LOGGING = "logging."

_REFUSED: Mapping[str, Callable[..., Any]] = {
    "oc.env": oc.env,
    "oc.decode": oc.decode,
    "oc.create": oc.create,
    "oc.deprecated": oc.deprecated,
}


@contextmanager
def without_resolvers() -> Iterator[None]:
    """Have interpolations that read the environment or build values fail while the block runs."""
    for name in _REFUSED:
        OmegaConf.register_new_resolver(name, _refusing(name), replace=True)
    try:
        yield
    finally:
        for name, resolver in _REFUSED.items():
            OmegaConf.register_new_resolver(name, resolver, replace=True)


def _refusing(name: str) -> Callable[..., NoReturn]:
    def refuse(*arguments: Any) -> NoReturn:
        raise ConfigError(
            f"${{{name}:…}}: a configuration takes nothing from the environment, for it is written "
            "down with the run; let the shell fill in the value (data.path=$HOME/talks.jsonl)"
        )

    return refuse


def refuse_programs(hydra: Mapping[Any, Any]) -> None:
    """Check that Hydra's part of a configuration names nothing to run but Hydra's own plugins.

    Args:
        hydra: The part, as plain containers.

    Raises:
        ConfigError: Naming the key that has something built.
    """
    for path, key, value in _leaves(hydra, "hydra"):
        if (
            key == "()"
            or (key == "_target_" and not str(value).startswith(_PLUGINS))
            or (key == "class" and not str(value).startswith(_LOGGING))
        ):
            raise ConfigError(
                f"{path}: would have Hydra run {str(value)[:60]!r}, and a configuration runs "
                "nothing; +callbacks.mine.name=package.module:Class adds a callback of one's own"
            )


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted path, the last key and the value of everything that holds nothing more."""
    pairs: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(value, Mapping):
        pairs = iter(value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        pairs = iter(enumerate(value))
    for key, inner in pairs:
        if isinstance(inner, Mapping | list | tuple) and inner:
            yield from _leaves(inner, f"{path}.{key}")
        yield f"{path}.{key}", key, inner
