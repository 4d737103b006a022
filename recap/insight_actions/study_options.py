"""What ``conf/insights.yaml`` holds for the counsellor study."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

FileStem = Annotated[str, Field(pattern=r"^[\w][\w .-]*$")]
"""A name that a file can have on every system."""

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class StudyOptions:
    """The counsellor study's statistics, from a long table."""

    participant: str = "participant"
    """Column of the participant's id."""
    group: str = "group"
    """Column of the group."""
    phase: str = "phase"
    """Column of the phase."""
    score: str = "score"
    """Column of the score."""
    sheet: str | None = None
    """Sheet of an Excel file; ``None``: the first."""
    groups: tuple[str, ...] = Field(default=(), max_length=2)
    """The two groups in order; none: by their usual names, else as they come."""
    phases: tuple[str, ...] = Field(default=(), max_length=2)
    """The two phases in order, likewise."""
    repeated: Literal["refuse", "mean"] = "refuse"
    """Several rows of one participant and phase: a fault, or averaged."""
    welch: bool = False
    """Whether comparisons of the groups allow for unequal variances."""
    f: float = Field(default=0.25, gt=0, le=10)
    """Expected effect of the interaction, Cohen's f as G*Power takes it."""
    rho: float = Field(default=0.5, gt=-1, lt=1)
    """Expected correlation between the phases."""
    alpha: float = Field(default=0.05, gt=0, lt=1)
    """Level of the tests for which power is computed."""
    power: float = Field(default=0.8, gt=0, lt=1)
    """Wanted power."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class StudyMaterialsOptions:
    """What participants and raters of a counsellor study are given, and what they give back."""

    step: Literal["draw", "rate", "score"] = "draw"
    """Sheets and cards; then, of filled sheets, rating sheets; then, of those, scores."""
    participants: int = Field(default=34, ge=4, le=10_000)
    """How many."""
    groups: tuple[str, str] = ("control", "experimental")
    """Names of the groups; the second gets the cards."""
    phases: tuple[FileStem, FileStem] = ("pre", "post")
    """Names of the phases; cards come in the second."""
    per_behavior: int = Field(default=2, ge=0)
    """Scenarios of each resistant behaviour."""
    collaborative: int = Field(default=4, ge=0)
    """Scenarios without resistance."""
    context: int = Field(default=6, ge=0)
    """Turns before the client's utterance that are shown; 0: all."""
    raters: int = Field(default=2, ge=1, le=20)
    """Rating sheets, each in an order of its own."""
    excel: bool = False
    """Whether sheets are .xlsx and not .csv."""
    language: Literal["en", "zh"] | None = None
    """Language of the cards; ``None``: that of the data, else English."""
