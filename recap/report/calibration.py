"""Whether probabilities can be believed, and what follows for the use of a system."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from recap.metrics.abstention import RiskCoverage, risk_coverage
from recap.metrics.arrays import Floats
from recap.metrics.calibration import LEAST, MOST, Bin, reliability_bins
from recap.metrics.scores import DDOF, spread_over_folds, spread_text
from recap.output.charts import PANELS_A_ROW, PLAIN_COLOR
from recap.output.format import DASH
from recap.output.report import Report
from recap.output.tables import ReportTable
from recap.report.options import ReportConfig
from recap.report.recalibration import (
    CalibrationOptions,
    FoldCalibration,
    RunCalibration,
    calibrate,
)
from recap.report.runs import ReportedRun
from recap.report.tables import partial_runs
from recap.report.templates import notes_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


NOT_FITTED = "not fitted"


def top_label_sheet(found: Sequence[RunCalibration]) -> ReportTable:
    """Return how sure every run is of its likeliest label, and how often that one is right."""
    figures = ("accuracy", "mean_confidence", "ece", "ece_equal_mass")
    return ReportTable(
        title="Calibration of the likeliest label",
        header=(
            *("run", "probabilities", "examples", "right, %", "confidence, %"),
            *("ECE, %", "ECE, equal mass, %"),
        ),
        rows=tuple(
            (
                *(one.run.name, name, f"{sum(fold.given.n for fold in one.folds.values()):,}"),
                *(_over_folds(one, f"{which}.{figure}", 100.0) for figure in figures),
            )
            for one, name, which in _given_and_scaled(found)
        ),
        text_columns=(0, 1),
    )


def all_labels_sheet(found: Sequence[RunCalibration]) -> ReportTable:
    """Return how good the probabilities of all labels are."""
    return ReportTable(
        title="Calibration of all labels",
        header=("run", "probabilities", "class-wise ECE, %", "Brier (0–2)", "NLL, nats"),
        rows=tuple(
            (
                *(one.run.name, name, _over_folds(one, f"{which}.classwise_ece", 100.0)),
                *(_over_folds(one, f"{which}.{figure}") for figure in ("brier", "nll")),
            )
            for one, name, which in _given_and_scaled(found)
        ),
        text_columns=(0, 1),
    )


def _given_and_scaled(found: Sequence[RunCalibration]) -> Iterator[tuple[RunCalibration, str, str]]:
    """Yield each run once a kind of probabilities, with the kind's name and its field."""
    for one in found:
        yield one, "as given", "given"
        if one.unfitted is None:
            yield one, f"T = {_over_folds(one, 'temperature.value')}", "scaled"


def abstention_sheet(found: Sequence[RunCalibration], risk: float) -> ReportTable:
    """Return what every run gets wrong when it may leave answers to a human being."""
    return ReportTable(
        title=f"Abstention: answers by confidence, and a threshold for {100 * risk:g} % wrong",
        header=(
            *("run", "all answers: wrong, %", "AURC, %", "best possible, %"),
            *("fitted on", "threshold", "answered, %", "of these wrong, %"),
        ),
        rows=tuple(
            (
                one.run.name,
                _over_folds(one, "curve.overall_risk", 100.0),
                _over_folds(one, "curve.aurc", 100.0),
                _over_folds(one, "curve.best_aurc", 100.0),
                _fitted_on(one),
                _over_folds(one, "accepted.threshold"),
                _over_folds(one, "accepted.coverage", 100.0),
                _over_folds(one, "accepted.risk", 100.0),
            )
            for one in found
        ),
        text_columns=(0, 4),
    )


def recall_sheet(
    found: Sequence[RunCalibration], recall: float, prior: float | None
) -> ReportTable:
    """Return what the threshold for a wanted recall of resistance flags on reported examples."""
    header = ["run", "fitted on", "threshold", "recall, %", "precision, %", "flagged, %"]
    figures = ["flagged.recall", "flagged.precision", "flagged.share"]
    if prior is not None:
        at = f"at {100 * prior:g} % resistance"
        header += [f"precision {at}, %", f"flagged {at}, %"]
        figures += ["flagged_in_practice.precision", "flagged_in_practice.share"]
    return ReportTable(
        title=f"Threshold for finding {100 * recall:g} % of the resistance",
        header=tuple(header),
        rows=tuple(
            (
                one.run.name,
                _fitted_on(one),
                _over_folds(one, "flagged.threshold"),
                *(_over_folds(one, figure, 100.0) for figure in figures),
            )
            for one in found
        ),
        text_columns=(0, 1),
    )


def prior_sheet(found: Sequence[RunCalibration], prior: float) -> ReportTable:
    """Return how well resistance is detected where it has another share, before and after."""
    at = f"at {100 * prior:g} %"
    ways = {
        "as_tested": "as tested",
        "expected": f"{at}, as given",
        "corrected": f"{at}, corrected",
        "scaled_and_corrected": f"{at}, scaled and corrected",
    }
    rows = []
    for one in found:
        tested = _over_folds(one, "shift.tested", 100.0)
        for way, name in ways.items():
            figures = [f"shift.{way}.{figure}" for figure in ("precision", "recall", "f1")]
            cells = [_over_folds(one, figure, 100.0) for figure in figures]
            if cells != [DASH] * len(cells):
                share = tested if way == "as_tested" else f"{100 * prior:.2f}"
                rows.append((one.run.name, name, share, *cells))
    return ReportTable(
        title=f"Resistance in practice: {100 * prior:g} % of the utterances",
        header=("run", "", "resistance, %", "precision, %", "recall, %", "F1, %"),
        rows=tuple(rows),
        text_columns=(0, 1),
    )


def _over_folds(found: RunCalibration, figure: str, scale: float = 1.0) -> str:
    """Return mean ± SD of a figure (``"accepted.risk"``); a dash where any fold lacks it."""
    spread = spread_over_folds([_at(fold, figure) for fold in found.folds.values()])
    return DASH if spread.mean is None else spread_text(spread, scale)


def _at(fold: FoldCalibration, figure: str) -> float | None:
    value: object = fold
    for name in figure.split("."):
        if value is None:
            return None
        value = getattr(value, name)
    assert value is None or isinstance(value, float)
    return value


def _fitted_on(found: RunCalibration) -> str:
    return NOT_FITTED if found.unfitted else "selection split"


SCALED_COLOR = "#b2452c"
"""Of probabilities after temperature scaling."""

LINES = ("-", "--", ":", "-.")
COLORS = ("#3b6ea5", "#b2452c", "#4a8f5c", "#8a5ca5", "#b58900", "#555555", "#2aa198")
"""With :data:`LINES` enough to tell 28 curves apart."""


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """One run's bins, all folds together; ``scaled``: at the fitted temperature."""

    title: str
    given: Sequence[Bin]
    scaled: Sequence[Bin] | None


@dataclass(frozen=True, kw_only=True)
class CurvePanel:
    """The risk-coverage curves of runs of one task, by name."""

    title: str
    curves: Sequence[tuple[str, RiskCoverage]]


def reliability_chart(panels: Sequence[Reliability]) -> Figure:
    """Return a reliability diagram a run, and below each how many examples its bins hold."""
    from matplotlib.figure import Figure

    columns = min(PANELS_A_ROW, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.3 * columns + 0.4, 4.0 * rows), layout="constrained")
    places = figure.subplots(
        2 * rows, columns, squeeze=False, sharex=True, height_ratios=(3, 1) * rows
    )
    for index in range(rows * columns):
        row, column = divmod(index, columns)
        upper, lower = places[2 * row, column], places[2 * row + 1, column]
        if index < len(panels):
            _shares(upper, panels[index])
            _counts(lower, panels[index])
        else:
            upper.set_axis_off()
            lower.set_axis_off()
    return figure


def risk_coverage_chart(panels: Sequence[CurvePanel]) -> Figure:
    """Return a panel a task: share of wrong answers among the surest, against their number."""
    from matplotlib.figure import Figure

    columns = min(PANELS_A_ROW, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.9 * columns + 0.4, 3.6 * rows), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in zip(places, panels, strict=False):
        _curves(axes, panel)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    return figure


def _shares(axes: Axes, panel: Reliability) -> None:
    filled = [one for one in panel.given if one.share is not None]
    axes.bar(
        [100 * one.low for one in filled],
        [100 * (one.share or 0.0) for one in filled],
        width=[100 * (one.high - one.low) for one in filled],
        align="edge",
        color=PLAIN_COLOR,
        edgecolor="white",
        linewidth=0.6,
        label="as given",
    )
    axes.plot([0, 100], [0, 100], color="#555555", linestyle="--", linewidth=0.9)
    if panel.scaled is not None:
        after = [one for one in panel.scaled if one.share is not None]
        axes.plot(
            [100 * (one.mean_probability or 0.0) for one in after],
            [100 * (one.share or 0.0) for one in after],
            color=SCALED_COLOR,
            marker="o",
            markersize=3.5,
            linewidth=1.2,
            label="at the fitted temperature",
        )
        axes.legend(frameon=False, fontsize=7, loc="upper left")
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_title(panel.title, fontsize=8, loc="left")
    axes.set_ylabel("answers that are right, %", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _counts(axes: Axes, panel: Reliability) -> None:
    drawn = axes.bar(
        [100 * one.low for one in panel.given],
        [one.n for one in panel.given],
        width=[100 * (one.high - one.low) for one in panel.given],
        align="edge",
        color="#9a9a9a",
        edgecolor="white",
        linewidth=0.6,
    )
    labels = [f"{one.n}" if one.n else "" for one in panel.given]
    axes.bar_label(drawn, labels, fontsize=5, padding=1)
    axes.margins(y=0.25)
    axes.set_xlabel("probability of the likeliest label, %", fontsize=8)
    axes.set_ylabel("examples", fontsize=8)
    # Shared axes would show them in the last row alone.
    axes.tick_params(labelsize=7, labelbottom=True)
    axes.spines[["top", "right"]].set_visible(False)


def _curves(axes: Axes, panel: CurvePanel) -> None:
    for index, (name, curve) in enumerate(panel.curves):
        line, color = divmod(index, len(COLORS))
        axes.plot(
            [100 * share for share in curve.coverage],
            [100 * share for share in curve.risk],
            color=COLORS[color],
            linestyle=LINES[line % len(LINES)],
            linewidth=1.3,
            label=name,
            # Where every confidence is the same there is a point and no line.
            marker="o" if len(curve.coverage) == 1 else None,
        )
    axes.set_xlim(0, 100)
    axes.set_ylim(bottom=0)
    axes.set_title(panel.title, fontsize=9, loc="left")
    axes.set_xlabel("answered, the surest first, %", fontsize=8)
    axes.set_ylabel("wrong among these, %", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(frameon=False, fontsize=6)
    axes.spines[["top", "right"]].set_visible(False)


CURVE_POINTS = 100
"""Points of a risk-coverage curve that are kept."""

_AS_GIVEN = ("given", "curve")
_SPREADS = ("given", "scaled", "temperature", "curve", "accepted", "flagged", "flagged_in_practice")


def calibration_section(
    runs: Sequence[ReportedRun],
    options: ReportConfig,
    *,
    own: CalibrationOptions | None = None,
) -> Report | None:
    """Return calibration, abstention, thresholds and the shift of the prior of all runs.

    Temperature and thresholds are fitted on selection.jsonl alone (``cv.protocol=nested``) and
    assessed on the reported examples; nothing else is ever fitted to.

    Raises:
        DataError: When a run's probabilities are none of its task's labels.
    """
    if not runs:
        return None
    own = own or CalibrationOptions()
    each = [calibrate(run, options, own) for run in runs]
    found = [one for one in each if one is not None]
    without = [run.name for run, one in zip(runs, each, strict=True) if one is None]
    return Report(
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
        notes=notes_of(
            "calibration",
            own=own,
            runs=[_note_facts(one, options) for one in found],
            partial=partial_runs([one.run for one in found]),
            least=LEAST,
            most=MOST,
            without=without,
        ),
        charts=_charts(found, own) if found else {},
    )


def _sheets(
    found: Sequence[RunCalibration], options: ReportConfig, own: CalibrationOptions
) -> tuple[ReportTable, ...]:
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
        **_counts_of(found),
        **{
            name: None if found.unfitted and name not in _AS_GIVEN else _spreads(found, name)
            for name in _SPREADS
        },
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


def _counts_of(found: RunCalibration) -> dict[str, int]:
    """Return how many answers need a word in the notes, over all folds."""
    return {
        name: sum(getattr(fold.forecasts, name) for fold in found.folds.values())
        for name in ("n_left_out", "n_unreadable", "n_other_answer")
    }


def _spreads(found: RunCalibration, name: str) -> dict[str, Any] | None:
    """Return the spread over folds of every single number of a record; ``None`` without any."""
    records = [getattr(fold, name) for fold in found.folds.values()]
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
    """Return the top label's bins over all folds' test examples, each fold's own fitted."""
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


def _note_facts(found: RunCalibration, options: ReportConfig) -> dict[str, Any]:
    """Return what the notes on one run are made of."""
    folds = found.folds.items()
    return {
        "name": found.run.name,
        "unfitted": found.unfitted,
        **_counts_of(found),
        "at_bound": [f"fold{k}" for k, f in folds if f.temperature and f.temperature.at_bound],
        "unmet": [f"fold{k}" for k, f in folds if not found.unfitted and f.accepted is None],
        "no_prior": options.prior is not None
        and found.tells_resistance
        and found.run.kind == "prompted",
    }
