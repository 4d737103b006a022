"""Weights & Biases: one run a fold in one group, and a summary run with the spread over folds.

W&B collects console output, code, git state and machine details by default; all of it is switched
off, and only options on a list of our own are sent as configuration, so that no client text can
reach its files, unless ``privacy.log_text`` asks for a table of it.

W&B has no box plot that needs no account, hence HTML with drawings of its own: no library, no
network, sharp at any size, and fonts for every script that the reader's browser has. A page is
light whatever the reader's theme, for it cannot know that of W&B.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from recap.config import is_among
from recap.metrics.scalar import LOSS, metric_of, without_loss
from recap.metrics.scores import CellSpread, confusion_spread, spread_text
from recap.output.templates import render
from recap.records import Example, Prediction, Scores, Spread, Summary
from recap.runs.folder import locked
from recap.runs.history import FinishedFolds, HistoryRow, Tracker
from recap.system.files import write_atomic
from recap.system.processes import switch_telemetry_off

SENT_OPTIONS = (
    *("task.name", "data.name", "data.language", "backbone.name", "backbone.family"),
    *(f"client.{key}" for key in ("name", "model", "temperature", "top_p")),
    *(f"baseline.{key}" for key in ("method", "context", "analyzer", "class_weight")),
    *("baseline.max_tokens", "baseline.history", "shots", "shot_categories"),
    *(f"prompt.{key}" for key in ("style", "language", "label_form", "history", "layout")),
    *("prompt.max_tokens", "prompt.cut", "finetune.", "optimizer.", "scheduler."),
    *("decoding.", "cv."),
    *("trainer.max_epochs", "trainer.patience", "trainer.precision"),
    *("rationale", "seed", "global_batch_size", "sampling"),
)
"""Options that are sent to W&B; paths, prompts and definitions are not among them."""

ENDED_BY_SIGNAL = 143
"""The exit code of a W&B run that a signal has ended."""

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
            f"{name}/pooled": summary.metrics_pooled.get(name),
        }
    return figures


def log_folds(run: Any, folds: FinishedFolds) -> None:
    """Log tables, box plots, confusion and learning curves to a W&B run, as one step of it."""
    import wandb

    summary = folds.summary
    cells = confusion_spread([folds.scores[index] for index in summary.folds])
    f1 = [(label, spread.f1) for label, spread in summary.per_label.items()]
    of_labels = BoxPanel(title="F1", unit="percent", rows=f1)
    pages = {
        "metrics_over_folds": box_page("Scores over folds", _metric_panels(summary), summary),
        "f1_over_folds": box_page("F1 per category over folds", [of_labels], summary),
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
            xname="optimizer step",
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

    columns = "id dialogue gold gold_rationale label rationale text"
    table = wandb.Table(columns=[*columns.split()])
    for example, said in pairs[:MOST_ROWS]:
        turns = [f"{turn.called()}: {turn.text}" for turn in example.history]
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
    """Return scores, metrics in which less is better, and loss, on scales of their own."""
    shown = without_loss(summary.metrics).items()
    more, less = (
        [row for row in shown if metric_of(row[0]).higher_is_better is wanted]
        for wanted in (True, False)
    )
    loss = [(LOSS.name, summary.metrics[LOSS.name])]
    return [
        BoxPanel(title="Scores", unit="percent", rows=more),
        BoxPanel(title="Less is better", unit="percent", rows=less),
        BoxPanel(title="Loss", unit="nats per token", rows=loss, scale=1.0),
    ]


_PLOT, _RIGHT, _ROW = 460, 120, 26
"""Pixels: the scale, room for mean and deviation, and the height of a row."""


@dataclass(frozen=True, kw_only=True)
class BoxPanel:
    """Box plots that share a scale: a name and its figure over folds each."""

    title: str
    unit: str
    """What the scale counts."""
    rows: Sequence[tuple[str, Spread]]
    scale: float = 100.0
    """Figures are multiplied by it."""


def box_page(title: str, panels: Sequence[BoxPanel], summary: Summary) -> str:
    """Return a page of box plots over folds; figures without a mean are left out.

    A fold that lacks a figure has no dot.

    A box spans the quartiles (linear interpolation, as numpy and matplotlib draw them).
    """
    drawn = [_drawing(panel, summary.folds) for panel in panels]
    return _page("boxes", title, summary, panels=[panel for panel in drawn if panel["rows"]])


def confusion_page(cells: Sequence[CellSpread], summary: Summary) -> str:
    """Return the confusion matrix, each cell with mean and deviation of its share and its count."""
    heads = list(dict.fromkeys(cell.predicted for cell in cells))
    shown = [
        {
            "ink": cell.share.mean or 0.0,
            "share": spread_text(cell.share, digits=1),
            "count": spread_text(cell.count, 1.0, digits=1),
        }
        for cell in cells
    ]
    rows = [
        (cells[start].gold, shown[start : start + len(heads)])
        for start in range(0, len(cells), len(heads))
    ]
    return _page("confusion", "Confusion over folds", summary, heads=heads, rows=rows)


def _drawing(panel: BoxPanel, folds: Sequence[int]) -> dict[str, Any]:
    """Return where everything in a panel's drawing stands, in pixels."""
    rows = [(name, figure) for name, figure in panel.rows if figure.mean is not None]
    if not rows:
        return {"rows": []}
    values = panel.scale * np.array([figure.values for _, figure in rows], dtype=np.float64)
    ticks = _ticks(float(np.nanmin(values)), float(np.nanmax(values)))
    step = 2.5 * min(1, 6 / len(folds))
    left = 12 + max(_width(name) for name, _ in rows)

    def place(value: float) -> float:
        return round(left + _PLOT * (float(value) - ticks[0]) / (ticks[-1] - ticks[0]), 1)

    return {
        "title": panel.title,
        "unit": panel.unit,
        "left": left,
        "plot": _PLOT,
        "width": left + _PLOT + _RIGHT,
        "height": _ROW * len(rows),
        "ticks": [(place(tick), f"{tick:g}") for tick in ticks],
        "rows": [
            {
                "name": name,
                "middle": _ROW * (number + 0.5),
                "quartiles": [place(end) for end in np.nanquantile(own, (0, 0.25, 0.5, 0.75, 1))],
                "dots": [
                    # A little apart, so that equal folds do not hide each other.
                    (place(value), step * (k - (len(folds) - 1) / 2), fold, f"{value:.4g}")
                    for k, (fold, value) in enumerate(zip(folds, own, strict=True))
                    if not np.isnan(value)
                ],
                "spread": spread_text(figure, panel.scale),
            }
            for number, ((name, figure), own) in enumerate(zip(rows, values, strict=True))
        ],
    }


def _page(template: str, title: str, summary: Summary, **facts: Any) -> str:
    spread = f"mean ± sample standard deviation (ddof = {summary.ddof})"
    if len(summary.folds) == 1:
        spread = "one fold, hence no standard deviation"
    folds = ", ".join(map(str, summary.folds))
    path = f"runs/templates/{template}.html"
    return render(path, title=title, folds=folds, spread=spread, **facts)


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers, from at most ``low`` to at least ``high``, at most eight of them."""
    room = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(room / 6))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= room / 6)
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    return [round(step * n, 12) for n in range(first, last + 1)]


def _width(name: str) -> int:
    """Return about how many pixels a name takes; characters of East Asia are wider."""
    return sum(13 if ord(character) > 0x2E80 else 7 for character in name)


class WandbTracker(Tracker):
    """Tells W&B of a run.

    Args:
        folder: The run folder; offline files go to its ``wandb/``.
        group: Name of the run, under which its folds are grouped.
        project: W&B project.
        mode: ``offline`` writes files for ``wandb sync``; ``online`` sends at once.
        options: All options as ``{"cv.folds": 5}``; only those of :data:`SENT_OPTIONS` are sent.
    """

    def __init__(
        self,
        *,
        folder: Path,
        group: str,
        project: str,
        mode: Literal["offline", "online"],
        options: Mapping[str, Any],
    ) -> None:
        self._folder = folder
        self._group = group
        self._project = project
        self._mode = mode
        self._options = {
            key: value for key, value in options.items() if is_among(key, SENT_OPTIONS)
        }
        self._run: Any = None

    def start_fold(self, name: str) -> None:
        """Begin the W&B run of one fold."""
        self._run = self._init(name, job_type="fold")

    def log_step(self, row: HistoryRow) -> None:
        """Log the loss under ``<split>/loss``, and what else a row holds under its own name."""
        shown = ["step", "epoch", "memory_gib", "tokens_per_second", "examples_per_second"]
        shown += ["learning_rate"] if row.split == "train" else []
        values = {name: getattr(row, name) for name in shown}
        known = {name: value for name, value in values.items() if value is not None}
        self._run.log({f"{row.split}/loss": row.loss, **known})

    def log_fold(self, scores: Scores | None) -> None:
        """Write the fold's metrics to the W&B run's summary, and close it."""
        if scores is not None:
            self._run.summary.update(
                {f"test/{name}": value for name, value in scores.metrics.items()}
            )
            for label, figures in scores.per_label.items():
                self._run.summary[f"test/f1/{label}"] = figures.f1
        self._close()

    def log_texts(self, pairs: Sequence[tuple[Example, Prediction]]) -> None:
        """Log a table ``predictions`` of dialogues and answers."""
        self._run.log({"predictions": predictions_table(self._run, "predictions", pairs)})

    def abandon(self, *, preempted: bool = False) -> None:
        """Close the W&B run that was begun as failed, or as preempted: it will go on."""
        if self._run is None:
            return
        if preempted:
            self._run.mark_preempting()
        self._close(exit_code=ENDED_BY_SIGNAL if preempted else 1)

    def log_summary(self, folds: FinishedFolds) -> None:
        """Write the summary run; see :mod:`recap.runs.wandb`.

        What was written last is known by its hash, in ``wandb/summary.sha256``, and not written
        again; offline, a summary run of fewer folds, or one that a kill has cut off, is removed.
        """
        told = hashlib.sha256(repr((self._mode, self._options, folds)).encode()).hexdigest()
        mark = self._folder / "wandb" / "summary.sha256"
        with locked(mark.parent, wait=True):
            if mark.is_file() and mark.read_text(encoding="utf-8").strip() == told:
                return
            self._run = self._init("summary", job_type="summary")
            try:
                self._run.summary.update(summary_figures(folds.summary))
                log_folds(self._run, folds)
            except BaseException:
                self.abandon()
                raise
            run = self._run
            self._close()
            if self._mode == "offline":
                # What earlier processes wrote of the same run; `wandb sync` would add both up.
                for earlier in _offline_folders(run) - {Path(run.dir).parent}:
                    shutil.rmtree(earlier)
            write_atomic(mark, f"{told}\n")

    def _close(self, exit_code: int = 0) -> None:
        run, self._run = self._run, None
        run.finish(exit_code=exit_code)
        if self._mode == "offline":
            # W&B's own logs name the folder's path; there was no server to have trouble with.
            for written in _offline_folders(run):
                shutil.rmtree(written / "logs", ignore_errors=True)

    def _init(self, name: str, *, job_type: str) -> Any:
        switch_telemetry_off()
        import wandb

        return wandb.init(
            project=self._project,
            # One run a fold, however many processes it takes; never the run of another job.
            id=hashlib.sha256(f"{self._folder.resolve()}/{name}".encode()).hexdigest()[:16],
            resume="allow",
            reinit="create_new",
            group=self._group,
            name=f"{self._group}/{name}",
            job_type=job_type,
            dir=self._folder,
            mode=self._mode,
            config=self._options,
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_code=True,
                disable_git=True,
                save_code=False,
                disable_job_creation=True,
                host="redacted",
                program="recap",
                root_dir=str(self._folder),
                symlink=False,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )


def _offline_folders(run: Any) -> set[Path]:
    """Return the folders of all processes that wrote of an offline run."""
    # Two of one second are told apart by a number behind the id.
    return set(Path(run.dir).parent.parent.glob(f"offline-run-*-{run.id}*"))
