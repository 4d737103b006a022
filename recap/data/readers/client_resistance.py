"""The ClientResistance authors' samples: a JSON list of texts, each with its label."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from recap.data.faults import FaultLog
from recap.data.readers.dialogue_text import SpeakerNames
from recap.data.readers.fields import Fields
from recap.data.readers.files import existing_file, json_rows
from recap.data.readers.registry import register_reader
from recap.records import Example


@register_reader("client_resistance")
def read_client_resistance(path: Path | None, *, faults: FaultLog) -> Iterator[Example]:
    """Yield an example for each ``{"text", "label"}`` whose text is a context above a response.

    Context and response are split at the last blank line; a text without one is all response. A
    sample may also carry ``id``, ``session``, ``client`` and ``rationale``.
    """
    path = existing_file(path)
    names = SpeakerNames()
    for number, (line, row) in enumerate(json_rows(path, faults), start=1):
        fields = Fields(row, line=line, faults=faults)
        history, response = names.context_and_response(fields.text("text"))
        example = Example(
            id=fields.identifier("id") or f"{path.stem}:{number}",
            session=fields.identifier("session"),
            client=fields.identifier("client"),
            history=history,
            response=response,
            label=fields.optional_text("label") or None,
            rationale=fields.optional_text("rationale") or None,
        )
        if fields.sound:
            faults.at(line)
            yield example
