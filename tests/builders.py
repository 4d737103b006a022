"""Records, files and runs with the figures of a test's own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from recap.cli.compose import load_config
from recap.metrics.scores import summarize
from recap.records import LabelScores, Prediction, Scores
from recap.report.runs import ReportedRun, ReportedSystem
from recap.runs.folder import RunFolder
from recap.tasks.library import build_task


def read_json(path: Path) -> Any:
    """Read JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read JSONL."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    """Write JSONL, and return the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def prediction(identifier: str, gold: str, label: str | None, **more: Any) -> Prediction:
    """Return a prediction, parsed if it has a label, with nothing else but what is given."""
    fields = {"session": None, "fold": 0, "task": "t", "probabilities": None, "rationale": None}
    fields |= {"text": "", "parsed": label is not None}
    return Prediction(id=identifier, gold=gold, label=label, **{**fields, **more})


def scores_with(task: str, labels: Sequence[str], f1: float, invalid: float = 0.0) -> Scores:
    """Return scores of which macro-F1 is given and all else is like it."""
    metrics = dict.fromkeys(("macro_f1", "macro_precision", "macro_recall", "accuracy"), f1)
    return Scores(
        task=task,
        labels=tuple(labels),
        n=100,
        metrics={**metrics, "invalid_rate": invalid, "loss": None},
        per_label={name: LabelScores(precision=f1, recall=f1, f1=f1, support=5) for name in labels},
        confusion=tuple(
            tuple(5 * (i == j) for j in range(len(labels) + 1)) for i in range(len(labels))
        ),
    )


def run_with(name: str, overrides: Sequence[str], f1_by_fold: Mapping[int, float]) -> ReportedRun:
    """Return a run of two folds whose figures are given."""
    config = replace(load_config(["run=r", "cv.folds=2", *overrides]), run=name)
    task = build_task(config)
    scores = {fold: scores_with(task.name, task.labels, f1) for fold, f1 in f1_by_fold.items()}
    return ReportedRun(
        folder=RunFolder(path=Path(name)),
        config=config,
        prompted={},
        manifest={},
        task=task,
        scores=scores,
        predictions=dict.fromkeys(scores, ()),
        summary=summarize(scores, protocol=config.cv.protocol),
        leakage={},
        data={"synthetic": False},
    )


def system(
    model: str, setting: str, *, rationale: bool | None, runs: Mapping[str, ReportedRun]
) -> ReportedSystem:
    """Return a system under a name of the test's own."""
    return ReportedSystem(
        model=model, called=model, setting=setting, rationale=rationale, note="", runs=runs
    )
