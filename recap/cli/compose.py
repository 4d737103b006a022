"""The border to Hydra: overrides of the command line become a validated configuration.

Nothing outside this module and :mod:`recap.cli.command` knows Hydra or OmegaConf. Overrides and
YAML of others are data: interpolations such as ``${oc.env:NAME}`` would copy secrets into
configurations, which are written down, and Hydra builds what a ``_target_`` of its own part names,
its logging whatever stands at ``()`` or ``class``. All of these are refused.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from recap.cli.arguments import (
    OF_PROMPT_ALONE,
    OWN_WEIGHTS,
    PROMPTING,
    of_prompt_alone,
    options_of,
    read_json,
    schema_of,
    understood,
)
from recap.config import BackboneConfig, RunConfig, flatten, hashed_name, result_options, validated
from recap.errors import ConfigError, did_you_mean
from recap.models.identity import sampled_digest
from recap.system.files import conf_dir, read_yaml
from recap.system.privacy import refuse_secrets
from recap.tasks.library import check_written_task

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


Schema = TypeVar("Schema")
HYDRA_VERSION_BASE = "1.3"
_NAMING_CHOICES = ("data", "task", "backbone", "finetune")


def load_config(
    overrides: Sequence[str] = (), *, config_dir: str | Path | None = None
) -> RunConfig:
    """Return a run's configuration, from ``conf/`` and overrides such as ``"task=binary"``.

    A ``conf/`` under the current directory and the packages of entry-point group ``recap.conf`` are
    searched too; ``config_dir`` adds one more folder.

    Raises:
        ConfigError: For an unknown group, choice or key, a value of the wrong type, or broken YAML.
    """
    values, choices = compose_run("train", overrides, config_dir)
    config = _run_config(values)
    return config if values["run"] else replace(config, run=_name_of(config, choices, config_dir))


def load_verb(
    name: str, overrides: Sequence[str] = (), *, config_dir: str | Path | None = None
) -> Any:
    """Return the configuration of a command, an instance of its dataclass of :data:`SCHEMAS`.

    A field ``training`` holds the :class:`RunConfig` of a command that is told of a whole run, as
    ``recap.plan`` is: ``conf/<name>.yaml`` takes over all of ``conf/train.yaml``. Of any other,
    what a choice of data or task sets for a training is left out.

    Raises:
        ConfigError: As :func:`load_config`.
    """
    schema = schema_of(name)
    if schema is RunConfig:
        return load_config(overrides, config_dir=config_dir)
    values, choices = compose_run(name, overrides, config_dir)
    own = {field.name for field in dataclasses.fields(schema)}
    if "training" in own:
        config = command_config(schema, values)
        run = values["run"] or _name_of(config.training, choices, config_dir)
        return replace(config, training=replace(config.training, run=run))
    others = {field.name for field in dataclasses.fields(RunConfig)} - own
    return validated(schema, {key: values[key] for key in values if key not in others})


def compose_run(
    name: str, overrides: Sequence[str], config_dir: str | Path | None
) -> tuple[dict[str, Any], dict[str, str | None]]:
    """Return what :func:`compose` does, of a command that is told of a whole run.

    Raises:
        ConfigError: For a choice that a built-in one hides, and options of ``recap.prompt`` for
            another command, as an experiment sets them.
    """
    values, choices = compose(name, overrides, config_dir)
    refuse_hidden_choices(choices, config_dir)
    if name not in PROMPTING and "trainer" in values:
        for key in OF_PROMPT_ALONE:
            if key in values or key in flatten(values):
                raise of_prompt_alone(key)
    return values, choices


def command_config(schema: type[Schema], values: Mapping[str, Any]) -> Schema:
    """Return composed values as the configuration of a command; see :func:`load_verb`.

    A run without a name is called ``unnamed``.
    """
    own = {field.name for field in dataclasses.fields(schema)} - {"training"}  # type: ignore[arg-type]
    added = {key: value for key, value in values.items() if key in own}
    training = {key: value for key, value in values.items() if key not in own}
    return validated(schema, {**added, "training": _run_config(training)})


def _run_config(values: Mapping[str, Any]) -> RunConfig:
    return validated(RunConfig, {**values, "run": values["run"] or "unnamed"})


def written(
    choices: Mapping[str, str | None], group: str, backbone: BackboneConfig | None = None
) -> str:
    """Return a choice as it stands in the name of a run folder; weights of one's own by name."""
    if group == "backbone" and backbone is not None and choices[group] in OWN_WEIGHTS:
        return backbone.name
    return str(choices[group]).replace("/", "_")


def named_options(config: RunConfig, prompted: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what the hash in a run's name is of: options, and the files that a path stands for."""
    options, digest = result_options(config, prompted), sampled_digest(config.backbone.path)
    return {**options, **({"backbone.files": digest} if digest else {})}


def usual_options(
    choices: Mapping[str, str | None], given: Mapping[str, Any], default: Mapping[str, Any]
) -> dict[str, Any]:
    """Return default options with those of weights of one's own, which the run's name tells."""
    told = ("name", "path", "hub_id") if choices["backbone"] in OWN_WEIGHTS else ()
    return {**default, **{key: given[key] for key in (f"backbone.{each}" for each in told)}}


def all_folders(config_dir: str | Path | None = None) -> list[Path]:
    """Return recap's own folder of configuration, and those that are searched beside it."""
    return [conf_dir(), *search_folders(config_dir)]


def search_folders(config_dir: str | Path | None = None) -> list[Path]:
    """Return the folders beside recap's own that are searched for configuration, nearest first."""
    folders = [Path(config_dir)] if config_dir else []
    folders.append(Path.cwd() / "conf")
    folders += _folders_of_packages()
    own = conf_dir().resolve()
    return [folder for folder in folders if folder.is_dir() and folder.resolve() != own]


@cache
def _folders_of_packages() -> list[Path]:
    """Return what installed packages bring; to read the metadata of all of them takes a while."""
    specs = [find_spec(point.value) for point in entry_points(group="recap.conf")]
    return [
        Path(place) for spec in specs if spec for place in spec.submodule_search_locations or ()
    ]


def register_search_path(config_dir: str | Path | None = None) -> None:
    """Tell Hydra, for this process, of the folders that :func:`search_folders` finds."""
    _UserConf.folders = search_folders(config_dir)
    if config_dir is not None and not Path(config_dir).is_dir():
        raise ConfigError(f"--config-dir {config_dir}: there is no such folder")
    Plugins.instance().register(_UserConf)


def explain_hydra_error(
    error: Exception, overrides: Iterable[str], config_name: str = "train"
) -> ConfigError:
    """Return one of our errors for one of Hydra's, with what would have been right."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        known = list(error.options or [])
        if known:
            return ConfigError(
                f"{group}: there is no choice {choice!r}{did_you_mean(choice, known)}; "
                f"known: {', '.join(known)}"
            )
    wrapped = "ConfigError raised while resolving interpolation: "
    text = str(error).strip()
    unknown = re.search(r"Could not (?:find|override) '?([\w/.]+)'?", text)
    if unknown:
        return _not_there(unknown.group(1), config_name)
    ambiguous = re.search(r"Ambiguous value for argument '\+*([^=]+)=(.*)'", text)
    if ambiguous:
        key, value = ambiguous.groups()
        return ConfigError(
            f"{key}: several values; add -m to run one job for each of them, or write "
            f"\"{key}='{value}'\" if it is one that holds a comma"
        )
    if text.startswith(wrapped):
        return ConfigError(text.removeprefix(wrapped).splitlines()[0])
    if isinstance(error, OmegaConfBaseException) or "${" in str(error.__cause__):
        where = getattr(error, "full_key", None) or " ".join(overrides)
        return ConfigError(
            f"{where}: what stands in ${{…}} is no option; let the shell fill in "
            "the value, or write \\${ for the characters themselves"
        )
    if isinstance(error, OverrideParseException):
        return ConfigError(
            f"{error.override}: cannot be read; options are written KEY=VALUE, with quotation "
            "marks around a value that holds blanks or brackets"
        )
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    return ConfigError(f"{first} [given: {' '.join(overrides)}]")


def _not_there(key: str, config_name: str) -> ConfigError:
    """Return the error for an option that the chosen files lack, with those that have it."""
    group, _, option = key.partition(".")
    files = sorted((conf_dir() / group).glob("*.yaml"))
    written = {file.stem: read_yaml(file) for file in files}
    having = [
        f"{group}={name}"
        for name, values in written.items()
        if option in values or option in (values.get(group) or ())
    ]
    if key in options_of(config_name) and having:
        others = " and others" if len(having) > 3 else ""
        listed = f"{' or '.join(having[:3])}{others}"
        return ConfigError(f"{key}: belongs to {listed}, which is not chosen here")
    return ConfigError(
        f"{key}: there is no such option here; +{key}=VALUE adds it, and --help lists the others"
    )


def refuse_hidden_choices(choices: Mapping[str, str | None], config_dir: str | Path | None) -> None:
    """Refuse a chosen file of the user's that a built-in one of the same name hides."""
    for folder in search_folders(config_dir):
        for group, choice in choices.items():
            file = folder / group / f"{choice}.yaml"
            if file.is_file() and (conf_dir() / group / f"{choice}.yaml").is_file():
                raise ConfigError(
                    f"{file}: has the name of a built-in choice, which would be used in its place; "
                    "give it another name"
                )


class _UserConf(SearchPathPlugin):
    """Appends the user's own folders to Hydra's search path."""

    folders: Sequence[Path] = ()

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in self.folders:
            search_path.append("recap", f"file://{folder.resolve()}")


def compose(
    config_name: str, overrides: Sequence[str], config_dir: str | Path | None
) -> tuple[dict[str, Any], dict[str, str | None]]:
    """Return the composed values without Hydra's own, and the choice made in every group.

    A task holds its taxonomy, checked.
    """
    composed = _composed(config_name, overrides, config_dir)
    refuse_secrets(composed.values)
    values, choices = deepcopy(composed.values), dict(composed.choices)
    if choices.get("backbone") in OWN_WEIGHTS:
        _name_backbone(values["backbone"])
    if "task" in values:
        values["task"] = _whole_task(values["task"], choices.get("task"), config_dir)
    return values, choices


def _name_backbone(backbone: dict[str, Any]) -> None:
    """Name weights of one's own after their folder, file or hub id; a server's have no place."""
    if not (backbone.get("name") or backbone["family"] == "remote"):
        path, hub_id = backbone.get("path"), backbone.get("hub_id")
        if not path and not hub_id:
            raise ConfigError(
                "backbone: nothing says where the weights are; give backbone.path=FOLDER or "
                "backbone.path=FILE.gguf, or backbone=hub backbone.hub_id=OWNER/NAME"
            )
        place = Path(str(path)).expanduser().resolve() if path else Path(str(hub_id))
        plain = place.name.removesuffix(".gguf")
        backbone["name"] = re.sub(r"[^\w.+-]+", "-", plain).strip("-.") or "local"


def _whole_task(
    task: dict[str, Any], choice: str | None, config_dir: str | Path | None = None
) -> dict[str, Any]:
    """Return a task's mapping, a taxonomy's name replaced by what the file of that name holds.

    ``choice`` is the task's file under ``task/``, which errors name.
    """
    folders = all_folders(config_dir)
    own = next((f for d in folders if (f := d / "task" / f"{choice}.yaml").is_file()), None)
    if own is not None and not (isinstance(task, dict) and task.get("name")):
        raise ConfigError(
            f"{own}:1: describes no task; write a mapping with the keys name and taxonomy"
        )
    name = task.get("taxonomy")
    if not isinstance(name, str):
        check_written_task(task, own, None)
        return task
    for folder in folders:
        file = folder / "taxonomy" / f"{name}.yaml"
        if file.is_file():
            task = {**task, "taxonomy": read_yaml(file)}
            check_written_task(task, own, file)
            return task
    known = [file.stem for folder in folders for file in sorted(folder.glob("taxonomy/*.yaml"))]
    raise ConfigError(
        f"task.taxonomy: there is no taxonomy {name!r}{did_you_mean(name, known)}; "
        f"known: {', '.join(known)}; "
        f"your own goes to conf/taxonomy/{name}.yaml or inside the task"
    )


@dataclass(frozen=True, kw_only=True)
class _Composed:
    """What Hydra has made of overrides."""

    values: dict[str, Any]
    choices: dict[str, str | None]
    swept: tuple[str, ...]
    """What the configuration itself sweeps, as overrides."""


def _composed(
    config_name: str, overrides: Sequence[str], config_dir: str | Path | None
) -> _Composed:
    register_search_path(config_dir)
    folders = (conf_dir(), *_UserConf.folders)
    given = understood(config_name, overrides, lambda _: folders)[1]
    return _composed_once(config_name, tuple(given), folders, _last_written(folders))


def _last_written(folders: Iterable[Path]) -> tuple[tuple[Path, int], ...]:
    """Return the YAML files below folders, and when each of them was written."""
    return tuple(
        (file, file.stat().st_mtime_ns)
        for folder in folders
        for inner, _, names in os.walk(folder, followlinks=True)
        for file in (Path(inner, name) for name in names if name.endswith(".yaml"))
        if file.is_file()
    )


@lru_cache(maxsize=256)
def _composed_once(
    config_name: str,
    overrides: tuple[str, ...],
    folders: tuple[Path, ...],
    last_written: tuple[tuple[Path, int], ...],
) -> _Composed:
    """Compose, once for the same files: every job of a sweep is named after the same defaults."""
    backup = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with (
            initialize_config_dir(str(conf_dir()), version_base=HYDRA_VERSION_BASE),
            without_resolvers(),
        ):
            cfg = hydra_compose(config_name, list(overrides), return_hydra_config=True)
            plain = {key: cfg[key] for key in cfg if key != "hydra"}
            values = OmegaConf.to_container(OmegaConf.create(plain), resolve=True)
            OmegaConf.to_container(cfg.hydra.sweeper, resolve=True)
            params = cfg.hydra.sweeper.params or {}
            swept = tuple(f"{key}={choices}" for key, choices in params.items())
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError) as error:
        _refuse_broken(error, last_written)
        raise explain_hydra_error(error, overrides, config_name) from error
    finally:
        GlobalHydra.instance().hydra = backup
    own = OmegaConf.to_container(cfg.hydra)
    assert isinstance(values, dict)
    assert isinstance(own, dict)
    refuse_programs(own)
    _put_mappings(values, overrides)
    return _Composed(
        values={str(key): value for key, value in values.items()},
        choices={str(group): choice for group, choice in cfg.hydra.runtime.choices.items()},
        swept=swept,
    )


def _put_mappings(values: dict[Any, Any], overrides: Iterable[str]) -> None:
    """Put mappings in the place of the texts that Hydra was given for them."""
    for key, mapping in filter(None, map(read_json, overrides)):
        *sections, last = key.split(".")
        inner = values
        for section in sections:
            inner = inner[section]
        inner[last] = mapping


def _refuse_broken(error: Exception, files: Iterable[tuple[Path, int]]) -> None:
    """Raise an error for a file that is no YAML, with the line at fault; not for other errors."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        line, why = mark.line + 1, getattr(error, "problem", None)
        raise ConfigError(f"{mark.name}:{line}: {why}; correct what stands there") from error
    if isinstance(error, UnicodeDecodeError):
        for file, _ in files:
            read_yaml(file)


def _name_of(
    config: RunConfig, choices: Mapping[str, str | None], config_dir: str | Path | None
) -> str:
    """Return the folder name: the naming choices, and a hash of all other non-default options."""
    base = [f"{group}={choices[group]}" for group in _NAMING_CHOICES]
    base.append(f"rationale={str(config.rationale).lower()}")
    base += ["backbone.path=."] if choices["backbone"] in OWN_WEIGHTS else []
    values, _ = compose("train", base, config_dir)
    given = named_options(config)
    default = usual_options(choices, given, result_options(_run_config(values)))
    parts = [written(choices, group, config.backbone) for group in _NAMING_CHOICES]
    parts += [] if config.rationale else ["labelonly"]
    return hashed_name(parts, given, default)


def expand_sweep(
    overrides: Sequence[str],
    *,
    config_name: str = "train",
    config_dir: str | Path | None = None,
) -> list[list[str]]:
    """Return the overrides of every job that ``-m`` with these overrides stands for.

    What the configuration itself sweeps (``hydra.sweeper.params``, as in ``experiment=ablation``)
    counts as if it were given first: an override of the same key takes its place (Hydra 1.3).

    Raises:
        ConfigError: When one of them cannot be parsed, or what they choose cannot be composed.
    """
    given = _parsed(understood(config_name, overrides, lambda _: all_folders(config_dir))[1])
    chosen = [str(o.input_line) for o in given if not o.is_sweep_override()]
    swept = _composed(config_name, chosen, config_dir).swept
    choices: dict[str, list[str]] = {}
    for override in (*_parsed(swept), *given):
        if not str(override.key_or_group).startswith("hydra"):
            choices[override.get_key_element()] = _choices(override)
    return [list(job) for job in itertools.product(*choices.values())]


def _parsed(overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise explain_hydra_error(error, overrides) from error


def _choices(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [str(override.input_line)]
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
