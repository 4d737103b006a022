"""``action=alliance``."""

from __future__ import annotations

from recap.findings.options import InsightsConfig
from recap.reporting.report import Report


def find_alliance(config: InsightsConfig) -> Report:
    """Return the report of ``action=alliance``."""
    return Report(name="alliance", title="alliance", figures={}, sheets=(), rows=())
