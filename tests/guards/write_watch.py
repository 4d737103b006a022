"""Writes down which files a process opens to write to, those included that it removes again."""

from __future__ import annotations

import os
import sys
from typing import Any

WRITES_FILE = "RECAP_TEST_WRITES"
"""Environment variable with the file that paths are written to, one a line."""

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def install() -> None:
    """Watch this process until it ends; files that C code opens are not seen."""
    target = os.open(os.environ[WRITES_FILE], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open":
            return
        path, _mode, flags = arguments
        if flags & _WRITING and not isinstance(path, int):
            os.write(target, os.fsencode(os.path.abspath(path)) + b"\n")  # noqa: PTH100 - no links

    sys.addaudithook(audit)
