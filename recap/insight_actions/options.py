"""What ``conf/insights.yaml`` holds: a section for every action."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from recap.config import DataConfig, TaskConfig
from recap.insight_actions.study_options import StudyMaterialsOptions, StudyOptions

FEW_UNITS = 20
"""Under so many sessions or clients a bootstrap of them is said to be rough; a rule of thumb."""

# Ids may look like numbers, as in card.id=12.
_STRICT = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

Action = Literal["sessions", "alliance", "study", "study_materials", "card", "supervision"]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class OutcomesOptions:
    """A second table, joined to the first."""

    path: str | None = None
    """CSV or Excel file with a row a session."""
    columns: tuple[str, ...] = ()
    """Columns to correlate with; ``outcomes=[…]`` says the same."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SessionsOptions:
    """Prevalence per session."""

    confusion: str | None = None
    """A run folder or scores.json files: prevalence corrected for misclassification too."""
    by: str | None = None
    """A field of the dialogues to break prevalence down by."""
    timeline: str | None = None
    """The session whose timeline is drawn; ``None``: the one with most resistant utterances."""
    bins: int = Field(default=10, ge=2, le=100)
    """Parts into which a session is cut for development over time."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class AllianceOptions:
    """Correlations with outcomes."""

    client: str | None = None
    """Column that names the client: bootstrap by client; ``None``: by session."""
    method: Literal["holm", "bh"] = "holm"
    """Correction that the heat map marks."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class CardOptions:
    """The feedback card of one utterance."""

    id: str | None = None
    """Id of the utterance; ``None``: the first resistant one."""
    language: Literal["en", "zh"] | None = None
    """Language of the card; ``None``: that of the data, else English."""
    context: int = Field(default=4, ge=0)
    """Turns before the utterance that are shown; 0: all."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SupervisionOptions:
    """The supervision page of one session or of all."""

    session: str | None = None
    """One session; ``None``: a page for each."""
    excel: bool = False
    """Whether an Excel file is written beside each page."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class InsightsConfig:
    """One action and what it works on."""

    action: Action
    """What is done."""
    data: DataConfig
    """The dialogues, or the table."""
    task: TaskConfig
    """Whose taxonomy the labels are of."""
    outcomes: OutcomesOptions
    """The second table."""
    predictions: str | None = None
    """What recap.predict wrote: its labels take the place of the dialogues' own."""
    out: str | None = None
    """Folder for the files; ``None``: the console alone."""
    resistance: tuple[str, ...] | None = None
    """Categories that count as resistance, with all below them; ``None``: Resistance."""
    on: tuple[str, ...] = ()
    """Columns by which the two tables are joined."""
    predictors: tuple[str, ...] = ()
    """Columns that predict; none: shares of behaviours, computed from dialogues."""
    seed: int = Field(default=0, ge=0)
    """Of every bootstrap."""
    resamples: int = Field(default=2000, ge=0)
    """Of every bootstrap; 0: none."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Level of all intervals."""
    unsure: float = Field(default=0.6, ge=0, le=1)
    """On cards and pages, labels with a lower probability are marked."""
    sessions: SessionsOptions
    """Of ``action=sessions``."""
    alliance: AllianceOptions
    """Of ``action=alliance``."""
    study: StudyOptions
    """Of ``action=study``."""
    study_materials: StudyMaterialsOptions
    """Of ``action=study_materials``."""
    card: CardOptions
    """Of ``action=card``."""
    supervision: SupervisionOptions
    """Of ``action=supervision``."""

    @property
    def run(self) -> str:
        """Name by which a sweep calls this job."""
        return self.action
