"""Values of a JSON row, checked one by one, each fault noted under its field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recap.data.characters import damage
from recap.data.faults import FaultLog


class Fields:
    """The fields of one row; anything wrong with one is noted and makes ``sound`` false."""

    def __init__(
        self, row: Mapping[str, Any], *, line: int, faults: FaultLog, within: str = ""
    ) -> None:
        self.row = row
        self.line = line
        self.faults = faults
        self.sound = True
        self._within = within

    def reject(self, field: str, reason: str, mend: str) -> None:
        """Note a fault of ``field``."""
        self.sound = False
        self.faults.reject(self.line, self._within + field, reason, mend)

    def text(self, field: str) -> str:
        """Return a text that must be there, as it stands; an empty one is judged later."""
        value = self.row.get(field)
        if isinstance(value, str):
            return self._undamaged(field, value)
        reason = "is missing" if field not in self.row else "is no text"
        self.reject(field, reason, f'write "{field}": "..."')
        return ""

    def optional_text(self, field: str) -> str | None:
        """Return a text, or ``None`` where there is none."""
        value = self.row.get(field)
        if value is None:
            return None
        if isinstance(value, str):
            return self._undamaged(field, value).strip()
        self.reject(field, "is no text", f'write "{field}": "...", or leave it out')
        return None

    def identifier(self, field: str) -> str | None:
        """Return an id (a text or a whole number), or ``None`` where there is none."""
        value = self.row.get(field)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and not value.strip():
            self.reject(field, "is empty", "write an id, or leave the key out")
            return None
        return self.optional_text(field)

    def _undamaged(self, field: str, text: str) -> str:
        broken = damage(text)
        if broken is not None:
            self.reject(field, *broken)
        return text

    def mapping(self, field: str) -> Mapping[str, Any]:
        """Return an object, empty where there is none."""
        value = self.row.get(field)
        if value is None:
            return {}
        if isinstance(value, dict):
            return value
        self.reject(field, "is no object", f'write "{field}": {{...}}, or leave it out')
        return {}

    def items(self, field: str) -> list[Any]:
        """Return a list that must be there."""
        value = self.row.get(field)
        if isinstance(value, list):
            return value
        reason = "is missing" if field not in self.row else "is no list"
        self.reject(field, reason, f'write "{field}": [...]')
        return []
