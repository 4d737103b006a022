"""Figures as texts, as the APA's Publication Manual (7th edition) prints them; the console."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from recap.errors import RecapWarning
from recap.system.plain_text import printable

DASH = "–"
"""Stands in a table where there is no figure."""


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


def ends(low: float | None, high: float | None, digits: int = 2) -> str:
    """Return ``[0.07, 1.10]``; a dash where there is no interval."""
    if low is None or high is None:
        return DASH
    return f"[{number(low, digits)}, {number(high, digits)}]"


def interval(low: float | None, high: float | None, confidence: float = 0.95) -> str:
    """Return ``95% CI [0.07, 1.10]``."""
    return f"{100 * confidence:g}% CI [{number(low)}, {number(high)}]"


def percent(value: float | None, digits: int = 2) -> str:
    """Return a fraction in per cent, without the sign: ``62.50``; a dash for ``None``."""
    return number(None if value is None else 100 * value, digits)


def with_ends(value: float | None, low: float | None, high: float | None, digits: int = 2) -> str:
    """Return a figure and its interval, ``0.55 [0.07, 1.10]``, or the figure alone."""
    if value is None or low is None or high is None:
        return number(value, digits)
    return f"{number(value, digits)} {ends(low, high, digits)}"


def percent_with_ends(
    value: float | None, low: float | None, high: float | None, digits: int = 1
) -> str:
    """Return a fraction and its interval in per cent: ``12.5 [7.0, 18.2]``."""
    value, low, high = (None if f is None else 100 * f for f in (value, low, high))
    return with_ends(value, low, high, digits)


def rounded_percent(p: float) -> str:
    """Return a probability in whole per cent, never rounded up to certainty.

    >>> [rounded_percent(p) for p in (0.004, 0.62, 0.9999, 1)]
    ['<1 %', '62 %', '>99 %', '100 %']
    """
    return ">99 %" if 0.99 < p < 1 else "<1 %" if 0 < p < 0.01 else f"{100 * p:.0f} %"


def mean_sd(mean: float | None, sd: float | None, digits: int = 2) -> str:
    """Return ``3.75 ± 0.82``; the mean alone where there is no SD."""
    return number(mean, digits) if sd is None else f"{number(mean, digits)} ± {number(sd, digits)}"


def duration_text(seconds: float | None) -> str:
    """Return a duration to two digits or so; a dash for ``None``.

    >>> [duration_text(seconds) for seconds in (0.4, 89, 90, 5000, 7500)]
    ['0 s', '89 s', '2 min', '83 min', '2 h 05 min']
    """
    if seconds is None or seconds < 90:
        return DASH if seconds is None else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def span(values: Sequence[int]) -> str:
    """Return whole numbers as ``"80"`` or ``"79 to 81"``.

    >>> span([81, 79, 80]), span([80, 80])
    ('79 to 81', '80')
    """
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"


def plain(value: object) -> str:
    """Return any value as the cell of a table: a dash, yes or no, three digits, or its text."""
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value, 3) if isinstance(value, float) else str(value)


MANY_UNPARSED = 0.2
"""Share of answers without a label from which on something has to be done about them."""


def unparsed_notes(unparsed: int, total: int, *, cut: int, where: object) -> list[str]:
    """Return what to do about answers that hold no label.

    Args:
        unparsed: Their number.
        total: That of all answers.
        cut: Those of them that were cut off inside a thought.
        where: The file that has the texts.
    """
    notes = []
    if cut:
        said = f"{cut} answers were cut off inside a thought, and count as unparsed"
        notes.append(f"{said}: raise decoding.max_new_tokens, or switch the model's thinking off")
    if total and unparsed >= MANY_UNPARSED * total:
        notes.append(
            f"{unparsed} of {total} answers ({100 * unparsed / total:.0f} %) hold no label: read "
            f"them in {where}; decoding=scored and decoding=constrained always give one (of models "
            "on this machine), and more tuning or solved examples (shots=1) teach the form"
        )
    return notes


def lost_turns(counts: Mapping[str, int], limit: str) -> list[str]:
    """Return a line for every way in which prompts lost turns.

    Args:
        counts: As :class:`recap.data.encode.Encoding` has them, or some of them.
        limit: What limits prompts, in words.
    """
    lines = []
    if counts.get("dropped_turns"):
        lines.append(
            f"{counts['truncated_examples']} prompts lost {counts['dropped_turns']} of their "
            f"oldest turns ({limit})"
        )
    if counts.get("still_too_long"):
        lines.append(
            f"{counts['still_too_long']} prompts are over that limit with nothing left to lose"
        )
    return lines


WIDTH_OF_FILES = 110
"""Characters a line in a file or a pipe; rich takes 80, where cells of tables break in two."""


class PlainConsole(Console):
    """A console that shows every text as it stands, in tables too.

    Brackets are no styles or links, names between colons no emoji, and escapes no commands.
    """

    def render_str(self, text: str, **how: Any) -> Text:
        """Return a text with nothing in it that rich or a terminal would act upon."""
        plain = {"markup": False, "emoji": False, "highlight": False, "highlighter": None}
        return super().render_str(printable(text), **{**how, **plain})


def console_for(**options: Any) -> Console:
    """Return standard output, in files and pipes wide enough for tables; all prints go through it.

    Args:
        options: Of :class:`rich.console.Console`, such as ``stderr=True``.
    """
    console = PlainConsole(soft_wrap=True, **options)
    if not console.is_terminal and "width" not in options:
        console.width = WIDTH_OF_FILES
    return console


class _LogLines(io.StringIO):
    """Hands what is written to the logger ``recap``, a record a line."""

    def write(self, text: str) -> int:
        for line in filter(str.strip, text.splitlines()):
            logging.getLogger("recap").info("%s", line.rstrip())
        return len(text)


class LogConsole(Console):
    """The console of those who call recap from Python: its lines go to the logger ``recap``."""

    def __init__(self) -> None:
        super().__init__(
            file=_LogLines(),
            force_terminal=False,
            force_jupyter=False,
            no_color=True,
            highlight=False,
            soft_wrap=True,
            width=WIDTH_OF_FILES,
        )


def print_warning(console: Console, text: str, *, before: str = "") -> None:
    """Print what has to be known before results are believed; a Python user is warned of it.

    Args:
        console: Where to.
        text: What to say.
        before: Stands in front of it on a console.
    """
    if not isinstance(console, LogConsole):
        console.print(f"{before}{text}", style="yellow", markup=False)
        return
    frame, depth = sys._getframe(), 1
    # The line to name is the user's, who called recap through whatever decorates its functions.
    while frame.f_back and _is_inside(frame.f_globals.get("__name__", "")):
        frame, depth = frame.f_back, depth + 1
    warnings.warn(text, RecapWarning, stacklevel=depth)


def _is_inside(module: str) -> bool:
    return module.partition(".")[0] in ("recap", "contextlib")
