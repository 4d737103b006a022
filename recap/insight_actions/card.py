"""``action=card``."""

from __future__ import annotations

from recap.insight_actions.options import InsightsConfig
from recap.reporting.findings import Findings


def make_card(config: InsightsConfig) -> Findings:
    """Return the findings of ``action=card``."""
    return Findings(action="card", title="card", figures={}, sheets=())
