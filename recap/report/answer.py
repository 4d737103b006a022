"""An answer to an item of a checklist, put together from sentences about runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recap.report.runs import ReportedRun, said_in_one


@dataclass(frozen=True, kw_only=True)
class ChecklistAnswer:
    """What the runs answer to one item."""

    text: str
    whole: bool = False
    """Whether nothing remains to be added, whatever checklists.yaml says."""


AnswerFunction = Callable[[Sequence[ReportedRun]], ChecklistAnswer | None]
"""Answers an item, or ``None`` where these runs cannot: it is open then."""


def answer_of(
    runs: Sequence[ReportedRun],
    *says: Callable[[ReportedRun], str | None],
    also: str = "",
    whole: bool = False,
) -> ChecklistAnswer | None:
    """Return what sentences say of the runs, and ``also`` after them; ``None`` for nothing."""
    told = [said_in_one(runs, say) for say in says]
    text = " ".join(part for part in (*told, also) if part)
    return ChecklistAnswer(text=text, whole=whole) if text else None


def does_not_apply(why: str) -> ChecklistAnswer:
    """Return the whole answer to an item that these runs give no occasion for."""
    return ChecklistAnswer(text=f"Does not apply: {why}.", whole=True)


def told(say: Callable[[ReportedRun], str | None]) -> AnswerFunction:
    """Return the answer that is one sentence about each run."""
    return lambda runs: answer_of(runs, say)
