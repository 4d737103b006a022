"""Weights & Biases: one run a fold in one group, and a summary run with the spread over folds.

W&B collects console output, code, git state and machine details by default; all of it is switched
off, and only options on a list of our own are sent as configuration, so that no client text can
reach its files, unless ``privacy.log_text`` asks for a table of it.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from recap.environment import switch_telemetry_off
from recap.records import Example, Prediction, Scores
from recap.run_folder import locked, write_atomic
from recap.tracking.tracker import FinishedFolds, HistoryRow
from recap.tracking.wandb_summary import log_folds, predictions_table, summary_figures

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

ENDED_BY_SIGNAL = 143
"""The exit code of a W&B run that a signal has ended."""


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
        """Write the summary run; see :mod:`recap.tracking.wandb_summary`.

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


def _is_sent(key: str) -> bool:
    return any(key.startswith(name) if name.endswith(".") else key == name for name in SENT_OPTIONS)
