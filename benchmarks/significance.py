"""Simulations of the report's tests: their levels under a true null.

python benchmarks/significance.py                 all of it
python benchmarks/significance.py --quick         a tenth of the replications
python benchmarks/significance.py --json FILE     also write every figure
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from simulations import null

CHUNK = 50
"""Replications that one process does at a time; part of the seed of every replication."""

NULL_SETTINGS = tuple(
    null.NullSetting(learner=learner, examples=examples, folds=folds, repeats=repeats)
    for folds, repeats in ((5, 1), (10, 1), (5, 10))
    for learner in ("centroid", "naive_bayes", "nearest_neighbor")
    for examples in (60, 150, 300)
)
REPLICATIONS = 2000
"""Of each setting."""


def main(arguments: list[str] | None = None) -> int:
    """Simulate, print the tables, and return the exit code."""
    options = parse(arguments)
    wanted = options.replications or (REPLICATIONS // 10 if options.quick else REPLICATIONS)
    found = simulate(
        *(NULL_SETTINGS, null.replicate, summarize, wanted),
        seed=options.seed,
        processes=options.processes,
    )
    report = {"seed": options.seed, "level": null.LEVEL, "null": found}
    show(report)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options of a command line."""
    return options_parser(__doc__).parse_args(arguments)


def options_parser(description: str | None) -> argparse.ArgumentParser:
    """Return the parser of what all simulations are told."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the replications")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--replications", type=int, help="data sets a setting")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    return parser


def simulate(
    settings: Iterable[Any],
    replicate: Callable[..., dict[str, Any]],
    summarize: Callable[[list[dict[str, Any]]], dict[str, Any]],
    replications: int,
    *,
    seed: int,
    processes: int,
) -> list[dict[str, Any]]:
    """Return a row a setting, the same ones for any number of processes."""
    settings = list(settings)
    chunks = [min(CHUNK, replications - start) for start in range(0, replications, CHUNK)]
    results: dict[tuple[int, int], dict[str, Any]] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    # Forked processes would inherit the threads of the bar.
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(processes, mp_context=context) as pool,
        Progress(*columns, console=Console(stderr=True)) as bar,
    ):
        task = bar.add_task("data sets", total=replications * len(settings))
        jobs: dict[Future[dict[str, Any]], tuple[int, int]] = {
            pool.submit(run_chunk, replicate, setting, size, (seed, i, j)): (i, j)
            for i, setting in enumerate(settings)
            for j, size in enumerate(chunks)
        }
        for done in as_completed(jobs):
            results[jobs[done]] = done.result()
            bar.advance(task, chunks[jobs[done][1]])
    return [
        {
            **asdict(setting),
            "replications": replications,
            **summarize([results[i, j] for j in range(len(chunks))]),
        }
        for i, setting in enumerate(settings)
    ]


def run_chunk(
    replicate: Callable[..., dict[str, Any]], setting: Any, size: int, seed: tuple[int, ...]
) -> dict[str, Any]:
    """Return what some replications of one setting come to."""
    return replicate(setting, size, np.random.default_rng(seed))


def summarize(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the share of data sets that each test rejects, and one score's coverage.

    What a learner scores in expectation, at this number of training examples, is the mean over all
    data sets.
    """
    means = np.concatenate([chunk["means"] for chunk in chunks])
    replications = len(means)
    rejected = {
        name: sum(chunk["rejections"][name] for chunk in chunks) / replications
        for name in chunks[0]["rejections"]
    }
    halves = np.concatenate([chunk["halves"] for chunk in chunks])
    return {
        "rejected": rejected,
        "standard_errors": {name: _error(share, replications) for name, share in rejected.items()},
        "mean_macro_f1": float(means.mean()),
        "corrected_interval_coverage": float((np.abs(means - means.mean()) <= halves).mean()),
    }


def _error(share: float, n: float) -> float:
    return math.sqrt(share * (1 - share) / n)


def show(report: Mapping[str, Any]) -> None:
    """Print the table, in percent."""
    tests = ("naive_t", "corrected_t", "mcnemar", "clusters")
    rejections = Table(title="Rejections of a true null at 5 %, in percent")
    for name in ("learner", "examples", "folds", *tests, "coverage of the mean"):
        rejections.add_column(name)
    for row in report["null"]:
        design = f"{row['repeats']} x {row['folds']}"
        shares = [_percent(row["rejected"].get(test)) for test in tests]
        held = _percent(row["corrected_interval_coverage"])
        rejections.add_row(row["learner"], str(row["examples"]), design, *shares, held)
    Console(highlight=False).print(rejections)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


if __name__ == "__main__":
    # A process a core: more threads would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
