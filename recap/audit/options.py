"""What ``conf/audit.yaml`` adds to the configuration of a run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from recap.config import PrivacyConfig, RunConfig

_STRICT = ConfigDict(extra="forbid")

TextField = Literal["rationale", "response"]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PlantOptions:
    """Canaries to be trained on, for ``step=plant``."""

    n: int = Field(default=10, ge=1)
    """Different secrets."""
    copies: int = Field(default=1, ge=1)
    """Rows of each."""
    field: TextField = "rationale"
    """Where the secret stands."""
    digits: int = Field(default=9, ge=4, le=30)
    """Of a secret."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class AuditPrivacy(PrivacyConfig):
    """Where texts that a model repeats may go."""

    include_text: bool = False
    """Whether they are written down."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class AuditConfig:
    """Which model is asked for which texts."""

    training: RunConfig
    """Task, data and folds, where the model lies in no run folder."""
    plant: PlantOptions
    """For ``step=plant``."""
    privacy: AuditPrivacy = Field(default_factory=AuditPrivacy)
    """What may be written."""
    step: Literal["measure", "plant"] = "measure"
    """Whether a model is measured, or canaries are made for a training to come."""
    model: str | None = None
    """A run folder, or a model's."""
    canaries: str | None = None
    """The file that ``step=plant`` wrote."""
    held_out: str | None = None
    """A file of examples that the model was not trained on; ``None``: the fold's held-out part."""
    candidates: int = Field(default=1023, ge=15, le=1_000_000)
    """Other secrets that each canary is ranked among."""
    prefix_tokens: tuple[Annotated[int, Field(ge=1)], ...] = (4, 8, 16)
    """Tokens of a text that are given before it is to be gone on with."""
    shortest: int = Field(default=4, ge=1)
    """Fewest tokens that have to be reproduced behind them."""
    most: int = Field(default=500, ge=1)
    """Most examples that are tried, of those trained on and of those held out."""
    out: str | None = None
    """Folder for the files; ``None``: the console alone."""

    @property
    def run(self) -> str:
        """What is audited."""
        return self.model or self.training.run
