"""One measurement: a worker in a process of its own, from which a row comes back."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.systems import WORKERS, System
from harness.workload import Workload


def run_worker(
    system: System, spec: Mapping[str, Any], *, threads: int, timeout_seconds: float = 1800
) -> dict[str, Any]:
    """Return what the worker measured, or ``{"error": why}``.

    Args:
        system: Whose worker, in whose environment.
        spec: Its work; ``result`` and ``scratch`` are added.
        threads: Of torch, in the worker.
        timeout_seconds: After which it is ended.
    """
    with tempfile.TemporaryDirectory() as scratch:
        result, told = Path(scratch, "result.json"), Path(scratch, "spec.json")
        whole = {**spec, **system.spec, "result": str(result), "scratch": scratch}
        told.write_text(json.dumps(whole), encoding="utf-8")
        since = time.monotonic()
        try:
            done = subprocess.run(
                [str(system.python), str(WORKERS / system.worker), str(told)],
                cwd=scratch,
                env=system.environment(threads),
                capture_output=True,
                text=True,
                timeout=timeout_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"error": f"took more than {timeout_seconds:.0f} s"}
        except OSError as error:
            return {"error": str(error)}
        if done.returncode or not result.is_file():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return {"error": f"exit {done.returncode}: {last[:300]}"}
        row: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return {**row, "wall_seconds": time.monotonic() - since}


def write_model(
    folder: Path,
    *,
    vocabulary: int,
    hidden: int,
    layers: int,
    threads: int,
    own_head: bool = False,
) -> None:
    """Write the model that every system loads, unless it lies there already.

    Raises:
        SystemExit: When it cannot be made.
    """
    if (folder / "tokenizer.json").is_file():
        return
    sizes = {
        "vocabulary": vocabulary,
        "hidden": hidden,
        "layers": layers,
        "own_head": own_head,
    }
    writer = System(name="model", worker="model_folder.py")
    row = run_worker(writer, {"folder": str(folder.resolve()), **sizes}, threads=threads)
    if "error" in row:
        raise SystemExit(f"the model could not be written to {folder}: {row['error']}")


def step_spec(
    work: Workload, *, model: Path, micro_batch: int, row_tokens: int, **more: Any
) -> dict[str, Any]:
    """Return the spec of optimiser steps of all examples of a workload."""
    return {
        "model": str(model.resolve()),
        "workload": work.as_json(),
        "micro_batch": micro_batch,
        "accumulation": -(-work.n_examples // micro_batch),
        "steps": 1,
        "learning_rate": 1e-5,
        "row_tokens": row_tokens,
        **more,
    }
