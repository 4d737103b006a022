"""What requests may have cost that brought no answer: kept, so that a later process counts it."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict
from pathlib import Path

from recap.disks import writing
from recap.prompting.costs import Usage

FILE = "unanswered.jsonl"


class UnansweredRequests:
    """A file with a line for every request that may have been charged and was not answered.

    Lines hold numbers alone. They are only ever added; one that a kill cut off is passed over.

    Args:
        folder: Where the file is; made with the first line.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._lock = threading.Lock()

    def add(self, most: Usage) -> None:
        """Write down the most that one request can have used."""
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with writing(self._path), self._path.open("a", encoding="utf-8") as file:
                # First, so that a line that was cut off spoils none that follows.
                file.write(f"\n{json.dumps(asdict(most))}\n")

    def total(self) -> Usage:
        """Return what all of them can have used together."""
        total = Usage()
        if self._path.is_file():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                try:
                    total += Usage(**json.loads(line))
                except (ValueError, TypeError):
                    continue
        return total
