"""Options of the actions on annotators: agreement, assign, adjudicate, exam and ratings."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class AnnotationsOptions:
    """Where annotators' labels are, and how their file is laid out."""

    path: str | list[str] | None = None
    """A table, a zip or a folder of one file an annotator, or several, one a round; ``None``: for
    agreement and adjudicate, that of ``data.path``."""
    columns: dict[str, str | list[str] | None] = Field(default_factory=dict)
    """Names of columns that are not recognised, by role."""
    annotators: list[str] | None = None
    """The columns of a table that has one an annotator."""
    multi_label: Literal["reject", "first"] = "reject"
    """What to do with several labels of one annotator on one example."""
    label_names: dict[str, str] = Field(default_factory=dict)
    """The label that each number stands for, in old Doccano exports."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class AgreementOptions:
    """How agreement is measured."""

    replicates: int = Field(default=1000, ge=0)
    """Draws of the bootstrap; 0: no intervals."""
    level: float = Field(default=0.95, gt=0, lt=1)
    """Coverage of the intervals."""
    seed: int = 0
    """Seed of the bootstrap."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class AssignOptions:
    """How examples are dealt out to annotators."""

    annotators: list[str] = Field(default_factory=list)
    """Their names."""
    per_example: int = Field(default=2, ge=1)
    """Annotators of one example (two in Section 4.2)."""
    size: int | None = Field(default=None, ge=1)
    """Examples to draw; ``None``: all."""
    batch_size: int | None = Field(default=None, ge=1)
    """Examples of one file; ``None``: all of an annotator's in one."""
    round: str = "1"
    """Name of the round."""
    predictions: str | None = None
    """A predictions.jsonl whose labels fill in the answers beforehand."""
    seed: int = 0
    """Another seed, another assignment."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class AdjudicateOptions:
    """When annotators have settled a label."""

    rule: Literal["plurality", "majority"] = "plurality"
    """``plurality``: more votes than any other label; ``majority``: more than half of them."""
    min_votes: int = Field(default=2, ge=1)
    """Votes that the winning label needs."""
    decisions: str | None = None
    """A to-do file with labels filled in by hand."""
    annotators: list[str] = Field(default_factory=list)
    """Who may be asked in the next round; empty: those who judged so far."""
    extra: int = Field(default=1, ge=0)
    """Further annotators of an open example; 0: no batches for the next round."""
    seed: int = 0
    """Seed of the next round's assignment."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ExamOptions:
    """How exams are scored and annotators selected (Appendix B)."""

    key: str | None = None
    """A table of ids and correct labels; ``None``: the labels of the data."""
    scores: str | None = None
    """A table of candidate, exam and accuracy, where exams were scored elsewhere."""
    top: int = Field(default=4, ge=1)
    """Candidates to select."""
    min_last: float = Field(default=0.6, ge=0, le=1)
    """Accuracy that the last exam needs."""
    ddof: Literal[0, 1] = 1
    """1: sample standard deviation; 0: population, as in Table 6."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RatingsOptions:
    """How rationales are rated."""

    path: str | list[str] | None = None
    """Sheets that raters filled; ``None``: blank sheets are written."""
    raters: list[str] = Field(default_factory=lambda: ["rater1", "rater2"])
    """Who gets a blank sheet."""
    size: int = Field(default=200, ge=1)
    """Examples on a sheet (200 in Section 4.2)."""
    criteria: list[str] = Field(
        default_factory=lambda: [
            "label_alignment",
            "context_relevance",
            "rationality",
            "clarity",
        ]
    )
    """What is rated, a column each."""
    points: int = Field(default=5, ge=2)
    """The scale goes from 1 to this."""
    predictions: str | None = None
    """A predictions.jsonl whose labels and rationales are rated instead of the data's."""
    seed: int = 0
    """Seed of the draw."""
