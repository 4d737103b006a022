"""A lock is its process's own: workers that were forked meanwhile do not keep it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from recap.errors import ConfigError
from recap.predict.output import AnnotationFile
from recap.runs.folder import locked

HOLD = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from system.test_locks import held

with held({kind!r}, Path({folder!r})) as file:
    if os.fork() == 0:
        print(os.getpid(), flush=True)  # what is to happen in a fork has happened
    time.sleep(60)
"""


def held(kind: str, folder: Path) -> AbstractContextManager[object]:
    """Return what locks a run's folder or an output while its block runs."""
    if kind == "folder":
        return locked(folder)
    return AnnotationFile(folder / "answers.jsonl", columns=(), window=1)


@pytest.mark.parametrize("kind", ["folder", "output"])
def test_a_lock_ends_with_its_process_though_a_worker_lives_on(tmp_path: Path, kind: str) -> None:
    tests = str(Path(__file__).parents[1])
    code = HOLD.format(tests=tests, kind=kind, folder=str(tmp_path))
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    worker = int(holder.stdout.readline())
    try:
        with pytest.raises(ConfigError, match="another process"), held(kind, tmp_path):
            pass
        holder.kill()
        holder.wait()
        os.kill(worker, 0)
        with held(kind, tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        holder.kill()
        holder.stdout.close()
