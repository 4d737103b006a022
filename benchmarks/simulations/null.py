"""Two learners that are equally good, compared by cross-validation: how often does a test say no?

Every data set is drawn anew. An example has features of three kinds, drawn alike given its class:
its own of the first learner, its own of the second, and some that both see. Both learners are the
same algorithm. Exchanging the two sets of own features changes nothing about how data are drawn, so
the expected scores are equal at any number of examples: the null hypothesis is true by symmetry,
and a test at 5 % should reject it in 5 % of all data sets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from recap.statistics.hypothesis_tests import corrected_t_test, mcnemar, paired_t_test
from recap.statistics.score_intervals import difference_intervals

Array = npt.NDArray[Any]
Learned = Callable[[Array], Array]
"""From which examples are trained on, ``(data sets, examples)``, to the class of every example."""

LEVEL = 0.05
CLASSES = 3
OWN_FEATURES = 2
SHARED_FEATURES = 2
DISTANCE = 1.2
"""Of the classes' means along every feature, in standard deviations."""


@dataclass(frozen=True, kw_only=True)
class NullSetting:
    """A learner, a number of examples and a design of cross-validation."""

    learner: Literal["centroid", "naive_bayes", "nearest_neighbor"]
    examples: int
    """A multiple of classes times folds, so that all folds are alike."""
    folds: int = 5
    repeats: int = 1

    @property
    def test_to_train(self) -> float:
        """Tested examples of a fold as a share of the others."""
        return 1 / (self.folds - 1)


def replicate(setting: NullSetting, replications: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return rejections of every test over so many data sets, and intervals of single scores.

    ``rejections`` counts data sets in which a test finds a difference at 5 %; ``means`` and
    ``halves`` are the first learner's mean score and half the width of its corrected interval.
    """
    answers = draw_answers(setting, replications, rng)
    gold = np.repeat(np.arange(CLASSES), setting.examples // CLASSES)
    scores = np.stack(
        [macro_f1(gold, predicted, answers.fold, setting) for predicted in answers.predicted]
    )
    rejections = dict.fromkeys(("naive_t", "corrected_t"), 0)
    if setting.repeats == 1:
        rejections |= {"mcnemar": 0, "clusters": 0}
    means, halves = [], []
    for data_set in range(replications):
        first, second = scores[0, data_set], scores[1, data_set]
        corrected = corrected_t_test(first, second, test_to_train=setting.test_to_train)
        rejections["naive_t"] += _is_below(paired_t_test(first, second).p)
        rejections["corrected_t"] += _is_below(corrected.p)
        alone = corrected_t_test(first, np.zeros_like(first), test_to_train=setting.test_to_train)
        means.append(alone.difference)
        halves.append(0.0 if alone.high is None else alone.high - alone.difference)
        if setting.repeats == 1:
            one, other = (predicted[data_set, 0] for predicted in answers.predicted)
            rejections["mcnemar"] += _is_below(mcnemar(one == gold, other == gold).p)
            found = difference_intervals(
                [_one_each(gold, one)],
                [_one_each(gold, other)],
                kind="example",
                confidence=1 - LEVEL,
            )
            rejections["clusters"] += _is_below(found.macro_f1_p)
    return {"rejections": rejections, "means": means, "halves": halves}


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What both learners answer when each fold is held out."""

    fold: Array
    """``(data sets, repeats, examples)``."""
    predicted: tuple[Array, Array]
    """Class indices ``(data sets, repeats, examples)`` of the two learners."""


def draw_answers(setting: NullSetting, data_sets: int, rng: np.random.Generator) -> Answers:
    """Return the answers of both learners under cross-validation over freshly drawn data."""
    a_class = setting.examples // CLASSES
    if setting.examples % (CLASSES * setting.folds):
        raise ValueError(f"{setting.examples} examples do not fill {setting.folds} equal folds")
    centres = DISTANCE * np.arange(CLASSES)[:, None]

    def features(n: int) -> Array:
        noise = rng.normal(size=(data_sets, CLASSES, a_class, n))
        # Every second feature runs the other way, so that no class is in the middle of all.
        shifted = np.roll(centres, 1, axis=0)
        where = np.where(np.arange(n) % 2 == 0, centres, shifted)
        return (where[None, :, None] + noise).reshape(data_sets, setting.examples, n)

    shared = features(SHARED_FEATURES)
    seen = [np.concatenate([features(OWN_FEATURES), shared], axis=-1) for _ in range(2)]
    order = rng.uniform(size=(data_sets, setting.repeats, CLASSES, a_class)).argsort(axis=-1)
    fold = (order % setting.folds).reshape(data_sets, setting.repeats, setting.examples)
    predicted = []
    for x in seen:
        predict = LEARNERS[setting.learner](x)
        of_repeats = [_held_out(predict, fold[:, r], setting.folds) for r in range(setting.repeats)]
        predicted.append(np.stack(of_repeats, axis=1))
    return Answers(fold=fold, predicted=(predicted[0], predicted[1]))


def macro_f1(gold: Array, predicted: Array, fold: Array, setting: NullSetting) -> Array:
    """Return macro-F1 ``(data sets, repeats * folds)`` of every held-out fold."""
    per_class = []
    for label in range(CLASSES):
        is_gold, is_said = gold == label, predicted == label
        right, mentions = is_said & is_gold, is_said.astype(int) + is_gold
        per_class.append(
            [
                2 * (right & (fold == k)).sum(-1) / np.maximum((mentions * (fold == k)).sum(-1), 1)
                for k in range(setting.folds)
            ]
        )
    scores = np.mean(per_class, axis=0)
    return np.moveaxis(scores, 0, -1).reshape(len(predicted), -1)


def _held_out(predict: Learned, fold: Array, folds: int) -> Array:
    """Return the class ``(data sets, examples)`` that each example gets when its fold is out."""
    predicted = np.zeros(fold.shape, dtype=int)
    for k in range(folds):
        held_out = fold == k
        predicted = np.where(held_out, predict(~held_out), predicted)
    return predicted


def _moments(x: Array, train: Array) -> tuple[Array, Array]:
    """Return mean and variance ``(data sets, classes, features)`` of the training examples."""
    data_sets, n, n_features = x.shape
    by_class = x.reshape(data_sets, CLASSES, n // CLASSES, n_features)
    weights = train.reshape(data_sets, CLASSES, n // CLASSES, 1)
    counts = weights.sum(axis=2)
    mean = (by_class * weights).sum(axis=2) / counts
    variance = ((by_class - mean[:, :, None]) ** 2 * weights).sum(axis=2) / counts
    return mean, variance


def _centroid(x: Array) -> Learned:
    def predict(train: Array) -> Array:
        mean, _ = _moments(x, train)
        return ((x[:, :, None] - mean[:, None]) ** 2).sum(axis=-1).argmin(axis=-1)

    return predict


def _naive_bayes(x: Array) -> Learned:
    def predict(train: Array) -> Array:
        mean, variance = _moments(x, train)
        distance = (x[:, :, None] - mean[:, None]) ** 2 / variance[:, None]
        return (distance + np.log(variance)[:, None]).sum(axis=-1).argmin(axis=-1)

    return predict


def _nearest_neighbor(x: Array) -> Learned:
    squares = (x**2).sum(axis=-1)
    # Of each example and each neighbor, up to what is the same for all neighbors.
    distance = squares[:, None] - 2 * x @ x.swapaxes(1, 2)

    def predict(train: Array) -> Array:
        nearest = np.where(train[:, None], distance, np.inf).argmin(axis=-1)
        return nearest // (x.shape[1] // CLASSES)

    return predict


LEARNERS: dict[str, Callable[[Array], Learned]] = {
    "centroid": _centroid,
    "naive_bayes": _naive_bayes,
    "nearest_neighbor": _nearest_neighbor,
}
"""From features ``(data sets, examples, features)`` to what predicts from a training part."""


def _one_each(gold: Array, predicted: Array) -> Array:
    """Return a confusion matrix an example, as sessions of one example."""
    matrices = np.zeros((len(gold), CLASSES, CLASSES + 1))
    matrices[np.arange(len(gold)), gold, predicted] = 1
    return matrices


def _is_below(p: float | None) -> bool:
    return p is not None and p < LEVEL
