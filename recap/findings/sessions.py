"""``action=sessions``: how often clients resist, session by session."""

from __future__ import annotations

from recap.findings.options import InsightsConfig
from recap.reporting.report import Report


def find_sessions(config: InsightsConfig) -> Report:
    """Return the prevalence of every behaviour in annotated or predicted sessions."""
    return Report(name="sessions", title="Sessions", figures={}, sheets=(), rows=())
