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
from hydra.errors import HydraException, MissingConfigException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from recap.config import BackboneConfig, RunConfig, flatten, hashed_name, result_options, validated
from recap.errors import ConfigError, did_you_mean
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
_PROMPTING = ("prompt", "plan")
_OWN_WEIGHTS = ("local", "hub")
_OF_PROMPT_ALONE = ("client", "shots", "shot_categories", "dry_run", "privacy.allow_external")


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


def load_command(
    schema: type[Schema],
    name: str,
    overrides: Sequence[str] = (),
    *,
    config_dir: str | Path | None = None,
) -> Schema:
    """Return the configuration of a command that is told of a whole run, as ``recap.plan`` is.

    ``conf/<name>.yaml`` takes over all of ``conf/train.yaml`` and adds keys of its own.

    Args:
        schema: A pydantic dataclass with a field ``training`` for the run's :class:`RunConfig` and
            one for every key that ``conf/<name>.yaml`` adds.
        name: The command.
        overrides: As for :func:`load_config`, with the added keys.
        config_dir: One more folder to search.

    Raises:
        ConfigError: As :func:`load_config`.
    """
    values, choices = compose_run(name, overrides, config_dir)
    config: Any = command_config(schema, values)
    run = config.training.run if values["run"] else _name_of(config.training, choices, config_dir)
    named: Schema = replace(config, training=replace(config.training, run=run))
    return named


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
    if name not in _PROMPTING:
        for key in _OF_PROMPT_ALONE:
            if key in values or key in flatten(values):
                raise ConfigError(_of_prompt_alone(key))
    return values, choices


def command_config(schema: type[Schema], values: Mapping[str, Any]) -> Schema:
    """Return composed values as the configuration of a command; see :func:`load_command`.

    A run without a name is called ``unnamed``.
    """
    own = {field.name for field in dataclasses.fields(schema)} - {"training"}  # type: ignore[arg-type]
    added = {key: value for key, value in values.items() if key in own}
    training = {key: value for key, value in values.items() if key not in own}
    return validated(schema, {**added, "training": _run_config(training)})


def load_own_command(
    schema: type[Schema],
    name: str,
    overrides: Sequence[str] = (),
    *,
    config_dir: str | Path | None = None,
) -> Schema:
    """Return the configuration of a command that trains nothing, as ``recap.predict``.

    ``conf/<name>.yaml`` stands alone. What a choice of data or task sets for a training is left
    out.

    Args:
        schema: A pydantic dataclass with a field for every key of ``conf/<name>.yaml``.
        name: The command.
        overrides: As for :func:`load_config`.
        config_dir: One more folder to search.

    Raises:
        ConfigError: As :func:`load_config`.
    """
    values, choices = compose(name, overrides, config_dir)
    refuse_hidden_choices(choices, config_dir)
    own = {field.name for field in dataclasses.fields(schema)}  # type: ignore[arg-type]
    others = {field.name for field in dataclasses.fields(RunConfig)} - own
    return validated(schema, {key: values[key] for key in values if key not in others})


def _run_config(values: Mapping[str, Any]) -> RunConfig:
    return validated(RunConfig, {**values, "run": values["run"] or "unnamed"})


def written(
    choices: Mapping[str, str | None], group: str, backbone: BackboneConfig | None = None
) -> str:
    """Return a choice as it stands in the name of a run folder; weights of one's own by name."""
    if group == "backbone" and backbone is not None and choices[group] in _OWN_WEIGHTS:
        return backbone.name
    return str(choices[group]).replace("/", "_")


def usual_options(
    choices: Mapping[str, str | None], given: Mapping[str, Any], default: Mapping[str, Any]
) -> dict[str, Any]:
    """Return default options with those of weights of one's own, which the run's name tells."""
    told = ("name", "path", "hub_id") if choices["backbone"] in _OWN_WEIGHTS else ()
    return {**default, **{key: given[key] for key in (f"backbone.{each}" for each in told)}}


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
    text = str(error).strip().removeprefix("ConfigError raised while resolving interpolation: ")
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        key = unknown.group(1)
        alone = (*_OF_PROMPT_ALONE, "privacy")  # as a group it chooses where prompts may go
        of_prompt = key in alone or key.partition(".")[0] in _OF_PROMPT_ALONE
        if of_prompt and config_name not in _PROMPTING:
            return ConfigError(_of_prompt_alone(key))
        closest = did_you_mean(key, _known_options(config_name))
        return ConfigError(f"{key}: there is no such option{closest}; see --help")
    unknown = re.search(r"Could not (?:find|override) '?([\w/]+)'?[^\n]*No match", text)
    if unknown:
        group = unknown.group(1)
        closest = did_you_mean(group, _known_options(config_name))
        return ConfigError(f"{group}: there is no such group{closest}; see --help")
    ambiguous = re.search(r"Ambiguous value for argument '([^']+)'", text)
    if ambiguous:
        return ConfigError(
            f"{ambiguous.group(1)}: several values; add -m to run one job for each of them"
        )
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    cause = f" ({error.__cause__})" if error.__cause__ and str(error.__cause__) not in text else ""
    return ConfigError(f"{first}{cause} [given: {' '.join(overrides)}]")


def _of_prompt_alone(key: str) -> str:
    return f"{key}: only recap.prompt has this option, and runs the experiments that set it"


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


_MAPPING_OPTION = r"(?:data\.options|annotations)\.(?:speakers|label_names|columns)"
_OWN = {"backbone.path": "local", "backbone.hub_id": "hub"}
_MAPPING = re.compile(rf"\+{{0,2}}({_MAPPING_OPTION})=(\{{[^{{}}]*\}})", re.DOTALL)


def with_mappings(arguments: Sequence[str]) -> list[str]:
    """Return the arguments, mappings such as ``data.options.speakers={NAME: role}`` as one text.

    Hydra (1.3) takes no keys of its own accord where a mapping is empty, and no Chinese ones.
    Weights of one's own come with the settings for pretrained models unless a backbone is chosen.
    """
    written = []
    keys = {argument.partition("=")[0].lstrip("+") for argument in arguments}
    if "backbone" not in keys:
        written += [f"backbone={own}" for key, own in _OWN.items() if key in keys][:1]
    for argument in arguments:
        found = _MAPPING.fullmatch(argument)
        if found is not None:
            text = found[2].replace("'", r"\'")
            argument = f"++{found[1]}='{text}'"
        written.append(argument)
    return written


def compose(
    config_name: str, overrides: Sequence[str], config_dir: str | Path | None
) -> tuple[dict[str, Any], dict[str, str | None]]:
    """Return the composed values without Hydra's own, and the choice made in every group.

    A task holds its taxonomy, checked.
    """
    composed = _composed(config_name, overrides, config_dir)
    refuse_secrets(composed.values)
    values, choices = deepcopy(composed.values), dict(composed.choices)
    if choices.get("backbone") in _OWN_WEIGHTS:
        _name_backbone(values["backbone"])
    if "task" in values:
        values["task"] = _whole_task(values["task"], choices.get("task"), config_dir)
    return values, choices


def _name_backbone(backbone: dict[str, Any]) -> None:
    """Name weights of one's own after their folder, file or hub id."""
    if not backbone.get("name"):
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
    folders = [conf_dir(), *search_folders(config_dir)]
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
    return _composed_once(config_name, tuple(overrides), folders, _last_written(folders))


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
            cfg = hydra_compose(config_name, with_mappings(overrides), return_hydra_config=True)
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
    _read_mappings(values)
    return _Composed(
        values={str(key): value for key, value in values.items()},
        choices={str(group): choice for group, choice in cfg.hydra.runtime.choices.items()},
        swept=swept,
    )


def _refuse_broken(error: Exception, files: Iterable[tuple[Path, int]]) -> None:
    """Raise an error for a file that is no YAML, with the line at fault; not for other errors."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        line, why = mark.line + 1, getattr(error, "problem", None)
        raise ConfigError(f"{mark.name}:{line}: {why}; correct what stands there") from error
    if isinstance(error, UnicodeDecodeError):
        for file, _ in files:
            read_yaml(file)


def _read_mappings(values: Mapping[Any, Any]) -> None:
    """Put the mapping in the place of what :func:`with_mappings` wrote as one text."""
    data = values.get("data")
    places = {
        "data.options": data.get("options") if isinstance(data, dict) else None,
        "annotations": values.get("annotations"),
    }
    for name, options in places.items():
        for key in ("speakers", "label_names", "columns"):
            if isinstance(options, dict) and isinstance(options.get(key), str):
                options[key] = _mapping(f"{name}.{key}", options[key])


def _mapping(option: str, text: str) -> dict[str, Any]:
    try:
        # All of it is text: `No` and `1` are names, too.
        found = yaml.BaseLoader(text).get_single_data()
    except yaml.YAMLError:
        found = None
    plain = isinstance(found, dict) and all(isinstance(key, str) for key in found)
    if plain and option.endswith("columns"):
        constants = {"null": None, "false": False}
        return {k: constants.get(v, v) if isinstance(v, str) else v for k, v in found.items()}
    if not plain or not all(isinstance(value, str) for value in found.values()):
        raise ConfigError(
            f"{option}: is no list of names; write '{option}={{NAME: VALUE, \"OTHER #1\": VALUE}}'"
        )
    return dict(found)


def _name_of(
    config: RunConfig, choices: Mapping[str, str | None], config_dir: str | Path | None
) -> str:
    """Return the folder name: the naming choices, and a hash of all other non-default options."""
    base = [f"{group}={choices[group]}" for group in _NAMING_CHOICES]
    base.append(f"rationale={str(config.rationale).lower()}")
    base += ["backbone.path=."] if choices["backbone"] in _OWN_WEIGHTS else []
    values, _ = compose("train", base, config_dir)
    given = result_options(config)
    default = usual_options(choices, given, result_options(_run_config(values)))
    parts = [written(choices, group, config.backbone) for group in _NAMING_CHOICES]
    parts += [] if config.rationale else ["labelonly"]
    return hashed_name(parts, given, default)


def _known_options(config_name: str) -> list[str]:
    values, choices = compose(config_name, (), None)
    return [
        *flatten(values),
        *values,
        *(group for group in choices if not group.startswith("hydra")),
    ]


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
    given = _parsed(overrides)
    chosen = [str(o.input_line) for o in given if not o.is_sweep_override()]
    swept = _composed(config_name, chosen, config_dir).swept
    choices: dict[str, list[str]] = {}
    for override in (*_parsed(swept), *given):
        if not str(override.key_or_group).startswith("hydra"):
            choices[override.get_key_element()] = _choices(override)
    return [list(job) for job in itertools.product(*choices.values())]


def _parsed(overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(with_mappings(overrides))
    except HydraException as error:
        raise explain_hydra_error(error, overrides) from error


def _choices(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [str(override.input_line)]
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
