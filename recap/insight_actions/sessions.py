"""``action=sessions``: how often clients resist, session by session."""

from __future__ import annotations

from recap.insight_actions.options import InsightsConfig
from recap.reporting.findings import Findings


def find_sessions(config: InsightsConfig) -> Findings:
    """Return the prevalence of every behaviour in annotated or predicted sessions."""
    return Findings(action="sessions", title="Sessions", figures={}, sheets=())
