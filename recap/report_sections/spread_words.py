"""Percentages, intervals and differences as the report's tables print them."""

from __future__ import annotations

from recap.reporting.apa import DASH, number


def percent(value: float | None) -> str:
    """Return a share in percent with two digits, a dash for ``None``."""
    return number(None if value is None else 100 * value)


def points(value: float | None) -> str:
    """Return a difference of shares in percentage points with its sign."""
    text = percent(value)
    return f"+{text}" if value is not None and value > 0 and text != "0.00" else text


def ends(low: float | None, high: float | None) -> str:
    """Return ``"[61.20, 70.45]"`` in percent, a dash where an end is missing."""
    if low is None or high is None:
        return DASH
    return f"[{percent(low)}, {percent(high)}]"
