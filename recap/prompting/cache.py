"""Answers on disk, under a hash of all that was asked: nothing is paid for twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recap.run_folder import write_atomic
from recap.scoring.files import json_text

FOLDER = ".answers"
"""Under ``runs_dir``, so that runs of several names share what was answered."""


def content_key(request: Mapping[str, Any]) -> str:
    """Return the hash of a request: server, model, messages, parameters."""
    text = json.dumps(request, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class AnswerCache:
    """Answers by the hash of their requests, one file each, written whole or not at all.

    The files hold answers, which may quote a client, and never a prompt or a key.

    Args:
        folder: Where they are; made with the first answer.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, key: str) -> dict[str, Any] | None:
        """Return the answer under a key, ``None`` where there is none that can be read."""
        try:
            found = json.loads(self._path(key).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # one that may not be read would be paid for twice
            return None
        return found if isinstance(found, dict) else None

    def write(self, key: str, answer: Mapping[str, Any]) -> None:
        """Keep an answer."""
        write_atomic(self._path(key), json_text(answer), private=True)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
