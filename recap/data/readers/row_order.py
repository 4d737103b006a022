"""The rows of one session put in order by the number of their turn, or by the time it begins."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from recap.data.issues import IssueLog, Place
from recap.data.names import whole_number
from recap.errors import quote_id
from recap.records import Turn

_SECONDS = re.compile(r"\d{1,12}(?:\.\d+)?")
_CLOCK = re.compile(r"(?:(\d{1,4}):)?(\d{1,2}):(\d{2}(?:[.,]\d+)?)")


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionRow:
    """A row of a session, and the cell that says where in it."""

    line: int
    turn: Turn | None
    """``None`` for a row at fault, which leaves a gap."""
    order: str = ""
    rows: int = 1
    """Rows of the file that make it up."""
    cells: Mapping[str, str] = field(default_factory=dict, repr=False)

    def reject(self, issues: IssueLog, field: str, reason: str, hint: str) -> None:
        """Note a fault of it."""
        issues.reject(self.line, field, reason, hint, rows=self.rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Placed:
    row: SessionRow
    value: float
    follows: bool = False
    """Whether it has no value of its own and only stands behind one that has."""


def start_seconds(cell: str) -> float | None:
    """Return a time as seconds, from whenever its column counts; ``None`` for anything else.

    Takes seconds, ``[hours:]minutes:seconds`` and ISO dates with a time of day.

    >>> start_seconds("62.5"), start_seconds("1:02.5"), start_seconds("01:00:00")
    (62.5, 62.5, 3600.0)
    """
    if _SECONDS.fullmatch(cell):
        return float(cell)
    clock = _CLOCK.fullmatch(cell)
    if clock is not None:
        hours, minutes, seconds = clock.groups()
        return 3600 * int(hours or 0) + 60 * int(minutes) + float(seconds.replace(",", "."))
    try:
        moment = datetime.fromisoformat(cell)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


_READ = {"turn": whole_number, "start": start_seconds}
_WHAT = {"turn": "whole number", "start": "time"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What puts rows in order, and how messages speak of it."""

    by: Literal["turn", "start"]
    """Whether cells number the turns, one by one, or say when each begins."""
    field: str
    hint: str


def in_order(
    session: str, rows: Sequence[SessionRow], *, order: Order | None, issues: IssueLog
) -> list[SessionRow]:
    """Return the sound rows of a session in order, and say where its turns stand.

    What contradicts the order is a fault.

    Turns that begin at one time have to stand side by side, and keep the order of the file. Rows
    come in the order of the file, which is the session's where ``order`` is ``None``.
    """
    found = (
        [(row, None) for row in rows] if order is None else _ordered(session, rows, order, issues)
    )
    sound = [(row, gap) for row, gap in found if row.turn is not None]
    if sound:
        issues.at_turns([Place(line=row.line, rows=row.rows, gap=gap) for row, gap in sound])
    return [row for row, _ in sound]


def _ordered(
    session: str, rows: Sequence[SessionRow], order: Order, issues: IssueLog
) -> Iterator[tuple[SessionRow, bool | None]]:
    """Yield the sound rows in order, each with whether something before it is missing."""
    numbered = order.by == "turn"
    placed = _placed(rows, order, issues)
    ordered = sorted(placed, key=lambda one: (one.value, one.follows))
    unclear = None if ordered == placed else _why_unclear(ordered)
    if unclear is not None:
        reason = f"session {quote_id(session)} is out of order, and {unclear}"
        for row in rows:
            row.reject(issues, order.field, reason, order.hint)
        return
    clashing = _reject_clashes(session, placed, order, issues)
    before, missing = -math.inf, False
    for one in ordered:
        row = one.row
        if numbered and -math.inf < before < one.value - 1:
            missing = True
            reason = f"session {quote_id(session)} goes from {before:.0f} to {one.value:.0f}"
            issues.reject(row.line, order.field, reason, order.hint, rows=0)
        before = one.value
        if row.turn is None or one.follows or row.line in clashing:
            missing = True
            continue
        # Only numbers show that nothing is missing.
        gap = missing or (False if numbered else None)
        yield row, gap
        missing = False


_HALF_A_DAY = 12 * 3600


def _why_unclear(ordered: Sequence[_Placed]) -> str | None:
    """Return why rows cannot be put in the order of their cells, ``None`` where they can."""
    if any(one.follows for one in ordered):
        return "some rows do not say where"
    first, last = ordered[0], ordered[-1]
    is_clock = _CLOCK.fullmatch(first.row.order) and last.value < 2 * _HALF_A_DAY
    if is_clock and last.value - first.value > _HALF_A_DAY:
        return "may pass midnight: write the date before each time"
    return None


def _placed(rows: Sequence[SessionRow], order: Order, issues: IssueLog) -> list[_Placed]:
    placed: list[_Placed] = []
    last, form = -math.inf, None
    for row in rows:
        value = _READ[order.by](row.order)
        is_what = f"is no {_WHAT[order.by]} ({quote_id(row.order)})" if row.order else "is empty"
        if value is not None and order.by == "start":
            own = next((f for f in (_SECONDS, _CLOCK) if f.fullmatch(row.order)), datetime)
            form = form or own
            if own is not form:
                value, is_what = None, "is written in another way than the first time"
        if value is None:
            row.reject(issues, order.field, is_what, order.hint)
        last = last if value is None else value
        placed.append(_Placed(row=row, value=last, follows=value is None))
    return placed


def _reject_clashes(
    session: str, placed: Sequence[_Placed], order: Order, issues: IssueLog
) -> frozenset[int]:
    """Return the lines of rows that claim one place; those of one time may, side by side."""
    indices: defaultdict[float, list[int]] = defaultdict(list)
    for index, one in enumerate(placed):
        if not one.follows:
            indices[one.value].append(index)
    clashing: list[int] = []
    for found in indices.values():
        apart = found[-1] - found[0] >= len(found)
        if len(found) > 1 and (order.by == "turn" or apart):
            rows = [placed[index].row for index in found]
            lines = [row.line for row in rows]
            at = f"{', '.join(map(str, lines[:3]))}{', …' if len(lines) > 3 else ''}"
            shown = quote_id(rows[0].order)
            reason = f"session {quote_id(session)} has {shown} at lines {at}"
            for row in rows:
                row.reject(issues, order.field, reason, order.hint)
            clashing += lines
    return frozenset(clashing)
