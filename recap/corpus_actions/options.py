"""The configuration of ``recap.corpus``, as ``conf/corpus.yaml`` has it."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from recap.config import DataConfig, TaskConfig
from recap.corpus_actions.annotation_options import (
    AdjudicateOptions,
    AgreementOptions,
    AnnotationsOptions,
    AssignOptions,
    ExamOptions,
    RatingsOptions,
)

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DescribeOptions:
    """How a corpus is described."""

    unit: Literal["turns", "examples"] = "turns"
    """``turns``: every client turn as it stands; ``examples``: what training would see."""
    tokenizer: str | None = None
    """``tiny``, a model's folder or a tokenizer.json; ``None``: no lengths in tokens."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class CorpusConfig:
    """What is to be found out, and of which data."""

    action: str
    """Name of the action."""
    data: DataConfig
    """The corpus."""
    task: TaskConfig
    """The task; labels are looked up in its taxonomy."""
    labels: Literal["canonical", "raw"] = "canonical"
    """``raw``: labels stay as they stand in the file, in whatever taxonomy."""
    out: str | None = None
    """Folder for the files; ``None``: the console alone."""
    describe: DescribeOptions = Field(default_factory=DescribeOptions)
    """Options of ``action=describe``."""
    annotations: AnnotationsOptions = Field(default_factory=AnnotationsOptions)
    """What annotators said, for agreement, adjudicate and exam."""
    agreement: AgreementOptions = Field(default_factory=AgreementOptions)
    """Options of ``action=agreement``."""
    assign: AssignOptions = Field(default_factory=AssignOptions)
    """Options of ``action=assign``."""
    adjudicate: AdjudicateOptions = Field(default_factory=AdjudicateOptions)
    """Options of ``action=adjudicate``."""
    exam: ExamOptions = Field(default_factory=ExamOptions)
    """Options of ``action=exam``."""
    ratings: RatingsOptions = Field(default_factory=RatingsOptions)
    """Options of ``action=ratings``."""

    @property
    def run(self) -> str:
        """What messages call this job."""
        return f"{self.action} of {self.data.name}"
