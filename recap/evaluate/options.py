"""What ``conf/evaluate.yaml`` adds to the configuration of a run, and what a baseline's run is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from recap.config import (
    BackboneConfig,
    DecodingConfig,
    FinetuneConfig,
    OptimizerConfig,
    PromptConfig,
    RunConfig,
    SchedulerConfig,
    TrainerConfig,
    hashed_name,
    result_options,
)
from recap.errors import ConfigError

_STRICT = ConfigDict(extra="forbid")

Method = Literal["tfidf", "encoder"]
Scored = Literal["model", "predictions", "method", "cascade"]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TfidfOptions:
    """TF-IDF with logistic regression."""

    context: Literal["response", "intervention", "full"] = "response"
    """What is read: the response alone, the counselor's turn before it, or the whole history."""
    analyzer: Literal["word", "char"] | None = None
    """Words and pairs of words, or one to three characters; ``None``: characters for Chinese."""
    class_weight: Literal["balanced"] | None = "balanced"
    """``balanced`` weighs classes inversely to their frequency."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class EncoderOptions:
    """An encoder with a classification head, as ``conf/encoder/*.yaml`` has it."""

    name: str
    """Name in run folders and tables."""
    hub_id: str | None = None
    """Model id on the Hugging Face hub."""
    path: str | None = None
    """Local folder with weights and tokenizer; takes precedence over ``hub_id``."""
    history: Literal["none", "intervention", "full"] = "full"
    """How much of the dialogue before the response is read."""
    max_tokens: int = Field(default=512, ge=8)
    """Longest input; a longer one loses whole oldest turns, never the response."""
    learning_rate: float = Field(default=2e-5, gt=0)
    """Peak learning rate; it falls to zero in a straight line."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decay of matrices."""
    warmup_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of all steps during which the rate rises."""
    max_epochs: int = Field(default=10, ge=1)
    """Most passes over the training examples."""
    patience: int = Field(default=3, ge=1)
    """Epochs without a lower selection loss before training stops."""
    batch_size: int = Field(default=16, ge=1)
    """Examples per optimizer step."""
    per_device_batch_size: int = Field(default=16, ge=1)
    """Examples in memory together; changes no result."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class EvaluateConfig:
    """What is scored, and on which labeled data."""

    training: RunConfig
    """Data, task, folds and the other options that recap.train has."""
    tfidf: TfidfOptions
    """For ``method=tfidf``."""
    encoder: EncoderOptions
    """For ``method=encoder``."""
    model: str | None = None
    """A run folder, or the folder of a model."""
    predictions: str | None = None
    """A file of anybody's predictions."""
    method: Method | None = None
    """A baseline to cross-validate."""
    binary: str | None = None
    """Run folder of the first stage of a cascade."""
    fine_grained: str | None = None
    """Run folder of the second stage of a cascade."""
    out: str | None = None
    """Folder for scores and predictions; ``None``: the console alone."""
    task_given: bool = False
    """Whether the command line chose the task; set by the command itself."""
    on_missing: Literal["fail", "invalid", "drop"] = "fail"
    """What happens to labeled examples without a prediction: a fault, wrong, or left out."""
    false_alarms: Literal["ask", "invalid"] = "ask"
    """Whether the second stage is asked about what the first wrongly passed on, or has no label."""

    @property
    def run(self) -> str:
        """Name of the run, or of what is scored."""
        return self.model or self.predictions or self.binary or self.training.run


def chosen_source(config: EvaluateConfig) -> Scored:
    """Return what is to be scored; a ``ConfigError`` where not exactly one thing was named."""
    stages = [config.binary, config.fine_grained]
    named: dict[Scored, bool] = {
        "model": config.model is not None,
        "predictions": config.predictions is not None,
        "method": config.method is not None,
        "cascade": any(stages),
    }
    chosen = [source for source, given in named.items() if given]
    if len(chosen) != 1 or (named["cascade"] and not all(stages)):
        names = ("model", "predictions", "method", "binary", "fine_grained")
        given = ", ".join(name for name in names if getattr(config, name) is not None)
        raise ConfigError(
            "name one thing to score: model=FOLDER, predictions=FILE, method=tfidf, "
            "method=encoder, or binary=RUN_FOLDER and fine_grained=RUN_FOLDER (given: "
            f"{given or 'none'})"
        )
    if named["method"] and config.out is not None:
        raise ConfigError(
            "out: a baseline's files go to its run folder; leave it out, or set run=NAME"
        )
    return chosen[0]


_OF_THE_DEVICE = (
    *("accelerator", "devices", "nodes", "strategy", "precision", "matmul"),
    *("log_every_steps", "progress"),
)
"""Options of a trainer that a baseline takes over."""


def baseline_run(config: EvaluateConfig) -> RunConfig:
    """Return the run that a baseline's folder records: nothing in it that the baseline ignores.

    So that runs differ in name and hash only where their results may. What an encoder is trained
    with stands where every training has it (``optimizer``, ``trainer``, ``global_batch_size``).
    """
    if config.method is None:
        raise ConfigError("method: choose a baseline, tfidf or encoder")
    training, encoder = config.training, config.encoder
    if config.method == "tfidf":
        own = asdict(config.tfidf)
        own["analyzer"] = own["analyzer"] or ("char" if training.data.language == "zh" else "word")
        settled: dict[str, Any] = {
            "backbone": BackboneConfig(name="tfidf", family="other"),
            "finetune": FinetuneConfig(method="none"),
            "optimizer": OptimizerConfig(learning_rate=1e-5),
            "scheduler": SchedulerConfig(),
            "trainer": TrainerConfig(accelerator="cpu"),
            "global_batch_size": 1,
            "sampling": "natural",
        }
    else:
        own = {"history": encoder.history, "max_tokens": encoder.max_tokens}
        name, rate = f"encoder-{encoder.name}", encoder.learning_rate
        settled = {
            "backbone": BackboneConfig(
                name=name, family="other", hub_id=encoder.hub_id, path=encoder.path
            ),
            "finetune": FinetuneConfig(method="full"),
            "optimizer": OptimizerConfig(learning_rate=rate, weight_decay=encoder.weight_decay),
            "scheduler": SchedulerConfig(name="linear", warmup_fraction=encoder.warmup_fraction),
            "trainer": TrainerConfig(
                **{name: getattr(training.trainer, name) for name in _OF_THE_DEVICE},
                max_epochs=encoder.max_epochs,
                patience=encoder.patience,
                per_device_batch_size=encoder.per_device_batch_size,
            ),
            "global_batch_size": encoder.batch_size,
        }
    return replace(
        training,
        baseline={"method": config.method, **own},
        rationale=False,
        prompt=PromptConfig(language=training.prompt.language, label_form="bare"),
        decoding=DecodingConfig(),
        callbacks={},
        merge=False,
        merge_tolerance=None,
        batching="padded",
        **settled,
    )


_TASK = re.compile(r"\+{0,2}task[.=]")


def load_evaluation(
    overrides: Sequence[str] = (), *, config_dir: str | Path | None = None
) -> EvaluateConfig:
    """Return the configuration of ``recap.evaluate``, a baseline's run folder named.

    It is named, and faults are told, as :func:`load_config` does, after a baseline's own choices.
    """
    from recap.cli.compose import command_config, compose, compose_run, named_options, written

    values, choices = compose_run("evaluate", overrides, config_dir)
    config = command_config(EvaluateConfig, values)
    config = replace(config, task_given=any(_TASK.match(override) for override in overrides))
    if values["run"] or config.method is None:
        return config
    groups = ("data", "task", *(["encoder"] if config.method == "encoder" else []))
    base = [f"method={config.method}", *(f"{group}={choices[group]}" for group in groups)]
    default = command_config(EvaluateConfig, compose("evaluate", base, config_dir)[0])
    parts = [written(choices, group) for group in groups]
    parts.insert(2, config.method)
    given, usual = named_options(baseline_run(config)), result_options(baseline_run(default))
    name = hashed_name(parts, given, usual)
    return replace(config, training=replace(config.training, run=name))
