"""Weights & Biases: one run a fold in one group, and a summary run with the spread over folds.

W&B collects console output, code, git state and machine details by default; all of it is switched
off, and only options on a list of our own are sent as configuration, so that no client text can
reach its files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from recap.records import Scores, Summary
from recap.tracking.tracker import HistoryRow

SENT_OPTIONS = (
    "task.name",
    "data.name",
    "data.language",
    "client.name",
    "client.model",
    "client.temperature",
    "client.top_p",
    "shots",
    "shot_categories",
    "backbone.name",
    "backbone.family",
    "baseline.method",
    "baseline.context",
    "baseline.analyzer",
    "baseline.class_weight",
    "baseline.max_tokens",
    "baseline.history",
    "finetune.",
    "optimizer.",
    "scheduler.",
    "prompt.style",
    "prompt.language",
    "prompt.label_form",
    "prompt.history",
    "prompt.layout",
    "prompt.max_tokens",
    "decoding.",
    "cv.",
    "trainer.max_epochs",
    "trainer.patience",
    "trainer.precision",
    "rationale",
    "seed",
    "global_batch_size",
    "sampling",
)
"""Options that are sent to W&B; paths, prompts and definitions are not among them."""


class WandbTracker:
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
        self._options = {key: value for key, value in options.items() if _is_sent(key)}
        self._run: Any = None

    def start_fold(self, name: str) -> None:
        """Begin the W&B run of one fold."""
        self._run = self._init(name, job_type="fold")

    def log_step(self, row: HistoryRow) -> None:
        """Log the loss under ``<split>/loss``, and what else a row holds under its own name."""
        values: dict[str, float] = {
            f"{row.split}/loss": row.loss,
            "epoch": row.epoch,
            "memory_gib": row.memory_gib,
        }
        if row.split == "train":
            values["learning_rate"] = row.learning_rate
        speeds = {
            "tokens_per_second": row.tokens_per_second,
            "examples_per_second": row.examples_per_second,
        }
        values |= {name: speed for name, speed in speeds.items() if speed is not None}
        self._run.log({**values, "step": row.step})

    def log_fold(self, scores: Scores | None) -> None:
        """Write the fold's metrics to the W&B run's summary, and close it."""
        if scores is not None:
            self._run.summary.update(
                {f"test/{name}": value for name, value in scores.metrics.items()}
            )
            for label, figures in scores.per_label.items():
                self._run.summary[f"test/f1/{label}"] = figures.f1
        self._run.finish()
        self._run = None

    def abandon(self) -> None:
        """Close the fold's W&B run as failed."""
        if self._run is not None:
            self._run.finish(exit_code=1)
            self._run = None

    def log_summary(self, summary: Summary) -> None:
        """Write every metric's mean, SD and values, the per-category table, the plot over folds."""
        import wandb

        run = self._init("summary", job_type="summary")
        for name, spread in summary.metrics.items():
            run.summary[f"{name}/mean"] = spread.mean
            run.summary[f"{name}/std"] = spread.std
            run.summary[f"{name}/values"] = list(spread.values)
        columns: list[str | int] = [
            "label",
            "precision",
            "precision_std",
            "recall",
            "recall_std",
            "f1",
            "f1_std",
            "support",
        ]
        table = wandb.Table(columns=columns)
        for label, spread_of in summary.per_label.items():
            figures = (spread_of.precision, spread_of.recall, spread_of.f1)
            cells = [cell for figure in figures for cell in (figure.mean, figure.std)]
            table.add_data(label, *cells, spread_of.support)
        shown = [
            name
            for name in ("macro_f1", "macro_precision", "macro_recall", "accuracy")
            if name in summary.metrics
        ]
        plot = wandb.plot.line_series(
            xs=list(summary.folds),
            ys=[list(summary.metrics[name].values) for name in shown],
            keys=shown,
            title="Scores by fold",
            xname="fold",
        )
        run.log({"per_category": table, "spread_over_folds": plot})
        run.finish()

    def _init(self, name: str, *, job_type: str) -> Any:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
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
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )


def _is_sent(key: str) -> bool:
    return any(key.startswith(name) if name.endswith(".") else key == name for name in SENT_OPTIONS)
