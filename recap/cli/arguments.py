"""What was typed, as Hydra takes it: the one place where an argument is understood.

A value is read by the kind of its option: a text is whatever stands there, in any script, and a
mapping may have any names. What cannot be meant is answered with the form that is right.
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any

from recap.data.names import identity
from recap.data.readers.files import READER_BY_ENDING
from recap.errors import ConfigError, did_you_mean

SCHEMAS: Mapping[str, str] = {
    "train": "recap.config:RunConfig",
    "prompt": "recap.cli.prompted:PromptedConfig",
    **{
        verb: f"recap.{verb}.options:{verb.title()}Config"
        for verb in ("evaluate", "predict", "corpus", "insights", "report", "audit", "plan")
    },
}
"""The dataclass of each command's options; a field ``training`` or ``prompted`` holds a run's."""

PROMPTING = ("prompt", "plan")
"""Commands that have options of prompts, too."""

OF_PROMPT_ALONE = ("client", "shots", "shot_categories", "dry_run", "privacy.allow_external")

OWN_WEIGHTS = {"local": "backbone.path", "hub": "backbone.hub_id"}
"""Choices of ``backbone`` for weights of one's own, each with the option that brings it."""

_FIRST_WORD = {"corpus": "action", "insights": "action", "report": "runs", "predict": "input"}
"""What a word without ``=`` is the value of."""

_FILES = {"predict": ("input", "data.path"), "insights": ("data.path",)}
"""Of commands that choose ``data`` by a file's ending: the options that name it."""

_ENDINGS = {"data": (*READER_BY_ENDING, ".jsonl", ".json"), "backbone": (".gguf",)}
"""Endings of files that are no names of choices."""

_ELSEWHERE = {
    "lr": "optimizer.learning_rate",
    "epochs": "trainer.max_epochs",
    "batch_size": "global_batch_size",
    "model": "backbone",
    **dict.fromkeys(("file", "path", "input"), "data.path"),
}
"""What other tools call our options."""

_FLAGS = {
    **dict.fromkeys(
        ("-h", "--help", "--options", "--hydra-help", "-m", "--multirun", "-r", "--run"), False
    ),
    **dict.fromkeys(("--resolve", "--version", "-i", "--info", "-sc"), False),
    **dict.fromkeys(("-c", "--cfg", "-cd", "--config-dir", "-p", "--package"), True),
}
"""Flags, and whether a value stands behind them."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Which values an option takes."""

    text: bool = False
    number: bool = False
    whole: bool = False
    null: bool = False
    flag: bool = False
    anything: bool = False
    words: tuple[str, ...] = ()
    item: Kind | None = None
    """Of a list."""
    value: Kind | None = None
    """Of a mapping."""

    @property
    def only_mapping(self) -> bool:
        """Whether it can be nothing else than a mapping whose names are the user's."""
        scalar = self.text or self.number or self.flag or self.anything or self.words
        return self.value is not None and not self.value.anything and not scalar


READER_OPTIONS: Mapping[str, tuple[Any, str]] = {
    "speakers": (Mapping[str, str], "Names of speakers: counselor, client, other or text."),
    "label_names": (Mapping[str, str], "What labels stand for that are numbers in the file."),
    "columns": (Mapping[str, str | bool | None], "Names of columns or keys, by what they hold."),
    "meta": (list[str], "Columns whose values are carried along."),
    "sheet": (str | None, "Sheet of an Excel file; null: the first that is shown."),
    "delimiter": (str | None, "What stands between cells of a CSV file; null: found out."),
}
"""Options that readers share, each with its values and its meaning."""


def _kind(annotation: Any) -> Kind:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _kind(inner[0])
    if origin in (typing.Union, UnionType):
        kinds = [_kind(each) for each in inner]
        return Kind(**{k: v for kind in kinds for k, v in vars(kind).items() if v})
    if origin is typing.Literal:
        return Kind(words=tuple(map(str, inner)))
    if origin in (tuple, list, Sequence):
        return Kind(item=_kind(inner[0]))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return Kind(value=_kind(inner[1]))
    return Kind(
        text=annotation is str,
        number=annotation in (int, float),
        whole=annotation is int,
        null=annotation is type(None),
        flag=annotation is bool,
        anything=annotation is Any,
    )


def schema_of(command: str) -> Any:
    """Return the dataclass of a command's options."""
    module, _, name = SCHEMAS[command].partition(":")
    return getattr(import_module(module), name)


def fields_of(section: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the options of a section of a configuration: name, annotation and own section."""
    for key, annotation in typing.get_type_hints(section, include_extras=True).items():
        either = [one for one in typing.get_args(annotation) if isinstance(one, type)]
        inner = next(filter(dataclasses.is_dataclass, either), annotation)
        if dataclasses.is_dataclass(inner):
            yield from fields_of(
                inner, prefix if key in ("training", "prompted") else f"{prefix}{key}."
            )
        else:
            yield prefix + key, annotation, section


@cache
def options_of(command: str) -> Mapping[str, Kind]:
    """Return every option of a command and its kind; those below a mapping are not listed."""
    found = {key: _kind(annotation) for key, annotation, _ in fields_of(schema_of(command))}
    if "data.options" in found:
        found |= {f"data.options.{key}": _kind(a) for key, (a, _) in READER_OPTIONS.items()}
    others = ["baseline", "task_given", *(["dry_run"] if command == "plan" else [])]
    others += [] if command in PROMPTING else OF_PROMPT_ALONE
    return MappingProxyType({key: kind for key, kind in found.items() if key not in others})


class _Bare(str):
    """A text without quotation marks, which may stand for a number, a truth value or null."""


_WIDE = str.maketrans("［］｛｝，、：＝", "[]{},,:=")
_QUOTES = {"'": "'", '"': '"', "“": "”", "„": "“”", "‘": "’", "«": "»", "「": "」"}
_BEHIND_QUOTE = re.compile(r"\s*(?:$|[]},:［］｝，、：])")


def _closing(text: str, start: int) -> int:
    """Return the place behind a quotation that begins at ``start``; 0 where it is no quotation."""
    for escapes in (True, False):
        for place in range(start + 1, len(text)):
            slashes = len(text[:place]) - len(text[:place].rstrip("\\"))
            if (
                text[place] in _QUOTES[text[start]]
                and _BEHIND_QUOTE.match(text, place + 1)
                and not (escapes and slashes % 2)
            ):
                return place + 1
    return 0


def _split(text: str, separators: str, *, inside: bool = False) -> list[str] | None:
    """Return the parts of a text outside of brackets and quotations; ``None``: one stays open."""
    parts, start, depth, place, fresh = [], 0, 0, 0, True
    while place < len(text):
        char = text[place]
        end = _closing(text, place) if fresh and char in _QUOTES else 0
        if end:
            place, fresh = end, False
            continue
        if inside or depth or fresh:
            char = char.translate(_WIDE)
        if char in "[{" and (fresh or depth):
            depth += 1
        elif char in "]}" and depth:
            depth -= 1
        elif char in separators and not depth:
            parts.append(text[start:place])
            start = place + 1
        fresh = char in "[{,:" or (fresh and char.isspace())
        place += 1
    return None if depth else [*parts, text[start:]]


def _read(text: str) -> Any:
    """Return what a value without top-level commas is: a text, a list or a mapping.

    Raises:
        ValueError: When a part of a mapping has no colon.
    """
    text = text.strip()
    ends = _ends(text)
    if text[:1] in _QUOTES and _closing(text, 0) == len(text):
        halved = r"(\\+)(?=['\"]|$)"
        return re.sub(halved, lambda found: "\\" * (len(found[1]) // 2), text[1:-1])
    if len(text) < 2 or ends not in ("[]", "{}"):
        return _Bare(text)
    wide, plain = (
        [part for part in _split(text[1:-1], ",", inside=inside) or () if part.strip()]
        for inside in (True, False)
    )
    if ends == "[]":
        return [_read(part) for part in wide]
    try:
        return dict(map(_pair, wide))
    except ValueError:
        return dict(map(_pair, plain))  # a name or a value holds a comma of another script


def _pair(text: str) -> tuple[str, Any]:
    """Return name and value around the colon that a blank follows, else around the first one."""
    parts = _split(text, ":", inside=True) or [text]
    parts = parts if len(parts) > 1 else text.split("=", 1)
    if len(parts) == 1:
        raise ValueError(text)
    behind = next((n for n, part in enumerate(parts) if n and part[:1].isspace()), 1)
    return str(_read(":".join(parts[:behind]))), _read(":".join(parts[behind:]))


def _quoted(text: str) -> str:
    text = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return f"'{text}{text[len(text.rstrip(chr(92))) :]}'"


_WORDS = {"null": None, "true": True, "false": False}
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?", re.IGNORECASE)
_SAFE = re.compile(r"[\w./+*@?|$%-]+(?: [\w./+*@?|$%-]+)*", re.ASCII)
_SAFE_TEXT = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)
_INNER_KEY = re.compile(r"(?:(?:[A-Za-z_$][\w$-]*|0|[1-9]\d*)(?:\.(?!$)|$))+", re.ASCII)
_SWEEP = re.compile(
    r"(?:choice|range|interval|glob|shuffle|sort|tag|extend_list|json_str|str|int|float|bool)"
    r"\s*\(.*\)",
    re.DOTALL,
)


def _plain(value: Any, kind: Kind) -> Any:
    """Return a value of a mapping as JSON holds it."""
    if isinstance(value, list):
        return [_plain(each, kind.item or kind) for each in value]
    if isinstance(value, dict):
        return {key: _plain(each, kind.value or kind) for key, each in value.items()}
    if not isinstance(value, str):
        return value
    word = value.casefold() if isinstance(value, _Bare) else ""
    if word == "null" or (word in _WORDS and (kind.flag or not kind.text)):
        return _WORDS[word]
    if not kind.text and isinstance(value, _Bare) and _NUMBER.fullmatch(value):
        return float(value) if re.search(r"[.eE]", value) else int(value)
    return str(value)


def _holds_mapping(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(map(_holds_mapping, value)))


def _written(value: Any, kind: Kind) -> str:
    """Return a value in Hydra's grammar, which knows no names of other scripts in a mapping."""
    if _holds_mapping(value):
        return _quoted(json.dumps(_plain(value, kind), ensure_ascii=False))
    if isinstance(value, list):
        return f"[{','.join(_written(each, kind.item or kind) for each in value)}]"
    if not isinstance(value, _Bare):
        return _quoted(value)
    word = value.casefold()
    if word == "null" or (
        word == "none" and kind.null and not kind.text and word not in kind.words
    ):
        return "null"
    if word in ("true", "false") and kind.flag:
        return word
    if kind.text:
        plain = _SAFE_TEXT.fullmatch(value) and word not in (*_WORDS, "inf", "nan")
        return str(value) if plain else _quoted(_at_home(value))
    value = value if kind.anything else _Bare(unicodedata.normalize("NFKC", value))
    return str(value) if _SAFE.fullmatch(value) else _quoted(value)


def _at_home(text: str) -> str:
    try:
        return str(Path(text).expanduser()) if text.startswith("~") else text
    except RuntimeError:
        return text


def _exists(text: str) -> bool:
    try:
        return Path(_at_home(text)).exists()
    except (OSError, ValueError):
        return False


def read_json(written: str) -> tuple[str, Any] | None:
    """Return key and value of an override that holds a mapping; ``None`` for any other."""
    found = re.fullmatch(r"\+*([\w.]+)='([\[{].*)'", written, re.DOTALL)
    try:
        return (found[1], json.loads(_read(f"'{found[2]}'"))) if found else None
    except ValueError:
        return None


@dataclass(kw_only=True)
class _Arguments:
    """What has been understood so far of a command's arguments."""

    command: str
    folders: Sequence[Path]
    flags: list[str] = field(default_factory=list)
    overrides: dict[str, str] = field(default_factory=dict)
    mappings: dict[str, dict[str, Any]] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    """Values of the option that words without ``=`` stand for."""

    @property
    def groups(self) -> set[str]:
        """Sections that are chosen as a whole, by a file under ``conf/``."""
        sections = {key.partition(".")[0] for key in options_of(self.command)} | {"experiment"}
        return {g for g in sections if any((folder / g).is_dir() for folder in self.folders)}

    def add(self, argument: str) -> None:
        """Understand ``key=value``."""
        marks, key, value = _parts(argument)
        if key.startswith(("hydra.", "hydra/")):
            self.overrides[key] = argument
            return
        key = {"insights outcomes": "outcomes.columns"}.get(f"{self.command} {key}", key)
        kind, within = self.find(key, value)
        if marks == "~":
            self.overrides[f"~{key}"] = argument
        elif not value:
            raise ConfigError(f"{key}: nothing stands behind the =; write {key}=VALUE")
        elif kind is None:
            self.choose(key, value)
        else:
            kind = (kind.value or kind) if within else kind
            self.put(key, _values(key, value, kind), added=bool(marks))

    def put(self, key: str, read: Any, *, added: bool = False) -> None:
        """Give an option the values that were read for it, several of a sweep."""
        kind, within = self.find(key, "")
        option = key.removesuffix(f".{within}") if within else key
        if kind is None:
            raise ConfigError(f"{key}: holds several options; write {key}={{OPTION: VALUE}}")
        if within and kind.only_mapping and not _INNER_KEY.fullmatch(within):
            self.set(option, kind, {within: read[0]})
            return
        inner = (kind.value or kind) if within else kind
        if isinstance(read, list) and len(read) == 1 and isinstance(read[0], dict):
            if inner.value is not None and inner.value.anything:
                for name, value in read[0].items():
                    self.put(f"{key}.{name}", [value])
            else:
                self.set(key, inner, read[0])
            return
        free = added or within or key.startswith(("data.options.", "task."))
        texts = read if isinstance(read, str) else ",".join(_written(each, inner) for each in read)
        self.overrides[key] = f"{'++' if free else ''}{key}={texts}"

    def find(self, key: str, value: str) -> tuple[Kind | None, str]:
        """Return an option's kind, ``None`` for a group, and the part of the key in a mapping.

        Raises:
            ConfigError: When there is no such option.
        """
        options = options_of(self.command)
        first = key.partition(".")[0]
        alone = first if first in OF_PROMPT_ALONE else key
        if self.command not in PROMPTING and alone in (*OF_PROMPT_ALONE, "privacy"):
            raise of_prompt_alone(key)
        if key in options:
            return options[key], ""
        if key in self.groups or any(option.startswith(f"{key}.") for option in options):
            return None, ""
        for place in reversed([n for n, char in enumerate(key) if char == "."]):
            kind = options.get(key[:place])
            if kind is not None and kind.value is not None:
                return kind, key[place + 1 :]
        raise self.unknown(key, value)

    def unknown(self, key: str, value: str) -> ConfigError:
        """Return the error for an option that there is none of."""
        known = [*options_of(self.command), *sorted(self.groups)]
        leaf = [option for option in known if option.rpartition(".")[2] == key]
        if not key:
            return ConfigError(f"={value}: no option is named; write KEY={value}")
        usual = _ELSEWHERE.get(key, "")
        right = [usual] if usual in known or len(leaf) != 1 else leaf
        if right[0] in known:
            hint = f"; write {right[0]}={value or 'VALUE'}"
        else:
            hint = f"{did_you_mean(key, known)}; see --help"
            hint = f"; it may be {' or '.join(leaf)}" if leaf else hint
        return ConfigError(f"{key}: there is no such option{hint}")

    def set(self, key: str, kind: Kind, entries: Mapping[str, Any]) -> None:
        """Note entries of a mapping; those of several arguments add up."""
        self.mappings.setdefault(key, {}).update(entries)
        self.overrides[key] = f"++{key}={_written(self.mappings[key], kind)}"

    def choose(self, group: str, value: str) -> None:
        """Understand the choice of a group's file, or a mapping of some of its options."""
        parts = [value] if _SWEEP.fullmatch(value) else _split(value, ",") or [value]
        read = _read(parts[0]) if len(parts) == 1 else ""
        if isinstance(read, dict):
            for key, inner in read.items():
                self.put(f"{group}.{key}", [inner])
            return
        if group not in self.groups:
            inner = [o for o in options_of(self.command) if o.startswith(f"{group}.")]
            raise ConfigError(f"{group}: holds several options; name one of {', '.join(inner)}")
        paths = [name for part in parts if self.is_path(group, name := str(_read(part)))]
        if group == "backbone" and len(paths) == len(parts):
            self.add(f"{group}.path={value}")
            return
        if paths:
            raise _no_choice(group, paths[0])
        if read == "null" and group != "experiment":
            raise ConfigError(f"{group}: null is no choice; name one, or leave {group}= out")
        if not _SWEEP.fullmatch(value):
            kind = Kind(text=True, item=Kind(text=True))
            value = ",".join(_written(_read(part), kind) for part in parts)
        self.overrides[group] = f"{group}={value}"

    def is_path(self, group: str, choice: str) -> bool:
        """Return whether a file or folder stands where the name of a choice belongs."""
        if any((folder / group / f"{choice}.yaml").is_file() for folder in self.folders):
            return False
        ending = Path(choice).suffix.lower() in _ENDINGS.get(group, ())
        return ending or choice.startswith((".", "~", "/")) or "\\" in choice or _exists(choice)

    def add_word(self, word: str, before: str) -> None:
        """Understand an argument without ``=``.

        Raises:
            ConfigError: With what was probably meant.
        """
        option = _FIRST_WORD.get(self.command, "")
        value = before.partition("=")[2]
        kind = options_of(self.command).get(option, Kind())
        fits = not value or _exists(word) or word in kind.words
        if option and fits and option not in self.overrides:
            self.words.append(word)
            return
        if _exists(word) and "data.path" in options_of(self.command):
            right = f"write data={reader_of(word)} data.path={_typed(word)}"
        elif value:
            right = f'a value with blanks goes into quotation marks: "{before} {word}"'
        elif word in options_of(self.command) or word in self.groups:
            raise ConfigError(f"{word}: its value goes behind a =; write {word}=VALUE")
        else:
            right = "options are written KEY=VALUE, and --help lists them"
        raise ConfigError(f"{word}: stands without an option; {right}")


def _no_choice(group: str, path: str) -> ConfigError:
    right = f"put it into conf/{group}/NAME.yaml, and write {group}=NAME"
    if group == "data":
        right = f"write data={reader_of(path)} data.path={_typed(path)}"
    elif group == "backbone":
        right = f"write backbone.path={_typed(path)} apart from names of backbones"
    return ConfigError(f"{group}: {path!r} is the path of a file or folder; {right}")


def _values(key: str, text: str, kind: Kind) -> Any:
    """Return what a text stands for: its values, several of a sweep, or a text for Hydra alone.

    Raises:
        ConfigError: When it is no mapping where one belongs, or a bracket stays open.
    """
    if kind.text and not _SAFE_TEXT.fullmatch(text) and _exists(text):
        home = _at_home(text)
        return _quoted(str(Path(home).absolute()) if home.startswith("~") else home)
    if _SWEEP.fullmatch(text):
        return text
    quoted = text[:1] in _QUOTES and _closing(text, 0) == len(text)
    if kind.only_mapping and _ends(text) != "{}" and ":" in text.translate(_WIDE) and not quoted:
        text = f"{{{text}}}"
    parts = [text] if text == "," else _split(text, ",", inside=bool(kind.item) and not kind.text)
    if parts is None and not kind.text:
        raise ConfigError(f"{key}: a bracket stays open; write [A,B] or {{NAME: VALUE}}")
    try:
        read = [_read(part) for part in parts or [text]]
        if kind.only_mapping:
            read = [json.loads(r) if type(r) is str and r[:1] == "{" else r for r in read]
    except ValueError:
        read = [""]
    mappings = all(isinstance(each, dict) or each == "null" for each in read)
    if kind.only_mapping and not mappings:
        raise ConfigError(f"{key}: is a mapping; write '{key}={{NAME: VALUE, OTHER: VALUE}}'")
    scalars = all(isinstance(each, str) for each in read) and read != ["null"]
    return [read] if kind.item and scalars and (len(read) > 1 or not kind.text) else read


def _ends(text: str) -> str:
    return (text[:1] + text[-1:]).translate(_WIDE)


def of_prompt_alone(key: str) -> ConfigError:
    """Return the error for an option of another command than ``recap.prompt``."""
    return ConfigError(
        f"{key}: only recap.prompt has this option, and runs the experiments that set it"
    )


def reader_of(path: str) -> str:
    """Return ``data`` for a file, or a folder of files of one kind, by their endings."""
    named = Path(_at_home(path))
    files = [p for p in named.iterdir() if p.name[0] != "."] if named.is_dir() else [named]
    readers = {READER_BY_ENDING.get(file.suffix.lower(), "dialogues") for file in files}
    if readers == {"transcript", "vtt"}:
        return "transcript"
    return readers.pop() if len(readers) == 1 else "dialogues"


def _typed(text: str) -> str:
    return text if _SAFE.fullmatch(text) and " " not in text else f'"{text}"'


_ARGUMENT = re.compile(r"(\+{0,2}|~)([^=＝]*?)[=＝](.*)", re.DOTALL)


def _parts(argument: str) -> tuple[str, str, str]:
    """Return the marks before the key, the key, and the value of ``key=value``."""
    found = _ARGUMENT.fullmatch(argument)
    marks, key, value = found.groups() if found else ("~", argument.lstrip("~"), "")
    return marks, identity(unicodedata.normalize("NFKC", key)), value.strip()


def _is_override(argument: str) -> bool:
    return argument.startswith("~") or _ARGUMENT.fullmatch(argument) is not None


def _joined(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with those put together that a shell took apart at blanks."""
    joined: list[str] = []
    rest = [argument.strip().strip("\ufeff\u200b\u2060") for argument in arguments]
    while rest:
        n = next((n for n in range(1, len(rest) + 1) if _belong_together(rest[:n])), 1)
        joined.append(" ".join(rest[:n]))
        rest = rest[n:]
    return joined


def _belong_together(words: Sequence[str]) -> bool:
    """Whether words are one argument: what its value opens is closed, or a file is called so."""
    whole = " ".join(words)
    value = _parts(whole)[2] if _is_override(whole) else ""
    if value and (value[0] in _QUOTES or value[0].translate(_WIDE) in "[{"):
        closed = value[0] not in _QUOTES or _closing(value, 0) > 0
        return closed and _split(value, ",") is not None
    return bool(value) and not any(map(_is_override, words[1:])) and _exists(value)


def understood(
    command: str,
    arguments: Sequence[str],
    find_folders: Callable[[str | None], Sequence[Path]],
) -> tuple[list[str], list[str]]:
    """Return flags and overrides as Hydra takes them; what it takes already stays as it is.

    Args:
        command: Whose options they are.
        arguments: As they were typed.
        find_folders: Returns where files of groups are, by what follows ``--config-dir``.

    Raises:
        ConfigError: When one cannot be meant, with the form that is right.
    """
    flags, rest = _flags(command, _joined(arguments))
    place = next((n for n, flag in enumerate(flags) if flag in ("--config-dir", "-cd")), None)
    folders = find_folders(None if place is None else flags[place + 1])
    found, before = _Arguments(command=command, folders=folders), ""
    for argument in rest:
        if _is_override(argument):
            found.add(argument)
            before = argument
        else:
            found.add_word(argument, before)
    if found.words:
        option = _FIRST_WORD[command]
        if option != "runs" and len(found.words) > 1:
            found.overrides[option] = option
            found.add_word(found.words[1], f"{option}={found.words[0]}")
        written = ",".join(map(_quoted, found.words))
        found.add(f"{option}=[{written}]" if option == "runs" else f"{option}={written}")
    chosen = found.overrides
    own = [o for o, key in OWN_WEIGHTS.items() if chosen.get(key) not in (None, f"{key}=null")]
    if own and "backbone" not in chosen:
        found.add(f"backbone={own[0]}")
    files = [chosen[o] for o in _FILES.get(command, ()) if o in chosen]
    if files and "data" not in chosen:
        found.add(f"data={reader_of(str(_read(_parts(files[0])[2])))}")
    return flags, list(chosen.values())


def _flags(command: str, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return ``--help`` and the like, and the rest; an option written as a flag is part of it.

    Raises:
        ConfigError: When a value is missing.
    """
    flags: list[str] = []
    others: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        dashed = re.fullmatch(r"[-–—]+([^\d=＝][^=＝]*)(?:[=＝](.*))?", argument, re.DOTALL)
        if dashed is None:
            others += [argument] if argument.strip("-") else []
            continue
        name, value = dashed.groups()
        flag = next((f for f in (f"-{name}", f"--{name}") if f in _FLAGS), "")
        kind = options_of(command).get(name.replace("-", "_"), Kind())
        follows = rest and not _is_override(rest[0]) and rest[0][:1] not in ("-", "–", "—")
        if kind.flag and not (follows and rest[0] in _WORDS):
            value = value or "true"
        elif value is None and follows and _FLAGS.get(flag, True):
            value = rest.pop(0)
        if flag:
            if value is None and _FLAGS[flag]:
                raise ConfigError(f"{flag}: needs a value behind it; see --help")
            flags += [flag, *([] if value is None else [value])]
        else:
            others.append(f"{name.replace('-', '_')}={value or ''}")
    return flags, others
