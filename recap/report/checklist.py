"""The items of two reporting guidelines: what the runs answer, and what the authors have to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from recap.output.report import Report
from recap.output.tables import ReportTable
from recap.report.options import ReportConfig
from recap.report.runs import ReportedRun
from recap.report.statements import Statements
from recap.report.templates import notes_of, read_texts

ItemStatus = Literal["filled", "in part", "open"]

OPEN = "open: to be answered by the authors"
TITLE = "Reporting checklists"


@dataclass(frozen=True, kw_only=True)
class Item:
    """One item of a guideline."""

    number: str
    """The guideline's own."""
    section: str
    """Where it stands in the guideline."""
    asks: str
    """What it wants to know, in our words."""
    answer: str | None = None
    """Which of the answers in statements.yaml; ``None``: no run can tell."""
    evidence: str = ""
    """Where in a run folder the answer comes from."""
    remains: str = ""
    """What the authors have to add: a template over the facts about all runs."""


@dataclass(frozen=True, kw_only=True)
class Checklist:
    """One guideline."""

    key: str
    name: str
    source: str
    items: tuple[Item, ...]


@dataclass(frozen=True, kw_only=True)
class AnsweredItem:
    """An item with what the runs answer."""

    item: Item
    status: ItemStatus
    answer: str
    """Empty for an open item."""
    remains: str
    """What the authors have to add to the answer; empty unless it is filled in part."""

    def shown(self, given: str | None) -> str:
        """Return answer, evidence and what remains, as a table has them.

        Args:
            given: The item that has this answer already, which is not repeated then.
        """
        if self.status == "open":
            return OPEN
        answer = self.answer if given is None else f"As at {given}."
        remains = f" Open: {self.remains}." if self.remains else ""
        return f"{answer} [{self.item.evidence}]{remains}"


@cache
def read_checklists() -> tuple[Checklist, ...]:
    """Return the guidelines of checklists.yaml.

    Raises:
        RecapError: When the file is missing, which means a broken installation.
    """
    lists: list[dict[str, Any]] = read_texts("checklists.yaml")
    return tuple(
        Checklist(**{**found, "items": tuple(Item(**item) for item in found["items"])})
        for found in lists
    )


def answered(item: Item, statements: Statements) -> AnsweredItem:
    """Return an item with what the runs answer to it."""
    answer = statements.answer(item.answer) if item.answer is not None else ""
    if not answer:
        return AnsweredItem(item=item, status="open", answer="", remains="")
    remains = statements.of_all(item.remains)
    status: ItemStatus = "in part" if remains else "filled"
    return AnsweredItem(item=item, status=status, answer=answer, remains=remains)


def checklist_section(runs: Sequence[ReportedRun], options: ReportConfig) -> Report:
    """Return the items of TRIPOD-LLM and REFORMS, each answered or marked open."""
    statements = Statements(runs)
    by_list = {
        checklist: tuple(answered(item, statements) for item in checklist.items)
        for checklist in read_checklists()
    }
    return Report(
        action="checklist",
        title=TITLE,
        figures={
            checklist.key: {
                "source": checklist.source,
                **_counts(items),
                "items": {one.item.number: _figures(one) for one in items},
            }
            for checklist, items in by_list.items()
        },
        sheets=(_count_sheet(by_list), *_item_sheets(by_list)),
        notes=notes_of("checklist", checklists=[{"checklist": one} for one in by_list]),
    )


def _counts(items: Sequence[AnsweredItem]) -> dict[str, int]:
    counts = Counter(one.status for one in items)
    return {
        "n_items": len(items),
        "filled": counts["filled"],
        "in_part": counts["in part"],
        "open": counts["open"],
    }


def _figures(one: AnsweredItem) -> dict[str, str | None]:
    return {
        "section": one.item.section,
        "asks": one.item.asks,
        "status": one.status.replace(" ", "_"),
        "answer": one.answer or None,
        "evidence": one.item.evidence or None,
        "remains": one.remains or None,
    }


def _count_sheet(by_list: Mapping[Checklist, Sequence[AnsweredItem]]) -> ReportTable:
    rows = []
    for checklist, items in by_list.items():
        counts = _counts(items)
        rows.append((checklist.name, *(str(counts[k]) for k in ("filled", "in_part", "open"))))
    return ReportTable(
        title="Items that the runs fill in",
        header=("guideline", "filled", "in part", "open"),
        rows=tuple(rows),
    )


def _item_sheets(by_list: Mapping[Checklist, Sequence[AnsweredItem]]) -> list[ReportTable]:
    """Return a sheet a guideline; an answer that was given before is not repeated."""
    given: dict[str, str] = {}
    sheets = []
    for checklist, items in by_list.items():
        rows = []
        for one in items:
            rows.append(
                (
                    f"{one.item.number} {one.item.section}: {one.item.asks}",
                    one.shown(given.get(one.answer)),
                )
            )
            given.setdefault(one.answer, f"{checklist.name} {one.item.number}")
        sheets.append(
            ReportTable(
                title=checklist.name,
                header=("item", "answer [evidence in the run folder]"),
                rows=tuple(rows),
                text_columns=(0, 1),
            )
        )
    return sheets
