"""Batches for the annotation tool Doccano, as :mod:`recap.data.readers.doccano` reads them back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from recap.records import Example, Speaker
from recap.taxonomy import Taxonomy

_NAMES: Mapping[str, Mapping[Speaker, str]] = {
    "en": {"counselor": "Counselor", "client": "Client"},
    "zh": {"counselor": "咨询师", "client": "来访者"},
}
_SEPARATOR = {"en": ": ", "zh": "："}
_COLOR = "#4d4d4d"


def document_text(example: Example, *, language: str | None = "en") -> str:
    """Return what annotators see: a line a turn, a blank line, then the response.

    Blank lines inside a turn go, so that the last one is where the response begins.
    """
    written = language if language is not None and language in _NAMES else "en"

    def line(speaker: Speaker, text: str) -> str:
        said = "\n".join(filter(None, map(str.strip, text.split("\n"))))
        return f"{_NAMES[written][speaker]}{_SEPARATOR[written]}{said}"

    response = line("client", example.response)
    if not example.history:
        return response
    return "\n".join(line(turn.speaker, turn.text) for turn in example.history) + f"\n\n{response}"


def batch_to_jsonl(
    examples: Iterable[Example],
    *,
    round_name: str,
    language: str | None = "en",
    labels: Mapping[str, str] | None = None,
) -> str:
    """Return the text of a file that Doccano imports as ``JSONL`` (text classification).

    Doccano keeps keys that it does not know and exports them again (seen in its 1.8 source), so an
    example keeps its id and session.

    Args:
        examples: Those of one annotator.
        round_name: The round of annotation.
        language: Of the speakers' names, ``en`` or ``zh``.
        labels: Example ids and the labels that stand there beforehand.
    """
    labels = labels or {}
    lines = []
    for example in examples:
        row: dict[str, object] = {
            "text": document_text(example, language=language),
            "label": [labels[example.id]] if example.id in labels else [],
            "example_id": example.id,
        }
        if example.session is not None:
            row["session"] = example.session
        row["round"] = round_name
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    return "".join(lines)


def label_text(taxonomy: Taxonomy, name: str, *, language: str | None) -> str:
    """Return a label as annotators see it, in their language, which the taxonomy reads back."""
    return taxonomy[name].name_in("zh" if language == "zh" else "en")


def labels_to_json(taxonomy: Taxonomy, names: Sequence[str], *, language: str | None) -> str:
    """Return the labels as a file that Doccano imports under Labels, in their colours."""
    rows = [
        {
            "text": label_text(taxonomy, name, language=language),
            "suffixKey": None,
            "backgroundColor": taxonomy[name].color or _COLOR,
            "textColor": "#ffffff",
        }
        for name in names
    ]
    return json.dumps(rows, ensure_ascii=False, indent=2) + "\n"
