"""What formats of single samples share: several labels on a row, a label above its reason."""

from __future__ import annotations

import re

from recap.data.readers.fields import Fields

_LABEL_KEY = re.compile(r"^(?:behaviou?r|label|category|行为|标签|类别)\s*[:：]\s*", re.IGNORECASE)
_REASON_KEY = re.compile(
    r"^(?:reason|rationale|explanation|理由|原因|解释)\s*[:：]\s*", re.IGNORECASE | re.MULTILINE
)


def single_label(fields: Fields, field: str, labels: list[str], multi_label: str) -> str | None:
    """Return the label of a row that may carry several, ``None`` where it carries none.

    Args:
        fields: The row.
        field: Where the labels stand in it.
        labels: What stands there.
        multi_label: ``first`` takes the first of several (counted as ``multi_label``), ``reject``
            rejects the row.
    """
    distinct = list(dict.fromkeys(label.strip() for label in labels))
    if len(distinct) < 2:
        return distinct[0] if distinct else None
    fields.faults.counts["multi_label"] += 1
    if multi_label == "first":
        return distinct[0]
    reason = f"holds {len(distinct)} labels"
    fields.reject(field, reason, "keep one, or take the first with data.options.multi_label=first")
    return None


def label_and_reason(output: str) -> tuple[str | None, str | None]:
    """Return the label and the rationale of an answer as training files write it.

    The label is the first line, with or without ``Behavior:`` in front; the rationale is what
    follows, with or without ``Reason:``.
    """
    head, _, rest = output.strip().partition("\n")
    label = _LABEL_KEY.sub("", head.strip()).strip()
    reason = _REASON_KEY.sub("", rest.strip(), count=1).strip()
    return label or None, reason or None
