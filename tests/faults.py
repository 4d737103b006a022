"""What the fault tests have tried, a line a test, for the table of ``make faults``."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

FAULTS_FILE = "RECAP_FAULTS"
"""Environment variable with the file that collects the lines; without it nothing is kept."""


def record_fault(row: str, *, tried: int, survived: int, lost: int, note: str = "") -> None:
    """Write down how many faults or inputs of one kind were tried, and what became of them.

    Args:
        row: Row of the table; lines of the same row are added up.
        tried: Faults injected, inputs read, places searched.
        survived: Those after which everything was as it should be.
        lost: Results lost, texts leaked, inputs that crashed; what the test asserts to be 0.
        note: Shown beside the row.
    """
    path = os.environ.get(FAULTS_FILE)
    if not path:
        return
    line = {"row": row, "tried": tried, "survived": survived, "lost": lost, "note": note}
    with Path(path).open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(line) + "\n")
