"""What annotation tools export: documents, and the labels that each annotator gave them.

Of a data set the labels of a document add up to one; for agreement each annotator's stands alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from recap.data.issues import IssueLog
from recap.data.readers.files import existing_file
from recap.data.readers.json_samples import single_label, text_example
from recap.data.readers.registry import JSON_ENDINGS, Fields, one_of, register_reader
from recap.data.readers.speakers import SpeakerNames
from recap.data.readers.tables import TABLE_ENDINGS, read_rows
from recap.errors import ConfigError, DataError, did_you_mean, quote_id
from recap.records import Example, Turn

KEYS: Mapping[str, tuple[str, ...]] = {
    "id": ("example_id", "id", "instance_id"),
    "session": ("session", "session_id", "dialogue_id", "conversation_id"),
    "text": (
        *("text", "dialogue", "dialog", "conversation", "utterance", "displayed_text"),
        *("文本", "对话"),
    ),
    "label": (),
    "annotator": ("annotator", "_annotator_id", "_session_id", "user_id", "user"),
}
"""What a key of an export can hold, with the usual names, the likeliest first."""

Rows = Iterable[tuple[int, Mapping[str, Any]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """What one annotator gave a document."""

    annotator: str
    """Empty where the export does not say who it was."""
    labels: tuple[str, ...]
    """None for an answer that is no label: skipped, ignored, rejected."""
    rejected: tuple[str, ...] = ()
    """Labels of which the annotator said that they are wrong."""
    rationale: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One document of an export, or what one annotator said of it."""

    line: int
    id: str
    text: Any
    """A text, or a list of turns as the export writes them."""
    given: tuple[Given, ...]
    session: str | None = None
    rows: int = 1
    """Rows of the file that it is made of."""


Documents = Callable[[Rows, IssueLog, "Keys"], Iterator[Document]]
"""How a tool's rows become documents."""


class Keys:
    """Which keys of an export hold what: those that the user named, else the usual ones.

    Args:
        chosen: Names by role.
        option: What the user names them with.
        speakers: Who speaks in the documents; ``None`` where their texts are not needed.

    Raises:
        ConfigError: For a role that no key can have, or several names for one.
    """

    def __init__(
        self, chosen: Mapping[str, Any] | None, *, option: str, speakers: SpeakerNames | None
    ) -> None:
        self._chosen = {role: name for role, name in (chosen or {}).items() if name is not None}
        self.option = option
        self.speakers = speakers
        for role, name in self._chosen.items():
            if not isinstance(name, str):
                raise ConfigError(f"{option}.{role}: an export has one key for it; name that")
            if role not in KEYS:
                raise ConfigError(
                    f"{option}.{role}: a key of an export cannot hold that"
                    f"{did_you_mean(role, KEYS)}; what it can hold: {', '.join(KEYS)}"
                )

    def value(self, role: str, row: Mapping[str, Any]) -> Any:
        """Return what a row holds in a role, ``None`` where it holds nothing."""
        names = (self._chosen[role],) if role in self._chosen else KEYS[role]
        return next((row[name] for name in names if row.get(name) not in (None, "")), None)

    def name(self, role: str, row: Mapping[str, Any]) -> str | None:
        """Return the id in a role as text; ``None`` where a row holds none."""
        value = self.value(role, row)
        return str(value).strip() or None if isinstance(value, str | int) else None

    def text(self, fields: Fields, row: Mapping[str, Any]) -> Any:
        """Return a document's text, or its list of turns; a fault where it is not clear which."""
        if self.speakers is None:
            return self.value("text", row)
        there = [name for name in KEYS["text"] if row.get(name)]
        if "text" not in self._chosen and len(there) > 1:
            reason = f"{there[0]!r} and {there[1]!r} both look like the text"
            fields.reject("text", reason, f"say which it is with {self.option}.text=NAME")
            return None
        found = self.value("text", row)
        if isinstance(found, str) and found.lstrip().startswith("[{"):
            # In a table, a list of turns is written as text.
            found = _json_list(found)
            if found is None:
                fields.reject("text", "begins like a list and is no JSON", "export it as JSON")
        elif not isinstance(found, str | list):
            hint = f"name the key that holds the document with {self.option}.text=NAME"
            fields.reject("text", "is missing" if found is None else "is no text", hint)
        return found

    def question(self, issues: IssueLog, asked: Iterable[str]) -> str | None:
        """Return the question of several in a project whose answers are the labels.

        Raises:
            DataError: When it is not clear which, or there is none of the name that was given.
        """
        names = list(dict.fromkeys(asked))
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
        return chosen if chosen is not None else next(iter(names), None)


def _json_list(text: str) -> list[Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def text_id(text: Any) -> str:
    """Return an id for a document that has none: a hash of its text, the same in every export."""
    if text is None:
        return ""
    return blake2b(str(text).encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def register_export(
    name: str,
    rows: Callable[[Path, IssueLog], Rows] = read_rows,
    *,
    endings: tuple[str, ...] = (*JSON_ENDINGS, *TABLE_ENDINGS),
) -> Callable[[Documents], Documents]:
    """Return a decorator that makes a reader of what turns a tool's rows into documents.

    The reader yields an example for each document; the file is read whole, and what several rows
    say of one document is put together. A text is split into history and response at its last
    blank line, else before a closing client turn; a list of turns has to end with the client's. Its
    options are ``columns`` (names of the keys that are not recognized, as ``{role: name}``; those
    of :data:`KEYS`, ``label`` for the choice where a project has several), ``speakers`` (names of
    speakers beside the usual ones, each with its role), and ``multi_label``: what to do with a
    document of several labels, of one annotator or of several: ``reject`` it, or take the
    ``first``.
    """

    def register(documents: Documents) -> Documents:
        def read(
            path: Path | None,
            *,
            issues: IssueLog,
            columns: Mapping[str, str | None] | None = None,
            speakers: Mapping[str, str] | None = None,
            multi_label: str = "reject",
        ) -> Iterator[Example]:
            one_of("multi_label", multi_label, ("reject", "first"))
            path = existing_file(path)
            names = SpeakerNames(speakers)
            keys = Keys(columns, option="data.options.columns", speakers=names)
            for document in _gathered(documents(rows(path, issues), issues, keys)):
                example = _example(document, issues, names, multi_label)
                if example is not None:
                    issues.at(document.line, rows=document.rows)
                    yield example

        register_reader(name, endings=endings)(read)
        return documents

    return register


def _gathered(documents: Iterable[Document]) -> list[Document]:
    """Return documents with all that was said of each; one id with two texts stays two."""
    found: dict[tuple[str, str], Document] = {}
    for document in documents:
        key = (document.id, str(document.text))
        there = found.get(key)
        if there is None:
            found[key] = document
        else:
            given = (*there.given, *document.given)
            found[key] = replace(there, given=given, rows=there.rows + document.rows)
    return list(found.values())


def _example(
    document: Document, issues: IssueLog, names: SpeakerNames, multi_label: str
) -> Example | None:
    """Return a document as an example under the one label given to it; ``None`` and a fault."""
    row = {"id": document.id, "session": document.session, "text": document.text}
    fields = Fields(row, line=document.line, issues=issues, rows=document.rows)
    labels = [label for one in document.given for label in one.labels]
    annotators = len({one.annotator for one in document.given if one.labels})
    label = single_label(fields, "label", labels, multi_label, annotators=annotators)
    if multi_label == "reject" and {no for one in document.given for no in one.rejected} & {
        *labels
    }:
        hint = "settle it, or take what was accepted with data.options.multi_label=first"
        fields.reject("label", "is accepted in one answer and rejected in another", hint)
    reasons = [one.rationale for one in document.given if one.rationale]
    rationale = "\n".join(reasons) or None
    if isinstance(document.text, str):
        example = text_example(
            fields,
            "text",
            names,
            fallback_id=document.id,
            label=label,
            rationale=rationale,
        )
    else:
        turns = _turns(fields, document.text, names)
        example = Example(
            id=document.id,
            session=document.session,
            history=turns[:-1],
            response=turns[-1].text if turns else "",
            label=label,
            rationale=rationale,
        )
    return example if fields.sound else None


def _turns(fields: Fields, items: Sequence[Any], names: SpeakerNames) -> tuple[Turn, ...]:
    """Return a list such as ``[{"author": ..., "text": ...}]``, which ends with the client."""
    turns: list[Turn] = []
    for index, item in enumerate(items):
        row = item if isinstance(item, dict) else {}
        who = next((row[key] for key in SPEAKER_KEYS if isinstance(row.get(key), str)), None)
        said = next((row[key] for key in TEXT_KEYS if isinstance(row.get(key), str)), None)
        voice = names.find(who) if who is not None else None
        if who is None or said is None:
            reason = "has no speaker or no text"
            fields.reject(f"text[{index}]", reason, 'write {"author": "...", "text": "..."}')
        elif voice is None:
            fields.sound = False
            names.reject_cell(fields.issues, fields.line, "text", who, rows=fields.rows)
        else:
            turns.append(Turn(speaker=voice.speaker, name=voice.name, text=said.strip()))
    if fields.sound and (not turns or turns[-1].speaker != "client"):
        fields.reject("text", "does not end with the client", "give labels to client turns alone")
    return tuple(turns)


SPEAKER_KEYS = ("speaker", "author", "role", "from", "name")
"""Keys under which chats and tools name who speaks, the likeliest first."""
TEXT_KEYS = ("text", "content", "value", "utterance", "message")
"""Keys under which they keep what is said."""
