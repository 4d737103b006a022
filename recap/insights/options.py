"""What ``conf/insights.yaml`` holds: a section for every action."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from recap.config import DataConfig, TaskConfig

FileStem = Annotated[str, Field(pattern=r"^[\w][\w .-]*$")]
"""A name that a file can have on every system."""

# Ids and columns may look like numbers, as in card.id=12.
_STRICT = ConfigDict(extra="forbid", coerce_numbers_to_str=True)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class StudyOptions:
    """The counselor study's statistics, from a long table."""

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
    participants: str | None = None
    """A table with a row a participant, which describes them; ``None``: that of the scores may."""
    describe: tuple[str, ...] = ()
    """Columns that describe participants; none: all of the table of participants."""
    helpfulness: tuple[str, ...] = ()
    """Columns of how helpful participants found the feedback, in numbers."""
    categories: tuple[str, ...] = ()
    """Columns of numbers that are counted by value, as with codes for gender."""
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
    """What participants and raters of a counselor study are given, and what they give back."""

    step: Literal["draw", "rate", "score", "pairs"] = "draw"
    """Sheets and cards; then, of filled sheets, rating sheets, and of those, scores; ``pairs``:
    original and rewritten responses of the filled sheets side by side."""
    participants: int = Field(default=34, ge=4, le=10_000)
    """How many."""
    groups: tuple[str, str] = ("control", "experimental")
    """Names of the groups; the second gets the cards."""
    phases: tuple[FileStem, FileStem] = ("pre", "post")
    """Names of the phases; cards come in the second."""
    per_behavior: int = Field(default=2, ge=0)
    """Scenarios of each resistant behavior."""
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
    """Column that names the client; ``None``: a column called client, else counselor, if any."""
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
    """Columns that predict; none: shares of behaviors, computed from dialogues."""
    seed: int = Field(default=0, ge=0)
    """Of every draw of materials."""
    resamples: int = Field(default=2000, ge=0)
    """0: no intervals over clusters; every other number the same ones, for nothing is drawn."""
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
    def level(self) -> float | None:
        """Level of intervals over clusters; ``None``: there are to be none."""
        return self.confidence if self.resamples else None

    @property
    def given(self) -> dict[str, Any]:
        """What was asked for of intervals, as the figures have it."""
        return {"resamples": self.resamples, "confidence": self.confidence, "seed": self.seed}

    @property
    def run(self) -> str:
        """Name by which a sweep calls this job."""
        return self.action


ACTIONS = {
    "sessions": "recap.insights.sessions:find_sessions",
    "alliance": "recap.insights.alliance:find_alliance",
    "study": "recap.insights.study:find_study",
    "study_materials": "recap.insights.study_materials:make_materials",
    "card": "recap.insights.cards:make_card",
    "supervision": "recap.insights.cards:make_supervision",
}
"""What each action calls, as ``module:function``: takes the configuration, gives a ``Report``."""
