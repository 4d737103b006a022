"""Which column of a file of judgements holds what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recap.data.readers.columns import require_column
from recap.errors import ConfigError, DataError, did_you_mean

USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    role: tuple(names.split())
    for role, names in {
        "id": "example_id id item item_id 编号",
        "turn": "turn turn_index utterance_id 话轮",
        "annotator": "annotator annotator_id rater coder candidate 标注者 标注员 考生",
        "label": "label labels cats annotations category behavior behaviour code client_talk_type "
        "标签 类别 行为",
        "session": "session session_id dialogue_id dialog_id transcript_id conversation_id "
        "会话 会话编号 对话编号",
        "round": "round exam 轮次 考试",
        "rationale": "rationale reason explanation comments 理由 解释",
    }.items()
}
"""What a column can hold, with the names that are recognised in any case, the likeliest first."""


@dataclass(frozen=True, kw_only=True)
class JudgementLayout:
    """How a file of judgements is laid out, where the usual names do not say it."""

    columns: Mapping[str, str | Sequence[str] | None] = field(default_factory=dict)
    """Names of columns by role (the keys of :data:`USUAL_NAMES`); several for the id are joined."""
    annotators: Sequence[str] = ()
    """The columns of a table that has one an annotator."""
    multi_label: str = "reject"
    """What to do with several labels of one annotator: ``reject`` them, or take the ``first``."""
    label_names: Mapping[Any, str] = field(default_factory=dict)
    """The label that each number stands for, in old Doccano exports."""


def check_layout(layout: JudgementLayout) -> None:
    """Check the roles for which columns were named.

    Raises:
        ConfigError: For one that no column can have.
    """
    for role in layout.columns:
        if role not in USUAL_NAMES:
            raise ConfigError(
                f"annotations.columns.{role}: a column cannot hold that"
                f"{did_you_mean(role, USUAL_NAMES)}; what it can hold: {', '.join(USUAL_NAMES)}"
            )


def judgement_columns(
    path: Path, names: tuple[str, ...], layout: JudgementLayout
) -> dict[str, tuple[str, ...]]:
    """Return the columns for each role that a file with the header ``names`` has.

    Raises:
        DataError: When a column that was named is not there, or none holds labels.
    """
    found: dict[str, tuple[str, ...]] = {}
    for role, usual in USUAL_NAMES.items():
        chosen = layout.columns.get(role)
        if chosen is not None:
            wanted = (chosen,) if isinstance(chosen, str) else tuple(chosen)
            mend = f"correct annotations.columns.{role}"
            found[role] = tuple(require_column(path, names, name, mend) for name in wanted)
            continue
        folded = {_folded(name): name for name in reversed(names)}
        known = next((folded[name] for name in usual if name in folded), None)
        if known is not None and known not in layout.annotators:
            found[role] = (known,)
    for name in layout.annotators:
        require_column(path, names, name, "correct annotations.annotators")
    if "label" not in found and not layout.annotators:
        raise DataError(
            f"{path}: no column is called label; name it with annotations.columns.label=NAME"
        )
    return found


def _folded(name: str) -> str:
    return name.strip().casefold().replace(" ", "_").replace("-", "_")
