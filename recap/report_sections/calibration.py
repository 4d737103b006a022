"""Whether probabilities can be believed, and what follows for the use of a system."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from recap.report_sections.calibrated import (
    CalibrationOptions,
    FoldCalibration,
    RunCalibration,
    calibrate,
)
from recap.report_sections.calibration_sheets import (
    abstention_sheet,
    all_labels_sheet,
    prior_sheet,
    recall_sheet,
    top_label_sheet,
)
from recap.report_sections.options import ReportConfig
from recap.report_sections.runs import ReportedRun
from recap.report_sections.tables import partial_notes
from recap.reporting.calibration_charts import (
    CurvePanel,
    Reliability,
    reliability_chart,
    risk_coverage_chart,
)
from recap.reporting.findings import Findings
from recap.reporting.sheets import Sheet
from recap.scoring.abstention import RiskCoverage, risk_coverage
from recap.scoring.calibration import Bin, reliability_bins
from recap.scoring.forecasts import Floats
from recap.scoring.summary import DDOF, spread_over_folds
from recap.scoring.temperature import LEAST, MOST

CURVE_POINTS = 100
"""Points of a risk-coverage curve that are kept."""


def calibration_section(
    runs: Sequence[ReportedRun],
    options: ReportConfig,
    *,
    own: CalibrationOptions | None = None,
) -> Findings | None:
    """Return calibration, abstention, thresholds and the shift of the prior of all runs.

    Temperature and thresholds are fitted on selection.jsonl alone (``cv.protocol=nested``) and
    judged on the reported examples; nothing else is ever fitted to.

    Raises:
        DataError: When a run's probabilities are none of its task's labels.
    """
    if not runs:
        return None
    own = own or CalibrationOptions()
    judged = [calibrate(run, options, own) for run in runs]
    found = [one for one in judged if one is not None]
    without = [run.name for run, one in zip(runs, judged, strict=True) if one is None]
    return Findings(
        action="calibration",
        title="Calibration and abstention",
        figures={
            "n_bins": own.n_bins,
            "wanted_risk": own.risk,
            "wanted_recall": options.recall,
            "prior": options.prior,
            "ddof": DDOF,
            "without_probabilities": without,
            "runs": {one.run.name: _figures(one, own) for one in found},
        },
        sheets=_sheets(found, options, own),
        notes=(*_notes(found, options, own), *_without(without)),
        charts=_charts(found, own) if found else {},
    )


def _sheets(
    found: Sequence[RunCalibration], options: ReportConfig, own: CalibrationOptions
) -> tuple[Sheet, ...]:
    if not found:
        return ()
    sheets = [top_label_sheet(found), all_labels_sheet(found), abstention_sheet(found, own.risk)]
    detectors = [one for one in found if one.tells_resistance]
    if detectors:
        sheets.append(recall_sheet(detectors, options.recall, options.prior))
    if detectors and options.prior is not None:
        sheets.append(prior_sheet(detectors, options.prior))
    return tuple(sheets)


def _figures(found: RunCalibration, own: CalibrationOptions) -> dict[str, Any]:
    run, folds = found.run, found.folds
    bins = _pooled_bins(found, own)
    curve = _thinned(_pooled_curve(found))
    return {
        "task": run.task.name,
        "kind": run.kind,
        "protocol": run.config.cv.protocol,
        "fitted_on": None if found.unfitted else "selection",
        "why_not_fitted": found.unfitted,
        "n": sum(fold.given.n for fold in folds.values()),
        "n_left_out": sum(fold.forecasts.n_left_out for fold in folds.values()),
        "n_unreadable": sum(fold.forecasts.n_unreadable for fold in folds.values()),
        "n_other_answer": sum(fold.forecasts.n_other_answer for fold in folds.values()),
        "given": _spreads(found, lambda fold: fold.given),
        "scaled": None if found.unfitted else _spreads(found, lambda fold: fold.scaled),
        "temperature": None if found.unfitted else _spreads(found, lambda fold: fold.temperature),
        "curve": _spreads(found, lambda fold: fold.curve),
        "accepted": None if found.unfitted else _spreads(found, lambda fold: fold.accepted),
        "flagged": None if found.unfitted else _spreads(found, lambda fold: fold.flagged),
        "flagged_in_practice": None
        if found.unfitted
        else _spreads(found, lambda fold: fold.flagged_in_practice),
        "prior_shift": {
            str(k): None if fold.shift is None else asdict(fold.shift) for k, fold in folds.items()
        },
        "per_label_ece": {
            label: asdict(
                spread_over_folds([fold.given.per_label_ece[i] for fold in folds.values()])
            )
            for i, label in enumerate(run.task.labels)
        },
        "reliability": {name: [asdict(one) for one in part] for name, part in bins.items()},
        "risk_coverage": {
            "coverage": list(curve.coverage),
            "risk": list(curve.risk),
            "threshold": list(curve.thresholds),
        },
    }


def _spreads(found: RunCalibration, of: Callable[[FoldCalibration], Any]) -> dict[str, Any] | None:
    """Return the spread over folds of every single number of a record; ``None`` without any."""
    records = [of(fold) for fold in found.folds.values()]
    known = next((record for record in records if record is not None), None)
    if known is None:
        return None
    return {
        field.name: asdict(spread_over_folds([getattr(one, field.name, None) for one in records]))
        for field in fields(known)
        if not isinstance(getattr(known, field.name), tuple | bool)
    }


def _pooled(found: RunCalibration, of: Callable[[FoldCalibration], Floats]) -> Floats:
    return np.concatenate([of(fold) for fold in found.folds.values()])


def _pooled_bins(found: RunCalibration, own: CalibrationOptions) -> Mapping[str, tuple[Bin, ...]]:
    """Return the top label's bins over all folds' test examples, each judged by its own fold."""
    correct = _pooled(found, lambda fold: fold.forecasts.correct.astype(np.float64)) > 0
    confidence = _pooled(found, lambda fold: fold.forecasts.confidence)
    bins = {"given": reliability_bins(confidence, correct, n_bins=own.n_bins)}
    if all(fold.scaled_probabilities is not None for fold in found.folds.values()):
        scaled = _pooled(found, _scaled_confidence)
        bins["scaled"] = reliability_bins(scaled, correct, n_bins=own.n_bins)
    return bins


def _scaled_confidence(fold: FoldCalibration) -> Floats:
    assert fold.scaled_probabilities is not None
    return np.asarray(fold.scaled_probabilities.max(axis=1))


def _pooled_curve(found: RunCalibration) -> RiskCoverage:
    confidence = _pooled(found, lambda fold: fold.forecasts.confidence)
    correct = _pooled(found, lambda fold: fold.forecasts.correct.astype(np.float64)) > 0
    return risk_coverage(confidence, correct)


def _thinned(curve: RiskCoverage) -> RiskCoverage:
    """Return a curve with at most :data:`CURVE_POINTS` of its points, the last one among them."""
    wanted = np.arange(1, CURVE_POINTS + 1) / CURVE_POINTS
    places = np.unique(np.searchsorted(curve.coverage, wanted - 1e-12))
    kept = [int(place) for place in places]
    return RiskCoverage(
        thresholds=tuple(curve.thresholds[i] for i in kept),
        coverage=tuple(curve.coverage[i] for i in kept),
        risk=tuple(curve.risk[i] for i in kept),
        aurc=curve.aurc,
        best_aurc=curve.best_aurc,
    )


def _charts(
    found: Sequence[RunCalibration], own: CalibrationOptions
) -> dict[str, Callable[[], Any]]:
    def reliability() -> Any:
        panels = []
        for one in found:
            bins = _pooled_bins(one, own)
            panels.append(
                Reliability(title=one.run.name, given=bins["given"], scaled=bins.get("scaled"))
            )
        return reliability_chart(panels)

    def curves() -> Any:
        tasks = dict.fromkeys(one.run.task.name for one in found)
        return risk_coverage_chart(
            [
                CurvePanel(
                    title=task,
                    curves=[
                        (one.run.name, _thinned(_pooled_curve(one)))
                        for one in found
                        if one.run.task.name == task
                    ],
                )
                for task in tasks
            ]
        )

    return {"calibration_reliability": reliability, "calibration_risk_coverage": curves}


def _notes(
    found: Sequence[RunCalibration], options: ReportConfig, own: CalibrationOptions
) -> list[str]:
    if not found:
        return []
    how = (
        "Mean ± sample SD (ddof 1) over folds. The likeliest label is judged, whatever was "
        f"answered; calibration errors use {own.n_bins} bins. Diagrams and curves take all folds "
        "together."
    )
    notes = [how, *partial_notes([one.run for one in found])]
    for one in found:
        notes += _notes_on(one, options, own)
    return notes


def _notes_on(found: RunCalibration, options: ReportConfig, own: CalibrationOptions) -> list[str]:
    name, folds = found.run.name, found.folds
    notes = []
    if found.unfitted:
        notes.append(f"{name}: no temperature and no threshold is fitted: {found.unfitted}.")
    tests = [fold.forecasts for fold in folds.values()]
    counted = (
        ("have no probabilities and are left out", sum(one.n_left_out for one in tests)),
        (
            "could not be read and are judged by the likeliest label",
            sum(one.n_unreadable for one in tests),
        ),
        ("are another label than the likeliest one", sum(one.n_other_answer for one in tests)),
    )
    notes += [f"{name}: {n:,} answers {what}." for what, n in counted if n]
    bound = [k for k, fold in folds.items() if fold.temperature and fold.temperature.at_bound]
    if bound:
        notes.append(
            f"{name}: in {_folds(bound)} the temperature is at the end of its range ({LEAST:g} to "
            f"{MOST:g}): there are too few selection examples, or all of them are right."
        )
    unmet = [] if found.unfitted else [k for k, fold in folds.items() if fold.accepted is None]
    if unmet:
        notes.append(
            f"{name}: in {_folds(unmet)} no threshold keeps wrong answers at {100 * own.risk:g} % "
            "of the selection examples."
        )
    if options.prior is not None and found.tells_resistance and found.run.kind == "prompted":
        notes.append(
            f"{name}: probabilities are not corrected for the prior, for a prompted system has "
            "learned none."
        )
    return notes


def _without(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    return [f"Without probabilities, and so without calibration: {', '.join(names)}."]


def _folds(folds: Sequence[int]) -> str:
    return ", ".join(f"fold{k}" for k in folds)
