"""Cells of a table of answers, such as ``recap.predict`` writes, as the values that they hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from recap.data.safe_cells import bare_cell


def bare_row(cells: Mapping[str, str]) -> dict[str, str]:
    """Return a table's row without the quotes put in front of what looks like a formula."""
    return {bare_cell(name): bare_cell(cell) for name, cell in cells.items()}


def mapping_of(value: object) -> Mapping[str, Any] | None:
    """Return a mapping, also one written as JSON in a cell; ``None`` for anything else.

    >>> mapping_of('{"Blaming": 0.25}')
    {'Blaming': 0.25}
    """
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return value if isinstance(value, Mapping) else None
