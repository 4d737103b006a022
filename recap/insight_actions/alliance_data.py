"""The columns that ``action=alliance`` correlates: from two tables, or from dialogues and one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from recap.analysis.joined import Key, join, join_key
from recap.analysis.sessions import count_sessions
from recap.analysis.utterances import Utterance
from recap.data.session_table import SessionTable, read_session_table
from recap.errors import ConfigError, DataError, did_you_mean
from recap.insight_actions.options import InsightsConfig
from recap.insight_actions.source import Source, read_source

Column = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class AllianceData:
    """Columns over the same sessions."""

    predictors: Mapping[str, Column]
    outcomes: Mapping[str, Column]
    clients: tuple[Hashable, ...] | None
    """Of each session; ``None`` where it is not known."""
    n_sessions: int
    notes: tuple[str, ...]
    predicted: bool


class _Side(Protocol):
    """One of the two places where columns come from, a row a session."""

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def n_rows(self) -> int: ...

    def keys(self, on: Sequence[str]) -> tuple[Key, ...]: ...

    def numbers(self, column: str) -> Column: ...

    def texts(self, column: str) -> tuple[str, ...]: ...


def read_alliance(config: InsightsConfig) -> AllianceData:
    """Return predictors and outcomes, joined by ``on``.

    Either file may hold both. Where both files have a column of one name, a predictor is taken from
    ``data.path`` and an outcome from ``outcomes.path``.

    Raises:
        ConfigError: When it is not said what to correlate.
        DataError: When a file cannot be used, or nothing is left after joining.
    """
    if not config.outcomes.columns:
        raise ConfigError("name the columns to correlate with: outcomes=[goal,task,bond]")
    source = None if config.predictors else read_source(config)
    first: _Side | None = None
    if source is not None:
        first = _Dialogues(source)
    elif config.data.path is not None:
        first = _table(Path(config.data.path), config.data.options)
    second = None if config.outcomes.path is None else _table(Path(config.outcomes.path), {})
    if first is None and second is None:
        raise ConfigError("name a table with data.path=FILE or outcomes.path=FILE")
    predictors = config.predictors or tuple(_share_names(source))
    joined = _join(first, second, config)
    return AllianceData(
        predictors={name: joined.column(name, prefer=0) for name in predictors},
        outcomes={name: joined.column(name, prefer=1) for name in config.outcomes.columns},
        clients=joined.clients(config.alliance.client, source),
        n_sessions=joined.n,
        notes=(*(source.annotated.notes() if source is not None else ()), *joined.notes),
        predicted=source is not None and source.annotated.predicted,
    )


@dataclass(frozen=True, kw_only=True)
class _JoinedSides:
    sides: tuple[tuple[_Side, tuple[int, ...]], ...]
    n: int
    notes: tuple[str, ...]

    def column(self, name: str, *, prefer: int) -> Column:
        side, rows = self._find(name, prefer)
        values = side.numbers(name)
        return tuple(values[row] for row in rows)

    def clients(self, name: str | None, source: Source | None) -> tuple[Hashable, ...] | None:
        if name is None:
            known = source is not None and all(u.client for u in source.annotated.utterances)
            if not known:
                return None
            name = "client"
        side, rows = self._find(name, 0)
        values = [side.texts(name)[row].strip() for row in rows]
        if not all(values):
            raise DataError(
                f"alliance.client={name}: is empty for {sum(not v for v in values)} sessions"
            )
        return tuple(values)

    def _find(self, name: str, prefer: int) -> tuple[_Side, tuple[int, ...]]:
        ordered = self.sides if prefer == 0 else self.sides[::-1]
        for side, rows in ordered:
            if name in side.columns:
                return side, rows
        known = [c for side, _ in self.sides for c in side.columns]
        raise DataError(
            f"no file has a column {name!r}{did_you_mean(name, known)}; there are: "
            f"{', '.join(dict.fromkeys(known))}"
        )


def _join(first: _Side | None, second: _Side | None, config: InsightsConfig) -> _JoinedSides:
    on = config.on or ("session",)
    if first is None or second is None:
        only = first or second
        assert only is not None
        rows = tuple(range(only.n_rows))
        return _JoinedSides(sides=((only, rows),), n=only.n_rows, notes=())
    joined = join(first.keys(on), second.keys(on))
    if not joined.keys:
        raise DataError(
            f"no session has the same {', '.join(on)} in both files; correct on=[…], or the ids"
        )
    notes = []
    if joined.only_first or joined.only_second:
        notes.append(
            f"Joined by {', '.join(on)}: {len(joined.keys)} sessions are in both files; "
            f"{joined.only_first} of data.path and {joined.only_second} of outcomes.path are in "
            "one alone and left out."
        )
    return _JoinedSides(
        sides=((first, joined.first), (second, joined.second)),
        n=len(joined.keys),
        notes=tuple(notes),
    )


def _table(path: Path, options: Mapping[str, Any]) -> _TableSide:
    table = read_session_table(path, delimiter=options.get("delimiter"), sheet=options.get("sheet"))
    return _TableSide(table=table)


@dataclass(frozen=True, kw_only=True)
class _TableSide:
    table: SessionTable

    @property
    def columns(self) -> tuple[str, ...]:
        return self.table.columns

    @property
    def n_rows(self) -> int:
        return len(self.table.rows)

    def keys(self, on: Sequence[str]) -> tuple[Key, ...]:
        return self.table.keys(on)

    def numbers(self, column: str) -> Column:
        return self.table.numbers(column)

    def texts(self, column: str) -> tuple[str, ...]:
        self.table.require(column, "correct alliance.client")
        return tuple(row[column] for row in self.table.rows)


def _share_names(source: Source | None) -> list[str]:
    assert source is not None
    whole = OVERALL if OVERALL not in source.behaviors else "all resistance"
    return [*source.behaviors, *([whole] if len(source.behaviors) > 1 else [])]


OVERALL = "Resistance"
"""Name of the share of all resistant utterances, as in Table 13."""


class _Dialogues:
    """Sessions of dialogues: shares of behaviours as columns, and the fields of ``meta``."""

    def __init__(self, source: Source) -> None:
        self._sessions = count_sessions(
            source.annotated.utterances, source.labels, source.is_resistant
        )
        by_session: dict[str, Utterance] = {}
        for utterance in source.annotated.utterances:
            by_session.setdefault(utterance.session, utterance)
        self._fields = [_fields(by_session[session.session]) for session in self._sessions]
        table = np.array([session.counts for session in self._sessions], dtype=np.float64)
        shares = table / table.sum(axis=1, keepdims=True)
        self._shares: dict[str, Column] = {
            label: tuple(shares[:, source.labels.index(label)].tolist())
            for label in source.behaviors
        }
        names = _share_names(source)
        if len(names) > len(source.behaviors):
            self._shares[names[-1]] = tuple(session.share for session in self._sessions)
        self.columns = (*self._shares, *dict.fromkeys(k for f in self._fields for k in f))
        self.n_rows = len(self._sessions)

    def keys(self, on: Sequence[str]) -> tuple[Key, ...]:
        # A table may call the session's id whatever it likes.
        if len(on) == 1 and not all(on[0] in fields for fields in self._fields):
            on = ("session",)
        for column in on:
            lacking = sum(column not in fields for fields in self._fields)
            if lacking:
                raise DataError(
                    f"on={column}: {lacking} sessions of the dialogues have no such field"
                )
        keys = [join_key([str(fields[c]) for c in on]) for fields in self._fields]
        if on and len(set(keys)) < len(keys):
            raise DataError(
                f"on={', '.join(on)}: does not tell the sessions of the dialogues apart"
            )
        return tuple(keys)

    def numbers(self, column: str) -> Column:
        if column in self._shares:
            return self._shares[column]
        try:
            return tuple(
                float("nan" if _is_blank(fields.get(column)) else fields[column])
                for fields in self._fields
            )
        except (TypeError, ValueError, OverflowError):
            raise DataError(
                f"{column}: is no number in every dialogue that has it; correct outcomes=[…]"
            ) from None

    def texts(self, column: str) -> tuple[str, ...]:
        return tuple(
            "" if _is_blank(fields.get(column)) else str(fields[column]) for fields in self._fields
        )


def _is_blank(value: object) -> bool:
    """Whether a field says nothing; 0 is a figure, and an id, as good as any."""
    return value is None or value == ""


def _fields(utterance: Utterance) -> dict[str, Any]:
    own = {
        "session": utterance.session,
        "client": utterance.client,
        "counselor": utterance.counselor,
    }
    return {**utterance.meta, **{k: v for k, v in own.items() if v is not None}}
