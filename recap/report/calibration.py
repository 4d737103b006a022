"""Whether probabilities can be believed, and what follows for the use of a system.

Temperature and thresholds are fitted where examples were set aside, and reported elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from recap.metrics.calibration import (
    LEAST,
    MOST,
    N_BINS,
    Accepted,
    Bin,
    Calibration,
    Detection,
    Flagged,
    Forecasts,
    RiskCoverage,
    Temperature,
    accept,
    calibration_of,
    correct_prior,
    detection,
    fit_temperature,
    flag,
    forecasts_of,
    prior_weights,
    reliability_bins,
    risk_coverage,
    scale,
    shifted_prior,
    threshold_for_recall,
    threshold_for_risk,
)
from recap.metrics.scalar import Bools, Floats
from recap.metrics.scores import DDOF, spread_over_folds, spread_text
from recap.output.charts import COLORS, PLAIN_COLOR, add_legend, line_style, open_panels
from recap.output.format import DASH
from recap.output.report import Report
from recap.output.tables import ReportTable, table_of
from recap.output.templates import render_notes
from recap.report.options import ReportConfig
from recap.report.runs import ReportedRun, read_predictions
from recap.report.tables import partial_runs

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RESISTANCE = "Resistance"
"""The category whose labels, its own or those below it, count as resistance."""


WANTED_RISK = 0.05
"""Share of wrong answers for which the largest coverage is looked for."""


@dataclass(frozen=True, kw_only=True)
class PriorShift:
    """Detection of resistance in practice, where it has another share than in training.

    Attributes:
        trained: Share of resistance among what was learned from; ``None`` where nothing was.
        tested: Share among the examples of the fold.
        as_tested: Of the likeliest label, examples as they are.
        expected: The same, examples weighted to the share in practice.
        corrected: Of the likeliest label of corrected probabilities, weighted likewise.
        scaled_and_corrected: The same after temperature scaling.
    """

    trained: float | None
    tested: float
    as_tested: Detection
    expected: Detection
    corrected: Detection | None
    scaled_and_corrected: Detection | None


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldCalibration:
    """One fold: its test examples assessed, with what was fitted on its selection examples.

    Attributes:
        forecasts: Of the test examples, as given.
        given: Their calibration.
        curve: Their risk-coverage curve.
        temperature: Fitted on the selection examples; ``None`` without them, as all below.
        scaled: Calibration of the test examples at that temperature.
        scaled_confidence: Of their likeliest labels at that temperature.
        accepted: What the threshold for the wanted risk gives on the test examples; ``None`` too
            where no threshold had it on the selection examples.
        flagged: What the threshold for the wanted recall gives on the test examples.
        flagged_in_practice: The same at the share of resistance in practice.
        shift: ``None`` unless that share is asked for and the task tells resistance from the rest.
    """

    forecasts: Forecasts
    given: Calibration
    curve: RiskCoverage
    temperature: Temperature | None
    scaled: Calibration | None
    scaled_confidence: Floats | None
    accepted: Accepted | None
    flagged: Flagged | None
    flagged_in_practice: Flagged | None
    shift: PriorShift | None


@dataclass(frozen=True, kw_only=True, eq=False)
class RunCalibration:
    """One run; ``resistant`` says of each label whether it is resistance.

    ``unfitted`` says why nothing was fitted; ``None`` where it was.
    """

    run: ReportedRun
    folds: Mapping[int, FoldCalibration]
    resistant: Bools
    unfitted: str | None

    @property
    def tells_resistance(self) -> bool:
        """Whether some labels are resistance and others are not."""
        return bool(self.resistant.any() and not self.resistant.all())


def calibrate(run: ReportedRun, options: ReportConfig) -> RunCalibration | None:
    """Return a run's calibration, ``None`` when a finished fold has no probabilities at all.

    Raises:
        DataError: When probabilities are none of the task's labels, or a file cannot be read.
    """
    labels = run.task.labels
    tests = {k: forecasts_of(found, labels=labels) for k, found in run.predictions.items()}
    if not all(one.n for one in tests.values()):
        return None
    unfitted = why_unfitted(run)
    resistant = np.array([RESISTANCE in run.task.taxonomy.lineage(label) for label in labels])
    folds = {}
    for k, test in tests.items():
        selection = None
        if unfitted is None:
            found = read_predictions(run.folder.fold(k).selection)
            selection = forecasts_of(found, labels=labels)
        folds[k] = _fold(test, selection, resistant, _trained_prior(run, k, tests), options)
    return RunCalibration(run=run, folds=folds, resistant=resistant, unfitted=unfitted)


def why_unfitted(run: ReportedRun) -> str | None:
    """Return why a run has no examples to fit a temperature or thresholds on, if it has none."""
    if run.kind == "prompted":
        return "a prompted system answers the reported examples alone"
    if run.config.cv.protocol != "nested":
        return (
            "the examples that selected the epoch are the reported ones (cv.protocol="
            f"{run.config.cv.protocol}); cv.protocol=nested sets others aside"
        )
    without = [k for k in run.predictions if not run.folder.fold(k).selection.is_file()]
    if without:
        named = ", ".join(f"fold{k}" for k in without)
        return f"{named} has no selection.jsonl, as an earlier version left it; run it again"
    return None


def _trained_prior(run: ReportedRun, fold: int, tests: Mapping[int, Forecasts]) -> Floats | None:
    """Return the labels' shares among what a fold learned from.

    Training examples are those of the other folds. Where only this fold is finished its own stand
    in for them: folds are stratified.
    """
    if run.kind == "prompted":
        return None
    n_labels = len(run.task.labels)
    baseline = run.config.baseline or {}
    if run.config.sampling == "balanced" or baseline.get("class_weight") == "balanced":
        return np.full(n_labels, 1 / n_labels)
    others = [one.gold for k, one in tests.items() if k != fold] or [tests[fold].gold]
    counts = np.bincount(np.concatenate(others), minlength=n_labels)
    return np.asarray(counts / counts.sum())


def _fold(
    test: Forecasts,
    selection: Forecasts | None,
    resistant: Bools,
    trained: Floats | None,
    options: ReportConfig,
) -> FoldCalibration:
    positive = resistant[test.gold]
    both = bool(positive.any() and not positive.all())
    temperature = scaled = accepted = flagged = in_practice = None
    if selection is not None and selection.n:
        temperature = fit_temperature(selection.probabilities, selection.gold)
        scaled = replace(test, probabilities=scale(test.probabilities, temperature.value))
        curve = risk_coverage(selection.confidence, selection.correct)
        line = threshold_for_risk(curve, WANTED_RISK)
        accepted = None if line is None else accept(test.confidence, test.correct, line)
        threshold = _recall_threshold(selection, resistant, options.recall)
        if threshold is not None and both:
            scores = test.probabilities[:, resistant].sum(axis=1)
            flagged = flag(scores, positive, threshold)
            if options.prior is not None:
                weights = prior_weights(positive, options.prior)
                in_practice = flag(scores, positive, threshold, weights=weights)
    return FoldCalibration(
        forecasts=test,
        given=calibration_of(test.probabilities, test.gold),
        curve=risk_coverage(test.confidence, test.correct),
        temperature=temperature,
        scaled=calibration_of(scaled.probabilities, test.gold) if scaled else None,
        scaled_confidence=scaled.confidence if scaled else None,
        accepted=accepted,
        flagged=flagged,
        flagged_in_practice=in_practice,
        shift=_shift(test, scaled, resistant, trained, options.prior)
        if options.prior is not None and both
        else None,
    )


def _recall_threshold(selection: Forecasts, resistant: Bools, recall: float) -> float | None:
    positive = resistant[selection.gold]
    if not positive.any():
        return None
    scores = selection.probabilities[:, resistant].sum(axis=1)
    return threshold_for_recall(scores, positive, recall)


def _shift(
    test: Forecasts,
    scaled: Forecasts | None,
    resistant: Bools,
    trained: Floats | None,
    prior: float,
) -> PriorShift:
    positive = resistant[test.gold]
    weights = prior_weights(positive, prior)

    def corrected(forecasts: Forecasts | None) -> Detection | None:
        if forecasts is None or trained is None or not 0 < float(trained[resistant].sum()) < 1:
            return None
        wanted = shifted_prior(trained, resistant, prior)
        found = correct_prior(forecasts.probabilities, trained, wanted)
        return detection(resistant[found.argmax(axis=1)], positive, weights)

    predicted = resistant[test.likeliest]
    return PriorShift(
        trained=None if trained is None else float(trained[resistant].sum()),
        tested=float(positive.mean()),
        as_tested=detection(predicted, positive),
        expected=detection(predicted, positive, weights),
        corrected=corrected(test),
        scaled_and_corrected=corrected(scaled),
    )


def _top_label_sheet(found: Sequence[RunCalibration]) -> ReportTable:
    return table_of(
        "Calibration of the likeliest label",
        _given_and_scaled(found),
        {
            "system": lambda row: row[0].run.title,
            "probabilities": lambda row: row[1],
            "examples": lambda row: f"{sum(fold.given.n for fold in row[0].folds.values()):,}",
            "right, %": lambda row: _percent(row[0], f"{row[2]}.accuracy"),
            "confidence, %": lambda row: _percent(row[0], f"{row[2]}.mean_confidence"),
            "ECE, %": lambda row: _percent(row[0], f"{row[2]}.ece"),
            "ECE, equal mass, %": lambda row: _percent(row[0], f"{row[2]}.ece_equal_mass"),
        },
        text_columns=(0, 1),
    )


def _all_labels_sheet(found: Sequence[RunCalibration]) -> ReportTable:
    return table_of(
        "Calibration of all labels",
        _given_and_scaled(found),
        {
            "system": lambda row: row[0].run.title,
            "probabilities": lambda row: row[1],
            "class-wise ECE, %": lambda row: _percent(row[0], f"{row[2]}.classwise_ece"),
            "Brier (0–2)": lambda row: _over_folds(row[0], f"{row[2]}.brier"),
            "NLL, nats": lambda row: _over_folds(row[0], f"{row[2]}.nll"),
        },
        text_columns=(0, 1),
    )


def _given_and_scaled(found: Sequence[RunCalibration]) -> Iterator[tuple[RunCalibration, str, str]]:
    """Yield each run once a kind of probabilities, with the kind's name and its field."""
    for one in found:
        yield one, "as given", "given"
        if one.unfitted is None:
            yield one, f"T = {_over_folds(one, 'temperature.value')}", "scaled"


def _abstention_sheet(found: Sequence[RunCalibration]) -> ReportTable:
    return table_of(
        f"Abstention: answers by confidence, and a threshold for {100 * WANTED_RISK:g} % wrong",
        found,
        {
            "system": lambda one: one.run.title,
            "all answers: wrong, %": lambda one: _percent(one, "curve.overall_risk"),
            "AURC, %": lambda one: _percent(one, "curve.aurc"),
            "best possible, %": lambda one: _percent(one, "curve.best_aurc"),
            "fitted on": _fitted_on,
            "threshold": lambda one: _over_folds(one, "accepted.threshold"),
            "answered, %": lambda one: _percent(one, "accepted.coverage"),
            "of these wrong, %": lambda one: _percent(one, "accepted.risk"),
        },
        text_columns=(0, 4),
    )


def _recall_sheet(
    found: Sequence[RunCalibration], recall: float, prior: float | None
) -> ReportTable:
    columns: dict[str, Callable[[RunCalibration], str]] = {
        "system": lambda one: one.run.title,
        "fitted on": _fitted_on,
        "threshold": lambda one: _over_folds(one, "flagged.threshold"),
        "recall, %": lambda one: _percent(one, "flagged.recall"),
        "precision, %": lambda one: _percent(one, "flagged.precision"),
        "flagged, %": lambda one: _percent(one, "flagged.share"),
    }
    if prior is not None:
        at, practice = f"at {100 * prior:g} % resistance", "flagged_in_practice"
        columns |= {
            f"precision {at}, %": lambda one: _percent(one, f"{practice}.precision"),
            f"flagged {at}, %": lambda one: _percent(one, f"{practice}.share"),
        }
    title = f"Threshold for finding {100 * recall:g} % of the resistance"
    return table_of(title, found, columns, text_columns=(0, 1))


def _prior_sheet(found: Sequence[RunCalibration], prior: float) -> ReportTable:
    at = f"at {100 * prior:g} %"
    ways = {
        "as_tested": "as tested",
        "expected": f"{at}, as given",
        "corrected": f"{at}, corrected",
        "scaled_and_corrected": f"{at}, scaled and corrected",
    }
    rows = []
    for one in found:
        tested = _percent(one, "shift.tested")
        for way, name in ways.items():
            figures = [f"shift.{way}.{figure}" for figure in ("precision", "recall", "f1")]
            cells = [_percent(one, figure) for figure in figures]
            if cells != [DASH] * len(cells):
                share = tested if way == "as_tested" else f"{100 * prior:.2f}"
                rows.append((one.run.title, name, share, *cells))
    return ReportTable(
        title=f"Resistance in practice: {100 * prior:g} % of the utterances",
        header=("system", "", "resistance, %", "precision, %", "recall, %", "F1, %"),
        rows=tuple(rows),
        text_columns=(0, 1),
    )


def _over_folds(found: RunCalibration, figure: str, scale: float = 1.0) -> str:
    """Return mean ± SD of a figure (``"accepted.risk"``); a dash where any fold lacks it."""
    spread = spread_over_folds([_at(fold, figure) for fold in found.folds.values()])
    return DASH if spread.mean is None else spread_text(spread, scale)


def _percent(found: RunCalibration, figure: str) -> str:
    return _over_folds(found, figure, 100.0)


def _at(fold: FoldCalibration, figure: str) -> float | None:
    value: object = fold
    for name in figure.split("."):
        if value is None:
            return None
        value = getattr(value, name)
    assert value is None or isinstance(value, float)
    return value


def _fitted_on(found: RunCalibration) -> str:
    return "not fitted" if found.unfitted else "selection split"


CURVE_POINTS = 100
"""Points of a risk-coverage curve that are kept."""

_AS_GIVEN = ("given", "curve")
_SPREADS = ("given", "scaled", "temperature", "curve", "accepted", "flagged", "flagged_in_practice")


def calibration_section(runs: Sequence[ReportedRun], options: ReportConfig) -> Report:
    """Return calibration, abstention, thresholds and the shift of the prior of all runs.

    Temperature and thresholds are fitted on selection.jsonl alone (``cv.protocol=nested``) and
    assessed on the reported examples; nothing else is ever fitted to.

    Raises:
        DataError: When a run's probabilities are none of its task's labels.
    """
    each = [calibrate(run, options) for run in runs]
    found = [one for one in each if one is not None]
    without = [run for run, one in zip(runs, each, strict=True) if one is None]
    return Report(
        action="calibration",
        title="Calibration and abstention",
        figures={
            "n_bins": N_BINS,
            "wanted_risk": WANTED_RISK,
            "wanted_recall": options.recall,
            "prior": options.prior,
            "ddof": DDOF,
            "without_probabilities": [run.name for run in without],
            "runs": {one.run.name: _figures(one) for one in found},
        },
        sheets=_sheets(found, options),
        notes=render_notes(
            "report/notes.yaml",
            "calibration",
            n_bins=N_BINS,
            risk=WANTED_RISK,
            runs=[_note_facts(one, options) for one in found],
            partial=partial_runs([one.run for one in found]),
            least=LEAST,
            most=MOST,
            without=[run.title for run in without],
        ),
        charts={
            "calibration_reliability": partial(_reliability_chart, found),
            "calibration_risk_coverage": partial(_risk_coverage_chart, found),
        }
        if found
        else {},
    )


def _sheets(found: Sequence[RunCalibration], options: ReportConfig) -> tuple[ReportTable, ...]:
    detectors = [one for one in found if one.tells_resistance]
    sheets = [
        _top_label_sheet(found),
        _all_labels_sheet(found),
        _abstention_sheet(found),
        _recall_sheet(detectors, options.recall, options.prior),
        *([] if options.prior is None else [_prior_sheet(detectors, options.prior)]),
    ]
    return tuple(sheet for sheet in sheets if sheet.rows)


def _figures(found: RunCalibration) -> dict[str, Any]:
    run, folds = found.run, found.folds
    bins = _pooled_bins(found)
    curve = _thinned(risk_coverage(*_pooled(found)))
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


def _pooled(found: RunCalibration) -> tuple[Floats, Bools]:
    """Return confidence and rightness of all folds' test examples."""
    forecasts = [fold.forecasts for fold in found.folds.values()]
    confidence = np.concatenate([one.confidence for one in forecasts])
    return confidence, np.concatenate([one.correct for one in forecasts])


def _pooled_bins(found: RunCalibration) -> Mapping[str, tuple[Bin, ...]]:
    """Return the top label's bins over all folds' test examples, each fold's own fitted."""
    confidence, correct = _pooled(found)
    bins = {"given": reliability_bins(confidence, correct)}
    scaled = [fold.scaled_confidence for fold in found.folds.values()]
    known = [one for one in scaled if one is not None]
    if len(known) == len(scaled):
        bins["scaled"] = reliability_bins(np.concatenate(known), correct)
    return bins


def _thinned(curve: RiskCoverage) -> RiskCoverage:
    """Return a curve with at most :data:`CURVE_POINTS` of its points, the last one among them."""
    wanted = np.arange(1, CURVE_POINTS + 1) / CURVE_POINTS
    kept = np.unique(np.searchsorted(curve.coverage, wanted - 1e-12)).tolist()
    return replace(
        curve,
        thresholds=tuple(curve.thresholds[i] for i in kept),
        coverage=tuple(curve.coverage[i] for i in kept),
        risk=tuple(curve.risk[i] for i in kept),
    )


def _reliability_chart(found: Sequence[RunCalibration]) -> Figure:
    titles = [one.run.title for one in found]
    figure, places = open_panels(titles, width=3.4, height=4.0, parts=(3, 1))
    for (above, below), one in zip(places, found, strict=True):
        bins = _pooled_bins(one)
        _draw_shares(above, bins)
        drawn = _draw_bins(below, bins["given"], [b.n for b in bins["given"]], color="#9a9a9a")
        labels = [f"{b.n}" if b.n else "" for b in bins["given"]]
        below.bar_label(drawn, labels, fontsize=5, padding=1)
        below.margins(y=0.25)
        below.set_xlabel("probability of the likeliest label, %", fontsize=8)
        below.set_ylabel("examples", fontsize=8)
    return figure


def _draw_shares(axes: Axes, bins: Mapping[str, Sequence[Bin]]) -> None:
    shares = {
        name: [(one, 100 * one.share) for one in part if one.share is not None]
        for name, part in bins.items()
    }
    filled, heights = zip(*shares["given"], strict=True)
    _draw_bins(axes, filled, heights, color=PLAIN_COLOR, label="as given")
    axes.plot([0, 100], [0, 100], color="#555555", linestyle="--", linewidth=0.9)
    if "scaled" in shares:
        axes.plot(
            [100 * (one.mean_probability or 0.0) for one, _ in shares["scaled"]],
            [share for _, share in shares["scaled"]],
            color=COLORS[1],
            marker="o",
            markersize=3.5,
            linewidth=1.2,
            label="at the fitted temperature",
        )
        axes.legend(frameon=False, fontsize=7, loc="upper left")
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_ylabel("answers that are right, %", fontsize=8)


def _draw_bins(axes: Axes, bins: Sequence[Bin], heights: Sequence[float], **drawn: Any) -> Any:
    return axes.bar(
        [100 * one.low for one in bins],
        heights,
        width=[100 * (one.high - one.low) for one in bins],
        align="edge",
        edgecolor="white",
        linewidth=0.6,
        **drawn,
    )


def _risk_coverage_chart(found: Sequence[RunCalibration]) -> Figure:
    """Return a panel a task: share of wrong answers among the surest, against their number."""
    tasks = list(dict.fromkeys(one.run.task.name for one in found))
    figure, places = open_panels(tasks, width=4.0, height=3.6)
    drawn: dict[str, Artist] = {}
    for [axes], task in zip(places, tasks, strict=True):
        for one in (one for one in found if one.run.task.name == task):
            curve = _thinned(risk_coverage(*_pooled(one)))
            [drawn[one.run.title]] = axes.plot(
                [100 * share for share in curve.coverage],
                [100 * share for share in curve.risk],
                linewidth=1.3,
                # Where every confidence is the same there is a point and no line.
                marker="o" if len(curve.coverage) == 1 else None,
                **line_style(len(drawn)),
            )
        axes.set_xlim(0, 100)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("answered, the surest first, %", fontsize=8)
        axes.set_ylabel("wrong among these, %", fontsize=8)
    add_legend(figure, drawn)
    return figure


def _note_facts(found: RunCalibration, options: ReportConfig) -> dict[str, Any]:
    folds = found.folds.items()
    return {
        "name": found.run.title,
        "unfitted": found.unfitted,
        **_counts_of(found),
        "at_bound": [f"fold{k}" for k, f in folds if f.temperature and f.temperature.at_bound],
        "unmet": [f"fold{k}" for k, f in folds if not found.unfitted and f.accepted is None],
        "no_prior": options.prior is not None
        and found.tells_resistance
        and found.run.kind == "prompted",
    }
