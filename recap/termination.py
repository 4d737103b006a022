"""Signals that ask a command to end: noted while a step is finished, and answered under SLURM.

SIGTERM ends it. SIGUSR1, by which SLURM gives notice before the time is up (``#SBATCH
--signal=USR1@120``), ends it too, and has the job queued again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""From the weaker to the stronger."""

_noted: set[int] = set()


def note(number: int, frame: FrameType | None = None) -> None:
    """Take a note of a signal; made to be a signal's handler."""
    _noted.add(number)


def strongest_noted() -> int:
    """Return 0 when no signal was noted, 1 for SIGTERM, 2 for SIGUSR1."""
    return max((SIGNALS.index(number) + 1 for number in SIGNALS if number in _noted), default=0)


def forget() -> None:
    """Forget all signals."""
    _noted.clear()


def listen() -> None:
    """Have the signals noted and nothing else done, from now on."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, note)


def requeue() -> bool | None:
    """Have SLURM queue this job again if SIGUSR1 was noted; return whether it did.

    ``None`` without that signal, or outside of SLURM.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or signal.SIGUSR1 not in _noted:
        return None
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is not None:
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0
