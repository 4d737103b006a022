"""The annotation tool Doccano: its exports read, and batches written that it imports.

Exports are JSON lines, CSV, or the older ``annotations`` form.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recap.data.issues import IssueLog
from recap.data.readers.exports import Given, label_of, refuse_export, text_example
from recap.data.readers.files import existing_file, json_rows
from recap.data.readers.registry import JSON_ENDINGS, Fields, one_of, register_reader
from recap.data.readers.speakers import SpeakerNames
from recap.data.readers.tables import read_sheet
from recap.records import Example, Turn
from recap.taxonomy import Taxonomy

_TEXT_KEYS = ("text", "data")
_LABEL_KEYS = ("label", "labels", "cats", "annotations")
_COMMENT_KEYS = ("Comments", "comments")
_MOST_NUMBER = 9999
"""A longer one is no label's, and may be a client's telephone number."""


@register_reader("doccano", endings=(*JSON_ENDINGS, ".csv"))
def read_doccano(
    path: Path | None,
    *,
    issues: IssueLog,
    multi_label: str = "reject",
    label_names: Mapping[Any, str] | None = None,
    speakers: Mapping[str, str] | None = None,
) -> Iterator[Example]:
    """Yield an example for each document; its comments, if any, are the rationale.

    The response is the document's last client turn, as
    :func:`~recap.data.readers.speakers.sample_of` has it.
    ``multi_label`` says what to do with a document of several labels, of one user or of several:
    ``reject`` it, or take the ``first``. ``label_names`` has the label that each number stands for;
    the old ``annotations`` form holds only numbers.
    """
    one_of("multi_label", multi_label, ("reject", "first"))
    path = existing_file(path)
    numbers = {str(number): name for number, name in (label_names or {}).items()}
    names = SpeakerNames(speakers)
    rows = _csv_rows(path, issues) if path.suffix.lower() == ".csv" else json_rows(path, issues)
    for line, row in rows:
        refuse_export(issues, line, row)
        fields = Fields(row, line=line, issues=issues)
        given = user_labels(fields, numbers)
        yield from text_example(
            fields,
            _first_key(row, _TEXT_KEYS),
            names,
            f"{path.stem}:{line}",
            label=label_of(fields, _first_key(row, _LABEL_KEYS), given, multi_label),
            rationale=document_comments(row),
        )


def _csv_rows(path: Path, issues: IssueLog) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a CSV export like those of a JSON one; it joins several labels by ``#``."""
    table = read_sheet(path, issues)
    table.texts.update(("id", "session", "client", *_TEXT_KEYS, *_LABEL_KEYS, *_COMMENT_KEYS))
    for line, row in table.rows:
        filled: dict[str, Any] = {
            key: cell for key, cell in row.items() if cell.strip() or key in _TEXT_KEYS
        }
        key = _first_key(filled, _LABEL_KEYS)
        if key in filled:
            filled[key] = [part for part in filled[key].split("#") if part.strip()]
        yield line, filled


def user_labels(
    fields: Fields, names: Mapping[str, str], *, option: str = "data.options", raw: bool = False
) -> tuple[Given, ...]:
    """Return what each user gave a document; all labels are one's where no user is named.

    ``names`` has the label that each number stands for, which is said in ``option``; where labels
    are ``raw``, a number may be one itself.
    """
    key = _first_key(fields.row, _LABEL_KEYS)
    value = fields.row.get(key)
    if isinstance(value, dict):
        value = [label for label, holds in value.items() if holds]
    items = value if isinstance(value, list) else [value]
    by_user: dict[str, list[str]] = {}
    for item in items:
        label = item.get("label") if isinstance(item, dict) else item
        if isinstance(item, dict) and ("start_offset" in item or "label" not in item):
            label = [item]
        if isinstance(label, int) and not isinstance(label, bool):
            label = names.get(str(label), str(label) if raw and _is_code(label) else label)
        if isinstance(label, str):
            mine = by_user.setdefault(_user(item), [])
            mine += [label] if label.strip() else []
        elif label is not None:
            fields.reject(key, *_no_label(label, option))
            return ()
    return tuple(Given(annotator=user, labels=tuple(own)) for user, own in by_user.items())


def _user(item: object) -> str:
    user = item.get("user") if isinstance(item, dict) else None
    return str(user).strip() if isinstance(user, str | int) else ""


def several_users(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether the old form of an export names more than one user."""
    lists = (row.get("annotations") for row in rows)
    users = {_user(item) for items in lists if isinstance(items, list) for item in items}
    return len(users - {""}) > 1


def _is_code(label: int) -> bool:
    return abs(label) <= _MOST_NUMBER


def _no_label(label: object, option: str) -> tuple[str, str]:
    if isinstance(label, bool) or (isinstance(label, int) and not _is_code(label)):
        return "is neither a text nor the number of a label", "write the label's name"
    if isinstance(label, int):
        return (
            f"number {label} stands for no known label",
            f"say what it means with +{option}.label_names.{label}=NAME",
        )
    if isinstance(label, list):
        return (
            "holds marked passages or texts, not a label of the document",
            "export a text classification project",
        )
    return "is neither a text nor a list of texts", "write the label's name"


def document_comments(row: Mapping[str, Any]) -> str | None:
    """Return the comments on a document, a line each, ``None`` where there are none."""
    comments = row.get(_first_key(row, _COMMENT_KEYS))
    items = comments if isinstance(comments, list) else [comments]
    texts = [item.get("text") if isinstance(item, dict) else item for item in items]
    return (
        "\n".join(text.strip() for text in texts if isinstance(text, str) and text.strip()) or None
    )


def _first_key(row: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    return next((key for key in keys if key in row), keys[0])


_NAMES = {
    "en": {"counselor": "Counselor", "client": "Client"},
    "zh": {"counselor": "咨询师", "client": "来访者"},
}
_SEPARATOR = {"en": ": ", "zh": "："}
_COLOR = "#4d4d4d"


def document_text(example: Example, *, language: str | None = "en") -> str:
    """Return what annotators see: a line a turn, a blank line, then the response.

    Blank lines inside a turn go, so that the last one is where the response begins.
    """
    written = language if language is not None and language in _NAMES else "en"

    def line(turn: Turn) -> str:
        filled = "\n".join(filter(None, map(str.strip, turn.text.split("\n"))))
        return f"{turn.called(_NAMES[written])}{_SEPARATOR[written]}{filled}"

    response = line(Turn(speaker="client", text=example.response))
    if not example.history:
        return response
    return "\n".join(map(line, example.history)) + f"\n\n{response}"


def batch_to_jsonl(
    examples: Iterable[Example],
    *,
    round_name: str,
    language: str | None = "en",
    labels: Mapping[str, str] | None = None,
) -> str:
    """Return the text of a file that Doccano imports as ``JSONL`` (text classification).

    Doccano keeps keys that it does not know and exports them again (seen in its 1.8 source), so an
    example keeps its id and session. ``labels`` are those that stand there beforehand, by example
    id.
    """
    labels = labels or {}
    lines = []
    for example in examples:
        row: dict[str, object] = {
            "text": document_text(example, language=language),
            "label": [labels[example.id]] if example.id in labels else [],
            "example_id": example.id,
        }
        if example.session is not None:
            row["session"] = example.session
        row["round"] = round_name
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    return "".join(lines)


def label_text(taxonomy: Taxonomy, name: str, *, language: str | None) -> str:
    """Return a label as annotators see it, in their language, which the taxonomy reads back."""
    return taxonomy[name].name_in("zh" if language == "zh" else "en")


def labels_to_json(taxonomy: Taxonomy, names: Sequence[str], *, language: str | None) -> str:
    """Return the labels as a file that Doccano imports under Labels, in their colors."""
    rows = [
        {
            "text": label_text(taxonomy, name, language=language),
            "suffixKey": None,
            "backgroundColor": taxonomy[name].color or _COLOR,
            "textColor": "#ffffff",
        }
        for name in names
    ]
    return json.dumps(rows, ensure_ascii=False, indent=2) + "\n"
