"""``action=card``."""

from __future__ import annotations

from recap.findings.options import InsightsConfig
from recap.reporting.report import Report


def make_card(config: InsightsConfig) -> Report:
    """Return the report of ``action=card``."""
    return Report(name="card", title="card", figures={}, sheets=(), rows=())
