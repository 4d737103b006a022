"""Which column of a table holds what, from what the user says or from the usual names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from recap.errors import ConfigError, DataError, did_you_mean

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
    }.items()
}
"""What a column can hold, with the names that are recognised in any case."""


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

    def label(self, row: Mapping[str, str]) -> str | None:
        """Return the label, ``None`` where the cell is empty or says that there is none."""
        label = self.value(row, "label")
        return None if label.casefold() in ("", "n/a", "nan", "null") else label


def find_columns(
    path: Path, names: tuple[str, ...], chosen: Mapping[str, str | None] | None
) -> Columns:
    """Return the columns of a table with the header ``names``.

    Args:
        path: The file, for messages.
        names: The columns of its header.
        chosen: Names that the user gave for some of the roles; the rest (``None``) are
            recognised.

    Raises:
        ConfigError: When a chosen role does not exist.
        DataError: When a chosen column is not there, two columns look alike, or none holds the
            text.
    """
    named = {role: column for role, column in (chosen or {}).items() if column is not None}
    for role in named:
        if role not in USUAL_NAMES:
            raise ConfigError(
                f"data.options.columns.{role}: a column cannot hold that"
                f"{did_you_mean(role, USUAL_NAMES)}; what it can hold: {', '.join(USUAL_NAMES)}"
            )
    taken = set(named.values())
    found = {role: _chosen_column(path, names, role, name) for role, name in named.items()}
    for role in USUAL_NAMES:
        if role not in found:
            candidates = [n for n in names if _folded(n) in USUAL_NAMES[role] and n not in taken]
            if len(candidates) > 1:
                raise DataError(
                    f"{path}: columns {candidates[0]!r} and {candidates[1]!r} both look like the "
                    f"{role}; say which it is with data.options.columns.{role}=NAME"
                )
            found.update(dict.fromkeys([role] if candidates else [], "".join(candidates)))
    if "text" not in found:
        usual = USUAL_NAMES["text"]
        close = next(
            (did_you_mean(_folded(n), usual) for n in names if did_you_mean(_folded(n), usual)), ""
        )
        raise DataError(
            f"{path}: none of its {len(names)} columns is called {', '.join(usual[:4])} or the like"
            f"{close}; name the client's text with data.options.columns.text=NAME "
            "(is the first row a header?)"
        )
    return Columns(by_role=found)


def require_column(path: Path, names: tuple[str, ...], column: str, mend: str) -> str:
    """Return ``column`` when the header has it.

    Raises:
        DataError: Naming the missing column and ``mend``.
    """
    if column not in names:
        close = did_you_mean(column, names)
        raise DataError(f"{path}: has no column {column!r}{close}; {mend}")
    return column


def _chosen_column(path: Path, names: tuple[str, ...], role: str, column: str) -> str:
    return require_column(path, names, column, f"correct data.options.columns.{role}")


def _folded(name: str) -> str:
    return name.strip().casefold().replace(" ", "_").replace("-", "_")
