"""Whether probabilities mean what they say, and how to make them.

Predictions are taken as forecasts; bins, calibration errors, Brier score and likelihood judge them,
one temperature makes them as sure as they deserve to be, Bayes' rule fits them to a population in
which resistance is rarer than it was in training, and thresholds say which answers to leave to a
human being and which utterances to flag for a look.

Probabilities are arrays ``(example, label)`` whose rows add up to 1, true labels are indices
``(example,)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from recap.data.readers.tables import fault_of_probabilities
from recap.errors import DataError, quote_id
from recap.metrics.scalar import Bools, Floats, Ints
from recap.records import Prediction


@dataclass(frozen=True, kw_only=True, eq=False)
class Forecasts:
    """What a system held likely of each example, judged by its likeliest label.

    The likeliest label is what probabilities speak of, whatever was answered: an answer that cannot
    be read, or one that greedy decoding led elsewhere, is judged here by the label that the system
    held likeliest. ``n_unreadable`` and ``n_other_answer`` say how many these are.

    Attributes:
        labels: The task's labels.
        probabilities: ``(example, label)``; every row adds up to 1.
        gold: ``(example,)``: index of the true label.
        n_left_out: Predictions without probabilities, which are not among the examples.
        n_unreadable: Examples whose answer held no readable label.
        n_other_answer: Examples whose readable answer is not the likeliest label.
    """

    labels: tuple[str, ...]
    probabilities: Floats
    gold: Ints
    n_left_out: int = 0
    n_unreadable: int = 0
    n_other_answer: int = 0

    @property
    def n(self) -> int:
        """Number of examples."""
        return len(self.gold)

    @property
    def likeliest(self) -> Ints:
        """``(example,)``: index of the likeliest label, of equal ones the first."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def confidence(self) -> Floats:
        """``(example,)``: probability of the likeliest label."""
        return np.asarray(self.probabilities.max(axis=1), dtype=np.float64)

    @property
    def correct(self) -> Bools:
        """``(example,)``: whether the likeliest label is the true one."""
        return np.asarray(self.likeliest == self.gold)


def forecasts_of(predictions: Iterable[Prediction], *, labels: Sequence[str]) -> Forecasts:
    """Return the forecasts that predictions hold; those without probabilities are counted.

    Raises:
        DataError: For probabilities that are not over these labels, are negative or do not add up
            to 1, or a true label that is none of them.
    """
    index = {label: place for place, label in enumerate(labels)}
    rows, gold = [], []
    left_out = unreadable = other = 0
    for prediction in predictions:
        if prediction.gold not in index:
            raise DataError(
                f"prediction {quote_id(prediction.id)}: its gold label is not one of the "
                f"{len(labels)} labels; judge it under the task that made it"
            )
        if prediction.probabilities is None:
            left_out += 1
            continue
        row = _row(prediction.id, prediction.probabilities, labels)
        rows.append(row)
        gold.append(index[prediction.gold])
        if prediction.label is None:
            unreadable += 1
        elif row[index[prediction.label]] < row.max():
            other += 1
    return Forecasts(
        labels=tuple(labels),
        probabilities=np.array(rows, dtype=np.float64).reshape(len(rows), len(labels)),
        gold=np.array(gold, dtype=np.int64),
        n_left_out=left_out,
        n_unreadable=unreadable,
        n_other_answer=other,
    )


def _row(identifier: str, found: Mapping[str, float], labels: Sequence[str]) -> Floats:
    if set(found) != set(labels):
        raise DataError(
            f"prediction {quote_id(identifier)}: has probabilities of {len(found)} labels, not of "
            f"the task's {len(labels)}; give one for each of them"
        )
    row = np.array([found[label] for label in labels], dtype=np.float64)
    fault = fault_of_probabilities(row.tolist())
    if fault is not None:
        raise DataError(
            f"prediction {quote_id(identifier)}: its probabilities {fault}; they have to lie "
            "between 0 and 1 and add up to 1"
        )
    return row / float(row.sum())


Scheme = Literal["equal_width", "equal_mass"]

N_BINS = 15
"""Bins of Guo et al. (2017), "On Calibration of Modern Neural Networks", Section 5."""

FLOOR = float(np.finfo(np.float64).eps)
"""Least probability whose logarithm is taken, 2.2e-16, as in scikit-learn 1.9's ``log_loss``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """Examples whose probabilities are alike, ``low`` < probability <= ``high``.

    ``mean_probability`` is what was forecast of them, ``share`` how often it came true; both
    ``None`` where there is no example.
    """

    low: float
    high: float
    n: int
    mean_probability: float | None
    share: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """The figures of one set of forecasts; all are better when smaller.

    Attributes:
        n: Examples.
        accuracy: Share whose likeliest label is the true one.
        mean_confidence: Mean probability of the likeliest label.
        ece: Top-label expected calibration error, bins of equal width.
        ece_equal_mass: The same over bins of equally many examples.
        classwise_ece: Mean over labels of each label's own calibration error.
        per_label_ece: That of each label, in order.
        brier: From 0 to 2; see :func:`brier_score`.
        nll: Negative log-likelihood in nats an example.
        n_floored: Examples whose true label had a probability below :data:`FLOOR`.
    """

    n: int
    accuracy: float
    mean_confidence: float
    ece: float
    ece_equal_mass: float
    classwise_ece: float
    per_label_ece: tuple[float, ...]
    brier: float
    nll: float
    n_floored: int


def calibration_of(probabilities: Floats, gold: Ints, *, n_bins: int = N_BINS) -> Calibration:
    """Return all calibration figures of a set of forecasts.

    Raises:
        DataError: When there is no example.
    """
    if not len(gold):
        raise DataError("there is no forecast to judge; give predictions with probabilities")
    confidence = np.asarray(probabilities.max(axis=1), dtype=np.float64)
    correct = np.asarray(probabilities.argmax(axis=1) == gold)
    per_label = classwise_errors(probabilities, gold, n_bins=n_bins)
    true = probabilities[np.arange(len(gold)), gold]
    return Calibration(
        n=len(gold),
        accuracy=float(correct.mean()),
        mean_confidence=float(confidence.mean()),
        ece=calibration_error(reliability_bins(confidence, correct, n_bins=n_bins)),
        ece_equal_mass=calibration_error(
            reliability_bins(confidence, correct, n_bins=n_bins, scheme="equal_mass")
        ),
        classwise_ece=float(np.mean(per_label)),
        per_label_ece=per_label,
        brier=brier_score(probabilities, gold),
        nll=negative_log_likelihood(probabilities, gold),
        n_floored=int((true < FLOOR).sum()),
    )


def reliability_bins(
    forecast: Floats, happened: Bools, *, n_bins: int = N_BINS, scheme: Scheme = "equal_width"
) -> tuple[Bin, ...]:
    """Return forecasts of one event, put into bins of like probability.

    Args:
        forecast: ``(example,)``: probability of the event.
        happened: ``(example,)``: whether it came true.
        n_bins: Number of bins.
        scheme: ``equal_width`` cuts 0 to 1 into equal parts (Guo et al. 2017, equations 2 and 3: a
            bin holds its upper end; 0 is in the first); ``equal_mass`` cuts where equally many
            examples lie (Nguyen and O'Connor 2015), and as equal probabilities are never parted,
            there may be fewer bins.
    """
    inner = (
        np.arange(1, n_bins) / n_bins
        if scheme == "equal_width"
        else _mass_ends(forecast, n_bins)[:-1]
    )
    ends = [0.0, *inner.tolist(), 1.0]
    places = np.searchsorted(inner, forecast, side="left")
    counts = np.bincount(places, minlength=len(inner) + 1)
    forecast_sums = np.bincount(places, weights=forecast, minlength=len(counts))
    happened_sums = np.bincount(places, weights=happened, minlength=len(counts))
    return tuple(
        Bin(
            low=float(low),
            high=float(high),
            n=int(n),
            mean_probability=float(forecast_sum / n) if n else None,
            share=float(happened_sum / n) if n else None,
        )
        for low, high, n, forecast_sum, happened_sum in zip(
            ends[:-1], ends[1:], counts, forecast_sums, happened_sums, strict=True
        )
    )


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error: the bins' mean gap, weighted by their examples.

    Naeini et al. (2015); Guo et al. (2017), equation 3.
    """
    total = sum(one.n for one in bins)
    gaps = (
        one.n * abs(one.share - one.mean_probability)
        for one in bins
        if one.share is not None and one.mean_probability is not None
    )
    return sum(gaps) / total if total else 0.0


def classwise_errors(
    probabilities: Floats, gold: Ints, *, n_bins: int = N_BINS
) -> tuple[float, ...]:
    """Return each label's calibration error, its probability against how often it is the true one.

    Over all examples and bins of equal width; their mean is the class-wise ECE of Kull et al.
    (2019), "Beyond temperature scaling", Section 2. It sees what the top label's error does not: a
    label whose probability is off wherever it is not the likeliest.
    """
    return tuple(
        calibration_error(reliability_bins(probabilities[:, k], gold == k, n_bins=n_bins))
        for k in range(probabilities.shape[1])
    )


def brier_score(probabilities: Floats, gold: Ints) -> float:
    """Return the Brier score over all labels, from 0 (perfect) to 2 (sure of a wrong label).

    The mean over examples of the summed squared distance from 1 for the true label and 0 for all
    others (Brier 1950, equation 2). For two labels this is twice the score that is usual there.

    >>> brier_score(np.array([[0.8, 0.2]]), np.array([0]))
    0.07999999999999999
    """
    distance = probabilities - np.eye(probabilities.shape[1])[gold]
    return float((distance**2).sum(axis=1).mean())


def negative_log_likelihood(probabilities: Floats, gold: Ints) -> float:
    """Return the mean of minus the logarithm of the true label's probability, in nats.

    A probability below :data:`FLOOR` counts as that, for no finite number could be given otherwise.
    """
    true = probabilities[np.arange(len(gold)), gold]
    return float(np.log(1 / np.maximum(true, FLOOR)).mean())


def _mass_ends(forecast: Floats, n_bins: int) -> Floats:
    """Return the upper ends of bins of equally many examples, each once."""
    ranks = np.ceil(np.arange(1, n_bins + 1) * len(forecast) / n_bins).astype(int)
    return np.unique(np.sort(forecast)[np.maximum(ranks, 1) - 1])


LEAST, MOST = 0.01, 100.0
"""Temperatures that are looked among."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Temperature:
    """The temperature that suits a set of forecasts best.

    ``nll_before`` and ``nll_after`` are theirs, in nats an example, not those of other forecasts.
    ``at_bound``: the likelihood still rose at :data:`LEAST` or :data:`MOST`, as it does where every
    likeliest label is the true one. Forecasts that no temperature improves have the value 1.
    """

    value: float
    n: int
    nll_before: float
    nll_after: float
    at_bound: bool


def fit_temperature(probabilities: Floats, gold: Ints) -> Temperature:
    """Return the temperature under which forecasts make what is true the likeliest.

    The one scalar of Guo et al. (2017), Section 4.2, found by minimizing the negative
    log-likelihood, which has a single minimum: it is convex in 1 / temperature. Logarithms of the
    labels' probabilities stand in for the logits, from which they differ by a constant an example,
    without effect on what follows.

    Args:
        probabilities: ``(example, label)``, of examples on which no figure is reported.
        gold: ``(example,)``: index of the true label.

    Raises:
        DataError: When there is no example.
    """
    from scipy.optimize import minimize_scalar

    if not len(gold):
        raise DataError("a temperature needs forecasts to be fitted to, and there are none")

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(scale(probabilities, math.exp(log_temperature)), gold)

    bounds = (math.log(LEAST), math.log(MOST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    # The search never tries its ends; where nothing is gained, forecasts stay as they are.
    best = min((0.0, *bounds, float(found.x)), key=loss)
    return Temperature(
        value=math.exp(best),
        n=len(gold),
        nll_before=negative_log_likelihood(probabilities, gold),
        nll_after=loss(best),
        at_bound=best in bounds,
    )


def scale(probabilities: Floats, temperature: float) -> Floats:
    """Return forecasts at another temperature; the order of the labels stays as it is.

    Above 1 they become less sure, below 1 surer. The softmax of the logarithms over the
    temperature; a probability below :data:`FLOOR` counts as that.

    >>> scale(np.array([[0.8, 0.2]]), 2.0).round(4).tolist()
    [[0.6667, 0.3333]]
    """
    logs = np.log(np.maximum(probabilities, FLOOR)) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Detection:
    """Precision, recall and F1 of one class as fractions; 0 where there is nothing to divide by."""

    precision: float
    recall: float
    f1: float


def correct_prior(probabilities: Floats, trained: Floats, wanted: Floats) -> Floats:
    """Return forecasts for a population in which labels are otherwise frequent.

    Each probability is multiplied by how much more frequent its label is there, and rows are made
    to add up to 1 again: Bayes' rule, where the examples of each label are alike in both (Saerens,
    Latinne and Decaestecker 2002, equation 4).

    Args:
        probabilities: ``(example, label)``.
        trained: ``(label,)``: shares of the labels among what the system learned from.
        wanted: ``(label,)``: shares in the population that is to be judged.

    Raises:
        DataError: For a label that is to occur and never did in training.

    >>> correct_prior(np.array([[0.6, 0.4]]), np.array([0.5, 0.5]), np.array([0.2, 0.8])).round(4)
    array([[0.2727, 0.7273]])
    """
    if np.any((trained <= 0) & (wanted > 0)):
        raise DataError(
            "a label that training never showed is to occur: its probabilities cannot be corrected"
        )
    ratio = np.divide(wanted, trained, out=np.zeros(len(trained)), where=trained > 0)
    product = probabilities * ratio
    total = product.sum(axis=1, keepdims=True)
    # Nothing is left of a row that was sure of labels that do not occur.
    return np.asarray(np.where(total > 0, product / np.where(total > 0, total, 1), probabilities))


def shifted_prior(trained: Floats, chosen: Bools, share: float) -> Floats:
    """Return shares of the labels of which ``chosen`` ones make up ``share`` together.

    Among the chosen, and among the others, labels keep their proportions.

    Args:
        trained: ``(label,)``: shares now, adding up to 1.
        chosen: ``(label,)``.
        share: What the chosen are to add up to.

    Raises:
        DataError: When the chosen, or the others, never occur now.

    >>> shifted_prior(np.array([0.2, 0.2, 0.6]), np.array([True, True, False]), 0.1).round(4)
    array([0.05, 0.05, 0.9 ])
    """
    now = float(trained[chosen].sum())
    if not 0 < now < float(trained.sum()):
        raise DataError(
            "a share of some labels cannot be changed where all examples, or none, have them"
        )
    rest = float(trained.sum()) - now
    return np.where(chosen, trained * share / now, trained * (1 - share) / rest)


def prior_weights(positive: Bools, share: float) -> Floats:
    """Return what each example has to count for positives to make up ``share``; the mean is 1.

    Args:
        positive: ``(example,)``.
        share: Of the positives, among all.

    Raises:
        DataError: When all examples are positive, or none is.
    """
    n, n_positive = len(positive), int(positive.sum())
    if not 0 < n_positive < n:
        raise DataError("examples of both kinds are needed to weigh one against the other")
    return np.where(positive, share * n / n_positive, (1 - share) * n / (n - n_positive))


def detection(predicted: Bools, positive: Bools, weights: Floats | None = None) -> Detection:
    """Return precision, recall and F1 of the positives, examples counted by their weights."""
    weight = np.ones(len(positive)) if weights is None else weights
    found = float(weight[predicted & positive].sum())
    n_predicted, n_positive = float(weight[predicted].sum()), float(weight[positive].sum())
    return Detection(
        precision=found / n_predicted if n_predicted else 0.0,
        recall=found / n_positive if n_positive else 0.0,
        f1=2 * found / (n_predicted + n_positive) if n_predicted + n_positive else 0.0,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class RiskCoverage:
    """What an abstaining system would get wrong, for every line it could draw.

    Attributes:
        thresholds: The confidences that occur, from the highest down.
        coverage: Share of examples with at least that confidence.
        risk: Share of wrong answers among these.
        aurc: Area under the curve; see :func:`risk_coverage`.
        best_aurc: The area if all wrong answers had the least confidence.
    """

    thresholds: tuple[float, ...]
    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    aurc: float
    best_aurc: float

    @property
    def overall_risk(self) -> float:
        """Share of wrong answers where all are given."""
        return self.risk[-1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """What a system answers with at least ``threshold`` confidence; ``risk``: share it gets wrong.

    ``risk`` is ``None`` where nothing is answered.
    """

    threshold: float
    coverage: float
    risk: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Flagged:
    """What is flagged with a score of at least ``threshold``.

    Attributes:
        threshold: Least score that is flagged.
        share: Share of all examples that is flagged.
        recall: Share of the positive examples that is flagged; ``None`` without any.
        precision: Share of the flagged examples that is positive; ``None`` where none is flagged.
    """

    threshold: float
    share: float
    recall: float | None
    precision: float | None


def risk_coverage(confidence: Floats, correct: Bools) -> RiskCoverage:
    """Return the risk-coverage curve (El-Yaniv and Wiener 2010; Geifman and El-Yaniv 2017).

    Its area is the mean of the risks at every coverage 1/n, 2/n … 1 (Geifman, Uziel and El-Yaniv
    2019, "Bias-Reduced Uncertainty Estimation", Section 2). Examples of equal confidence are
    answered together or not at all: the curve has one point for them, and the area takes the mean
    over all orders in which they could stand.

    Args:
        confidence: ``(example,)``.
        correct: ``(example,)``: whether the answer is right.

    Raises:
        DataError: When there is no example.
    """
    n = len(confidence)
    if not n:
        raise DataError("a risk-coverage curve needs answers, and there are none")
    values, places, counts = np.unique(-confidence, return_inverse=True, return_counts=True)
    wrong = np.bincount(places, weights=~correct, minlength=len(values))
    answered, errors = np.cumsum(counts), np.cumsum(wrong)
    before = np.repeat(answered - counts, counts)
    within = np.arange(1, n + 1) - before
    expected = np.repeat(errors - wrong, counts) + within * np.repeat(wrong / counts, counts)
    last = np.arange(1, int(errors[-1]) + 1)
    return RiskCoverage(
        thresholds=tuple((-values).tolist()),
        coverage=tuple((answered / n).tolist()),
        risk=tuple((errors / answered).tolist()),
        aurc=float((expected / (before + within)).mean()),
        best_aurc=float((last / (n - errors[-1] + last)).sum() / n),
    )


def threshold_for_risk(curve: RiskCoverage, risk: float) -> float | None:
    """Return the lowest threshold at which at most this share of the answers is wrong.

    It is what was found on these examples, without a guarantee for others. ``None`` where even the
    surest answers are wrong more often.
    """
    fitting = [at for at, wrong in zip(curve.thresholds, curve.risk, strict=True) if wrong <= risk]
    return fitting[-1] if fitting else None


def accept(confidence: Floats, correct: Bools, threshold: float) -> Accepted:
    """Return what comes of a threshold that was chosen on other examples."""
    answered = confidence >= threshold
    return Accepted(
        threshold=threshold,
        coverage=float(answered.mean()),
        risk=float((~correct)[answered].mean()) if answered.any() else None,
    )


def threshold_for_recall(scores: Floats, positive: Bools, recall: float) -> float:
    """Return the highest threshold at which at least this share of the positives is flagged.

    Args:
        scores: ``(example,)``: how likely each is positive.
        positive: ``(example,)``: whether it is.
        recall: Wanted share, above 0 and at most 1.

    Raises:
        DataError: When no example is positive.

    >>> threshold_for_recall(np.array([0.9, 0.7, 0.6, 0.2]), np.array([1, 0, 1, 1]) > 0, 0.66)
    0.6
    """
    found = np.sort(scores[positive])[::-1]
    if not len(found):
        raise DataError("a threshold for a recall needs positive examples, and there are none")
    # 0.9 of 10 are 9, whatever the last digit of the product says.
    needed = max(1, math.ceil(recall * len(found) - 1e-9))
    return float(found[needed - 1])


def flag(
    scores: Floats, positive: Bools, threshold: float, *, weights: Floats | None = None
) -> Flagged:
    """Return what a threshold flags.

    Args:
        scores: ``(example,)``: how likely each is positive.
        positive: ``(example,)``: whether it is.
        threshold: Least score that is flagged.
        weights: ``(example,)``: how much each counts, as
            :func:`prior_weights` gives it; ``None``: all the same.
    """
    weight = np.ones(len(scores)) if weights is None else weights
    flagged = scores >= threshold
    n_flagged, n_positive = float(weight[flagged].sum()), float(weight[positive].sum())
    found = float(weight[flagged & positive].sum())
    return Flagged(
        threshold=threshold,
        share=n_flagged / float(weight.sum()),
        recall=found / n_positive if n_positive else None,
        precision=found / n_flagged if n_flagged else None,
    )
