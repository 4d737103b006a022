"""Figures as the APA's Publication Manual (7th edition) prints them."""

from __future__ import annotations

DASH = "–"


def number(value: float | None, digits: int = 2) -> str:
    """Return a figure that may be above 1, with a zero before the point; a dash for ``None``."""
    if value is None:
        return DASH
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def share(value: float | None, digits: int = 2) -> str:
    """Return a figure that cannot be above 1, without the zero before the point.

    >>> share(0.2237)
    '.22'
    """
    text = number(value, digits)
    return text.replace("0.", ".", 1) if text.removeprefix("−").startswith("0.") else text


def p_value(p: float | None) -> str:
    """Return ``p = .024`` or ``p < .001``; a p that rounds to 1 is ``p > .999``."""
    if p is None:
        return f"p {DASH}"
    if p < 0.001:
        return "p < .001"
    return "p > .999" if p > 0.9994 else f"p = {share(p, 3)}"


def p_cell(p: float | None) -> str:
    """Return the same for the cell of a table: ``.024`` or ``< .001``."""
    return p_value(p).removeprefix("p ").removeprefix("= ")


def degrees(df: float) -> str:
    """Return degrees of freedom: whole, or with two digits where they are Welch's."""
    return f"{df:.0f}" if abs(df - round(df)) < 1e-9 else f"{df:.2f}"


def interval(low: float | None, high: float | None, confidence: float = 0.95) -> str:
    """Return ``95% CI [0.07, 1.10]``."""
    return f"{100 * confidence:g}% CI [{number(low)}, {number(high)}]"
