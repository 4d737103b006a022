"""``action=alliance``."""

from __future__ import annotations

from recap.insight_actions.options import InsightsConfig
from recap.reporting.findings import Findings


def find_alliance(config: InsightsConfig) -> Findings:
    """Return the findings of ``action=alliance``."""
    return Findings(action="alliance", title="alliance", figures={}, sheets=())
