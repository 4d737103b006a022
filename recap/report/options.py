"""What ``conf/report.yaml`` holds."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

_STRICT = ConfigDict(extra="forbid", coerce_numbers_to_str=True)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ReportPrivacy:
    """What of clients a report may show."""

    include_text: bool = False
    """Whether the words of clients and models may stand in the report's files."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ReportConfig:
    """The configuration of ``recap.report``."""

    runs: tuple[str, ...]
    """Run folders, folders of run folders, or patterns of them."""
    out: str | None = None
    """Folder for the page, tables and figures; ``None``: the console alone."""
    reference: Literal["paper"] | None = None
    """``paper``: the paper's published rows stand beside the measured ones, marked as such."""
    verify: bool = False
    """Whether every number of the runs is computed again from their predictions first."""
    compare_to: str | None = None
    """Name of the run that the others are compared with; ``None``: all pairs."""
    by: tuple[str, ...] = ()
    """Metadata columns that scores are broken down by."""
    recall: float = Field(default=0.9, gt=0, lt=1)
    """Recall of resistance for which a threshold is looked for."""
    prior: float | None = Field(default=None, gt=0, lt=1)
    """Share of resistance in practice (paper: about 0.17); ``None``: no correction."""
    resamples: int = Field(default=2000, ge=0)
    """0: no intervals over clusters; every other number the same ones, for nothing is drawn."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Level of intervals."""
    seed: int = Field(default=0, ge=0)
    """Likewise: nothing is drawn."""
    privacy: ReportPrivacy = Field(default_factory=ReportPrivacy)
    """What of clients may be shown."""

    @property
    def level(self) -> float | None:
        """Level of intervals over clusters; ``None``: there are to be none."""
        return self.confidence if self.resamples else None

    @property
    def given(self) -> dict[str, Any]:
        """What was asked for of intervals, as the figures have it."""
        return {"resamples": self.resamples, "confidence": self.confidence, "seed": self.seed}

    @property
    def run(self) -> str:
        """What messages call this configuration."""
        return "report"
