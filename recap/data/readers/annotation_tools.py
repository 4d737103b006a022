"""The annotation tools Label Studio, Prodigy, Potato and INCEpTION: what their exports say.

Of each tool a function returns the answers in one row; what they share is in
:mod:`~recap.data.readers.exports`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from recap.data.issues import IssueLog
from recap.data.readers.exports import (
    ANSWERS,
    KEYS,
    Document,
    Given,
    Keys,
    Rows,
    document_example,
    documents,
    json_value,
)
from recap.data.readers.files import existing_file, read_head, text_lines
from recap.data.readers.registry import (
    JSON_ENDINGS,
    TABLE_ENDINGS,
    Fields,
    Reader,
    one_of,
    register_reader,
)
from recap.data.readers.speakers import SpeakerNames
from recap.data.readers.tables import read_rows
from recap.records import Example

_NO_CHOICE = "holds marked passages or scores, not a label of the document"
_CLASSIFY = "export a text classification project"


def _label_studio(fields: Fields, keys: Keys) -> tuple[Given, ...]:
    """Return the annotations of a task, of JSON, or the one of a row of JSON-MIN, CSV or TSV.

    Labels are what annotators chose (``choices``, and the last step of a ``taxonomy``); a
    ``textarea`` is the rationale. Annotations that were cancelled or skipped give no label;
    predictions of models are not read.
    """
    if not isinstance(fields.row.get("data"), dict):
        return (_label_studio_row(fields, keys),)
    key = "completions" if "completions" in fields.row else "annotations"
    given = []
    for index, annotation in enumerate(fields.items(key)):
        results = annotation.get("result") if isinstance(annotation, dict) else None
        if not isinstance(results, list):
            fields.reject(f"{key}[{index}]", "has no list 'result'", "export it again as JSON")
            continue
        results = [one for one in results if isinstance(one, dict)]
        skipped = annotation.get("was_cancelled") or annotation.get("skipped")
        reasons = [text for one in results for text in _values(one, "textarea", "text")]
        given.append(
            Given(
                annotator=_annotator(annotation.get("completed_by")),
                labels=() if skipped else _chosen(fields, f"{key}[{index}].result", results, keys),
                rationale="\n".join(map(str, reasons)) or None,
                other=not skipped and bool(results) and not any(map(_is_choice, results)),
            )
        )
    return tuple(given)


def _chosen(
    fields: Fields, field: str, results: list[dict[str, Any]], keys: Keys
) -> tuple[str, ...]:
    choices = list(filter(_is_choice, results))
    # A choice about a passage, or about one item of several, says nothing of the whole.
    parts = [o for o in choices if _values(o, str(o["type"]), "start") or "item_index" in o]
    choices = [one for one in choices if one not in parts]
    if not choices and (parts or any(str(one.get("type")).endswith("labels") for one in results)):
        fields.reject(field, _NO_CHOICE, "label tasks with Choices")
    question = keys.question(fields.issues, [str(one.get("from_name")) for one in choices])
    mine = [one for one in choices if str(one.get("from_name")) == question]
    labels = [label for one in mine for label in _values(one, "choices", "choices")]
    # A step of a taxonomy is a path; its last part is the label.
    paths = [path for one in mine for path in _values(one, "taxonomy", "taxonomy")]
    labels += [path[-1] if isinstance(path, list) and path else path for path in paths]
    return _texts(fields, field, labels)


def _is_choice(result: Mapping[str, Any]) -> bool:
    return result.get("type") in ("choices", "taxonomy")


def _values(result: Mapping[str, Any], kind: str, key: str) -> list[Any]:
    value = result.get("value")
    found = value.get(key) if isinstance(value, dict) and result.get("type") == kind else None
    return found if isinstance(found, list) else [] if found is None else [found]


def _texts(fields: Fields, field: str, labels: list[Any]) -> tuple[str, ...]:
    if all(isinstance(label, str) for label in labels):
        return tuple(label for label in labels if label.strip())
    fields.reject(field, "holds a choice that is no text", "export it again as JSON")
    return ()


def _annotator(who: Any) -> str:
    """Return an annotator's name: the e-mail address or the number."""
    if isinstance(who, dict):
        who = who.get("email") or who.get("username") or who.get("id")
    return "" if who is None else str(who).strip()


_NO_CHOICES = {
    *("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement"),
    *KEYS["text"],
    *KEYS["session"],
}


def _label_studio_row(fields: Fields, keys: Keys) -> Given:
    """Return what a row says; its choices stand behind the id, or behind all else.

    The converter writes the data, the id, the choices and what it knows of the annotation, but a
    choice that the first task lacks comes last.
    """
    row = fields.row
    if "annotation_id" not in row or "annotator" not in row:
        fields.reject("data", "is missing", "is this a Label Studio export (JSON, JSON-MIN, CSV)?")
        return Given()
    names = list(row)
    start = min(names.index(name) for name in ("id", "annotator") if name in names)
    chosen = keys.value("label", {name: name for name in names})
    asked = [chosen] if chosen else [n for n in names[start:] if n not in _NO_CHOICES]
    value = row.get(keys.question(fields.issues, asked))
    if isinstance(value, str) and value.startswith("{"):
        value = json_value(fields, "label", value)
    if isinstance(value, dict):
        value = value.get("choices")
    items = value if isinstance(value, list) else [] if value is None else [value]
    return Given(annotator=_annotator(row.get("annotator")), labels=_texts(fields, "label", items))


def _prodigy(fields: Fields, keys: Keys) -> tuple[Given, ...]:
    """Return the one answer of a row; only labels that were accepted are labels.

    ``answer: accept`` stands beside a ``label`` (binary text classification), or beside the ids of
    the chosen ``options`` under ``accept`` (choice interface; for a number, the option's text).
    ``reject`` and ``ignore`` give no label.
    """
    row, labels = fields.row, []
    if row.get("answer") not in ANSWERS:
        fields.reject("answer", "is not accept, reject or ignore", "is this a Prodigy export?")
    elif "accept" in row:
        options = row.get("options")
        shown = (
            [one for one in options if isinstance(one, dict)] if isinstance(options, list) else []
        )
        texts = {str(one["id"]): one.get("text") for one in shown if "id" in one}
        for item in fields.items("accept"):
            # The number of an option says nothing, its text does.
            label = texts.get(str(item), item) if str(item).isdecimal() else item
            if isinstance(label, str) and label.strip():
                labels.append(label.strip())
            else:
                hint = "write the options' ids"
                fields.reject("accept", "holds something that is no option", hint)
    else:
        other = next((key for key in ("spans", "cats") if row.get(key)), None)
        if other and row.get("label") is None:
            fields.reject(other, _NO_CHOICE, _CLASSIFY)
        labels = list(filter(None, [fields.optional_text("label")]))
    return (
        Given(
            annotator=keys.name("annotator", row),
            labels=tuple(labels) if row.get("answer") == "accept" else (),
            rejected=tuple(labels) if row.get("answer") == "reject" else (),
        ),
    )


_LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_SEPARATOR = ":::"


def _potato(fields: Fields, keys: Keys) -> tuple[Given, ...]:
    """Return what the one annotator of a row of ``annotated_instances`` chose.

    JSON lines hold ``{"label_annotations": {"scheme": {"LABEL": "true"}}}``, tables a column
    ``scheme:::LABEL`` for each label. An option is chosen where its value is true, a number but 0,
    or its own name. Line breaks of the text (``<br>``) are read; other HTML is refused.
    """
    text = keys.value("text", fields.row)
    if keys.texts and isinstance(text, str) and _TAG.search(text):
        hint = f"name a key of plain text with {keys.option}.text=NAME"
        fields.reject("text", "holds HTML", hint)
    schemes = _schemes(fields)
    spans = fields.row.get("span_annotations")
    if not schemes and (any(spans.values()) if isinstance(spans, dict) else spans):
        fields.reject("span_annotations", _NO_CHOICE, "label whole documents")
    asked = sorted(name for name, options in schemes.items() if "text_box" not in options)
    options = schemes.get(keys.question(fields.issues, asked), {})
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
    return (Given(annotator=keys.name("annotator", fields.row), labels=tuple(chosen)),)


def _with_line_breaks(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _LINE_BREAK.sub("\n", v) if isinstance(v, str) else v for k, v in row.items()}


def _schemes(fields: Fields) -> dict[str, dict[str, Any]]:
    """Return the options of each scheme with their values."""
    found: dict[str, dict[str, Any]] = {}
    if "label_annotations" in fields.row:
        written = fields.mapping("label_annotations")
        found = {name: options for name, options in written.items() if isinstance(options, dict)}
        if len(found) < len(written):
            reason, hint = "holds a scheme that is no object", 'write {"scheme": {"LABEL": "true"}}'
            fields.reject("label_annotations", reason, hint)
    elif not any(_SEPARATOR in key for key in fields.row):
        fields.reject("label_annotations", "is missing", "is this an export of Potato?")
    for key, value in fields.row.items():
        scheme, separator, option = key.partition(_SEPARATOR)
        if separator and value not in (None, ""):
            found.setdefault(scheme, {})[option] = value
    return found


_CAS, _TSV = "%FEATURE_STRUCTURES", "#FORMAT=WebAnno TSV 3"
_OWN_LAYER = re.compile(r"^(?:webanno\.)?custom\.(\w+)$|^.*\.type\.(NamedEntity)$")
_TITLE = "documentTitle"
_ESCAPED = re.compile(r"\\(.)")
_NUMBERED = re.compile(r"\[\d+\]$")
_STACKED = re.compile(r"(?<!\\)\|")

Mark = tuple[str, int, int, str]
"""A layer's feature, the first and the last line that are marked (0: the document), a label."""


def is_inception(path: Path) -> bool:
    """Return whether a file begins as an export of INCEpTION does."""
    head = read_head(path).removeprefix(b"\xef\xbb\xbf").lstrip()
    return head.startswith(_TSV.encode()) or (head.startswith(b"{") and b'"%TYPES"' in head)


def _inception_rows(path: Path, issues: IssueLog, keys: Keys) -> Rows:
    """Yield a row for the document where a metadata layer labels it, else one a client turn.

    Read are layers of the project's own (``custom.NAME`` or ``webanno.custom.NAME``) and
    NamedEntity, features that hold texts. The text of a document with a label is a context above
    its response. Else it is a transcript, each client turn of which has the labels of the spans
    inside it; a span over two turns is a fault. Lines are those of the text. The annotator is the
    file's name, as in ``annotation/talk.txt/ann.json``. Relations, links and the export as XMI are
    not read.
    """
    text = "".join(text_lines(path, issues))
    if issues.rows_read:
        # A file that breaks off inside a character is told by now.
        return
    try:
        text, title, marks = _tsv(text) if text.startswith(_TSV) else _cas(text)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        issues.row()
        hint = "export UIMA CAS JSON 0.4.0 or WebAnno TSV v3.3"
        issues.reject(1, "row", "is no export of INCEpTION, or a broken one", hint)
        return
    shown = Path(issues.file)
    # annotation/talk.txt/ann.json: the folder is called like the document.
    name = title or (shown.parent.name if "." in shown.parent.name else shown.stem)
    row = {"id": name.removesuffix(".txt"), "session": name.removesuffix(".txt"), "text": text}
    question = keys.question(issues, [mark[0] for mark in marks])
    mine = [mark for mark in marks if mark[0] == question]
    whole = [label for _, first, _, label in mine if not first]
    if whole:
        issues.row()
        yield 1, {**row, "labels": whole}
    else:
        yield from _marked_turns(row, mine, issues, keys.speakers)


def _marked_turns(
    row: Mapping[str, str], marks: list[Mark], issues: IssueLog, names: SpeakerNames
) -> Rows:
    text = row["text"]
    written = names.read_cell(issues, 1, "text", text)
    if written is None or written.above or not written.turns:
        issues.row()
        if written is not None:
            hint = "name your speakers with data.options.speakers={NAME: client}"
            issues.reject(1, "text", "does not begin with a known speaker", hint)
        return
    said: list[dict[str, str]] = []
    ends = [turn.line for turn in written.turns[1:]] + [text.count("\n") + 2]
    for index, (one, end) in enumerate(zip(written.turns, ends, strict=True)):
        turn = one.turn()
        who = turn.name if turn.speaker == "other" else turn.speaker
        said.append({"speaker": str(who), "text": turn.text})
        if turn.speaker != "client":
            continue
        issues.row()
        touching = [mark for mark in marks if mark[1] < end and mark[2] >= one.line]
        if any(mark[1] < one.line or mark[2] >= end for mark in touching):
            reason = "has a span that goes on over another turn"
            issues.reject(one.line, "marks", reason, "mark each turn by itself")
            continue
        labels = list(dict.fromkeys(mark[3] for mark in touching))
        yield one.line, {**row, "id": f"{row['id']}:{index}", "text": [*said], "labels": labels}


def _cas(text: str) -> tuple[str, str | None, list[Mark]]:
    # The type of a structure is a name; arrays and references are not looked at.
    by_type = [(str(one.get("%TYPE")), one) for one in json.loads(text)[_CAS]]
    (document,) = [one["sofaString"] for kind, one in by_type if kind == "uima.cas.Sofa"]
    titles = [one[_TITLE] for _, one in by_type if isinstance(one.get(_TITLE), str)]
    # Offsets count UTF-16, as Java does.
    units = document.encode("utf-16-le", "surrogatepass")
    marks: list[Mark] = []
    for kind, one in by_type:
        layer = _layer(kind)
        if not layer or "@Dependent" in one:
            continue
        first = last = 0
        if "begin" in one or "end" in one:
            begin, end = one.get("begin", 0), one["end"]
            if not 0 <= begin <= end <= len(units) // 2:
                raise ValueError("a span outside of the text")
            first, last = _line(units, begin), _line(units, max(begin, end - 1))
        marks += [
            (f"{layer}.{feature}", first, last, label.strip())
            for feature, label in one.items()
            if isinstance(label, str) and not feature.startswith(("%", "@", "^")) and label.strip()
        ]
    return document, next(iter(titles), None), marks


def _line(units: bytes, offset: int) -> int:
    return 1 + units[: 2 * offset].decode("utf-16-le", "ignore").count("\n")


def _layer(kind: str) -> str | None:
    found = _OWN_LAYER.match(kind)
    return (found[1] or found[2]) if found else None


def _tsv(text: str) -> tuple[str, str | None, list[Mark]]:
    columns: list[str | None] = []
    lines: list[str] = []
    marks: dict[Mark, None] = {}
    first = 0
    for line in map(str.rstrip, text.split("\n")):
        if line.startswith(("#T_SP=", "#T_CH=", "#T_RL=")):
            kind, *features = line[6:].split("|")
            layer = _layer(kind) if line.startswith("#T_SP=") else None
            columns += [layer and f"{layer}.{feature}" for feature in features]
        elif line.startswith("#Text="):
            lines.append(_ESCAPED.sub(r"\1", line[6:]))
            first = first or len(lines)
        elif line and not line.startswith("#"):
            if not first:
                raise ValueError("a token outside of a sentence")
            for question, cell in zip(columns, line.split("\t")[3:], strict=False):
                for label in _STACKED.split(cell) if question else ():
                    name = _ESCAPED.sub(r"\1", _NUMBERED.sub("", label))
                    if name not in ("_", "*", ""):
                        marks[(str(question), first, len(lines), name)] = None
        elif not line:
            first = 0
    return "\n".join(lines), None, list(marks)


def _inception(fields: Fields, _: Keys) -> tuple[Given, ...]:
    labels = tuple(fields.row["labels"])
    return (Given(labels=labels),) if labels else ()


_ANSWERS: Mapping[str, Callable[[Fields, Keys], tuple[Given, ...]]] = {
    "inception": _inception,
    "label_studio": _label_studio,
    "potato": _potato,
    "prodigy": _prodigy,
}


def tool_documents(
    tool: str, path: Path, issues: IssueLog, keys: Keys, *, rows: Rows | None = None
) -> list[Document]:
    """Return the documents of a tool's export, read whole; ``rows`` are those of its file."""
    if tool == "inception":
        rows = _inception_rows(path, issues, keys)
    rows = read_rows(path, issues) if rows is None else rows
    if tool == "potato":
        rows = ((line, _with_line_breaks(row)) for line, row in rows)
    return documents(rows, issues, keys, _ANSWERS[tool])


def _reader(tool: str) -> Reader:
    def read(
        path: Path | None,
        *,
        issues: IssueLog,
        columns: Mapping[str, str | None] | None = None,
        speakers: Mapping[str, str] | None = None,
        multi_label: str = "reject",
    ) -> Iterator[Example]:
        # columns: names of keys by role; label is the choice, where a project has several.
        one_of("multi_label", multi_label, ("reject", "first"))
        names = SpeakerNames(speakers)
        keys = Keys(columns, option="data.options.columns", speakers=names)
        for document in tool_documents(tool, existing_file(path), issues, keys):
            yield from document_example(document, issues, names, multi_label)

    return read


for _tool in _ANSWERS:
    _own = (*JSON_ENDINGS, ".tsv") if _tool == "inception" else (*JSON_ENDINGS, *TABLE_ENDINGS)
    register_reader(_tool, endings=_own)(_reader(_tool))
