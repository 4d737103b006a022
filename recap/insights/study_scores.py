"""The scores of a counselor study, read from a long table and put in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recap.data.issues import IssueLog
from recap.data.names import identity, is_missing
from recap.data.readers.registry import require_column
from recap.data.readers.tables import read_sheet
from recap.data.sheets import number_in
from recap.errors import ConfigError, DataError, did_you_mean, quote_id
from recap.insights.options import StudyOptions

_LISTED = 20
_USUAL_ORDERS = tuple(
    tuple(pair.split("/"))
    for pair in (
        *("pre/post", "pretest/posttest", "pre-test/post-test", "before/after", "t0/t1", "t1/t2"),
        *("1/2", "0/1", "first/second", "baseline/follow-up", "前测/后测", "干预前/干预后"),
        *("control/experimental", "control/treatment", "control/intervention", "对照组/实验组"),
    )
)
"""Pairs of names whose order everybody knows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreRow:
    """One row of a long table, found at ``line`` of its file."""

    line: int
    participant: str
    group: str
    phase: str
    score: float


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """The scores of a complete study; differences are second minus first, of groups and phases."""

    participants: tuple[str, ...]
    groups: tuple[str, str]
    phases: tuple[str, str]
    group: NDArray[np.int64]
    """``(participants,)``, each 0 or 1."""
    scores: NDArray[np.float64]
    """``(participants, 2)``, a column a phase."""
    rows_a_score: int
    """Rows that one score is the mean of, at most."""

    def of_group(self, index: int) -> NDArray[np.float64]:
        """Return one group's scores, ``(participants of the group, 2)``."""
        members: NDArray[np.float64] = self.scores[self.group == index]
        return members


def arrange_scores(
    rows: Sequence[ScoreRow],
    *,
    file: str,
    groups: Sequence[str] = (),
    phases: Sequence[str] = (),
    repeated: Literal["refuse", "mean"] = "refuse",
) -> ScoreTable:
    """Return the table of a study, its participants in the order of the rows.

    Args:
        rows: Of the long table.
        file: How messages call it.
        groups: The two groups in order; none: by their usual names, else as they come.
        phases: The two phases in order, likewise.
        repeated: Whether several rows of one participant and phase are averaged (``mean``), as when
            there is a row a scenario, or are a fault.

    Raises:
        DataError: When there are not two groups and two phases, someone is in both groups or lacks
            a phase, or a group has fewer than two participants; participants are listed.
        ConfigError: For a chosen group or phase that does not occur.
    """
    if not rows:
        raise DataError(f"{file}: holds no scores; write a row a participant and phase")
    in_order = _two("group", [row.group for row in rows], groups, file)
    phase_order = _two("phase", [row.phase for row in rows], phases, file)
    groups_of: dict[str, set[str]] = {}
    lines: dict[str, int] = {}
    cells: dict[tuple[str, str], list[ScoreRow]] = {}
    for row in rows:
        groups_of.setdefault(row.participant, set()).add(row.group)
        lines.setdefault(row.participant, row.line)
        cells.setdefault((row.participant, row.phase), []).append(row)
    _refuse(
        file,
        {who: lines[who] for who, found in groups_of.items() if len(found) > 1},
        "in both groups",
        "give every participant an id and a group of their own",
    )
    for phase in phase_order:
        _refuse(
            file,
            {who: line for who, line in lines.items() if (who, phase) not in cells},
            f"without a score in phase {phase!r}",
            "complete the table, or leave these participants out of it",
        )
    if repeated == "refuse":
        _refuse(
            file,
            {who: found[1].line for (who, _), found in cells.items() if len(found) > 1},
            "with several rows for one phase",
            "keep one, or average them with study.repeated=mean (a row a scenario, say)",
        )
    group = np.array([in_order.index(found.pop()) for found in groups_of.values()])
    for index, name in enumerate(in_order):
        if (group == index).sum() < 2:
            raise DataError(
                f"{file}: group {name!r} has one participant; an analysis of variance "
                "needs two at least"
            )
    means = [
        [np.mean([row.score for row in cells[who, phase]]) for phase in phase_order]
        for who in groups_of
    ]
    return ScoreTable(
        participants=tuple(groups_of),
        groups=in_order,
        phases=phase_order,
        group=group,
        scores=np.array(means),
        rows_a_score=max(map(len, cells.values())),
    )


def _two(what: str, found: Sequence[str], chosen: Sequence[str], file: str) -> tuple[str, str]:
    names = list(dict.fromkeys(found))
    chosen = [identity(name) for name in chosen]
    for name in chosen:
        if name not in names:
            raise ConfigError(
                f"study.{what}s: {file} has no {what} {name!r}{did_you_mean(name, names)}"
            )
    if len(names) != 2:
        listed = ", ".join(quote_id(name) for name in names[:5])
        raise DataError(
            f"{file}: has {len(names)} {what}s ({listed}); a 2 x 2 study has two: "
            f"leave the rows of others out, or name another column with study.{what}=COLUMN"
        )
    if chosen:
        if len(set(chosen)) != 2:
            raise ConfigError(f"study.{what}s: name both {what}s in order, as [first,second]")
        return chosen[0], chosen[1]
    folded = {name.strip().casefold().replace(" ", "-"): name for name in names}
    for order in _USUAL_ORDERS:
        if set(folded) == set(order):
            return folded[order[0]], folded[order[1]]
    return names[0], names[1]


def _refuse(file: str, participants: Mapping[str, int], why: str, hint: str) -> None:
    """Raise an error that lists participants, given with the line of a row of theirs."""
    if not participants:
        return
    shown = [
        quote_id(who) if quote_id(who) == repr(who) else f"the one of line {line}"
        for who, line in list(participants.items())[:_LISTED]
    ]
    more = f" and {len(participants) - _LISTED} more" if len(participants) > _LISTED else ""
    count = f"{len(participants)} participants" if len(participants) > 1 else "1 participant"
    raise DataError(f"{file}: {count} {why}: {', '.join(shown)}{more}; {hint}")


ROLES = ("participant", "group", "phase", "score")
"""What the columns of a long table hold."""


def read_scores(path: Path, options: StudyOptions, *, issues: IssueLog) -> tuple[ScoreRow, ...]:
    """Return the sound rows of a CSV or Excel file.

    Args:
        path: The file.
        options: Name its columns, and its Excel sheet; other columns are not looked at.
        issues: Where bad rows are noted.

    Raises:
        DataError: When the file cannot be read or lacks a column.
    """
    table = read_sheet(path, issues, sheet=options.sheet)
    names: dict[str, str] = {role: getattr(options, role) for role in ROLES}
    for role, column in names.items():
        require_column(path, table.columns, column, f"name it with study.{role}=COLUMN")
    rows = []
    for line, cells in table.rows:
        values = {role: identity(cells[column]) for role, column in names.items()}
        for role in ("participant", "score"):
            # A group may well be called none.
            values[role] = "" if is_missing(values[role]) else values[role]
        missing = [role for role in names if not values[role]]
        for role in missing:
            issues.reject(line, names[role], "is empty", "complete the row, or remove it")
        score = number_in(values["score"])
        if score is None and "score" not in missing:
            reason = f"is no number but a text of {len(values['score'])} characters"
            issues.reject(line, names["score"], reason, "write a number with a decimal point")
        elif score is not None and not missing:
            rows.append(ScoreRow(line=line, **{**values, "score": score}))  # type: ignore[arg-type]
    return tuple(rows)
