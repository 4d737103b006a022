"""Alpaca instruction files: the dialogue is the input, the label (and reason) the output."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from recap.data.faults import FaultLog
from recap.data.readers.dialogue_text import SpeakerNames
from recap.data.readers.fields import Fields
from recap.data.readers.files import existing_file, json_rows
from recap.data.readers.registry import register_reader
from recap.data.readers.samples import label_and_reason
from recap.records import Example


@register_reader("alpaca")
def read_alpaca(path: Path | None, *, faults: FaultLog) -> Iterator[Example]:
    """Yield an example for each ``{"instruction", "input", "output"}``, in a list or a line each.

    ``input`` is split into history and response at its last blank line, else before a closing
    client turn. ``output`` is a label alone, or a label above its reason. ``instruction`` is not
    used: prompts come from the task.
    """
    path = existing_file(path)
    names = SpeakerNames()
    for number, (line, row) in enumerate(json_rows(path, faults), start=1):
        fields = Fields(row, line=line, faults=faults)
        text = fields.text("input")
        if not text.strip() and fields.sound:
            fields.reject("input", "is empty", "write the dialogue there, not in the instruction")
        history, response = names.context_and_response(text)
        label, reason = label_and_reason(fields.optional_text("output") or "")
        example = Example(
            id=fields.identifier("id") or f"{path.stem}:{number}",
            session=fields.identifier("session"),
            client=fields.identifier("client"),
            history=history,
            response=response,
            label=label,
            rationale=reason,
        )
        if fields.sound:
            faults.at(line)
            yield example
