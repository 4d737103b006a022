"""``action=alliance``: how shares of behaviors go together with outcomes, as in Table 13.

Columns come from two tables with a row a session, joined by their keys, or from dialogues and one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recap.data.corpus import account_notes
from recap.data.issues import IssueLog
from recap.data.names import identity, is_missing
from recap.data.readers.tables import read_sheet
from recap.data.sheets import number_in
from recap.data.utterances import Utterance
from recap.errors import ConfigError, DataError, did_you_mean, quote_id
from recap.insights.options import FEW_UNITS, InsightsConfig
from recap.insights.source import AnnotatedSource, read_source
from recap.output.format import DASH, ends, number, p_cell
from recap.output.report import Report
from recap.output.tables import ReportTable, table_of
from recap.statistics.correlation import (
    STARS,
    Correlation,
    benjamini_hochberg,
    correlate,
    holm,
    stars,
)
from recap.statistics.sessions import count_sessions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

JoinKey = tuple[str, ...]

_WHOLE = re.compile(r"^(-?\d+)\.0+$")


def join_key(values: Sequence[str]) -> JoinKey:
    """Return the form in which keys are compared: as names are, and ``7.0`` as ``7``.

    >>> join_key([" 7.0", "S1"])
    ('7', 'S1')
    """
    return tuple(
        "" if is_missing(value) else _WHOLE.sub(r"\1", identity(value)) for value in values
    )


def join(first: Sequence[JoinKey], second: Sequence[JoinKey]) -> list[tuple[int, int]]:
    """Return the rows with equal keys, which are unique in each table, in the order of the first.

    >>> join([("1",), ("2",)], [("9",), ("1",)])
    [(0, 1)]
    """
    place = {key: index for index, key in enumerate(second)}
    return [(index, place[key]) for index, key in enumerate(first) if key in place]


_TABLES = (".csv", ".tsv", ".txt", ".xlsx", ".xlsm")


@dataclass(frozen=True, kw_only=True)
class SessionTable:
    """The cells of a table as they stand; rows keep the line they have in the file."""

    path: Path
    columns: tuple[str, ...]
    lines: tuple[int, ...]
    rows: tuple[Mapping[str, str], ...]

    @property
    def n_rows(self) -> int:
        """How many sessions there are."""
        return len(self.rows)

    def keys(self, on: Sequence[str]) -> tuple[JoinKey, ...]:
        """Return the key of each row.

        Raises:
            DataError: When a column is missing, or a key is empty or occurs twice.
        """
        for column in on:
            self.require(column, "correct on=[…]")
        issues = IssueLog(str(self.path))
        first: dict[JoinKey, int] = {}
        keys = []
        for line, row in zip(self.lines, self.rows, strict=True):
            issues.row()
            key = join_key([row[column] for column in on])
            field = ", ".join(on)
            if not all(key):
                issues.reject(line, field, "is empty", "write the session's id in every row")
            elif first.setdefault(key, line) != line:
                shown = " and ".join(quote_id(part) for part in key)
                reason = f"{shown} is at line {first[key]} already"
                hint = "keep one row a session, or name more columns with on=[…]"
                issues.reject(line, field, reason, hint)
            keys.append(key)
        if issues.issues:
            raise issues.error()
        return tuple(keys)

    def numbers(self, column: str) -> tuple[float, ...]:
        """Return a column of numbers, NaN where the cell says that there is none.

        Raises:
            DataError: When the column is missing, or a cell is neither.
        """
        self.require(column, "correct predictors=[…] or outcomes=[…]")
        issues = IssueLog(str(self.path))
        values = []
        for line, row in zip(self.lines, self.rows, strict=True):
            issues.row()
            values.append(_number(row[column], line, column, issues))
        if issues.issues:
            raise issues.error()
        return tuple(values)

    def texts(self, column: str) -> tuple[str, ...]:
        """Return the cells of a column.

        Raises:
            DataError: When it is missing.
        """
        self.require(column, "correct alliance.client")
        return tuple(row[column] for row in self.rows)

    def require(self, column: str, hint: str) -> None:
        """Check that there is a column of this name.

        Raises:
            DataError: When there is none.
        """
        if column not in self.columns:
            raise DataError(
                f"{self.path}: has no column {column!r}{did_you_mean(column, self.columns)}; {hint}"
            )


def read_session_table(
    path: Path, *, delimiter: str | None = None, sheet: str | None = None
) -> SessionTable:
    """Return a CSV or Excel table.

    Raises:
        DataError: When the file cannot be read, or rows do not fit its header.
    """
    if path.suffix.lower() not in _TABLES:
        raise DataError(f"{path}: is no table; give a .csv or .xlsx file")
    issues = IssueLog(str(path))
    table = read_sheet(path, issues, delimiter=delimiter, sheet=sheet)
    rows = list(table.rows)
    if issues.issues:
        raise issues.error()
    if not rows:
        raise DataError(f"{path}: holds no rows below its header")
    return SessionTable(
        path=table.path,
        columns=table.columns,
        lines=tuple(line for line, _ in rows),
        rows=tuple(row for _, row in rows),
    )


def _number(cell: str, line: int, column: str, issues: IssueLog) -> float:
    text = cell.strip()
    if is_missing(text):
        return math.nan
    value = number_in(text)
    if value is None:
        reason = f"is no number (a text of {len(text)} characters)"
        hint = "write a number with a decimal point, or leave it empty"
        issues.reject(line, column, reason, hint)
        return math.nan
    return value


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
    sides: list[_Side] = []
    if source is not None:
        sides.append(_Dialogues(source))
    elif config.data.path is not None:
        options = config.data.options
        sides.append(
            read_session_table(
                Path(config.data.path),
                delimiter=options.get("delimiter"),
                sheet=options.get("sheet"),
            )
        )
    if config.outcomes.path is not None:
        sides.append(read_session_table(Path(config.outcomes.path)))
    if not sides:
        raise ConfigError("name a table with data.path=FILE or outcomes.path=FILE")
    predictors = config.predictors or tuple(_share_names(source))
    joined = _join(sides, config.on or ("session",))
    return AllianceData(
        predictors={name: joined.column(name, prefer=0) for name in predictors},
        outcomes={name: joined.column(name, prefer=1) for name in config.outcomes.columns},
        clients=joined.clients(config.alliance.client, source),
        n_sessions=joined.n,
        notes=(*(source.annotated.notes() if source is not None else ()), *joined.notes),
        predicted=source is not None and source.annotated.predicted,
    )


@dataclass(frozen=True, kw_only=True)
class _Joined:
    """Both places where columns come from, or one, and the rows of each that belong together."""

    sides: tuple[tuple[_Side, tuple[int, ...]], ...]
    n: int
    notes: tuple[str, ...]

    def column(self, name: str, *, prefer: int) -> Column:
        side, rows = self._find(name, prefer)
        values = side.numbers(name)
        return tuple(values[row] for row in rows)

    def clients(
        self, name: str | None, source: AnnotatedSource | None
    ) -> tuple[Hashable, ...] | None:
        if name is None:
            known = source is not None and all(u.client for u in source.annotated.utterances)
            if not known:
                return None
            name = "client"
        side, rows = self._find(name, 0)
        texts = side.texts(name)
        values = ["" if is_missing(texts[row]) else identity(texts[row]) for row in rows]
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


def _join(sides: Sequence[_Side], on: Sequence[str]) -> _Joined:
    if len(sides) == 1:
        rows = tuple(range(sides[0].n_rows))
        return _Joined(sides=((sides[0], rows),), n=len(rows), notes=())
    first, second = sides
    pairs = join(first.keys(on), second.keys(on))
    if not pairs:
        raise DataError(
            f"no session has the same {', '.join(on)} in both files; correct on=[…], or the ids"
        )
    names = IssueLog("on")
    for side in sides:
        for column in on if set(on) <= set(side.columns) else ():
            for written in side.texts(column):
                names.name(column, written)
    alone = [side.n_rows - len(pairs) for side in sides]
    note = (
        f"Joined by {', '.join(on)}: {len(pairs)} sessions are in both files; {alone[0]} of "
        f"data.path and {alone[1]} of outcomes.path are in one alone and left out."
    )
    return _Joined(
        sides=tuple(zip(sides, zip(*pairs, strict=True), strict=True)),
        n=len(pairs),
        notes=(*((note,) if any(alone) else ()), *account_notes(names.counts)),
    )


def _share_names(source: AnnotatedSource | None) -> list[str]:
    assert source is not None
    whole = OVERALL if OVERALL not in source.behaviors else "all resistance"
    return [*source.behaviors, *([whole] if len(source.behaviors) > 1 else [])]


OVERALL = "Resistance"
"""Name of the share of all resistant utterances, as in Table 13."""


class _Dialogues:
    """Sessions of dialogues: shares of behaviors as columns, and the fields of ``meta``."""

    def __init__(self, source: AnnotatedSource) -> None:
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

    def keys(self, on: Sequence[str]) -> tuple[JoinKey, ...]:
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


_Side = SessionTable | _Dialogues
"""One of the two places where columns come from, a row a session."""


def _is_blank(value: object) -> bool:
    """Whether a field says nothing; 0 is a figure, and an id, as good as any."""
    return value is None or (isinstance(value, str) and is_missing(value))


def _fields(utterance: Utterance) -> dict[str, Any]:
    own = {
        "session": utterance.session,
        "client": utterance.client,
        "counselor": utterance.counselor,
    }
    return {**utterance.meta, **{k: v for k, v in own.items() if v is not None}}


def find_alliance(config: InsightsConfig) -> Report:
    """Return the correlation of every predictor with every outcome.

    Raises:
        ConfigError: When it is not said what to correlate.
        DataError: When a file cannot be used.
    """
    data = read_alliance(config)
    found = _correlations(config, data)
    predicted = " (predicted labels)" if data.predicted else ""
    return Report(
        action="alliance",
        title=f"Correlations with outcomes over {data.n_sessions} sessions{predicted}",
        figures={
            "n_sessions": data.n_sessions,
            "predicted": data.predicted,
            "clustered_by": config.alliance.client or ("client" if data.clients else "session"),
            "confidence": config.confidence,
            "resamples": config.resamples,
            "seed": config.seed,
            "n_tests": sum(c.p is not None for c in found),
            "correlations": [asdict(c) for c in found],
        },
        sheets=(
            _table_13(data, found, predicted),
            *(_details(outcome, found, config) for outcome in data.outcomes),
        ),
        notes=tuple(_notes(config, data, found)),
        rows=[asdict(c) for c in found],
        charts={"alliance": partial(_heat_map, data, found, config.alliance.method)},
    )


_METHODS = {"holm": "Holm", "bh": "Benjamini-Hochberg"}


def _correlations(config: InsightsConfig, data: AllianceData) -> list[Correlation]:
    found = [
        correlate(
            x,
            y,
            predictor=predictor,
            outcome=outcome,
            clusters=data.clients,
            confidence=config.confidence,
            resamples=config.resamples,
            seed=config.seed,
        )
        for predictor, x in data.predictors.items()
        for outcome, y in data.outcomes.items()
    ]
    p = [c.p for c in found]
    return [
        replace(c, p_holm=a, p_bh=b)
        for c, a, b in zip(found, holm(p), benjamini_hochberg(p), strict=True)
    ]


def _table_13(data: AllianceData, found: list[Correlation], predicted: str) -> ReportTable:
    by_pair = {(c.predictor, c.outcome): c for c in found}
    rows = [
        (name, *(_starred(by_pair[name, outcome]) for outcome in data.outcomes))
        for name in data.predictors
    ]
    header = ("predictor", *data.outcomes)
    return ReportTable(title=f"Pearson's r{predicted}", header=header, rows=tuple(rows))


def _details(outcome: str, found: list[Correlation], config: InsightsConfig) -> ReportTable:
    return table_of(
        f"With {outcome}",
        (c for c in found if c.outcome == outcome),
        {
            "predictor": lambda c: c.predictor,
            "n": lambda c: f"{c.n:,}",
            "r": lambda c: _starred(c, 3),
            f"{100 * config.confidence:g} %": lambda c: ends(c.low, c.high),
            "p": lambda c: p_cell(c.p),
            "Holm": lambda c: p_cell(c.p_holm) + stars(c.p_holm),
            "BH": lambda c: p_cell(c.p_bh) + stars(c.p_bh),
            "Spearman": lambda c: DASH if c.rho is None else f"{number(c.rho, 3)}{stars(c.rho_p)}",
            "clustered": lambda c: ends(c.cluster_low, c.cluster_high),
        },
    )


def _notes(config: InsightsConfig, data: AllianceData, found: list[Correlation]) -> list[str]:
    marks = ", ".join(f"{mark} p < {limit:g}" for limit, mark in STARS)
    n_tests = sum(c.p is not None for c in found)
    which = (
        f"{marks}, two-sided, uncorrected as in Table 13 of the paper; Holm and BH "
        f"(Benjamini-Hochberg) correct for the {n_tests} tests of this table."
    )
    how = (
        "Interval of r: Fisher's z; p: Student's t with n - 2 degrees of freedom. Both take "
        "sessions for independent."
    )
    notes = [*data.notes, which, how]
    if config.resamples:
        whole = "sessions" if data.clients is None else "clients with all their sessions"
        n = max((c.n_clusters for c in found), default=0)
        notes.append(
            f"Clustered interval: percentiles of {config.resamples} bootstrap resamples of {whole} "
            f"({n}), seed {config.seed}."
        )
        if n < FEW_UNITS:
            notes.append(f"With so few of them ({n}) clustered intervals are rough.")
    if data.clients is None:
        notes.append(
            "Whose sessions these are is not known: where clients have several, intervals and p "
            "are too narrow; name the column of the client with alliance.client=COLUMN."
        )
    elif len({*data.clients}) < data.n_sessions:
        notes.append(
            "Clients have several sessions: trust the clustered interval before p and stars."
        )
    constant = [c for c in found if c.r is None]
    if constant:
        pairs = ", ".join(f"{c.predictor} · {c.outcome}" for c in constant)
        notes.append(f"No correlation, since one of the two never varies: {pairs}.")
    gaps = [c for c in found if c.n < data.n_sessions]
    if gaps:
        notes.append(
            f"Empty cells: {len(gaps)} pairs rest on fewer sessions (column n), pair by pair."
        )
    return notes


def _starred(c: Correlation, digits: int = 4) -> str:
    return DASH if c.r is None else f"{number(c.r, digits)}{c.stars}"


_DARK = 0.62
"""Part of the scale from which numbers are written in white."""


def _heat_map(data: AllianceData, found: list[Correlation], method: str) -> Figure:
    """Return correlations as colors and numbers; blue negative, red positive."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    rows, columns = tuple(data.predictors), tuple(data.outcomes)
    size = (2.2 + 1.1 * len(columns), 1.1 + 0.32 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    values = np.array([np.nan if c.r is None else c.r for c in found])
    known = np.abs(values[~np.isnan(values)])
    most = float(known.max()) if known.size and known.max() > 0 else 1.0
    image = axes.imshow(
        values.reshape(len(rows), len(columns)), cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto"
    )
    for index, c in enumerate(found):
        y, x = divmod(index, len(columns))
        color = "w" if c.r is not None and abs(c.r) > _DARK * most else "k"
        axes.text(x, y, _starred(c, 2), ha="center", va="center", fontsize=7, color=color)
        p = c.p_holm if method == "holm" else c.p_bh
        if p is not None and p < 0.05:
            axes.add_patch(
                Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, fill=False, edgecolor="k", linewidth=1)
            )
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.tick_params(length=0)
    axes.set_xlabel(f"frame: p < .05 after {_METHODS[method]}", fontsize=7, color="#555555")
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, shrink=0.8).set_label("Pearson's r", fontsize=8)
    return figure
