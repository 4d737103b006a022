"""The annotation tool Potato: ``annotated_instances`` as it saves them for each annotator."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from recap.data.issues import IssueLog
from recap.data.readers.exports import Document, Given, Keys, Rows, register_export, text_id
from recap.data.readers.registry import Fields

_LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_FREE_TEXT = "text_box"
_SEPARATOR = ":::"


@register_export("potato")
def potato_documents(rows: Rows, issues: IssueLog, keys: Keys) -> Iterator[Document]:
    """Yield what each row of ``annotated_instances.jsonl``, ``.csv`` or ``.tsv`` says.

    JSON lines hold ``{"id" or "instance_id", "displayed_text", "label_annotations": {"scheme":
    {"LABEL": "true"}}}``, tables a column ``scheme:::LABEL`` for each label. An option is chosen
    where its value is true, a number but 0, or its own name. Who answered stands under ``user_id``
    or ``user``, or in the name of the file's folder. Line breaks of the text (``<br>``) are read; a
    text with other HTML is refused. Spans are not read.
    """
    asked: set[str] = set()
    for line, row in rows:
        fields = Fields(row, line=line, issues=issues)
        text = keys.text(fields, row)
        schemes = _schemes(fields)
        asked.update(name for name, options in schemes.items() if _FREE_TEXT not in options)
        question = keys.question(issues, sorted(asked))
        labels = _chosen(fields, schemes.get(question or "", {}))
        if isinstance(text, str):
            text = _LINE_BREAK.sub("\n", text)
            if keys.speakers is not None and _TAG.search(text):
                hint = f"name a key of plain text with {keys.option}.text=NAME"
                fields.reject("text", "holds HTML", hint)
        if fields.sound:
            given = Given(annotator=keys.name("annotator", row) or "", labels=labels)
            yield Document(
                line=line,
                id=keys.name("id", row) or text_id(text),
                session=keys.name("session", row),
                text=text,
                given=(given,),
            )


def _schemes(fields: Fields) -> dict[str, dict[str, Any]]:
    """Return the options of each scheme with their values."""
    row = fields.row
    found: dict[str, dict[str, Any]] = {}
    for key, value in row.items():
        scheme, separator, option = key.partition(_SEPARATOR)
        if separator and value not in (None, ""):
            found.setdefault(scheme, {})[option] = value
    if "label_annotations" in row:
        written = fields.mapping("label_annotations")
        found = {name: options for name, options in written.items() if isinstance(options, dict)}
        if len(found) < len(written):
            reason, hint = "holds a scheme that is no object", 'write {"scheme": {"LABEL": "true"}}'
            fields.reject("label_annotations", reason, hint)
    elif not any(_SEPARATOR in key for key in row):
        fields.reject("label_annotations", "is missing", "is this an export of Potato?")
    return found


def _chosen(fields: Fields, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the options that were chosen; a fault where a value does not say whether it was."""
    chosen, unclear = [], 0
    for option, value in options.items():
        written = str(value).strip()
        written = (written.partition(_SEPARATOR)[2] or written).casefold()
        is_number = written.isdecimal() and written.strip("0") != ""
        if is_number or written in ("true", "on", "yes", option.casefold()):
            chosen.append(option)
        elif written not in ("", "false", "none", "null"):
            # The tenth option of some projects has the key 0.
            unclear += written != "0" or len(options) == 1
    if unclear:
        reason = "has values that do not say which option was chosen"
        fields.reject("label_annotations", reason, "choose a scheme of labels, not of texts")
    return tuple(chosen)
