"""Records as the library's own JSON lines, as :mod:`recap.data.readers.native` reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from recap.data.readers.registry import Record
from recap.records import Dialogue, Example, Turn


def records_to_jsonl(records: Iterable[Record]) -> str:
    """Return the text of a JSON-lines file, a dialogue or an example a line."""
    rows = (
        _dialogue(record) if isinstance(record, Dialogue) else _example(record)
        for record in records
    )
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _dialogue(dialogue: Dialogue) -> dict[str, Any]:
    return _filled(
        {
            "session": dialogue.session,
            "client": dialogue.client,
            "counselor": dialogue.counselor,
            "meta": dict(dialogue.meta),
        }
    ) | {"turns": [_turn(turn) for turn in dialogue.turns]}


def _example(example: Example) -> dict[str, Any]:
    history = [_turn(turn) for turn in example.history]
    return (
        _filled(
            {
                "id": example.id,
                "session": example.session,
                "client": example.client,
                "turn": example.turn,
            }
        )
        | {"history": history, "response": example.response}
        | _filled(
            {"label": example.label, "rationale": example.rationale, "meta": dict(example.meta)}
        )
    )


def _turn(turn: Turn) -> dict[str, Any]:
    return {"speaker": turn.speaker, "text": turn.text} | _filled(
        {"id": turn.id, "label": turn.label, "rationale": turn.rationale}
    )


def _filled(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, {})}
