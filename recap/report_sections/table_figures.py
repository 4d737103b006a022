"""The figures behind the tables, for the JSON and CSV files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from recap.records import Spread, Summary
from recap.report_sections.published import published_row
from recap.report_sections.runs import ReportedRun
from recap.report_sections.systems import System

PER_LABEL = {"precision": "P", "recall": "R", "f1": "F1"}
"""Figures of a category, and what a table's header calls them."""


def run_figures(run: ReportedRun, systems: Sequence[System]) -> dict[str, Any]:
    """Return all figures of a run at full precision, as the JSON file has them."""
    system = next(s for s in systems if run in s.runs.values())
    summary = run.summary
    return {
        "run": run.name,
        "kind": run.kind,
        "task": run.task.name,
        "model": system.model,
        "setting": system.setting,
        "rationale": system.rationale,
        "protocol": summary.protocol,
        "folds": list(summary.folds),
        "missing_folds": list(run.missing),
        "metrics": {name: _plain(spread) for name, spread in summary.metrics.items()},
        "per_label": {
            label: {
                **{metric: _plain(getattr(figures, metric)) for metric in PER_LABEL},
                "support": figures.support,
            }
            for label, figures in summary.per_label.items()
        },
    }


def _plain(spread: Spread) -> dict[str, Any]:
    return {"mean": spread.mean, "std": spread.std, "values": list(spread.values)}


def csv_rows(systems: Sequence[System], *, with_published: bool) -> Iterator[Mapping[str, Any]]:
    """Yield a row for every figure of every run, with the published one in percent if asked for."""
    for system in systems:
        published = published_row(system) if with_published else None
        for task, run in system.runs.items():
            for category, metric, spread in _all_figures(run.summary):
                theirs = published.figure(task, metric, category) if published else None
                beside = {
                    "published_mean_percent": theirs.mean if theirs else None,
                    "published_std_percent": theirs.std if theirs else None,
                }
                yield {
                    "run": run.name,
                    "model": system.model,
                    "setting": system.setting,
                    "rationale": system.rationale,
                    "task": task,
                    "category": category,
                    "metric": metric,
                    "mean": spread.mean,
                    "std": spread.std,
                    "folds": len(run.scores),
                    "missing_folds": " ".join(map(str, run.missing)),
                    **(beside if with_published else {}),
                }


def _all_figures(summary: Summary) -> Iterator[tuple[str, str, Spread]]:
    for metric, spread in summary.metrics.items():
        yield "", metric, spread
    for label, figures in summary.per_label.items():
        for metric in PER_LABEL:
            yield label, metric, getattr(figures, metric)
