"""``action=study_materials``."""

from __future__ import annotations

from recap.insight_actions.options import InsightsConfig
from recap.reporting.findings import Findings


def make_materials(config: InsightsConfig) -> Findings:
    """Return the findings of ``action=study_materials``."""
    return Findings(action="study_materials", title="", figures={}, sheets=())
