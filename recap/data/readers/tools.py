"""Which annotation tool wrote a file, told by marks that nothing else has.

A reader of other files that met such rows would take for a label what is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recap.data.issues import IssueLog
from recap.errors import DataError

TOOLS = {
    "inception": "INCEpTION",
    "label_studio": "Label Studio",
    "potato": "Potato",
    "prodigy": "Prodigy",
}
"""Readers of tools' exports, with the tools' names."""

ANSWERS = ("accept", "reject", "ignore")
"""What an annotator can answer in Prodigy."""


def tool_of(row: Mapping[str, Any]) -> str | None:
    """Return the reader for the tool that wrote a row of JSON or of a table, if one did."""
    # Doccano exports what was imported along: there, the label is a list.
    if row.get("answer") in ANSWERS and not isinstance(row.get("label"), list):
        return "prodigy" if "text" in row or "_input_hash" in row else None
    if isinstance(row.get("label_annotations"), dict):
        return "potato"
    if any(":::" in key for key in row) and ("displayed_text" in row or "instance_id" in row):
        return "potato"
    if "%FEATURE_STRUCTURES" in row:
        return "inception"
    tasks = row.get("annotations", row.get("completions"))
    if isinstance(row.get("data"), dict) and isinstance(tasks, list):
        return "label_studio"
    return "label_studio" if row.keys() >= {"annotator", "annotation_id", "lead_time"} else None


def refuse_export(issues: IssueLog, line: int, row: Mapping[str, Any]) -> None:
    """Refuse a row that an annotation tool wrote, in a file that is read as another one.

    Raises:
        DataError: Naming the reader for it.
    """
    tool = tool_of(row)
    if tool is not None:
        raise DataError(
            f"{issues.file}:{line}: this is an export of {TOOLS[tool]}; read it with data={tool}"
        )
