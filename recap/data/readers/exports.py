"""What annotation tools export: documents, and the labels that each annotator gave them.

Of a data set the labels of a document add up to one; for agreement each annotator's stands alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from recap.data.issues import IssueLog
from recap.data.readers.registry import USUAL_NAMES, Fields, check_roles, names_by_role
from recap.data.readers.speakers import SpeakerNames, sample_of
from recap.errors import ConfigError, DataError, did_you_mean, quote_id
from recap.records import Example, Turn

KEYS = names_by_role(
    id="example_id id instance_id _input_hash",
    session="session session_id dialogue_id conversation_id",
    text="text dialogue dialog conversation utterance displayed_text 文本 对话",
    label="",
    annotator="annotator _annotator_id _session_id user_id user",
    round="round",
)
"""What a key of an export can hold, with the usual names, the likeliest first."""

SPEAKER_KEYS = ("speaker", "author", "role", "from", "name")
"""Keys under which chats and tools name who speaks, the likeliest first."""
_SAYS_WHO = {*USUAL_NAMES["speaker"], "author"}
TEXT_KEYS = ("text", "content", "value", "utterance", "message")
"""Keys under which they keep what is said."""

TOOLS = {
    "inception": "INCEpTION",
    "label_studio": "Label Studio",
    "potato": "Potato",
    "prodigy": "Prodigy",
}
"""Readers of tools' exports, with the tools' names."""

ANSWERS = ("accept", "reject", "ignore")
"""What an annotator can answer in Prodigy."""

Rows = Iterable[tuple[int, Mapping[str, Any]]]


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
    """Refuse, by a ``DataError``, a row that an annotation tool wrote and another reader reads.

    Its label may be one that was rejected.
    """
    tool = tool_of(row)
    if tool is not None:
        raise DataError(
            f"{issues.file}:{line}: this is an export of {TOOLS[tool]}; read it with data={tool}"
        )


def refuse_turn(fields: Fields, row: Mapping[str, Any], text: str, names: SpeakerNames) -> None:
    """Refuse, by a ``DataError``, a row that is a turn, said by another than the client.

    Documents are texts that name their own speakers.
    """
    for key, cell in row.items():
        if key.strip().casefold() not in _SAYS_WHO or not isinstance(cell, str):
            continue
        voice = names.find(cell)
        if voice is not None and voice.speaker != "client" and not names.read(text).turns:
            raise DataError(
                f"{fields.issues.file}:{fields.line}: {quote_id(key)} says that the "
                f"{voice.speaker} speaks, so that a row is a turn and not a text with what came "
                "before it; read such rows with data=table (CSV, Excel) or data=dialogues (JSON "
                "lines), and give a tool the dialogue up to the client's turn as one document"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """What one annotator gave a document."""

    annotator: str = ""
    """Empty where the export does not say who it was."""
    labels: tuple[str, ...] = ()
    """None for an answer that is no label: skipped, ignored, rejected."""
    rejected: tuple[str, ...] = ()
    """Labels of which the annotator said that they are wrong."""
    rationale: str | None = None
    other: bool = False
    """Whether the answer holds something, and nothing that could be a label: a rating, say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One document of an export, or what one annotator said of it."""

    line: int
    id: str
    text: Any
    """A text, or a list of turns as the export writes them."""
    given: tuple[Given, ...]
    session: str | None = None
    round: str | None = None
    rows: int = 1
    """Rows of the file that it is made of."""


class Keys:
    """Which keys hold what: those that the user named (a ``ConfigError`` for others), or usual."""

    def __init__(
        self,
        chosen: Mapping[str, Any] | None,
        *,
        option: str,
        speakers: SpeakerNames,
        texts: bool = True,
    ) -> None:
        self._chosen = {role: name for role, name in (chosen or {}).items() if name is not None}
        self.option = option
        self.speakers = speakers
        self.texts = texts
        self._asked: dict[str, None] = {}
        for role, name in self._chosen.items():
            if not isinstance(name, str):
                raise ConfigError(f"{option}.{role}: an export has one key for it; name that")
            check_roles(option, [role], KEYS, what="a key of an export")

    def value(self, role: str, row: Mapping[str, Any]) -> Any:
        """Return what a row holds in a role, ``None`` where it holds nothing."""
        names = (self._chosen[role],) if role in self._chosen else KEYS[role]
        return next((row[name] for name in names if row.get(name) not in (None, "")), None)

    def name(self, role: str, row: Mapping[str, Any]) -> str:
        """Return the id in a role as text, empty where a row holds none."""
        value = self.value(role, row)
        return str(value).strip() if isinstance(value, str | int) else ""

    def text(self, fields: Fields, row: Mapping[str, Any]) -> Any:
        """Return a document's text, or its list of turns; a fault where it is not clear which."""
        found = self.value("text", row)
        if not self.texts:
            return found
        # A text beside its context is not the whole of it.
        there = [name for name in (*KEYS["text"], "context", "history") if row.get(name)]
        if "text" not in self._chosen and len(there) > 1:
            reason = f"{there[0]!r} and {there[1]!r} both look like the text"
            fields.reject("text", reason, f"say which it is with {self.option}.text=NAME")
        elif isinstance(found, str) and found.lstrip().startswith("[{"):
            # In a table, a list of turns is written as text.
            found = json_value(fields, "text", found)
        elif not isinstance(found, str | list):
            hint = f"name the key that holds the document with {self.option}.text=NAME"
            fields.reject("text", "is missing" if found is None else "is no text", hint)
        if isinstance(found, str):
            refuse_turn(fields, row, found, self.speakers)
        return found

    def question(self, issues: IssueLog, asked: Iterable[str]) -> str:
        """Return the question of those in a project whose answers are the labels, ``""`` for none.

        Raises:
            DataError: When it is not clear which, or there is none of the name that was given.
        """
        self._asked.update(dict.fromkeys(asked))
        names = list(self._asked)
        chosen = self._chosen.get("label")
        # Where a table has lost its header, a client's words stand there.
        listed = ", ".join(quote_id(name) for name in names[:5])
        if chosen is not None and names and chosen not in names:
            close = did_you_mean(chosen, [name for name in names if name.isidentifier()])
            raise DataError(
                f"{issues.file}: has no choice {quote_id(chosen)}{close}; correct "
                f"{self.option}.label, one of {listed}"
            )
        if chosen is None and len(names) > 1:
            raise DataError(
                f"{issues.file}: has {len(names)} choices ({listed}); say which one is the label "
                f"with {self.option}.label=NAME"
            )
        return chosen if chosen is not None else next(iter(names), "")


def json_value(fields: Fields, field: str, text: str) -> Any:
    """Return what stands in a cell as JSON; a fault where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        fields.reject(field, "begins like JSON and is none", "export it as JSON")
        return None


def documents(
    rows: Rows, issues: IssueLog, keys: Keys, answers: Callable[[Fields, Keys], tuple[Given, ...]]
) -> list[Document]:
    """Return the documents of an export with all that was said of each.

    Id, session and text stand in a row, its ``data`` or its ``meta``. One id with two texts stays
    two documents; where texts are not needed, so do rows of two annotators or rounds. A document
    without an id is called by a hash of its text, which is the same in every export. What is no
    label is counted as ``answers_without_label``.
    """
    found: dict[tuple[str | None, ...], Document] = {}
    for line, row in rows:
        fields = Fields(row, line=line, issues=issues)
        body, meta = row.get("data"), row.get("meta")
        if isinstance(body, dict):
            body = {"id": row.get("id"), **body}
        else:
            body = {**meta, **row} if isinstance(meta, dict) else row
        text = keys.text(fields, body)
        given = answers(fields, keys)
        if not fields.sound:
            continue
        written = str(text).encode("utf-8", "surrogatepass")
        of_text = "" if text is None else blake2b(written, digest_size=6).hexdigest()
        unlabeled = [one for one in given if not one.labels]
        issues.counts["answers_without_choice"] += sum(one.other for one in unlabeled)
        issues.counts["answers_without_label"] += sum(not one.other for one in unlabeled)
        document = Document(
            line=line,
            id=keys.name("id", body) or of_text,
            session=keys.name("session", body) or None,
            round=keys.name("round", body) or None,
            text=text,
            given=given,
        )
        apart = () if keys.texts else (document.round, *(one.annotator for one in given))
        key = (document.id, str(text), *apart)
        there = found.setdefault(key, document)
        if there is not document:
            given = (*there.given, *given)
            found[key] = replace(there, given=given, rows=there.rows + 1)
    return list(found.values())


def label_of(
    fields: Fields,
    field: str,
    given: Sequence[Given],
    multi_label: str,
    *,
    option: str = "data.options.multi_label",
) -> str | None:
    """Return the one label that answers add up to; ``None``, and maybe a fault, without one.

    Of several (counted as ``multi_label``) it takes the ``first``, or it is to ``reject`` the row,
    also where one answer rejects what another accepts. ``field`` is where the labels stand,
    ``option`` where ``multi_label`` is said.
    """
    known, written = fields.issues.taxonomy, [label for one in given for label in one.labels]
    # One label may be spelled in several ways.
    labels = list(dict.fromkeys((known and known.find(one)) or one.strip() for one in written))
    n = len(labels)
    fields.issues.several_labels(fields.line, labels if multi_label == "first" else ())
    if n > 1 and multi_label == "reject":
        annotators = len({one.annotator for one in given if one.labels})
        of = f" of {annotators} annotators" if annotators > 1 else ""
        mend = "settle it (recap.corpus action=adjudicate)" if of else "keep one"
        fields.reject(
            field, f"holds {n} labels{of}", f"{mend}, or take the first with {option}=first"
        )
    elif multi_label == "reject" and {no for one in given for no in one.rejected} & {*labels}:
        hint = f"settle it, or take what was accepted with {option}=first"
        fields.reject(field, "is accepted in one answer and rejected in another", hint)
    return labels[0] if labels else None


def rationale_of(given: Sequence[Given]) -> str | None:
    """Return the reasons that annotators gave, a line each."""
    return "\n".join(one.rationale for one in given if one.rationale) or None


def document_example(
    document: Document, issues: IssueLog, names: SpeakerNames, multi_label: str
) -> Iterator[Example]:
    """Yield a document as an example under the one label given to it; nothing, and a fault."""
    row = {"id": document.id, "session": document.session, "text": document.text}
    fields = Fields(row, line=document.line, issues=issues, rows=document.rows)
    label = label_of(fields, "label", document.given, multi_label)
    rationale = rationale_of(document.given)
    return text_example(fields, "text", names, document.id, label=label, rationale=rationale)


def text_example(
    fields: Fields,
    field: str,
    names: SpeakerNames,
    fallback_id: str,
    *,
    label: str | None,
    rationale: str | None,
) -> Iterator[Example]:
    """Yield the example of a row, where nothing is wrong with it.

    A text is a context above its response; there may also be a list of turns.
    """
    history: tuple[Turn, ...] = ()
    response = ""
    if isinstance(fields.row.get(field), list):
        *before, last = _turns(fields, field, names)
        history, response = tuple(before), last.text
    else:
        text = fields.text(field)
        refuse_turn(fields, fields.row, text, names)
        written = names.read_cell(fields.issues, fields.line, field, text, rows=fields.rows)
        if written is None:
            fields.sound = False
        else:
            history, response, fault = sample_of(written)
            if fault is not None:
                fields.reject(field, *fault)
    example = Example(
        id=fields.identifier("id") or fallback_id,
        session=fields.identifier("session"),
        client=fields.identifier("client"),
        history=history,
        response=response,
        label=label,
        rationale=rationale,
    )
    if fields.sound:
        fields.issues.at(fields.line, rows=fields.rows)
        yield example


def _turns(fields: Fields, field: str, names: SpeakerNames) -> list[Turn]:
    """Return a list such as ``[{"author": ..., "text": ...}]``, which ends with the client."""
    turns: list[Turn] = []
    rows = [item if isinstance(item, dict) else {} for item in fields.row[field]]
    found = [
        [next((row[key] for key in keys if isinstance(row.get(key), str)), None) for row in rows]
        for keys in (SPEAKER_KEYS, TEXT_KEYS)
    ]
    names.hear(filter(None, found[0]))
    for index, (who, said) in enumerate(zip(*found, strict=True)):
        if who is None or said is None:
            reason = "has no speaker or no text"
            fields.reject(f"{field}[{index}]", reason, 'write {"author": "...", "text": "..."}')
        elif voice := names.voice(fields.issues, fields.line, field, who, rows=fields.rows):
            turns.append(voice.turn(said.strip()))
        else:
            fields.sound = False
    if fields.sound and (not turns or turns[-1].speaker != "client"):
        fields.reject(field, "does not end with the client", "give labels to client turns alone")
    return turns or [Turn(speaker="client", text="")]
