"""The annotation tool Prodigy: what ``db-out`` writes of text classification."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from recap.data.issues import IssueLog
from recap.data.readers.exports import Document, Given, Keys, Rows, register_export, text_id
from recap.data.readers.registry import Fields
from recap.data.readers.tools import ANSWERS


@register_export("prodigy")
def prodigy_documents(rows: Rows, issues: IssueLog, keys: Keys) -> Iterator[Document]:
    """Yield what each row says of its input; only labels that were accepted are labels.

    A row is one answer: ``answer: accept`` with a ``label`` (binary text classification), or with
    the ids of the chosen ``options`` under ``accept`` (choice interface; for a number, the option's
    text). ``reject`` and ``ignore`` give no label and are counted as ``answers_without_label``.
    Which input it is its ``example_id``, ``id``, or one of these in ``meta``, says, else
    ``_input_hash``, else the text; who answered, ``_annotator_id`` or ``_session_id``.
    """
    for line, row in rows:
        fields = Fields(row, line=line, issues=issues)
        meta = row.get("meta")
        everything = {**meta, **row} if isinstance(meta, dict) else row
        text = keys.text(fields, row)
        labels = _labels(fields)
        if fields.sound:
            accepted = row["answer"] == "accept"
            issues.counts["answers_without_label"] += not accepted
            given = Given(
                annotator=keys.name("annotator", row) or "",
                labels=labels if accepted else (),
                rejected=labels if row["answer"] == "reject" else (),
            )
            named = keys.name("id", everything) or keys.name("id", {"id": row.get("_input_hash")})
            yield Document(
                line=line,
                id=named or text_id(text),
                session=keys.name("session", everything),
                text=text,
                given=(given,),
            )


def _labels(fields: Fields) -> tuple[str, ...]:
    """Return the labels that a row is about; a fault where it is not clear what was answered."""
    row = fields.row
    if row.get("answer") not in ANSWERS:
        fields.reject("answer", "is not accept, reject or ignore", "is this a Prodigy export?")
        return ()
    if "accept" not in row:
        if row.get("spans") and row.get("label") is None:
            hint = "export a text classification project"
            fields.reject("spans", "holds marked passages, not a label of the document", hint)
        label = fields.optional_text("label")
        return (label,) if label else ()
    options = row.get("options")
    texts = {
        option["id"]: option.get("text")
        for option in (options if isinstance(options, list) else ())
        if isinstance(option, dict) and isinstance(option.get("id"), str | int)
    }
    return tuple(_chosen(fields, texts, item) for item in fields.items("accept"))


def _chosen(fields: Fields, texts: Mapping[Any, Any], item: Any) -> str:
    """Return the label of a chosen option: its id, or the text behind a number."""
    label = texts.get(item) if isinstance(item, int) and not isinstance(item, bool) else item
    if isinstance(label, str) and label.strip():
        return label.strip()
    fields.reject("accept", "holds something that is no option", "write the options' ids")
    return ""
