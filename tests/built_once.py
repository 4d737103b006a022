"""Folders that many tests read, made once a session whatever the number of workers."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

BuiltOnce = Callable[[str, Callable[[Path], object]], Path]
"""Takes a name and what fills a folder; returns the folder of that name."""


class SharedFolders:
    """Folders under the session's own, common to all workers, and a watch over what is in them."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        base = factory.getbasetemp()
        self._base = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
        self._base.mkdir(exist_ok=True)
        self._as_built: dict[Path, dict[str, int]] = {}

    def built(self, name: str, build: Callable[[Path], object]) -> Path:
        """Return a folder that the first to ask has filled; the others wait until it is done."""
        folder, done = self._base / name, self._base / f"{name}.done"
        with (self._base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # what a failure has left
                folder.mkdir()
                build(folder)
                done.touch()
        self._as_built.setdefault(folder, _times(folder))
        return folder

    def changed(self) -> list[str]:
        """Return the files that came, went or were written since they were built."""
        return [
            f"{folder}/{name}"
            for folder, before in self._as_built.items()
            for name in sorted(dict(before.items() ^ _times(folder).items()))
        ]


def _times(folder: Path) -> dict[str, int]:
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != ".lock")
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in files}
