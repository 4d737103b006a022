"""``action=supervision``."""

from __future__ import annotations

from recap.findings.options import InsightsConfig
from recap.reporting.report import Report


def make_supervision(config: InsightsConfig) -> Report:
    """Return the report of ``action=supervision``."""
    return Report(name="supervision", title="supervision", figures={}, sheets=(), rows=())
