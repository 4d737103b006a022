"""Formats of single samples: alpaca, ClientResistance, PsyGUARD.

A sample may carry several labels, or a label above its reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from recap.data.issues import IssueLog
from recap.data.readers.exports import (
    Given,
    label_of,
    refuse_export,
    refuse_turn,
    text_example,
)
from recap.data.readers.files import existing_file, json_rows
from recap.data.readers.registry import Fields, one_of, register_reader
from recap.data.readers.speakers import SpeakerNames
from recap.records import Example

_LABEL_KEY = re.compile(r"^(?:behaviou?r|label|category|行为|标签|类别)\s*[:：]\s*", re.IGNORECASE)
_REASON_KEY = re.compile(
    r"^(?:reason|rationale|explanation|理由|原因|解释)\s*[:：]\s*", re.IGNORECASE | re.MULTILINE
)


def label_and_reason(output: str) -> tuple[str | None, str | None]:
    """Return the label and the rationale of an answer as training files write it.

    The label is the first line, with or without ``Behavior:`` in front; the rationale is what
    follows, with or without ``Reason:``.
    """
    head, _, rest = output.strip().partition("\n")
    label = _LABEL_KEY.sub("", head.strip()).strip()
    reason = _REASON_KEY.sub("", rest.strip(), count=1).strip()
    return label or None, reason or None


def _samples(
    path: Path,
    issues: IssueLog,
    speakers: Mapping[str, str] | None,
    field: str,
    read: Callable[[Fields], tuple[str | None, str | None]],
) -> Iterator[Example]:
    """Yield an example for each row; ``read`` returns its label and its rationale."""
    names = SpeakerNames(speakers)
    for number, (line, row) in enumerate(json_rows(path, issues), start=1):
        refuse_export(issues, line, row)
        fields = Fields(row, line=line, issues=issues)
        label, rationale = read(fields)
        name = f"{path.stem}:{number}"
        yield from text_example(fields, field, names, name, label=label, rationale=rationale)


@register_reader("alpaca")
def read_alpaca(
    path: Path | None, *, issues: IssueLog, speakers: Mapping[str, str] | None = None
) -> Iterator[Example]:
    """Yield an example for each ``{"instruction", "input", "output"}``, in a list or a line each.

    The response is the last client turn of ``input``, as
    :func:`~recap.data.readers.speakers.sample_of` has it. ``output`` is a label alone, or a label
    above its reason. ``instruction`` is not used: prompts come from the task.
    """

    def read(fields: Fields) -> tuple[str | None, str | None]:
        if not str(fields.row.get("input", "x")).strip():
            fields.reject("input", "is empty", "write the dialogue there, not in the instruction")
        return label_and_reason(fields.optional_text("output") or "")

    return _samples(existing_file(path), issues, speakers, "input", read)


@register_reader("client_resistance")
def read_client_resistance(
    path: Path | None, *, issues: IssueLog, speakers: Mapping[str, str] | None = None
) -> Iterator[Example]:
    """Yield an example for each ``{"text", "label"}`` whose text is a context above a response.

    The response is the last client turn, as :func:`~recap.data.readers.speakers.sample_of` has it.
    A sample may also carry ``id``, ``session``, ``client`` and ``rationale``.
    """

    def read(fields: Fields) -> tuple[str | None, str | None]:
        return fields.optional_text("label") or None, fields.optional_text("rationale") or None

    return _samples(existing_file(path), issues, speakers, "text", read)


@register_reader("psyguard")
def read_psyguard(
    path: Path | None, *, issues: IssueLog, multi_label: str = "reject"
) -> Iterator[Example]:
    """Yield an example without history for each ``{"idx", "text", "labels": [...]}``.

    ``multi_label`` says what to do with a message of several labels: ``reject`` it, or take the
    ``first``.
    """
    one_of("multi_label", multi_label, ("reject", "first"))
    path, names = existing_file(path), SpeakerNames()
    for number, (line, row) in enumerate(json_rows(path, issues), start=1):
        refuse_export(issues, line, row)
        fields = Fields(row, line=line, issues=issues)
        refuse_turn(fields, row, "", names)
        labels = fields.items("labels") if row.get("labels") is not None else []
        if not all(isinstance(label, str) for label in labels):
            fields.reject("labels", "holds something that is no text", 'write "labels": ["..."]')
            continue
        source = fields.optional_text("data_source")
        idx = fields.identifier("idx")
        # PsyGUARD numbers its messages anew in each of its sources.
        name = f"{source}:{idx}" if idx is not None and source is not None else idx
        example = Example(
            id=name or f"{path.stem}:{number}",
            history=(),
            response=fields.text("text"),
            label=label_of(fields, "labels", [Given(labels=tuple(labels))], multi_label),
            meta={} if source is None else {"data_source": source},
        )
        if fields.sound:
            issues.at(line)
            yield example
