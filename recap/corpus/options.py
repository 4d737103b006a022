"""The configuration of ``recap.corpus``, as ``conf/corpus.yaml`` has it, and its actions."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from recap.config import DataConfig, TaskConfig
from recap.data.sheets import RatingsOptions

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class AnnotationsOptions:
    """Where annotators' labels are, and how their file is laid out."""

    path: str | list[str] | None = None
    """A table, a zip or a folder of one file an annotator, or several, one a round; ``None``: for
    agreement and adjudicate, that of ``data.path``."""
    columns: dict[str, str | list[str] | None] = Field(default_factory=dict)
    """Names of columns that are not recognized, by role."""
    format: Literal["auto", "long", "wide"] = "auto"
    """Of a table: ``long``: a row an annotation; ``wide``: a column an annotator; ``auto``: seen
    from its columns."""
    annotators: list[str] | None = None
    """The columns of a table that has one an annotator."""
    multi_label: Literal["reject", "first"] = "reject"
    """What to do with several labels of one annotator on one example."""
    label_names: dict[str, str] = Field(default_factory=dict)
    """The label that each number stands for, in tables and old Doccano exports."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class AgreementOptions:
    """How agreement is measured."""

    replicates: int = Field(default=1000, ge=0)
    """0: no intervals; every other number the same ones, for nothing is drawn."""
    level: float = Field(default=0.95, gt=0, lt=1)
    """Coverage of the intervals."""
    seed: int = 0
    """Likewise."""


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
    """Who may be asked in the next round; empty: those who annotated so far."""
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


ActionName = Literal[
    "describe",
    "validate",
    "codebook",
    "lexicon",
    "assign",
    "agreement",
    "adjudicate",
    "exam",
    "ratings",
]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class CorpusConfig:
    """What is to be found out, and of which data."""

    action: ActionName
    """What is done."""
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
    """What annotators gave as labels, for agreement, adjudicate and exam."""
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


ACTIONS: dict[ActionName, str] = {
    "describe": "recap.corpus.describe:describe",
    "validate": "recap.corpus.validate:validate",
    "codebook": "recap.corpus.codebook:codebook",
    "lexicon": "recap.corpus.lexicon:lexicon",
    "assign": "recap.corpus.assign:assign_examples",
    "agreement": "recap.corpus.agreement:agreement",
    "adjudicate": "recap.corpus.adjudicate:adjudicate_labels",
    "exam": "recap.corpus.exam:exam",
    "ratings": "recap.corpus.ratings:ratings",
}
"""What each action calls, as ``module:function``: takes the configuration, gives a ``Report``.

It raises ``ConfigError`` where an option that it needs is missing or cannot be used, ``DataError``
where a file cannot be used, or its rows are at fault and ``data.on_error`` is ``fail``.
"""
