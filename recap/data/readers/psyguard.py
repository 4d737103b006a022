"""PsyGUARD: single client messages with risk labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from recap.data.faults import FaultLog
from recap.data.readers.fields import Fields
from recap.data.readers.files import existing_file, json_rows
from recap.data.readers.registry import one_of, register_reader
from recap.data.readers.samples import single_label
from recap.records import Example


@register_reader("psyguard")
def read_psyguard(
    path: Path | None, *, faults: FaultLog, multi_label: str = "reject"
) -> Iterator[Example]:
    """Yield an example without history for each ``{"idx", "text", "labels": [...]}``.

    Args:
        path: The file.
        faults: Where bad rows are noted.
        multi_label: What to do with a message of several labels: ``reject`` it, or take the
            ``first``.
    """
    one_of("multi_label", multi_label, ("reject", "first"))
    path = existing_file(path)
    for number, (line, row) in enumerate(json_rows(path, faults), start=1):
        fields = Fields(row, line=line, faults=faults)
        labels = fields.items("labels") if row.get("labels") is not None else []
        if not all(isinstance(label, str) for label in labels):
            fields.reject("labels", "holds something that is no text", 'write "labels": ["..."]')
            continue
        source = fields.optional_text("data_source")
        example = Example(
            id=_id(fields.identifier("idx"), source) or f"{path.stem}:{number}",
            history=(),
            response=fields.text("text"),
            label=single_label(fields, "labels", labels, multi_label),
            meta={} if source is None else {"data_source": source},
        )
        if fields.sound:
            faults.at(line)
            yield example


def _id(number: str | None, source: str | None) -> str | None:
    # PsyGUARD numbers its messages anew in each of its sources.
    return f"{source}:{number}" if number is not None and source is not None else number
