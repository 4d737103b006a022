"""From predictions to a confusion matrix to scores; from the scores of folds to their spread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from recap.errors import ConfigError, DataError, quote_id, quote_label
from recap.metrics.scalar import (
    LOSS,
    SCALAR_METRICS,
    Ints,
    label_f1,
    label_precision,
    label_recall,
    metric_of,
    without_loss,
)
from recap.records import LabelScores, LabelSpread, Prediction, Scores, Spread, Summary
from recap.system.plain_text import markdown, plain_markdown
from recap.tasks.answer import ends_in_thought

DDOF = 1
"""The paper's Table 10 fits the sample standard deviation."""

_PROTOCOLS = {
    "paper": "checkpoints selected on the fold that is reported",
    "nested": "checkpoints selected on a part of the training folds",
}

UNPARSED = "invalid"
"""What files call the last column of a confusion matrix, answers without a readable label."""


def score(
    predictions: Iterable[Prediction],
    *,
    task: str,
    labels: Sequence[str],
    loss: float | None = None,
) -> Scores:
    """Return the scores of predictions over a task's labels; an answer without a label is wrong.

    Args:
        predictions: One for each evaluated example, in any order.
        task: The task's name, as ``scores.json`` records it.
        labels: The task's labels in canonical order, whether or not they occur.
        loss: Mean loss over answer tokens in nats, ``None`` for systems that have none.

    Raises:
        DataError: For no predictions at all, or one whose gold or label is not among ``labels``.
    """
    return scores_from_confusion(
        task, labels, confusion_of(predictions, task=task, labels=labels), loss
    )


def confusion_of(predictions: Iterable[Prediction], *, task: str, labels: Sequence[str]) -> Ints:
    """Return the counts ``(n_labels gold, n_labels + 1 predicted)``; last come unparsed answers.

    Raises:
        DataError: For a prediction whose gold or label is not among ``labels``.
    """
    index: dict[str | None, int] = {label: i for i, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels) + 1), dtype=np.int64)
    for prediction in predictions:
        for name, value in (("gold", prediction.gold), ("label", prediction.label)):
            if value is not None and value not in index:
                raise DataError(
                    f"prediction {quote_id(prediction.id)}: {name} {quote_label(value, labels)} "
                    f"is not a label of task {task!r}; score it under the task that made it "
                    f"({prediction.task!r})"
                )
        counts[index[prediction.gold], index.get(prediction.label, len(labels))] += 1
    return counts


def scores_from_confusion(
    task: str, labels: Sequence[str], confusion: npt.ArrayLike, loss: float | None = None
) -> Scores:
    """Return the scores that follow from a confusion matrix, all of :data:`SCALAR_METRICS` in them.

    A label that never occurs has no recall and no F1, and no precision unless it was answered. In
    macro means it counts as 0, as in scikit-learn 1.9's
    ``precision_recall_fscore_support(labels=…, average="macro", zero_division=0)``. ``macro_f1`` is
    the mean of the classes' F1, as the paper's binary row has it (Table 4). The unparsed column is
    no class: it lowers recall and accuracy, and ``invalid_rate`` reports it.

    Args:
        task: The task's name.
        labels: The task's labels, in the order of rows and columns.
        confusion: Ints ``(n_labels gold, n_labels + 1 predicted)``, unparsed answers in the last
            column.
        loss: Mean loss over answer tokens in nats. A value that is not finite is stored as
            ``None``, since ``scores.json`` is strict JSON; so is a metric's.

    Raises:
        DataError: When the matrix counts no example.
        ValueError: When its shape does not fit the labels.
    """
    counts = np.asarray(confusion, dtype=np.int64)
    if counts.shape != (len(labels), len(labels) + 1):
        raise ValueError(
            f"the confusion of {len(labels)} labels has the shape "
            f"{(len(labels), len(labels) + 1)}, got {counts.shape}"
        )
    n = int(counts.sum())
    if n == 0:
        raise DataError(
            f"task {task!r}: there is no prediction to score; give examples that the task selects, "
            "or use fewer folds"
        )
    found = {m.name: m.compute(counts) for m in SCALAR_METRICS.values() if m.compute}
    precision, recall, f1 = label_precision(counts), label_recall(counts), label_f1(counts)
    return Scores(
        task=task,
        labels=tuple(labels),
        n=n,
        metrics={
            name: value if value is not None and math.isfinite(value) else None
            for name, value in {**found, LOSS.name: loss}.items()
        },
        per_label={
            label: defined(
                LabelScores(
                    precision=float(precision[i]),
                    recall=float(recall[i]),
                    f1=float(f1[i]),
                    support=int(counts[i].sum()),
                ),
                answered=int(counts[:, i].sum()),
            )
            for i, label in enumerate(labels)
        },
        confusion=tuple(map(tuple, counts.tolist())),
    )


def defined(row: LabelScores, *, answered: int) -> LabelScores:
    """Return a label's scores without those that nothing defines, as there is no example of it.

    Args:
        row: With 0 where a denominator is 0.
        answered: How often the label was answered.
    """
    if row.support:
        return row
    return replace(row, recall=None, f1=None, precision=row.precision if answered else None)


def argmax_disagreement(predictions: Iterable[Prediction]) -> float | None:
    """Return the share of predictions whose label is not the arg-max of their probabilities.

    Predictions without probabilities are left aside; ``None`` when none has any. Where several
    labels are likeliest each of them agrees. An answer without a label does not agree.

    >>> argmax_disagreement([]) is None
    True
    """
    others = [
        p.label is None or p.probabilities.get(p.label) != max(p.probabilities.values())
        for p in predictions
        if p.probabilities
    ]
    return sum(others) / len(others) if others else None


def answer_counts(predictions: Sequence[Prediction]) -> dict[str, float | None]:
    """Return what ``scores.json`` says of answers as they were given, beside the scores.

    ``argmax_disagreement``, and ``cut_in_thought`` where there are any: unparsed answers that ended
    inside a thought.
    """
    cut = sum(p.label is None and ends_in_thought(p.text) for p in predictions)
    found = {"argmax_disagreement": argmax_disagreement(predictions)}
    return {**found, "cut_in_thought": cut} if cut else found


def summarize(scores: Mapping[int, Scores], *, protocol: str) -> Summary:
    """Return mean and spread of every figure over the folds done so far; support is summed.

    A metric that any fold lacks (the loss of a prompted system, one that was registered after the
    fold was scored) has neither mean nor deviation; those of a label are over the folds that have
    examples of it.

    Args:
        scores: Fold index to its scores.
        protocol: How checkpoints were selected, ``"paper"`` or ``"nested"``.

    Raises:
        ConfigError: For no folds, or folds of different tasks or labels.
    """
    if not scores:
        raise ConfigError("there is no fold to summarize; run at least one")
    folds = tuple(sorted(scores))
    ordered = [scores[fold] for fold in folds]
    first = ordered[0]
    for fold, one in zip(folds, ordered, strict=True):
        if (one.task, one.labels) != (first.task, first.labels):
            raise ConfigError(
                f"fold {fold} was scored for task {one.task!r} with {len(one.labels)} labels, "
                f"fold {folds[0]} for {first.task!r} with {len(first.labels)}; "
                "summarize folds of one run"
            )
    together = np.sum([one.confusion for one in ordered], axis=0)
    pooled = scores_from_confusion(first.task, first.labels, together)
    return Summary(
        task=first.task,
        labels=first.labels,
        folds=folds,
        protocol=protocol,
        ddof=DDOF,
        metrics={
            name: spread_over_folds([s.metrics.get(name) for s in ordered])
            for name in dict.fromkeys(name for s in ordered for name in s.metrics)
        },
        metrics_pooled=without_loss(pooled.metrics),
        per_label={label: _label_spread(label, ordered) for label in first.labels},
    )


def missing_labels(summary: Summary) -> dict[str, tuple[int, ...]]:
    """Return the labels that folds have no tested example of, each with those folds."""
    found = {}
    for label, row in summary.per_label.items():
        pairs = zip(summary.folds, row.recall.values, strict=True)
        found[label] = tuple(fold for fold, value in pairs if value is None)
    return {label: folds for label, folds in found.items() if folds}


def support_warning(summary: Summary) -> str | None:
    """Return which labels lack tested examples where, and what that does to macro figures.

    ``None`` where every fold has every label.
    """
    missing = missing_labels(summary)
    if not missing:
        return None
    n_folds, listed = len(summary.folds), []
    for label, folds in missing.items():
        where = f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"
        listed.append(label if len(folds) == n_folds else f"{label} ({where})")
    mend = "; read the pooled ones, or use fewer folds" if n_folds > 1 else ""
    return (
        f"no tested example of {', '.join(listed)}: recall and F1 are undefined there, and macro "
        f"figures count them as 0 (scikit-learn's zero_division=0){mend}"
    )


def summary_markdown(summary: Summary, *, notes: Sequence[str] = ()) -> str:
    """Return a Markdown page: mean ± SD in percent for each metric and each category."""
    how = _PROTOCOLS.get(summary.protocol, summary.protocol)
    n_folds = len(summary.folds)
    spread = (
        f"mean ± sample standard deviation (ddof = {summary.ddof}) over {n_folds} folds"
        if n_folds > 1
        else "one fold, hence no standard deviation"
    )
    folds = " | ".join(f"Fold {fold}" for fold in summary.folds)
    warning = support_warning(summary)
    lines = [
        markdown("# {}", summary.task),
        "",
        f"Folds {', '.join(map(str, summary.folds))}; {spread}; in percent, but for the loss.",
        f"Protocol `{summary.protocol}`: {how}.",
        "Macro figures are means over the task's labels; an unparsed answer counts as wrong.",
        *([markdown("Warning: {}.", warning)] if warning else []),
        "",
        f"| Metric | {'Mean ± SD' if n_folds > 1 else 'Value'} | {folds} |",
        f"|---|---:|{'---:|' * n_folds}",
    ]
    for name, figures in summary.metrics.items():
        scale = 1.0 if name == LOSS.name else 100.0
        values = " | ".join(_number(value, scale) for value in figures.values)
        lines.append(f"| {metric_of(name).title} | {spread_text(figures, scale)} | {values} |")
    if n_folds > 1 and summary.metrics_pooled:
        pooled = [(metric_of(k).title, v) for k, v in summary.metrics_pooled.items()]
        listed = ", ".join(f"{title} {_number(value, 100.0)}" for title, value in pooled)
        lines += ["", f"Pooled, all folds' predictions together: {listed}."]
    lines += ["", "| Category | Precision | Recall | F1 | Support |", "|---|---:|---:|---:|---:|"]
    for label, row in summary.per_label.items():
        cells = " | ".join(spread_text(figures) for figures in (row.precision, row.recall, row.f1))
        lines.append(f"| {plain_markdown(label)} | {cells} | {row.support} |")
    if notes:
        lines += ["", "Data:", "", *(markdown("- {}", note) for note in notes)]
    return "\n".join(lines) + "\n"


def spread_text(spread: Spread | None, scale: float = 100.0, *, digits: int | None = None) -> str:
    """Return ``"66.58 ± 1.30"``, the mean alone for one fold, ``"–"`` where there is no mean."""
    if spread is None:
        return "–"
    mean = _number(spread.mean, scale, digits)
    return mean if spread.std is None else f"{mean} ± {_number(spread.std, scale, digits)}"


def spread_over_folds(values: Sequence[float | None]) -> Spread:
    """Return mean and sample SD (ddof 1) of one figure; neither where any fold lacks it."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return Spread(mean=None, std=None, values=tuple(values))
    return Spread(
        mean=statistics.fmean(known),
        std=statistics.stdev(known) if len(known) > 1 else None,
        values=tuple(values),
    )


def _spread_where_known(values: Sequence[float | None]) -> Spread:
    """Return mean and sample SD over the folds that have a figure, with the values of all."""
    known = spread_over_folds([value for value in values if value is not None])
    return replace(known, values=tuple(values))


def _number(value: float | None, scale: float, digits: int | None = None) -> str:
    if value is None:
        return "–"
    return f"{scale * value:.{(4 if scale == 1.0 else 2) if digits is None else digits}f}"


def _label_spread(label: str, scores: Sequence[Scores]) -> LabelSpread:
    rows = [s.per_label[label] for s in scores]
    return LabelSpread(
        precision=_spread_where_known([row.precision for row in rows]),
        recall=_spread_where_known([row.recall for row in rows]),
        f1=_spread_where_known([row.f1 for row in rows]),
        support=sum(row.support for row in rows),
    )


@dataclass(frozen=True, kw_only=True)
class CellSpread:
    """One cell of the confusion matrix over folds.

    ``count`` is of examples a fold. ``share`` is the part of the fold's examples of label ``gold``
    that were answered ``predicted``; a fold without such examples has none (``None`` among its
    values), and mean and deviation are over the others, as those of recall are.
    """

    gold: str
    predicted: str
    """A label, or :data:`UNPARSED`."""
    count: Spread
    share: Spread

    @property
    def n_folds(self) -> int:
        """The folds that hold examples of label ``gold``."""
        return sum(value is not None for value in self.share.values)


def confusion_spread(scores: Sequence[Scores]) -> tuple[CellSpread, ...]:
    """Return mean and sample SD (ddof 1) of every cell, row by row, unparsed answers last in a row.

    Args:
        scores: Those of the folds, in order.

    Raises:
        ConfigError: For no folds, or folds with different labels.
    """
    if len({one.labels for one in scores}) != 1:
        raise ConfigError(
            "confusion matrices of other labels, or none at all; take one run's folds"
        )
    labels = scores[0].labels
    return tuple(
        _cell(gold, predicted, [one.confusion[row] for one in scores], column)
        for row, gold in enumerate(labels)
        for column, predicted in enumerate((*labels, UNPARSED))
    )


def _cell(gold: str, predicted: str, rows: Sequence[Sequence[int]], column: int) -> CellSpread:
    shares = [row[column] / sum(row) if any(row) else None for row in rows]
    return CellSpread(
        gold=gold,
        predicted=predicted,
        count=spread_over_folds([row[column] for row in rows]),
        share=_spread_where_known(shares),
    )
