"""Tables of the calibration section; means and sample SD over folds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from recap.report_sections.calibrated import FoldCalibration, RunCalibration
from recap.reporting.apa import DASH
from recap.reporting.sheets import Sheet
from recap.scoring.summary import spread_over_folds, spread_text

NOT_FITTED = "not fitted"


def top_label_sheet(found: Sequence[RunCalibration]) -> Sheet:
    """Return how sure every run is of its likeliest label, and how often that one is right."""
    figures = ("accuracy", "mean_confidence", "ece", "ece_equal_mass")
    return Sheet(
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


def all_labels_sheet(found: Sequence[RunCalibration]) -> Sheet:
    """Return how good the probabilities of all labels are."""
    return Sheet(
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


def abstention_sheet(found: Sequence[RunCalibration], risk: float) -> Sheet:
    """Return what every run gets wrong when it may leave answers to a human being."""
    return Sheet(
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


def recall_sheet(found: Sequence[RunCalibration], recall: float, prior: float | None) -> Sheet:
    """Return what the threshold for a wanted recall of resistance flags on reported examples."""
    header = ["run", "fitted on", "threshold", "recall, %", "precision, %", "flagged, %"]
    figures = ["flagged.recall", "flagged.precision", "flagged.share"]
    if prior is not None:
        at = f"at {100 * prior:g} % resistance"
        header += [f"precision {at}, %", f"flagged {at}, %"]
        figures += ["flagged_in_practice.precision", "flagged_in_practice.share"]
    return Sheet(
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


def prior_sheet(found: Sequence[RunCalibration], prior: float) -> Sheet:
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
    return Sheet(
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
