"""``action=alliance``: how shares of behaviours go together with outcomes, as in Table 13."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial

from recap.analysis.correlation import (
    STARS,
    Correlation,
    benjamini_hochberg,
    correlate,
    holm,
    stars,
)
from recap.insight_actions.alliance_data import AllianceData, read_alliance
from recap.insight_actions.options import FEW_UNITS, InsightsConfig
from recap.reporting.findings import Findings
from recap.reporting.heat_map import Cell, heat_map
from recap.reporting.sheets import Sheet

_DASH = "–"


def find_alliance(config: InsightsConfig) -> Findings:
    """Return the correlation of every predictor with every outcome.

    Raises:
        ConfigError: When it is not said what to correlate.
        DataError: When a file cannot be used.
    """
    data = read_alliance(config)
    found = _correlations(config, data)
    predicted = " (predicted labels)" if data.predicted else ""
    return Findings(
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
        charts={
            "alliance": partial(
                heat_map,
                tuple(data.predictors),
                tuple(data.outcomes),
                [
                    Cell(
                        value=c.r,
                        mark=c.stars,
                        survives=_survives(c, config.alliance.method),
                    )
                    for c in found
                ],
                note=f"frame: p < .05 after {_METHODS[config.alliance.method]}",
            )
        },
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


def _survives(c: Correlation, method: str) -> bool:
    p = c.p_holm if method == "holm" else c.p_bh
    return p is not None and p < 0.05


def _table_13(data: AllianceData, found: list[Correlation], predicted: str) -> Sheet:
    by_pair = {(c.predictor, c.outcome): c for c in found}
    rows = [
        (name, *(_starred(by_pair[name, outcome]) for outcome in data.outcomes))
        for name in data.predictors
    ]
    return Sheet(
        title=f"Pearson's r{predicted}",
        header=("predictor", *data.outcomes),
        rows=tuple(rows),
    )


def _details(outcome: str, found: list[Correlation], config: InsightsConfig) -> Sheet:
    level = f"{100 * config.confidence:g} %"
    rows = [
        (
            c.predictor,
            f"{c.n:,}",
            _starred(c, 3),
            _ends(c.low, c.high),
            _p(c.p),
            _p(c.p_holm) + stars(c.p_holm),
            _p(c.p_bh) + stars(c.p_bh),
            _DASH if c.rho is None else f"{c.rho:.3f}{stars(c.rho_p)}",
            _ends(c.cluster_low, c.cluster_high),
        )
        for c in found
        if c.outcome == outcome
    ]
    return Sheet(
        title=f"With {outcome}",
        header=("predictor", "n", "r", level, "p", "Holm", "BH", "Spearman", "clustered"),
        rows=tuple(rows),
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
    return _DASH if c.r is None else f"{c.r:.{digits}f}{c.stars}"


def _ends(low: float | None, high: float | None) -> str:
    return _DASH if low is None or high is None else f"[{low:.2f}, {high:.2f}]"


def _p(p: float | None) -> str:
    if p is None:
        return _DASH
    return "<.001" if p < 0.001 else f"{p:.3f}".lstrip("0") if p < 1 else "1"
