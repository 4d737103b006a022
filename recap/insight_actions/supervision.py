"""``action=supervision``."""

from __future__ import annotations

from recap.insight_actions.options import InsightsConfig
from recap.reporting.findings import Findings


def make_supervision(config: InsightsConfig) -> Findings:
    """Return the findings of ``action=supervision``."""
    return Findings(action="supervision", title="supervision", figures={}, sheets=())
