"""The annotation tool INCEpTION: UIMA CAS JSON 0.4 and WebAnno TSV 3, as it exports a document."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from recap.data.issues import IssueLog
from recap.data.readers.exports import Document, Given, Keys, Rows, register_export
from recap.data.readers.files import read_head, text_lines
from recap.data.readers.registry import JSON_ENDINGS, Fields
from recap.data.readers.speakers import SpeakerNames

_CAS, _TSV = "%FEATURE_STRUCTURES", "#FORMAT=WebAnno TSV 3"
_OWN_LAYER = re.compile(r"^(?:webanno\.)?custom\.(\w+)$|^.*\.type\.(NamedEntity)$")
_TITLE = "documentTitle"
_ESCAPED = re.compile(r"\\(.)")
_NUMBERED = re.compile(r"\[\d+\]$")

Mark = tuple[str, int, int, str]
"""A layer's feature, the first and the last line that are marked (0: the document), a label."""


def is_inception(path: Path) -> bool:
    """Return whether a file begins as an export of INCEpTION does."""
    head = read_head(path).removeprefix(b"\xef\xbb\xbf").lstrip()
    return head.startswith(_TSV.encode()) or (head.startswith(b"{") and b'"%TYPES"' in head)


def inception_rows(path: Path, issues: IssueLog) -> Rows:
    """Return the text, the session and the marks of an export as its one row."""
    text = "".join(text_lines(path, issues))
    if issues.rows_read:
        # A file that breaks off inside a character is told by now.
        return []
    try:
        read = _tsv(text) if text.startswith(_TSV) else _cas(text)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        read = None
    if read is None:
        issues.row()
        hint = "export UIMA CAS JSON 0.4.0 or WebAnno TSV v3.3"
        issues.reject(1, "row", "is no export of INCEpTION, or a broken one", hint)
        return []
    document, title, marks = read
    shown = Path(issues.file)
    # annotation/talk.txt/ann.json: the folder is called like the document.
    name = title or (shown.parent.name if "." in shown.parent.name else shown.stem)
    return [(1, {"text": document, "session": name.removesuffix(".txt"), "marks": marks})]


@register_export("inception", inception_rows, endings=(*JSON_ENDINGS, ".tsv"))
def inception_documents(rows: Rows, issues: IssueLog, keys: Keys) -> Iterator[Document]:
    """Yield a document under the label of a metadata layer, or its client turns under their marks.

    Read are layers of the project's own (``custom.NAME`` or ``webanno.custom.NAME``) and
    NamedEntity, features that hold texts. Where a metadata layer holds the label, the text is a
    context above its response. Else the text is a transcript, each client turn of which is a row
    with the labels of the spans inside it; a span over two turns is a fault. Lines are those of the
    text. The annotator is the file's name, as in ``annotation/talk.txt/ann.json``. Relations,
    links and the export as XMI are not read.
    """
    for _, row in rows:
        marks: list[Mark] = row["marks"]
        question = keys.question(issues, [mark[0] for mark in marks])
        mine = [mark for mark in marks if mark[0] == question]
        session, text = row["session"], row["text"]
        whole = tuple(label for _, first, _, label in mine if not first)
        if whole:
            issues.row()
            given = (Given(annotator="", labels=whole),)
            yield Document(line=1, id=session, session=session, text=text, given=given)
            continue
        names = keys.speakers or SpeakerNames()
        written = names.read_cell(issues, 1, "text", text)
        if written is None:
            issues.row()
            continue
        spoken = [(turn.turn(), turn.line) for turn in written.turns]
        if written.above or not spoken:
            issues.row()
            hint = "name your speakers with data.options.speakers={NAME: client}"
            issues.reject(1, "text", "does not begin with a known speaker", hint)
            continue
        for index, (turn, line) in enumerate(spoken):
            if turn.speaker != "client":
                continue
            issues.row()
            end = spoken[index + 1][1] if index + 1 < len(spoken) else 1 + text.count("\n") + 1
            touching = [m for m in mine if m[1] < end and m[2] >= line]
            fields = Fields({}, line=line, issues=issues)
            if any(m[1] < line or m[2] >= end for m in touching):
                hint = "mark each turn by itself"
                fields.reject("marks", "has a span that goes on over another turn", hint)
            if fields.sound:
                labels = tuple(dict.fromkeys(mark[3] for mark in touching))
                turns = [
                    {"speaker": t.name if t.speaker == "other" else t.speaker, "text": t.text}
                    for t, _ in spoken[: index + 1]
                ]
                yield Document(
                    line=line,
                    id=f"{session}:{index}",
                    session=session,
                    text=turns,
                    given=(Given(annotator="", labels=labels),),
                )


def _cas(text: str) -> tuple[str, str | None, list[Mark]] | None:
    structures = json.loads(text)[_CAS]
    # The type of a structure is a name; arrays and references are not looked at.
    by_type = [(str(one.get("%TYPE")), one) for one in structures]
    texts = [one["sofaString"] for kind, one in by_type if kind == "uima.cas.Sofa"]
    titles = [one[_TITLE] for _, one in by_type if isinstance(one.get(_TITLE), str)]
    if len(texts) != 1 or not isinstance(texts[0], str):
        return None
    # Offsets count UTF-16, as Java does.
    units = texts[0].encode("utf-16-le", "surrogatepass")
    marks: list[Mark] = []
    for kind, one in by_type:
        layer = _layer(kind)
        for feature, label in one.items() if layer else ():
            if isinstance(label, str) and not feature.startswith(("%", "@", "^")) and label.strip():
                first = _line(units, one["begin"]) if "begin" in one else 0
                last = _line(units, one["end"] - 1) if "begin" in one else 0
                marks.append((f"{layer}.{feature}", first, last, label.strip()))
    return texts[0], next(iter(titles), None), marks


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
    for line in text.split("\n"):
        if line.startswith(("#T_SP=", "#T_CH=", "#T_RL=")):
            kind, *features = line[6:].rstrip("\r").split("|")
            layer = _layer(kind) if line.startswith("#T_SP=") else None
            columns += [layer and f"{layer}.{feature}" for feature in features]
        elif line.startswith("#Text="):
            lines.append(_ESCAPED.sub(r"\1", line[6:].rstrip("\r")))
            first = first or len(lines)
        elif line.strip() and not line.startswith("#"):
            if not first:
                raise ValueError("a token outside of a sentence")
            cells = line.rstrip("\r").split("\t")[3:]
            for question, cell in zip(columns, cells, strict=False):
                for label in cell.split("|") if question else ():
                    name = _ESCAPED.sub(r"\1", _NUMBERED.sub("", label))
                    if name not in ("_", "*", ""):
                        marks[(str(question), first, len(lines), name)] = None
        elif not line.strip():
            first = 0
    return "\n".join(lines), None, list(marks)
