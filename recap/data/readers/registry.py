"""The readers that configuration can name, and what they share.

Fields of a JSON row are checked one by one, each fault noted under its field. Which column of a
table holds what follows from what the user says or from the usual names.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from recap.data.issues import LISTED_FAULTS, IssueLog, damage, name_damage
from recap.data.names import identity, is_missing
from recap.data.readers.files import input_files
from recap.errors import ConfigError, DataError, did_you_mean, quote_cell
from recap.records import Dialogue, Example
from recap.registry import Registry
from recap.taxonomy import Taxonomy

Record = Dialogue | Example

Reader = Callable[..., Iterator[Record]]
"""``read(path, *, issues, **options)``: yields records and notes bad rows in ``issues``.

Where a reader takes ``speakers``, these are names beside the usual ones, each with its role.
"""

READERS: Registry[Reader] = Registry("data reader")

_BUILT_IN = {
    "alpaca": "recap.data.readers.json_samples",
    "annomi": "recap.data.readers.annomi",
    "client_resistance": "recap.data.readers.json_samples",
    "demo": "recap.data.demo",
    "dialogues": "recap.data.readers.native",
    "doccano": "recap.data.readers.doccano",
    "inception": "recap.data.readers.annotation_tools",
    "label_studio": "recap.data.readers.annotation_tools",
    "potato": "recap.data.readers.annotation_tools",
    "prodigy": "recap.data.readers.annotation_tools",
    "psyguard": "recap.data.readers.json_samples",
    "table": "recap.data.readers.tables",
    "transcript": "recap.data.readers.transcript",
    "vtt": "recap.data.readers.transcript",
}
JSON_ENDINGS = (".jsonl", ".json", ".ndjson")
EXCEL_ENDINGS = (".xlsx", ".xlsm")
TABLE_ENDINGS = (".csv", ".tsv", *EXCEL_ENDINGS)
"""Endings of files that are read as tables where others hold JSON."""
_ENDINGS: dict[Reader, tuple[str, ...]] = {}


def register_reader(
    name: str, *, aliases: Iterable[str] = (), endings: tuple[str, ...] = JSON_ENDINGS
) -> Callable[[Reader], Reader]:
    """Return a decorator that makes a function available as ``data.reader=name``.

    ``endings`` are those of the files that it reads of a folder.
    """
    register = READERS.register(name, aliases=aliases)

    def add(reader: Reader) -> Reader:
        _ENDINGS[reader] = endings
        return register(reader)

    return add


def get_reader(name: str) -> Reader:
    """Return the reader of a name or ``package.module:function``, or raise ``UnknownNameError``."""
    # Each module registers its reader when imported; all of them only to list what there is.
    wanted = (
        [_BUILT_IN[name]] if name in _BUILT_IN else _BUILT_IN.values() if ":" not in name else []
    )
    for module in wanted:
        importlib.import_module(module)
    return READERS.get(name)


def files_to_read(name: str, path: Path) -> list[Path]:
    """Return the files that ``data.path`` names for a reader; a ``DataError`` where there are none.

    Those are one, a folder's, or a pattern's; other readers than registered ones get the folder.
    """
    endings = _ENDINGS.get(get_reader(name))
    return [path] if endings is None and path.is_dir() else input_files(path, endings)


def check_options(name: str, reader: Reader, options: Mapping[str, Any]) -> None:
    """Check that a reader takes every option it is given, or raise a ``ConfigError``."""
    try:
        named = inspect.signature(reader).parameters
    except (TypeError, ValueError):
        named = MappingProxyType({})
    if "issues" not in named:
        raise ConfigError(
            f"data.reader: {name!r} is no reader, for it does not take issues=; a reader is a "
            "function read(path, *, issues, ...)"
        )
    parameters = named.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "issues"]
    for option in options:
        if option not in known:
            raise ConfigError(
                f"data.options.{option}: reader {name!r} has no such option"
                f"{did_you_mean(option, known)}; it takes {', '.join(known) or 'none'}"
            )


def one_of(
    option: str, value: object, choices: Iterable[str], *, prefix: str = "data.options."
) -> str:
    """Return ``value`` when it is one of ``choices``; else a ``ConfigError`` names these."""
    choices = list(choices)
    if value not in choices:
        raise ConfigError(
            f"{prefix}{option} must be {' or '.join(choices)}, not {value!r}"
            f"{did_you_mean(str(value), choices)}"
        )
    return str(value)


class Fields:
    """The fields of one row; anything wrong with one is noted and makes ``sound`` false.

    ``within`` stands before the names of its fields in messages, ``rows`` of the file are lost with
    it, and ``keys`` are names that fields have in this file, where it calls them otherwise.
    """

    def __init__(
        self,
        row: Mapping[str, Any],
        *,
        line: int,
        issues: IssueLog,
        within: str = "",
        rows: int = 1,
        keys: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.row = row
        self.line = line
        self.issues = issues
        self.sound = True
        self._within = within
        self.rows = rows
        self.keys = keys

    def reject(self, field: str, reason: str, hint: str) -> None:
        """Note a fault of ``field``."""
        self.sound = False
        name = self._within + self.key(field)
        self.issues.reject(self.line, name, reason, hint, rows=self.rows)

    def key(self, field: str) -> str:
        """Return the name of a field in this file."""
        return self.keys.get(field, field)

    def value(self, field: str) -> Any:
        """Return what a field holds, ``None`` where it is not there."""
        return self.row.get(self.key(field))

    def text(self, field: str) -> str:
        """Return a text that must be there, as it stands; an empty one is judged later."""
        value = self._of_kind(field, str, "text", '"..."', required=True)
        return "" if value is None else self._undamaged(field, value)

    def optional_text(self, field: str) -> str | None:
        """Return a text, or ``None`` where there is none."""
        value = self._of_kind(field, str, "text", '"..."')
        return None if value is None else self._undamaged(field, value).strip()

    def mapping(self, field: str) -> Mapping[str, Any]:
        """Return an object, empty where there is none."""
        return self._of_kind(field, dict, "object", "{...}") or {}

    def items(self, field: str) -> list[Any]:
        """Return a list that must be there."""
        return self._of_kind(field, list, "list", "[...]", required=True) or []

    def _of_kind(
        self, field: str, kind: type, what: str, written: str, *, required: bool = False
    ) -> Any:
        value, key = self.value(field), self.key(field)
        if isinstance(value, kind) or (value is None and not required):
            return value
        reason = "is missing" if required and key not in self.row else f"is no {what}"
        hint = f'write "{key}": {written}'
        self.reject(field, reason, hint if required else f"{hint}, or leave it out")
        return None

    def identifier(self, field: str, *, unique: bool = False) -> str | None:
        """Return an id (a text or a whole number) as it is compared, ``None`` where there is none.

        Several forms of one are counted, unless it is ``unique``, as ids are: there may be
        millions, and the second one is a fault.
        """
        value = self.value(field)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            return self.optional_text(field)
        broken = name_damage(value) or (
            None if identity(value) else ("is empty", "write an id, or leave the key out")
        )
        if broken is not None:
            self.reject(field, *broken)
            return None
        if unique or field in ("id", "idx"):
            return None if is_missing(value) else identity(value)
        return self.issues.name(field, value) or None

    def _undamaged(self, field: str, text: str) -> str:
        broken = damage(text)
        if broken is not None:
            self.reject(field, *broken)
        return text


class CanonicalLabels:
    """The labels of a file under their canonical names, each looked up once.

    Without a taxonomy they stay as they stand.
    """

    def __init__(self, taxonomy: Taxonomy | None) -> None:
        self._taxonomy = taxonomy
        self._find: Callable[[str], str | None] = (
            identity if taxonomy is None else lru_cache(maxsize=None)(taxonomy.find)
        )

    def find(self, issues: IssueLog, line: int, field: str, label: str, **more: Any) -> str | None:
        """Return a label's canonical name; ``None``, and a note, where it has none.

        Further arguments are those of :meth:`IssueLog.reject_label`.
        """
        found = self._find(label)
        if found is None and self._taxonomy is not None:
            issues.reject_label(line, field, label, self._taxonomy, **more)
        return found


def names_by_role(**names: str) -> Mapping[str, tuple[str, ...]]:
    """Return the names of each role, the likeliest first."""
    return {role: tuple(words.split()) for role, words in names.items()}


def check_roles(
    option: str, roles: Iterable[str], known: Collection[str], *, what: str = "a column"
) -> None:
    """Refuse, with a ``ConfigError``, a role that no column or key of a file can have."""
    for role in roles:
        if role not in known:
            raise ConfigError(
                f"{option}.{role}: {what} cannot hold that{did_you_mean(role, known)}; "
                f"what it can hold: {', '.join(known)}"
            )


SESSION_NAMES = (
    "session session_id dialogue_id dialog_id transcript_id conversation_id 会话 会话编号 对话编号"
)
USUAL_NAMES = names_by_role(
    text="text utterance utterance_text response content client_response sentence "
    "文本 内容 话语 回应",
    speaker="speaker role interlocutor 说话人 角色 发言人",
    session=SESSION_NAMES,
    label="label category behavior behaviour code 标签 类别 行为",
    rationale="rationale reason explanation 理由 解释",
    history="history context dialogue_history intervention 历史 上文 语境 背景",
    id="id example_id 编号",
    client="client client_id",
    counselor="counselor counsellor counselor_id counsellor_id therapist_id",
    turn="turn turn_id turn_index turn_number utterance_id utterance_index utterance_number index "
    "话轮 话轮编号 序号",
    start="start start_time begin begin_time onset 开始 开始时间 起始时间",
)
"""What a column can hold, with the names that are recognized in any case."""

ORDER_ROLES = ("turn", "start")
"""Roles of columns that put the rows of a session in order, the one that counts first."""


def find_columns(
    path: Path, names: tuple[str, ...], chosen: Mapping[str, str | bool | None] | None
) -> dict[str, str]:
    """Return the column for each role that a table with the header ``names`` has.

    The user has ``chosen`` names for some roles, and ``False`` for one that no column has; the rest
    are recognized.

    Raises:
        ConfigError: When a chosen role does not exist.
        DataError: When a chosen column is not there, two columns look alike, or none holds the
            text.
    """
    given = {role: column for role, column in (chosen or {}).items() if column is not None}
    check_roles("data.options.columns", given, USUAL_NAMES)
    named = {role: str(column) for role, column in given.items() if column is not False}
    taken = {identity(name) for name in named.values()}
    found = {
        role: require_column(path, names, name, f"correct data.options.columns.{role}")
        for role, name in named.items()
    }
    for role, usual in USUAL_NAMES.items():
        of_example = "speaker" not in found or "history" in found
        if role in given or (role in ORDER_ROLES and of_example):
            continue
        candidates = [n for n in names if fold_name(n) in usual and n not in taken]
        if len(candidates) > 1 and role not in ORDER_ROLES:
            raise DataError(
                f"{path}: columns {candidates[0]!r} and {candidates[1]!r} both look like the "
                f"{role}; say which it is with data.options.columns.{role}=NAME"
            )
        if candidates:
            found[role] = min(candidates, key=lambda n: usual.index(fold_name(n)))
    if "text" not in found:
        usual = USUAL_NAMES["text"]
        close = next(filter(None, (did_you_mean(fold_name(name), usual) for name in names)), "")
        raise DataError(
            f"{path}: {unrecognized(names, found, ('text', 'speaker', 'session'))}{close} "
            "(is the first row a header?)"
        )
    return found


def unrecognized(
    names: Sequence[str], found: Collection[str], roles: Iterable[str], *, what: str = "column"
) -> str:
    """Return a sentence on roles that no column, or key, seems to have; ``""`` for none."""
    missing = [role for role in roles if role not in found]
    if not missing:
        return ""
    so = ", so all rows are taken for one session" if missing == ["session"] else ""
    listed = ", ".join(quote_cell(name) for name in names[:LISTED_FAULTS])
    several = ", ".join(f"{role}: NAME" for role in missing)
    option = f"'data.options.columns={{{several}}}'"
    option = option if len(missing) > 1 else f"data.options.columns.{missing[0]}=NAME"
    return (
        f"no {what} is recognized as {' or '.join(missing)}{so} (there are {listed}); say which it "
        f"is with {option}"
    )


def require_column(path: Path, names: tuple[str, ...], column: str, hint: str) -> str:
    """Return ``column`` as names are compared; a ``DataError`` with ``hint`` for a missing one."""
    column = identity(column)
    if column not in names:
        close = did_you_mean(column, names)
        raise DataError(f"{path}: has no column {column!r}{close}; {hint}")
    return column


def fold_name(name: str) -> str:
    """Return a column's name in the form in which usual names are compared."""
    return identity(name).casefold().replace(" ", "_").replace("-", "_")
