"""What ``conf/predict.yaml`` holds."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from recap.config import DataConfig, Decoding, Language

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PredictPromptConfig:
    """How an utterance is put to the model, beyond what the model was trained with."""

    max_tokens: int | None = Field(default=None, ge=16)
    """Longest prompt in tokens; ``None``: as in training."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PredictDecodingConfig:
    """How the answer is read off the model."""

    name: Decoding | None = None
    """``scored``: the likeliest label; ``constrained``, ``free``: greedy text; ``None``: ``scored``
    with a threshold, else as in training."""
    threshold: float | None = Field(default=None, ge=0, le=1)
    """The same as ``threshold``."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Longest answer in tokens; ``None``: as in training."""
    batch_size: int = Field(default=32, ge=1)
    """Utterances answered together."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PredictPrivacy:
    """What the output may hold."""

    replace_text: bool = False
    """Whether ids stand in the place of texts, and nothing else of the input comes back."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RayConfig:
    """Many machines, through Ray Data."""

    address: str | None = None
    """Of a running cluster; ``None``: workers on this machine."""
    workers: int = Field(default=2, ge=1)
    """Processes that each hold the models."""
    gpus: float = Field(default=0, ge=0)
    """GPUs of each worker."""
    shards: int | None = Field(default=None, ge=1)
    """Parts that workers take in turn; ``None``: four a worker."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PredictConfig:
    """Dialogues to annotate, the models that do, and where to write."""

    data: DataConfig
    """The reader."""
    prompt: PredictPromptConfig
    """Longest prompt."""
    decoding: PredictDecodingConfig
    """How answers are read."""
    ray: RayConfig
    """Used with ``engine=ray``."""
    privacy: PredictPrivacy = Field(default_factory=PredictPrivacy)
    """What the output may hold."""
    input: str | None = None
    """File to annotate; the same as ``data.path``."""
    output: str | None = None
    """File to write, ``.jsonl``, ``.csv`` or ``.xlsx``."""
    model: str | None = None
    """Run folder or model of one stage."""
    binary: str | None = None
    """The cascade's first stage."""
    fine_grained: str | None = None
    """The cascade's second stage."""
    base: str | None = None
    """Base of adapters, where it is not where training had it."""
    threshold: float | dict[str, float] | None = None
    """Probability from which the first of two labels, or the named one, is decided for."""
    rationale: bool = False
    """Whether the reason is written too."""
    language: Language | None = None
    """Of prompt and answer; ``None``: as in training."""
    device: str = "auto"
    """``cpu``, ``cuda`` or ``auto``: a GPU where there is one."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Type of the weights; ``None``: as in training."""
    shard: str | None = None
    """``i/n``: the i-th of n parts, i from 0."""
    engine: Literal["local", "ray"] = "local"
    """This process, or workers under Ray."""
    resume: Literal["auto", "never"] = "auto"
    """Whether an unfinished output is gone on with, or written anew."""

    @property
    def run(self) -> str:
        """Name by which a sweep calls this job."""
        return self.output or "predict"
