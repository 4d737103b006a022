"""The checkpoints of one training: numbered in the order in which they were written.

A checkpoint never takes the place of another, so that a kill can at most leave a partial one
behind. The newest whole one is what a training goes on from.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from recap.errors import ConfigError
from recap.models.checkpoint import read_head, read_progress
from recap.models.digests import fault_of
from recap.run_folder import write_atomic

KEPT = "KeepCheckpoints"
"""Under which key of a checkpoint's callbacks it stands which ones are kept, and why."""

_TRAINED = "trained"
_LOG = logging.getLogger(__name__)


class CheckpointFolder:
    """The folder ``checkpoints/`` of a fold.

    Args:
        path: Need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._told: set[Path] = set()

    def newest(self) -> Path | None:
        """Return the newest checkpoint that is as it was written, ``None`` when there is none.

        Raises:
            ConfigError: When there are some, and none of them is whole.
        """
        there = sorted(self.path.glob("*.ckpt"), reverse=True)
        found = self._first_whole(there)
        if there and found is None:
            raise ConfigError(
                f"{there[0]}: this checkpoint {fault_of(there[0])}, and there is no whole one "
                "before it to go on from; resume=never trains the fold again"
            )
        return found

    def stage(self) -> tuple[str, int] | None:
        """Return the stage and the optimiser step of the newest checkpoint.

        The stage is ``"train"``, or ``"decode"`` once the training is over; ``None``: a fresh
        start.

        Raises:
            ConfigError: As :meth:`newest`.
        """
        newest = self.newest()
        if newest is None:
            return None
        step, mark = read_progress(newest)[1], self.path / _TRAINED
        done = mark.is_file() and mark.read_text(encoding="utf-8") == str(step)
        return ("decode" if done else "train"), step

    def mark_trained(self) -> None:
        """Write down that the training ended with the newest checkpoint."""
        newest = self.newest()
        assert newest is not None
        write_atomic(self.path / _TRAINED, str(read_progress(newest)[1]))

    def best(self) -> Path:
        """Return the checkpoint of the lowest selection loss, or the best one before it.

        Raises:
            ConfigError: When no selection loss was a number, or no such checkpoint is whole.
        """
        newest = self.newest()
        names = [] if newest is None else self._kept(newest)["best"]
        if not names:
            raise ConfigError(
                f"{self.path}: the selection loss was no finite number after any epoch, so there "
                "is no best one; lower optimizer.learning_rate, or set trainer.precision=32-true"
            )
        found = self._first_whole([self.path / name for name in names])
        if found is None:
            raise ConfigError(
                f"{self.path / names[0]}: the best checkpoint is not whole, and there is none "
                "before it; resume=never trains the fold again"
            )
        return found

    def clear(self) -> None:
        """Delete everything."""
        shutil.rmtree(self.path, ignore_errors=True)

    def keep_only(self, names: Collection[str]) -> None:
        """Delete everything but checkpoints of these names: what a kill left behind, too."""
        if not self.path.is_dir():
            return
        for other in self.path.iterdir():
            if other.name not in names:
                if other.is_dir():
                    shutil.rmtree(other)
                else:
                    other.unlink()

    def _first_whole(self, paths: list[Path]) -> Path | None:
        for path in paths:
            fault = fault_of(path) if path.exists() else "is not there any more"
            if fault is None:
                return path
            if path not in self._told:
                self._told.add(path)
                _LOG.warning("%s: this checkpoint %s; the one before it is taken", path, fault)
        return None

    @staticmethod
    def _kept(checkpoint: Path) -> dict[str, Any]:
        kept: dict[str, Any] = read_head(checkpoint)["callbacks"][KEPT]
        return kept
