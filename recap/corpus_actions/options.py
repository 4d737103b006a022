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
class ValidateOptions:
    """What a corpus is checked for beside faults of its rows."""

    near_duplicates: float | None = Field(default=0.8, gt=0, le=1)
    """Least similarity of near-duplicates (Jaccard of three-character pieces); ``None``: not
    looked for."""
    shortest: int = Field(default=12, ge=3)
    """Characters of the shortest text that is compared; everybody says "I don't know"."""
    listed: int = Field(default=10, ge=0)
    """Faults, and hints of a kind, that the console and the page list; all are counted, and all
    stand in the .json and .csv files."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class CodebookOptions:
    """How the codebook is written."""

    language: Literal["en", "zh"] | None = None
    """``None`` follows data.language."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class LexiconOptions:
    """How words are contrasted."""

    terms: Literal["both", "unigrams", "bigrams"] = "both"
    """Single tokens, pairs of neighbouring ones, or both."""
    segmenter: Literal["auto", "words", "jieba", "characters"] = "auto"
    """What a token is; ``auto``: words, and jieba's where a text is Chinese."""
    contrast: str = "rest"
    """What a category is held against: all other labels of the task, or one of them."""
    prior: Literal["corpus", "uniform"] = "corpus"
    """Prior counts: those of the whole corpus, or the same for every term."""
    prior_tokens: float | None = Field(default=None, gt=0)
    """Sum of the prior counts; ``None``: the corpus's own size, or 0.01 a term if uniform."""
    minimum_count: int = Field(default=5, ge=1)
    """Times that a listed term stands in category and contrast together."""
    top_k: int = Field(default=10, ge=1)
    """Terms a category."""
    shared_only: bool = True
    """Whether terms of a single session are left out."""


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
    validate: ValidateOptions = Field(default_factory=ValidateOptions)
    """Options of ``action=validate``."""
    codebook: CodebookOptions = Field(default_factory=CodebookOptions)
    """Options of ``action=codebook``."""
    lexicon: LexiconOptions = Field(default_factory=LexiconOptions)
    """Options of ``action=lexicon``."""
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
