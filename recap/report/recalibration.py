"""The calibration of one run: fitted where examples were set aside, reported elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from recap.data.utterances import membership
from recap.errors import DataError
from recap.metrics.abstention import (
    Accepted,
    Flagged,
    RiskCoverage,
    accept,
    coverage_at_risk,
    flag,
    risk_coverage,
    threshold_for_recall,
)
from recap.metrics.arrays import Bools, Floats
from recap.metrics.calibration import (
    N_BINS,
    Calibration,
    Detection,
    Forecasts,
    Temperature,
    calibration_of,
    correct_prior,
    detection,
    fit_temperature,
    forecasts_of,
    prior_weights,
    scale,
    shifted_prior,
)
from recap.metrics.files import predictions_from_jsonl
from recap.report.options import ReportConfig
from recap.report.runs import ReportedRun

RESISTANCE = "Resistance"
"""The category whose labels, its own or those below it, count as resistance."""


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions:
    """What the section asks beside :class:`recap.report.options.ReportConfig`."""

    n_bins: int = N_BINS
    """Bins of calibration errors and of the reliability diagram."""
    risk: float = 0.05
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
        scaled_probabilities: Theirs.
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
    scaled_probabilities: Floats | None
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


def calibrate(
    run: ReportedRun, options: ReportConfig, own: CalibrationOptions
) -> RunCalibration | None:
    """Return a run's calibration, ``None`` when a finished fold has no probabilities at all.

    Raises:
        DataError: When probabilities are none of the task's labels, or a file cannot be read.
    """
    labels = run.task.labels
    tests = {k: forecasts_of(found, labels=labels) for k, found in run.predictions.items()}
    if not all(one.n for one in tests.values()):
        return None
    unfitted = why_unfitted(run)
    is_resistant = membership(run.task.taxonomy, [RESISTANCE])
    resistant = np.array([is_resistant(label) for label in labels])
    folds = {}
    for k, test in tests.items():
        selection = None if unfitted else _selection(run, k)
        folds[k] = _fold(test, selection, resistant, _trained_prior(run, k, tests), options, own)
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


def _selection(run: ReportedRun, fold: int) -> Forecasts | None:
    file = run.folder.fold(fold).selection
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file}: cannot be read; delete {file.parent / 'scores.json'} to run this fold again"
        ) from error
    found = forecasts_of(predictions_from_jsonl(text, source=str(file)), labels=run.task.labels)
    return found if found.n else None


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
    own: CalibrationOptions,
) -> FoldCalibration:
    positive = resistant[test.gold]
    both = bool(positive.any() and not positive.all())
    temperature = scaled = accepted = flagged = in_practice = None
    if selection is not None:
        temperature = fit_temperature(selection.probabilities, selection.gold)
        scaled = replace(test, probabilities=scale(test.probabilities, temperature.value))
        found = coverage_at_risk(risk_coverage(selection.confidence, selection.correct), own.risk)
        accepted = accept(test.confidence, test.correct, found.threshold) if found else None
        threshold = _recall_threshold(selection, resistant, options.recall)
        if threshold is not None and both:
            scores = test.probabilities[:, resistant].sum(axis=1)
            flagged = flag(scores, positive, threshold)
            if options.prior is not None:
                weights = prior_weights(positive, options.prior)
                in_practice = flag(scores, positive, threshold, weights=weights)
    return FoldCalibration(
        forecasts=test,
        given=calibration_of(test.probabilities, test.gold, n_bins=own.n_bins),
        curve=risk_coverage(test.confidence, test.correct),
        temperature=temperature,
        scaled=calibration_of(scaled.probabilities, test.gold, n_bins=own.n_bins)
        if scaled
        else None,
        scaled_probabilities=scaled.probabilities if scaled else None,
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
