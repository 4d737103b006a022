"""Who took part in a study, and how helpful they found the feedback (paper, Appendix D.2).

Columns come from a table with a row a participant, or from that of the scores. What stands in a
column decides how it is described: numbers by mean, SD and range, anything else by counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from recap.data.issues import IssueLog
from recap.data.names import identity, is_missing
from recap.data.readers.registry import require_column
from recap.data.readers.tables import read_sheet
from recap.data.sheets import number_in
from recap.errors import DataError, quote_cell, quote_id
from recap.insights.options import InsightsConfig, StudyOptions
from recap.output.format import DASH, mean_sd
from recap.output.tables import ReportTable

MOST_VALUES = 20
"""A column of more different texts holds remarks or names, and is not counted by value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """One participant, first met at ``line``."""

    line: int
    group: str
    cells: Mapping[str, str] = field(default_factory=dict)
    """What their rows say, by column; nothing where they say nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What a column says of some participants: counts, or numbers, whose SD has ddof 1."""

    n: int
    """Of whom it says something."""
    missing: int
    counts: Mapping[str, int] | None = None
    """The most frequent of all participants first; ``None`` for numbers."""
    mean: float | None = None
    sd: float | None = None
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Described:
    """A column, over all participants and by group."""

    column: str
    total: Part
    groups: Mapping[str, Part]

    @property
    def rows(self) -> Iterator[tuple[str, ...]]:
        """The lines of a table."""
        parts = [self.total, *self.groups.values()]
        if self.total.counts is None:
            yield f"{self.column}, mean ± SD", *(mean_sd(part.mean, part.sd) for part in parts)
            yield f"{self.column}, range", *(_range(part) for part in parts)
            yield f"{self.column}, n", *(str(part.n) for part in parts)
            return
        for value in self.total.counts:
            yield f"{self.column}: {value}", *(_counted(part, value) for part in parts)
        if self.total.missing:
            yield f"{self.column}: not given", *(str(part.missing) for part in parts)


@dataclass(frozen=True, kw_only=True)
class People:
    """The participants of a study."""

    groups: Mapping[str, int]
    """How many are in each."""
    columns: tuple[Described, ...]
    helpfulness: tuple[Described, ...]
    """Ratings of the feedback; every one of numbers."""
    texts: tuple[str, ...] = ()
    """Columns that are not described, for they hold remarks or names."""
    strangers: int = 0
    """Participants of the table who have no scores, and are not described."""
    left_out: int = 0
    """Rows that were left out for faults."""

    @property
    def n(self) -> int:
        """How many there are."""
        return sum(self.groups.values())


def find_people(
    config: InsightsConfig, groups: Mapping[str, str] | None, order: Sequence[str] = ()
) -> People | None:
    """Return the participants that ``study.participants`` or columns of the scores tell of.

    Participants' rows say the same, or nothing. Of a table of their own all columns are described
    where none are named. Those with a fault are left out where faults are skipped. ``groups`` are
    of everyone who has scores, ``None`` where the table says it; they come in an ``order``.

    Raises:
        DataError: When the table has faults, lacks a column, has remarks in one that is to be
            counted, or knows nobody who has scores.
    """
    options, path = config.study, config.study.participants or config.data.path
    if path is None or not (options.participants or options.describe or options.helpfulness):
        return None
    issues = IssueLog(path)
    table = read_sheet(Path(path), issues, sheet=None if options.participants else options.sheet)
    needed = [options.participant, *([] if groups else [options.group])]
    for column in (*needed, *options.describe, *options.helpfulness, *options.categories):
        hint = "name it with study.participant, .group, .describe, .helpfulness or .categories"
        require_column(table.path, table.columns, column, hint)
    own = (*needed, options.group, options.phase, options.score, *options.helpfulness)
    described = list(options.describe)
    if options.participants and not described:
        described = [column for column in table.columns if column and column not in own]
    wanted = [options.group, *described, *options.helpfulness]
    # A spreadsheet makes a date of 1-2 years.
    table.texts.update((options.participant, *wanted))
    people = _people(table.rows, options, wanted, groups or {}, issues)
    if groups and not people.keys() & groups.keys():
        raise DataError(f"{path}: none of its {len(people)} participants has scores; correct ids")
    members = [
        people.get(who, Person(line=0, group=group)) for who, group in (groups or {}).items()
    ]
    members = members or list(people.values())
    numbers = {c for c in described if _is_numeric(c, members, options)}
    for column in (*numbers, *options.helpfulness):
        _refuse_texts(column, members, issues)
    if issues.issues and config.data.on_error == "fail":
        raise issues.error()
    bad = set(issues.rejected_lines())
    members = [person for person in members if person.line not in bad]
    texts = [c for c in described if c not in numbers and _is_text(c, members)]
    if options.describe and texts:
        raise DataError(
            f"{path}: column {quote_cell(texts[0])} holds too many different texts to be counted; "
            "leave it out of study.describe"
        )
    order = list(dict.fromkeys((*order, *(person.group for person in members))))
    return People(
        groups={group: sum(person.group == group for person in members) for group in order},
        columns=tuple(
            _described(c, members, order, c in numbers) for c in described if c not in texts
        ),
        helpfulness=tuple(_described(c, members, order, True) for c in options.helpfulness),
        texts=tuple(texts),
        strangers=len(people.keys() - groups.keys()) if groups else 0,
        left_out=len(bad),
    )


def _people(
    rows: Iterable[tuple[int, Mapping[str, str]]],
    options: StudyOptions,
    wanted: Sequence[str],
    groups: Mapping[str, str],
    issues: IssueLog,
) -> dict[str, Person]:
    """Return everyone of a table; a row that contradicts an earlier one, or scores, is a fault."""
    people: dict[str, Person] = {}
    for line, row in rows:
        who = identity(row[options.participant])
        if is_missing(who):
            hint = "write who it is, or remove the row"
            issues.reject(line, options.participant, "is empty", hint)
            continue
        cells = {column: identity(row.get(column, "")) for column in wanted}
        # A group may well be called none.
        cells = {c: v for c, v in cells.items() if v and (c == options.group or not is_missing(v))}
        group = groups.get(who, cells.get(options.group, ""))
        there = people.setdefault(who, Person(line=line, group=group, cells=cells))
        for column, cell in cells.items():
            before = there.cells.get(column, cell)
            if column == options.group:
                before = there.group
            if cell != before:
                reason = f"contradicts another row on {quote_id(who)}"
                issues.reject(line, column, reason, "write one value for each participant")
        people[who] = replace(there, cells={**cells, **there.cells})
    return people


def _cells(column: str, members: Iterable[Person]) -> list[str]:
    return [person.cells[column] for person in members if column in person.cells]


def _refuse_texts(column: str, members: Sequence[Person], issues: IssueLog) -> None:
    for person in members:
        for cell in _cells(column, [person]):
            if number_in(cell) is None:
                reason = f"is no number but a text of {len(cell)} characters"
                hint = "write a number with a decimal point, or count it with study.categories"
                issues.reject(person.line, column, reason, hint)


def _is_numeric(column: str, members: Sequence[Person], options: StudyOptions) -> bool:
    """Return whether most cells are numbers; then the others are faults."""
    given = _cells(column, members)
    found = sum(number_in(cell) is not None for cell in given)
    return column not in options.categories and 2 * found > len(given)


def _is_text(column: str, members: Sequence[Person]) -> bool:
    counts = Counter(_cells(column, members))
    alone = len(counts) > 2 and max(counts.values()) == 1
    return len(counts) > MOST_VALUES or alone or not counts


def _described(
    column: str, members: Sequence[Person], groups: Sequence[str], numeric: bool
) -> Described:
    values = Counter(_cells(column, members))
    order = sorted(values, key=lambda value: (-values[value], value))

    def of(some: Sequence[Person]) -> Part:
        cells = _cells(column, some)
        part = Part(n=len(cells), missing=len(some) - len(cells))
        if not numeric:
            return replace(part, counts={value: cells.count(value) for value in order})
        numbers = np.array([number_in(cell) for cell in cells], dtype=float)
        sd = float(numbers.std(ddof=1)) if len(cells) > 1 else None
        if not cells:
            return part
        mean, least, most = float(numbers.mean()), float(numbers.min()), float(numbers.max())
        return replace(part, mean=mean, sd=sd, min=least, max=most)

    by_group = {group: of([p for p in members if p.group == group]) for group in groups}
    return Described(column=column, total=of(members), groups=by_group)


def people_figures(people: People | None) -> dict[str, Any]:
    """Return every figure as plain values; none where nothing is known of participants."""
    return {} if people is None else {"people": {**asdict(people), "n": people.n}}


def people_sheets(people: People | None) -> Iterator[ReportTable]:
    """Yield the table of participants, and that of their ratings of the feedback."""
    if people is None:
        return
    header = ("what", "all", *people.groups)
    rows = [("participants", *map(str, (people.n, *people.groups.values())))]
    rows += [row for one in people.columns for row in one.rows]
    yield ReportTable(title="Participants", header=header, rows=tuple(rows))
    ratings = tuple(row for one in people.helpfulness for row in one.rows)
    if ratings:
        yield ReportTable(title="How helpful the feedback was", header=header, rows=ratings)


def _range(part: Part) -> str:
    return DASH if part.min is None else f"{part.min:g} to {part.max:g}"


def _counted(part: Part, value: str) -> str:
    asked, n = part.n + part.missing, (part.counts or {})[value]
    return f"{n} ({100 * n / asked:.0f} %)" if asked else "0"
