"""What W&B's summary run holds of a run: figures, tables, drawings; all of numbers and labels.

And the one table of texts, for those who ask for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from recap.records import Example, Prediction, Summary
from recap.scoring.confusion_spread import CellSpread, confusion_spread
from recap.tracking.fold_pages import BoxPanel, box_page, confusion_page
from recap.tracking.tracker import FinishedFolds, HistoryRow

MOST_ROWS = 10_000
"""W&B cuts off a longer table (``wandb.Table.MAX_ROWS``)."""

PER_CATEGORY = ("precision", "recall", "f1")
CURVES = {"train": "training", "select": "selection"}


def summary_figures(summary: Summary) -> dict[str, Any]:
    """Return ``<metric>/mean|std|min|max|values``, and what they are over: folds, ddof, protocol.

    A metric that any fold lacks has values alone; the rest is ``None``.
    """
    figures: dict[str, Any] = {
        "folds": list(summary.folds),
        "ddof": summary.ddof,
        "protocol": summary.protocol,
    }
    for name, spread in summary.metrics.items():
        known = [value for value in spread.values if value is not None]
        whole = len(known) == len(spread.values)
        figures |= {
            f"{name}/mean": spread.mean,
            f"{name}/std": spread.std,
            f"{name}/min": min(known) if whole else None,
            f"{name}/max": max(known) if whole else None,
            f"{name}/values": list(spread.values),
        }
    return figures


def log_folds(run: Any, folds: FinishedFolds) -> None:
    """Log tables, box plots, confusion and learning curves to a W&B run, as one step of it."""
    import wandb

    summary = folds.summary
    cells = confusion_spread([folds.scores[index] for index in summary.folds])
    pages = {
        "metrics_over_folds": box_page("Scores over folds", _metric_panels(summary), summary),
        "f1_over_folds": box_page("F1 per category over folds", [_f1_panel(summary)], summary),
        "confusion_over_folds": confusion_page(cells, summary),
    }
    # Without inject=False a page would ask W&B's server for a style sheet.
    logged: dict[str, Any] = {
        key: wandb.Html(page, inject=False, data_is_not_path=True) for key, page in pages.items()
    }
    for key, table in (("per_category", _per_category(summary)), ("confusion", _confusion(cells))):
        logged[key] = _bound(run, key, table)
    curves = learning_curves(folds.histories)
    if curves:
        chart = wandb.plot.line_series(
            xs=[[step for step, _ in points] for points in curves.values()],
            ys=[[loss for _, loss in points] for points in curves.values()],
            keys=list(curves),
            title="Loss (nats per token) of every fold",
            xname="optimiser step",
        )
        chart.set_key("learning_curves")
        _bound(run, chart.spec.table_key, chart.table)
        logged[chart.spec.key] = chart
    run.log(logged)


def learning_curves(
    histories: Mapping[int, Sequence[HistoryRow]], *, most: int = MOST_ROWS
) -> dict[str, list[tuple[int, float]]]:
    """Return ``{"fold0 training": [(step, loss), …], "fold0 selection": …}``, without empty ones.

    Losses are token means in nats; those that are not finite are left out. Longer curves are
    thinned evenly, with their ends kept, until all have at most ``most`` points together.
    """
    curves = {
        f"fold{index} {name}": [
            (row.step, row.loss)
            for row in histories[index]
            if row.split == split and math.isfinite(row.loss)
        ]
        for index in sorted(histories)
        for split, name in CURVES.items()
    }
    curves = {name: points for name, points in curves.items() if points}
    return {name: _thinned(points, most // len(curves)) for name, points in curves.items()}


def predictions_table(run: Any, key: str, pairs: Sequence[tuple[Example, Prediction]]) -> Any:
    """Return a W&B table of dialogues, annotated labels and answers, the first ones of many."""
    import wandb

    columns: list[str | int] = [
        "id",
        "dialogue",
        "gold",
        "gold_rationale",
        "label",
        "rationale",
        "text",
    ]
    table = wandb.Table(columns=columns)
    for example, said in pairs[:MOST_ROWS]:
        turns = [f"{turn.speaker}: {turn.text}" for turn in example.history]
        dialogue = "\n".join([*turns, f"client: {example.response}"])
        reasons = (example.rationale or "", said.label or "", said.rationale or "")
        table.add_data(example.id, dialogue, said.gold, *reasons, said.text)
    return _bound(run, key, table)


def _thinned(points: list[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    if len(points) <= most:
        return points
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def _bound(run: Any, key: str, table: Any) -> Any:
    """Return a table that is bound to its run.

    W&B makes an artifact of any other: a copy in the user's home folder, whose path it writes down
    in the run's file, and without which the file cannot be synced.
    """
    table.bind_to_run(run, key, run.step)
    return table


def _per_category(summary: Summary) -> Any:
    import wandb

    columns = [f"{name}_{figure}" for name in PER_CATEGORY for figure in ("mean", "std")]
    table = wandb.Table(columns=["label", *columns, "support"])
    for label, row in summary.per_label.items():
        spreads = (row.precision, row.recall, row.f1)
        figures = [figure for spread in spreads for figure in (spread.mean, spread.std)]
        table.add_data(label, *figures, row.support)
    return table


def _confusion(cells: Sequence[CellSpread]) -> Any:
    import wandb

    columns = ["count_mean", "count_std", "share_mean", "share_std", "folds"]
    table = wandb.Table(columns=["gold", "predicted", *columns])
    for cell in cells:
        counts, shares = (cell.count.mean, cell.count.std), (cell.share.mean, cell.share.std)
        table.add_data(cell.gold, cell.predicted, *counts, *shares, cell.n_folds)
    return table


def _metric_panels(summary: Summary) -> list[BoxPanel]:
    """Return scores, invalid answers and loss on scales of their own."""
    apart = {name: [(name, summary.metrics[name])] for name in ("invalid_rate", "loss")}
    scores = [row for row in summary.metrics.items() if row[0] not in apart]
    return [
        BoxPanel(title="Scores", unit="percent", rows=scores),
        BoxPanel(title="Answers without a label", unit="percent", rows=apart["invalid_rate"]),
        BoxPanel(title="Loss", unit="nats per token", rows=apart["loss"], scale=1.0, digits=4),
    ]


def _f1_panel(summary: Summary) -> BoxPanel:
    rows = [(label, spread.f1) for label, spread in summary.per_label.items()]
    return BoxPanel(title="F1", unit="percent", rows=rows)
