"""The measured rows on disk: one JSON object a line, so that a stopped benchmark goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEY = ("part", "shape", "system", "micro_batch", "n_examples", "round")
"""What tells one measurement from another."""


class Ledger:
    """Rows that were measured, and those still to come.

    Args:
        path: The file; made when the first row is added.
        settings: What all rows have in common. Rows measured under others cannot be compared.

    Raises:
        SystemExit: When the file holds rows that were measured under other settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path = path
        self._rows: list[dict[str, Any]] = []
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append({"settings": dict(settings)})
            return
        lines = path.read_text(encoding="utf-8").splitlines()
        first, *rows = (json.loads(line) for line in lines if line.endswith("}"))
        if first.get("settings") != dict(settings):
            raise SystemExit(
                f"{path} was measured under other settings than these; give --state another file, "
                "or remove it to measure anew"
            )
        self._rows = rows

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows, in the order in which they were measured."""
        return list(self._rows)

    def find(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the row of a measurement that succeeded."""
        for row in self._rows:
            if _key(row) == _key(key) and "error" not in row:
                return row
        return None

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a row, on disk before anything else is measured."""
        self._rows.append(dict(row))
        self._append(row)

    def select(self, **fields: Any) -> list[dict[str, Any]]:
        """Return the rows without error whose fields have these values."""
        return [
            row
            for row in self._rows
            if "error" not in row and all(row.get(name) == fields[name] for name in fields)
        ]

    def errors(self) -> list[dict[str, Any]]:
        """Return the rows that failed and that no later row made good."""
        failed = {_key(row): row for row in self._rows if "error" in row}
        return [row for key, row in failed.items() if self.find(row) is None]

    def _append(self, row: Mapping[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in KEY)
