"""Cells of a table of answers, such as ``recap.predict`` writes, as the values that they hold."""

from __future__ import annotations

import json
import sys
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
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, Mapping) else None


def whole_number(text: str) -> int | None:
    """Return a whole number of up to nine digits, in any script; ``None`` for anything else.

    >>> whole_number("12"), whole_number("-1"), whole_number("9" * 5000)
    (12, None, None)
    """
    return int(text) if len(text) < 10 and text.isdecimal() else None


def finite_number(value: object) -> float | None:
    """Return a JSON number that a float holds, ``None`` for anything else.

    >>> finite_number(1), finite_number(True), finite_number(10**400), finite_number(float("nan"))
    (1.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= sys.float_info.max else None
