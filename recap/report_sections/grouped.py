"""What several runs have in common is said once, with the runs that it holds for."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from recap.report_sections.runs import Kind, ReportedRun

ALL = "all runs"

MOST_NAMED = 6
"""Runs that are named one by one; of more, the others are named where they are fewer."""

_KINDS: Mapping[Kind, str] = {
    "trained": "all trained runs",
    "prompted": "all prompted runs",
    "baseline": "all baselines",
}


@dataclass(frozen=True, kw_only=True)
class Said:
    """One statement, and the runs that it holds for."""

    text: str
    runs: tuple[ReportedRun, ...]


def said_of(
    runs: Sequence[ReportedRun], say: Callable[[ReportedRun], str | None]
) -> tuple[Said, ...]:
    """Return the distinct statements about runs, in their order; ``None`` says nothing."""
    by_text: dict[str, list[ReportedRun]] = {}
    for run in runs:
        text = say(run)
        if text is not None:
            by_text.setdefault(text, []).append(run)
    return tuple(Said(text=text, runs=tuple(said)) for text, said in by_text.items())


def said_in_one(
    runs: Sequence[ReportedRun], say: Callable[[ReportedRun], str | None]
) -> str | None:
    """Return all distinct statements as one text, ``None`` without any.

    Runs are named wherever a statement does not hold for all of them.
    """
    found = said_of(runs, say)
    if len(found) == 1 and len(found[0].runs) == len(runs):
        return found[0].text
    texts = [f"{named(one.runs, among=runs)}: {one.text}" for one in found]
    return " ".join(text if text.endswith(".") else f"{text}." for text in texts) or None


def named(some: Sequence[ReportedRun], *, among: Sequence[ReportedRun]) -> str:
    """Return how runs are called among others: all of them, all of a kind, or their names."""
    chosen = {run.name for run in some}
    if chosen == {run.name for run in among}:
        return ALL
    kinds = {run.kind for run in some}
    of_kind = {run.name for run in among if run.kind in kinds}
    if len(kinds) == 1 and len(chosen) > 1 and chosen == of_kind:
        return _KINDS[some[0].kind]
    others = [run.name for run in among if run.name not in chosen]
    if len(chosen) > MOST_NAMED and len(others) < len(chosen):
        return f"{ALL} but {', '.join(others)}"
    return ", ".join(run.name for run in some)


def distinct(values: Mapping[str, Hashable]) -> dict[Hashable, tuple[str, ...]]:
    """Return each distinct value with the names that have it, in their order."""
    by_value: dict[Hashable, list[str]] = {}
    for name, value in values.items():
        by_value.setdefault(value, []).append(name)
    return {value: tuple(names) for value, names in by_value.items()}


def span(values: Sequence[int]) -> str:
    """Return whole numbers as ``"80"`` or ``"79 to 81"``.

    >>> span([81, 79, 80]), span([80, 80])
    ('79 to 81', '80')
    """
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"
