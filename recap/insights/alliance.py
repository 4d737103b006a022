"""``action=alliance``: how shares of behaviors go together with outcomes, as in Table 13.

Columns come from two tables with a row a session, joined by their keys, or from dialogues and one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recap.data.corpus import account_notes
from recap.data.issues import IssueLog
from recap.data.names import identity, is_missing
from recap.data.readers.registry import USUAL_NAMES, fold_name, require_column
from recap.data.readers.tables import read_sheet
from recap.data.sheets import number_in
from recap.data.utterances import Utterance
from recap.errors import ConfigError, DataError, did_you_mean, quote_id
from recap.insights.options import InsightsConfig
from recap.insights.source import AnnotatedSource, notes_of, read_source
from recap.output.charts import open_axes
from recap.output.format import DASH, ends, number, p_cell
from recap.output.report import Report
from recap.output.tables import ReportTable, table_of
from recap.statistics.clusters import Interval, clustered, reasons
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
    """A row a session, its cells as they stand; ``None`` where dialogues lack a field."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, object], ...]
    lines: tuple[int, ...]
    """Where the rows stand in the file; empty for sessions of dialogues."""

    def keys(self, on: Sequence[str]) -> tuple[JoinKey, ...]:
        """Return the key of each row.

        Dialogues that lack the one column are known by their ``session``: a table may call it
        whatever it likes.

        Raises:
            DataError: When a column is missing, or a key is empty or occurs twice.
        """
        if not self.lines and len(on) == 1 and any(on[0] not in row for row in self.rows):
            on = ("session",)
        cells = [self.texts(column, "correct on=[…]") for column in on]
        keys = [join_key(key) for key in zip(*cells, strict=True)]
        issues = IssueLog(str(self.path))
        issues.rows_read = len(keys)
        first: dict[JoinKey, int] = {}
        for place, key in enumerate(keys):
            line, field = self._line(place), ", ".join(on)
            if not all(key):
                issues.reject(line, field, "is empty", "write the session's id in every row")
            elif first.setdefault(key, line) != line:
                shown = " and ".join(quote_id(part) for part in key)
                where = "at line" if self.lines else "that of session"
                reason = f"{shown} is {where} {first[key]} already"
                hint = "keep one row a session, or name more columns with on=[…]"
                issues.reject(line, field, reason, hint)
        self._refuse(issues)
        return tuple(keys)

    def numbers(self, column: str) -> tuple[float, ...]:
        """Return a column of numbers, NaN where the cell says that there is none.

        Raises:
            DataError: When the column is missing, or a cell is neither.
        """
        issues = IssueLog(str(self.path))
        values = []
        for place, cell in enumerate(self.texts(column, "correct predictors=[…] or outcomes=[…]")):
            issues.row()
            value = math.nan if is_missing(cell) else number_in(cell)
            if value is None:
                reason = f"is no number (a text of {len(cell)} characters)"
                hint = "write a number with a decimal point, or leave it empty"
                issues.reject(self._line(place), column, reason, hint)
            values.append(math.nan if value is None else value)
        self._refuse(issues)
        return tuple(values)

    def texts(self, column: str, hint: str) -> tuple[str, ...]:
        """Return the cells of a column without blanks around them.

        Raises:
            DataError: When it is missing, saying what to do.
        """
        require_column(self.path, self.columns, column, hint)
        cells = [row.get(column) for row in self.rows]
        return tuple("" if cell is None else str(cell).strip() for cell in cells)

    def _line(self, place: int) -> int:
        return self.lines[place] if self.lines else place + 1

    def _refuse(self, issues: IssueLog) -> None:
        if issues.issues and not self.lines:
            one = issues.issues[0]
            raise DataError(
                f"{self.path}: {one.field}: cannot be used in {issues.rows_rejected} of "
                f"{issues.rows_read} sessions of the dialogues; session {one.line} "
                f"{one.reason}, {one.hint}"
            )
        if issues.issues:
            raise issues.error()


def read_session_table(
    path: Path,
    *,
    texts: Iterable[str] = (),
    delimiter: str | None = None,
    sheet: str | None = None,
) -> SessionTable:
    """Return a CSV or Excel table, of which ``texts`` are the columns of names and ids.

    Raises:
        DataError: When the file cannot be read, or rows do not fit its header.
    """
    if path.suffix.lower() not in _TABLES:
        raise DataError(f"{path}: is no table; give a .csv or .xlsx file")
    issues = IssueLog(str(path))
    table = read_sheet(path, issues, delimiter=delimiter, sheet=sheet)
    table.texts.update(texts)
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


def _dialogue_table(source: AnnotatedSource, path: Path) -> SessionTable:
    """Return sessions of dialogues: the fields of ``meta``, and shares of behaviors."""
    first: dict[str, Utterance] = {}
    for utterance in source.annotated.utterances:
        first.setdefault(utterance.session, utterance)
    rows: list[dict[str, object]] = []
    for found in count_sessions(source.annotated.utterances, source.labels, source.is_resistant):
        u, counts = first[found.session], dict(zip(source.labels, found.counts, strict=True))
        own = {"session": u.session, "client": u.client, "counselor": u.counselor}
        shares = {label: counts[label] / found.n for label in source.behaviors}
        shares |= dict.fromkeys(_share_names(source)[len(shares) :], found.share)
        rows.append({**u.meta, **{k: v for k, v in own.items() if v is not None}, **shares})
    columns = dict.fromkeys([*_share_names(source), *(name for row in rows for name in row)])
    return SessionTable(path=path, columns=tuple(columns), rows=tuple(rows), lines=())


def _share_names(source: AnnotatedSource) -> list[str]:
    whole = OVERALL if OVERALL not in source.behaviors else "all resistance"
    return [*source.behaviors, *([whole] if len(source.behaviors) > 1 else [])]


OVERALL = "Resistance"
"""Name of the share of all resistant utterances, as in Table 13."""

Column = tuple[float, ...]
Side = tuple[SessionTable, tuple[int, ...]]
"""A table, and those of its rows that belong together with the rows of the other one."""


@dataclass(frozen=True, kw_only=True)
class AllianceData:
    """Columns over the same sessions."""

    predictors: Mapping[str, Column]
    outcomes: Mapping[str, Column]
    clients: tuple[str, ...] | None
    """Of each session, or its counselor; ``None`` where neither is known."""
    kind: str
    """What these are: ``client``, ``counselor``, else ``session``."""
    n_sessions: int
    alone: tuple[int, ...]
    """Sessions of each file that the other one lacks."""
    name_counts: Mapping[str, int]
    """Keys that are written in several forms, as :func:`recap.data.corpus.account_notes` has it."""
    source: AnnotatedSource | None
    """The dialogues that predictors were computed from."""


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
    tables = []
    on = config.on or ("session",)
    read = partial(read_session_table, texts=(*on, *filter(None, (config.alliance.client,))))
    path, options = config.data.path, config.data.options
    if source is not None:
        tables.append(_dialogue_table(source, Path(path or config.predictions or config.data.name)))
    elif path is not None:
        delimiter, sheet = options.get("delimiter"), options.get("sheet")
        tables.append(read(Path(path), delimiter=delimiter, sheet=sheet))
    if config.outcomes.path is not None:
        tables.append(read(Path(config.outcomes.path)))
    if not tables:
        raise ConfigError("name a table with data.path=FILE or outcomes.path=FILE")
    sides = _joined(tables, on)
    predictors = config.predictors or (tuple(_share_names(source)) if source else ())
    kind, clients = _clients(config.alliance.client, sides)
    return AllianceData(
        predictors={name: _numbers(name, sides) for name in predictors},
        outcomes={name: _numbers(name, sides[::-1]) for name in config.outcomes.columns},
        clients=clients,
        kind=kind,
        n_sessions=len(sides[0][1]),
        alone=tuple(len(table.rows) - len(rows) for table, rows in sides),
        name_counts=_name_counts(tables, on),
        source=source,
    )


def _joined(tables: Sequence[SessionTable], on: Sequence[str]) -> list[Side]:
    if len(tables) == 1:
        return [(tables[0], tuple(range(len(tables[0].rows))))]
    first, second = tables
    pairs = join(first.keys(on), second.keys(on))
    if not pairs:
        raise DataError(
            f"no session has the same {', '.join(on)} in both files; correct on=[…], or the ids"
        )
    return list(zip(tables, zip(*pairs, strict=True), strict=True))


def _name_counts(tables: Sequence[SessionTable], on: Sequence[str]) -> Mapping[str, int]:
    names = IssueLog("on")
    for table in tables:
        for column in on if len(tables) > 1 and set(on) <= set(table.columns) else ():
            for written in table.texts(column, ""):
                names.name(column, written)
    return names.counts


def _with_column(name: str, sides: Sequence[Side]) -> Side:
    """Return the first side that has a column."""
    found = next((side for side in sides if name in side[0].columns), None)
    if found is None:
        known = dict.fromkeys(column for table, _ in sides for column in table.columns)
        raise DataError(
            f"no file has a column {name!r}{did_you_mean(name, known)}; there are: "
            f"{', '.join(known)}"
        )
    return found


def _numbers(name: str, sides: Sequence[Side]) -> Column:
    table, rows = _with_column(name, sides)
    values = table.numbers(name)
    return tuple(values[row] for row in rows)


def _clients(name: str | None, sides: Sequence[Side]) -> tuple[str, tuple[str, ...] | None]:
    """Return what is taken as a whole, and the one of each session.

    Without a name it is a column that is called client, else counselor, if it is full.
    """
    if name is not None:
        values = _people(name, sides)
        if not all(values):
            raise DataError(
                f"alliance.client={name}: is empty for {sum(not v for v in values)} sessions"
            )
        return "client", values
    columns = [column for table, _ in sides for column in table.columns]
    for kind in ("client", "counselor"):
        for column in columns:
            if fold_name(column) in USUAL_NAMES[kind] and all(_people(column, sides)):
                return kind, _people(column, sides)
    return "session", None


def _people(name: str, sides: Sequence[Side]) -> tuple[str, ...]:
    table, rows = _with_column(name, sides)
    texts = table.texts(name, "correct alliance.client")
    return tuple("" if is_missing(texts[row]) else identity(texts[row]) for row in rows)


def find_alliance(config: InsightsConfig) -> Report:
    """Return the correlation of every predictor with every outcome.

    Raises:
        ConfigError: When it is not said what to correlate.
        DataError: When a file cannot be used.
    """
    data = read_alliance(config)
    found = _correlations(config, data)
    annotated = None if data.source is None else data.source.annotated
    predicted = " (predicted labels)" if annotated and annotated.predicted else ""
    rows = [asdict(c) for c in found]
    n_tests = sum(c.p is not None for c in found)
    notes = notes_of(
        "alliance_notes",
        config=config,
        data=data,
        n_tests=n_tests,
        marks=STARS,
        over=clustered(data.kind, max((c.n_clusters for c in found), default=0)),
        missing=reasons(
            {f"{c.predictor} · {c.outcome}": Interval(value=0.0, reason=c.reason) for c in found}
        ),
        gaps=sum(c.n < data.n_sessions for c in found),
    )
    return Report(
        action="alliance",
        title=f"Correlations with outcomes over {data.n_sessions} sessions{predicted}",
        figures={
            "n_sessions": data.n_sessions,
            "predicted": bool(predicted),
            "clustered_by": config.alliance.client or data.kind,
            "cluster": data.kind,
            **config.given,
            "n_tests": n_tests,
            "correlations": rows,
        },
        sheets=(
            _table_13(data, found, predicted),
            *(_details(outcome, found, config) for outcome in data.outcomes),
        ),
        notes=(
            *(annotated.notes() if annotated else ()),
            *notes,
            *account_notes(data.name_counts),
        ),
        rows=rows,
        charts={"alliance": partial(_heat_map, data, found, config.alliance.method)},
    )


_METHODS = {"holm": "Holm", "bh": "Benjamini-Hochberg"}


def _correlations(config: InsightsConfig, data: AllianceData) -> list[Correlation]:
    correlated = partial(
        correlate,
        clusters=data.clients,
        kind=data.kind,
        confidence=config.confidence,
        clustered=config.level is not None,
    )
    found = [
        correlated(x, y, predictor=predictor, outcome=outcome)
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


def _starred(c: Correlation, digits: int = 4) -> str:
    return DASH if c.r is None else f"{number(c.r, digits)}{c.stars}"


_DARK = 0.62
"""Part of the scale from which numbers are written in white."""


def _heat_map(data: AllianceData, found: list[Correlation], method: str) -> Figure:
    """Return correlations as colors and numbers; blue negative, red positive."""
    from matplotlib.patches import Rectangle

    rows, columns = tuple(data.predictors), tuple(data.outcomes)
    figure, axes = open_axes(2.2 + 1.1 * len(columns), 1.1 + 0.32 * len(rows))
    values = np.array([np.nan if c.r is None else c.r for c in found])
    known = np.abs(values[~np.isnan(values)])
    most = float(known.max()) if known.size and known.max() > 0 else 1.0
    values = values.reshape(len(rows), len(columns))
    image = axes.imshow(values, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
    for index, c in enumerate(found):
        y, x = divmod(index, len(columns))
        color = "w" if c.r is not None and abs(c.r) > _DARK * most else "k"
        axes.text(x, y, _starred(c, 2), ha="center", va="center", fontsize=7, color=color)
        p = c.p_holm if method == "holm" else c.p_bh
        if p is not None and p < 0.05:
            corner = (x - 0.47, y - 0.45)
            axes.add_patch(Rectangle(corner, 0.94, 0.9, fill=False, edgecolor="k", linewidth=1))
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.tick_params(length=0)
    axes.set_xlabel(f"frame: p < .05 after {_METHODS[method]}", fontsize=7, color="#555555")
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, shrink=0.8).set_label("Pearson's r", fontsize=8)
    return figure
