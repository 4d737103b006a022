"""The annotation tool Label Studio: its exports as JSON, JSON-MIN and CSV."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from recap.data.issues import IssueLog
from recap.data.readers.exports import Document, Given, Keys, Rows, register_export, text_id
from recap.data.readers.registry import Fields

_CHOICES = ("choices", "taxonomy")
_OF_THE_TOOL = ("annotation_id", "created_at", "updated_at", "lead_time", "agreement")


@register_export("label_studio")
def label_studio_documents(rows: Rows, issues: IssueLog, keys: Keys) -> Iterator[Document]:
    """Yield each task of a JSON export, or each annotation of a JSON-MIN, CSV or TSV export.

    Labels are what annotators chose (``choices``, and the last step of a ``taxonomy``); a
    ``textarea`` is the rationale. Annotations that were cancelled or skipped give no label and are
    counted as ``answers_without_label``; predictions of models are not read. In exports other than
    JSON the choices stand between the columns ``id`` and ``annotator``.
    """
    asked: dict[str, None] = {}
    for line, row in rows:
        fields = Fields(row, line=line, issues=issues)
        is_task = isinstance(row.get("data"), dict)
        data: Mapping[str, Any] = row["data"] if is_task else row
        text = keys.text(fields, data)
        given = _annotations(fields, keys, asked) if is_task else (_flat(fields, keys, asked),)
        if fields.sound:
            issues.counts["answers_without_label"] += sum(not one.labels for one in given)
            yield Document(
                line=line,
                id=keys.name("id", {"id": row.get("id"), **data}) or text_id(text),
                session=keys.name("session", data),
                text=text,
                given=given,
            )


def _annotations(fields: Fields, keys: Keys, asked: dict[str, None]) -> tuple[Given, ...]:
    key = "completions" if "completions" in fields.row else "annotations"
    given = []
    for index, annotation in enumerate(fields.items(key)):
        if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
            fields.reject(f"{key}[{index}]", "has no list 'result'", "export it again as JSON")
            continue
        results = [result for result in annotation["result"] if isinstance(result, dict)]
        skipped = annotation.get("was_cancelled") or annotation.get("skipped")
        part = Fields(annotation, line=fields.line, issues=fields.issues, within=f"{key}[{index}].")
        labels = () if skipped else _chosen(part, results, keys, asked)
        fields.sound = fields.sound and part.sound
        reasons = [_value(result, "text") for result in results if result.get("type") == "textarea"]
        reason = "\n".join(str(line) for lines in reasons for line in lines) or None
        who = _annotator(annotation.get("completed_by"))
        given.append(Given(annotator=who, labels=labels, rationale=reason))
    return tuple(given)


def _chosen(
    part: Fields, results: list[dict[str, Any]], keys: Keys, asked: dict[str, None]
) -> tuple[str, ...]:
    """Return the labels that one annotation chose."""
    choices = [result for result in results if result.get("type") in _CHOICES]
    if not choices and any(str(result.get("type")).endswith("labels") for result in results):
        reason = "holds marked passages, not a label of the document"
        part.reject("result", reason, "label tasks with Choices")
    asked.update(dict.fromkeys(str(result.get("from_name")) for result in choices))
    question = keys.question(part.issues, asked)
    labels: list[str] = []
    for result in choices:
        if str(result.get("from_name")) == question:
            labels += _value(result, "choices")
            # A step of a taxonomy is a path; its last part is the label.
            labels += [path[-1] for path in _value(result, "taxonomy") if isinstance(path, list)]
    if not all(isinstance(label, str) for label in labels):
        part.reject("result", "holds a choice that is no text", "export it again as JSON")
        return ()
    return tuple(label for label in labels if label.strip())


def _value(result: Mapping[str, Any], kind: str) -> list[Any]:
    value = result.get("value")
    found = value.get(kind) if isinstance(value, dict) else None
    return found if isinstance(found, list) else [] if found is None else [found]


def _annotator(who: Any) -> str:
    """Return an annotator's name: the e-mail address or the number."""
    if isinstance(who, dict):
        who = who.get("email") or who.get("username") or who.get("id")
    return "" if who is None else str(who).strip()


def _flat(fields: Fields, keys: Keys, asked: dict[str, None]) -> Given:
    """Return what a row of CSV or JSON-MIN says; its choices stand between id and annotator."""
    row = fields.row
    if "annotation_id" not in row or "annotator" not in row:
        fields.reject("data", "is missing", "is this a Label Studio export (JSON, JSON-MIN, CSV)?")
        return Given(annotator="", labels=())
    names = list(row)
    start, end = (names.index(name) if name in names else -1 for name in ("id", "annotator"))
    between = [name for name in names[start + 1 : end] if name not in _OF_THE_TOOL]
    named = keys.value("label", {name: name for name in names})
    asked.update(dict.fromkeys([named] if named is not None else between))
    question = keys.question(fields.issues, asked)
    value = row.get(question or "")
    if isinstance(value, str) and value.startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            fields.reject("label", "is neither a choice nor JSON", "export it again")
    if isinstance(value, dict):
        value = value.get("choices")
    items = value if isinstance(value, list) else [] if value in (None, "") else [value]
    if not all(isinstance(item, str) for item in items):
        fields.reject("label", "holds a choice that is no text", "export it again")
        items = []
    return Given(annotator=_annotator(row.get("annotator")), labels=tuple(items))
