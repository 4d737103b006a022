"""Scalar metrics: one number each that the counts of gold and answered labels give.

A metric that is registered here stands in ``scores.json`` and ``summary.json``, in every table, on
the console, in W&B and on model cards, with its mean and deviation over folds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from recap.errors import ConfigError

T = TypeVar("T")
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Compute = Callable[[Ints], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScalarMetric:
    """What a metric is called, and how it is computed."""

    name: str
    """Its key in ``scores.json``."""
    title: str
    """In tables and on pages."""
    short: str
    """Where there is little room."""
    higher_is_better: bool
    compute: Compute | None
    """From counts ``(n_labels gold, n_labels + 1 answered)``, unparsed answers last, to a fraction,
    which tables show in percent; NaN where it is undefined. ``None`` for the loss, which labels do
    not give."""


SCALAR_METRICS: dict[str, ScalarMetric] = {}
"""By name, in the order of files and tables."""

LOSS = ScalarMetric(
    name="loss",
    title="Loss (nats per token)",
    short="loss",
    higher_is_better=False,
    compute=None,
)
"""Stands beside the others wherever a model has one."""


def scalar_metric(
    name: str, *, title: str, short: str | None = None, higher_is_better: bool
) -> Callable[[Compute], Compute]:
    """Return a decorator that registers a function of counts as a metric.

    Args:
        name: Its key in ``scores.json``.
        title: What tables call it.
        short: The same where there is little room.
        higher_is_better: Whether tables mark the highest value as the best, or the lowest.

    Raises:
        ConfigError: When the name is taken.
    """
    if name == LOSS.name or name in SCALAR_METRICS:
        raise ConfigError(f"metric {name!r} is registered already; choose another name")

    def add(compute: Compute) -> Compute:
        SCALAR_METRICS[name] = ScalarMetric(
            name=name,
            title=title,
            short=short or title,
            higher_is_better=higher_is_better,
            compute=compute,
        )
        return compute

    return add


def metric_of(name: str) -> ScalarMetric:
    """Return what is known of a metric; one that is not registered here goes by its name."""
    bare = ScalarMetric(name=name, title=name, short=name, higher_is_better=True, compute=None)
    return LOSS if name == LOSS.name else SCALAR_METRICS.get(name, bare)


def without_loss(metrics: Mapping[str, T]) -> dict[str, T]:
    """Return the metrics that are shown in percent."""
    return {name: value for name, value in metrics.items() if name != LOSS.name}


def label_precision(counts: Ints) -> Floats:
    """Return the precision of each label ``(n_labels,)``, 0 where it was never answered."""
    return _ratio(np.diagonal(counts), counts[:, :-1].sum(axis=0))


def label_recall(counts: Ints) -> Floats:
    """Return the recall of each label ``(n_labels,)``, 0 where it never occurs."""
    return _ratio(np.diagonal(counts), counts.sum(axis=1))


def label_f1(counts: Ints) -> Floats:
    """Return the F1 of each label ``(n_labels,)``, 0 where it neither occurs nor was answered."""
    mentions = counts.sum(axis=1) + counts[:, :-1].sum(axis=0)
    return _ratio(2 * np.diagonal(counts), mentions)


def _ratio(numerator: Ints, denominator: Ints) -> Floats:
    # Integers divide exactly as scikit-learn's do, so the figures agree to the last bit or nearly
    # so.
    none = np.zeros(len(numerator), dtype=np.float64)
    return np.divide(numerator, denominator, out=none, where=denominator > 0)


@scalar_metric("macro_f1", title="Macro-F1", short="macro F1", higher_is_better=True)
def _macro_f1(counts: Ints) -> float:
    return float(label_f1(counts).mean())


@scalar_metric("macro_precision", title="Macro precision", short="macro P", higher_is_better=True)
def _macro_precision(counts: Ints) -> float:
    return float(label_precision(counts).mean())


@scalar_metric("macro_recall", title="Macro recall", short="macro R", higher_is_better=True)
def _macro_recall(counts: Ints) -> float:
    return float(label_recall(counts).mean())


@scalar_metric("accuracy", title="Accuracy", short="accuracy", higher_is_better=True)
def _accuracy(counts: Ints) -> float:
    return float(np.trace(counts) / counts.sum())


@scalar_metric("invalid_rate", title="Unparsed answers", short="unparsed", higher_is_better=False)
def _invalid_rate(counts: Ints) -> float:
    return float(counts[:, -1].sum() / counts.sum())
