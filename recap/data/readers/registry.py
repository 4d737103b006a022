"""The readers that configuration can name, and what they share.

Fields of a JSON row are checked one by one, each fault noted under its field. Which column of a
table holds what follows from what the user says or from the usual names.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
"""``read(path, *, issues, **options)``: yields records and notes bad rows in ``issues``."""

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
    "vtt": "recap.data.readers.vtt",
}
JSON_ENDINGS = (".jsonl", ".json", ".ndjson")
_ENDINGS: dict[Reader, tuple[str, ...]] = {}


def register_reader(
    name: str, *, aliases: Iterable[str] = (), endings: tuple[str, ...] = JSON_ENDINGS
) -> Callable[[Reader], Reader]:
    """Return a decorator that makes a function available as ``data.reader=name``.

    Args:
        name: What configuration calls it.
        aliases: Other names.
        endings: Of the files that it reads of a folder.
    """
    register = READERS.register(name, aliases=aliases)

    def add(reader: Reader) -> Reader:
        _ENDINGS[reader] = endings
        return register(reader)

    return add


def get_reader(name: str) -> Reader:
    """Return the reader that ``name`` (or ``package.module:function``) stands for.

    Raises:
        UnknownNameError: With the closest known name, when there is none.
    """
    # Each module registers its reader when imported; all of them only to list what there is.
    wanted = (
        [_BUILT_IN[name]] if name in _BUILT_IN else _BUILT_IN.values() if ":" not in name else []
    )
    for module in wanted:
        importlib.import_module(module)
    return READERS.get(name)


def files_to_read(name: str, path: Path) -> list[Path]:
    """Return the files that ``data.path`` names for a reader: one, a folder's, or a pattern's.

    A reader that is not registered is given a folder as it is.

    Raises:
        DataError: When a folder or a pattern holds no file that it reads.
        UnknownNameError: When there is no such reader.
    """
    endings = _ENDINGS.get(get_reader(name))
    return [path] if endings is None and path.is_dir() else input_files(path, endings)


def check_options(name: str, reader: Reader, options: Mapping[str, Any]) -> None:
    """Check that a reader takes every option it is given.

    Raises:
        ConfigError: When it is no reader, or naming the first option that it does not take.
    """
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
    """Return ``value`` when it is one of ``choices``.

    Raises:
        ConfigError: Naming the option and its choices.
    """
    choices = list(choices)
    if value not in choices:
        raise ConfigError(
            f"{prefix}{option} must be {' or '.join(choices)}, not {value!r}"
            f"{did_you_mean(str(value), choices)}"
        )
    return str(value)


class Fields:
    """The fields of one row; anything wrong with one is noted and makes ``sound`` false.

    Args:
        row: The row.
        line: Where it begins.
        issues: Where its faults are noted.
        within: What stands before the names of its fields in messages.
        rows: Rows of the file that are lost with it.
        keys: Names that fields have in this file, where it calls them otherwise.
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
        value = self.value(field)
        if isinstance(value, str):
            return self._undamaged(field, value)
        reason = "is missing" if self.key(field) not in self.row else "is no text"
        self.reject(field, reason, f'write "{self.key(field)}": "..."')
        return ""

    def optional_text(self, field: str) -> str | None:
        """Return a text, or ``None`` where there is none."""
        value = self.value(field)
        if value is None:
            return None
        if isinstance(value, str):
            return self._undamaged(field, value).strip()
        self.reject(field, "is no text", f'write "{self.key(field)}": "...", or leave it out')
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

    def mapping(self, field: str) -> Mapping[str, Any]:
        """Return an object, empty where there is none."""
        value = self.value(field)
        if value is None:
            return {}
        if isinstance(value, dict):
            return value
        self.reject(field, "is no object", f'write "{self.key(field)}": {{...}}, or leave it out')
        return {}

    def items(self, field: str) -> list[Any]:
        """Return a list that must be there."""
        value = self.value(field)
        if isinstance(value, list):
            return value
        reason = "is missing" if self.key(field) not in self.row else "is no list"
        self.reject(field, reason, f'write "{self.key(field)}": [...]')
        return []


class CanonicalLabels:
    """The labels of a file under their canonical names, each looked up once.

    Args:
        taxonomy: Where they are looked up; ``None`` leaves them as they stand.
    """

    def __init__(self, taxonomy: Taxonomy | None) -> None:
        self._taxonomy = taxonomy
        self._known: dict[str, str] = {}

    def find(self, issues: IssueLog, line: int, field: str, label: str, **more: Any) -> str | None:
        """Return a label's canonical name; ``None``, and a note, where it has none.

        Further arguments are those of :meth:`IssueLog.reject_label`.
        """
        if self._taxonomy is None:
            return identity(label)
        if label not in self._known:
            found = self._taxonomy.find(label)
            if found is None:
                issues.reject_label(line, field, label, self._taxonomy, **more)
                return None
            self._known[label] = found
        return self._known[label]


USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    role: tuple(names.split())
    for role, names in {
        "text": "text utterance utterance_text response content client_response sentence "
        "文本 内容 话语 回应",
        "speaker": "speaker role interlocutor 说话人 角色 发言人",
        "session": "session session_id dialogue_id dialog_id transcript_id conversation_id "
        "会话 会话编号 对话编号",
        "label": "label category behavior behaviour code 标签 类别 行为",
        "rationale": "rationale reason explanation 理由 解释",
        "history": "history context dialogue_history intervention 历史 上文 语境 背景",
        "id": "id example_id 编号",
        "client": "client client_id",
        "counselor": "counselor counsellor counselor_id counsellor_id therapist_id",
        "turn": "turn turn_id turn_index turn_number utterance_id utterance_index "
        "utterance_number index 话轮 话轮编号 序号",
        "start": "start start_time begin begin_time onset 开始 开始时间 起始时间",
    }.items()
}
"""What a column can hold, with the names that are recognized in any case."""

ORDER_ROLES = ("turn", "start")
"""Roles of columns that put the rows of a session in order, the one that counts first."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The name of the column for each thing that the table holds."""

    by_role: Mapping[str, str]

    def __contains__(self, role: str) -> bool:
        """Whether the table has a column for ``role``."""
        return role in self.by_role

    def value(self, row: Mapping[str, str], role: str) -> str:
        """Return the cell for ``role`` without outer blanks, ``""`` without such a column."""
        return row[self.by_role[role]].strip() if role in self.by_role else ""


def find_columns(
    path: Path, names: tuple[str, ...], chosen: Mapping[str, str | bool | None] | None
) -> Columns:
    """Return the columns of a table with the header ``names``.

    Args:
        path: The file, for messages.
        names: The columns of its header.
        chosen: Names that the user gave for some of the roles, ``False`` for one that no column
            has; the rest (``None``) are recognized.

    Raises:
        ConfigError: When a chosen role does not exist.
        DataError: When a chosen column is not there, two columns look alike, or none holds the
            text.
    """
    given = {role: column for role, column in (chosen or {}).items() if column is not None}
    for role in given:
        if role not in USUAL_NAMES:
            raise ConfigError(
                f"data.options.columns.{role}: a column cannot hold that"
                f"{did_you_mean(role, USUAL_NAMES)}; what it can hold: {', '.join(USUAL_NAMES)}"
            )
    named = {role: str(column) for role, column in given.items() if column is not False}
    taken = {identity(name) for name in named.values()}
    found = {
        role: require_column(path, names, name, f"correct data.options.columns.{role}")
        for role, name in named.items()
    }
    for role in USUAL_NAMES:
        of_example = "speaker" not in found or "history" in found
        if (
            role not in found
            and given.get(role) is None
            and not (role in ORDER_ROLES and of_example)
        ):
            candidates = [n for n in names if fold_name(n) in USUAL_NAMES[role] and n not in taken]
            if role in ORDER_ROLES:
                usual = USUAL_NAMES[role]
                candidates = sorted(candidates, key=lambda n: usual.index(fold_name(n)))[:1]
            if len(candidates) > 1:
                raise DataError(
                    f"{path}: columns {candidates[0]!r} and {candidates[1]!r} both look like the "
                    f"{role}; say which it is with data.options.columns.{role}=NAME"
                )
            found.update(dict.fromkeys([role] if candidates else [], "".join(candidates)))
    if "text" not in found:
        usual = USUAL_NAMES["text"]
        close = next(
            (did_you_mean(fold_name(n), usual) for n in names if did_you_mean(fold_name(n), usual)),
            "",
        )
        raise DataError(
            f"{path}: {unrecognized(names, found, ('text', 'speaker', 'session'))}{close} "
            "(is the first row a header?)"
        )
    return Columns(by_role=found)


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
    """Return ``column``, in the form in which names are compared, when the header has it.

    Raises:
        DataError: Naming the missing column and ``hint``.
    """
    column = identity(column)
    if column not in names:
        close = did_you_mean(column, names)
        raise DataError(f"{path}: has no column {column!r}{close}; {hint}")
    return column


def fold_name(name: str) -> str:
    """Return a column's name in the form in which usual names are compared."""
    return identity(name).casefold().replace(" ", "_").replace("-", "_")
