"""Runs of the command in processes of their own that kill themselves at a chosen point.

The processes are forked from a server that has imported what they need, so that one costs a second
or two and not ten.
"""

from __future__ import annotations

import csv
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from recap.config import RunConfig

MEASURED = {"tokens_per_second", "examples_per_second", "memory_gib"}
"""Columns of history.csv that no two runs have in common."""

_PRELOADED = [
    *("recap.folds.tuned", "recap.train", "recap.cli.compose", "recap.folds.console", "kills"),
    *("hydra", "peft", "transformers.models.qwen2.modeling_qwen2", "safetensors.torch"),
]


@dataclass(frozen=True, kw_only=True)
class Kill:
    """The point where a process kills itself by SIGKILL, or sends itself another signal."""

    target: str
    """``module:attribute``, as it is looked up when it is called."""
    nth: int = 1
    """At which call."""
    after: bool = False
    """Whether the call is finished first."""
    number: int = signal.SIGKILL
    """The signal."""

    def __str__(self) -> str:
        return f"{self.target.rpartition(':')[2]} {self.nth}{' after' if self.after else ''}"


def run_killed(
    config: RunConfig,
    log: Path,
    *,
    kill: Kill | None = None,
    seconds: float | None = None,
    variables: Mapping[str, str] | None = None,
) -> int:
    """Do what ``recap.train`` does; return the exit code, negative for a signal.

    Args:
        config: Of the run.
        log: Where its output goes.
        kill: Where it kills itself, if it comes there.
        seconds: After which time it is killed from outside, if it is still running.
        variables: Set in its environment.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    process = context.Process(target=_run, args=(config, str(log), kill, dict(variables or {})))
    process.start()
    if seconds is not None:
        process.join(seconds)
        assert process.pid is not None
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def results(run: Path) -> dict[str, Any]:
    """Return what has to be the same bit for bit however often a run was killed."""
    found: dict[str, Any] = {"summary": (run / "summary.json").read_bytes()}
    for fold in sorted(run.glob("fold*")):
        found[f"{fold.name}/predictions.jsonl"] = (fold / "predictions.jsonl").read_bytes()
        scores = json.loads((fold / "scores.json").read_text(encoding="utf-8"))
        # Hashes of the options, and so of the path of the data.
        found[f"{fold.name}/scores.json"] = scores | {"made_with": None}
        (weights,) = (fold / "model").glob("*model.safetensors")
        found[f"{fold.name}/weights"] = weights.read_bytes()
        with (fold / "history.csv").open(encoding="utf-8", newline="") as file:
            found[f"{fold.name}/history"] = [
                {name: cell for name, cell in row.items() if name not in MEASURED}
                for row in csv.DictReader(file)
            ]
    assert len(found) > 1
    return found


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names of the results of two runs that differ."""
    return [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]


def leftovers(run: Path) -> list[str]:
    """Return files and folders inside the folds of a finished run that should not be there."""
    expected = {".lock", "history.csv", "model", "predictions.jsonl", "scores.json"}
    return [
        f"{fold.name}/{file.name}"
        for fold in run.glob("fold*")
        for file in fold.iterdir()
        if file.name not in expected
    ]


def resumes(run: Path) -> list[dict[str, Any]]:
    """Return where killed processes were taken up."""
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = manifest.get("resumes", [])
    return found


def _run(config: RunConfig, log: str, kill: Kill | None, variables: dict[str, str]) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ |= variables
    from recap.cli.command import with_exit_code
    from recap.train.__main__ import _train

    if kill is not None:
        _arm(kill)
    code = with_exit_code(lambda: _train(config))
    sys.stdout.flush()
    sys.exit(code)


def _arm(kill: Kill) -> None:
    module, _, attribute = kill.target.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = attribute.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    whole: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def armed(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != kill.nth:
            return whole(*arguments, **options)
        if kill.after:
            found = whole(*arguments, **options)
            _die(kill.number)
            return found
        _die(kill.number)
        return whole(*arguments, **options)

    setattr(owner, name, armed)


def _die(number: int) -> None:
    os.kill(os.getpid(), number)
    if number == signal.SIGKILL:
        time.sleep(60)
