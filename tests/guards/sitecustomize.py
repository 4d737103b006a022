"""Loaded by every Python that has this folder on its path: the processes that tests start."""

from __future__ import annotations

import os

if os.environ.get("RECAP_TEST_OUTGOING"):
    import network_guard

    network_guard.install()

if os.environ.get("RECAP_TEST_WRITES"):
    import write_watch

    write_watch.install()
