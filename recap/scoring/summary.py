"""The scores of several folds together: mean, sample standard deviation, and a table to read."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from recap.errors import ConfigError
from recap.records import LabelSpread, Scores, Spread, Summary

DDOF = 1
"""The paper's Table 10 fits the sample standard deviation."""

_PROTOCOLS = {
    "paper": "checkpoints selected on the fold that is reported",
    "nested": "checkpoints selected on a part of the training folds",
}
_METRICS = {
    "macro_f1": "Macro-F1",
    "macro_precision": "Macro precision",
    "macro_recall": "Macro recall",
    "accuracy": "Accuracy",
    "invalid_rate": "Invalid answers",
    "loss": "Loss (nats per token)",
}


def summarize(scores: Mapping[int, Scores], *, protocol: str) -> Summary:
    """Return mean and spread of every figure over the folds done so far; support is summed.

    A figure that any fold lacks (the loss of a prompted system) has neither mean nor deviation.

    Args:
        scores: Fold index to its scores.
        protocol: How checkpoints were selected, ``"paper"`` or ``"nested"``.

    Raises:
        ConfigError: For no folds, or folds of different tasks, labels or metrics.
    """
    if not scores:
        raise ConfigError("there is no fold to summarize; run at least one")
    folds = tuple(sorted(scores))
    ordered = [scores[fold] for fold in folds]
    first = ordered[0]
    for fold, one in zip(folds, ordered, strict=True):
        if (one.task, one.labels, set(one.metrics)) != (
            first.task,
            first.labels,
            set(first.metrics),
        ):
            raise ConfigError(
                f"fold {fold} was scored for task {one.task!r} with {len(one.labels)} labels, "
                f"fold {folds[0]} for {first.task!r} with {len(first.labels)}; "
                "summarize folds of one run"
            )
    return Summary(
        task=first.task,
        labels=first.labels,
        folds=folds,
        protocol=protocol,
        ddof=DDOF,
        metrics={
            name: spread_over_folds([s.metrics[name] for s in ordered]) for name in first.metrics
        },
        per_label={label: _label_spread(label, ordered) for label in first.labels},
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
    lines = [
        f"# {summary.task}",
        "",
        f"Folds {', '.join(map(str, summary.folds))}; {spread}; in percent, but for the loss.",
        f"Protocol `{summary.protocol}`: {how}.",
        "Macro figures are means over the task's labels; an unreadable answer counts as wrong.",
        "",
        f"| Metric | {'Mean ± SD' if n_folds > 1 else 'Value'} | {_columns(summary.folds)} |",
        f"|---|---:|{'---:|' * n_folds}",
    ]
    for name, figures in summary.metrics.items():
        scale = 1.0 if name == "loss" else 100.0
        values = " | ".join(_number(value, scale) for value in figures.values)
        lines.append(f"| {_METRICS.get(name, name)} | {spread_text(figures, scale)} | {values} |")
    lines += ["", "| Category | Precision | Recall | F1 | Support |", "|---|---:|---:|---:|---:|"]
    for label, row in summary.per_label.items():
        cells = " | ".join(spread_text(figures) for figures in (row.precision, row.recall, row.f1))
        lines.append(f"| {label} | {cells} | {row.support} |")
    if notes:
        lines += ["", "Data:", "", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def spread_text(spread: Spread, scale: float = 100.0) -> str:
    """Return ``"66.58 ± 1.30"``, the mean alone for one fold, ``"–"`` where there is no mean."""
    mean = _number(spread.mean, scale)
    return mean if spread.std is None else f"{mean} ± {_number(spread.std, scale)}"


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


def _columns(folds: Sequence[int]) -> str:
    return " | ".join(f"Fold {fold}" for fold in folds)


def _number(value: float | None, scale: float) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if scale == 1.0 else f"{scale * value:.2f}"


def _label_spread(label: str, scores: Sequence[Scores]) -> LabelSpread:
    rows = [s.per_label[label] for s in scores]
    return LabelSpread(
        precision=spread_over_folds([row.precision for row in rows]),
        recall=spread_over_folds([row.recall for row in rows]),
        f1=spread_over_folds([row.f1 for row in rows]),
        support=sum(row.support for row in rows),
    )
