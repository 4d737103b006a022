"""From a configuration to the things it names: task, corpus, model, data module, trainer parts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from recap.config import (
    BackboneConfig,
    DataConfig,
    RunConfig,
    TaskConfig,
    compute_dtype,
    result_options,
    weights_dtype,
)
from recap.data.corpus import Corpus, read_corpus
from recap.data.folds import content_key
from recap.errors import ConfigError
from recap.records import Example
from recap.registry import Registry
from recap.tasks.library import get_task
from recap.tasks.task import Task, define_task, read_prompt_file
from recap.taxonomy import taxonomy_from_dict

if TYPE_CHECKING:
    import lightning

    from recap.models.backbone import LazyWeights
    from recap.models.export import ModelSettings
    from recap.runs.history import Tracker


CALLBACKS: Registry[Any] = Registry("callback")
"""Callbacks that configuration can name; ``package.module:Class`` needs no registration."""


def build_task(config: RunConfig) -> Task:
    """Return the task of a configuration, with the prompt that it asks for.

    Raises:
        ConfigError: For labels outside the taxonomy, or a prompt file that is missing or lacks a
            part.
    """
    prompt = config.prompt
    options: dict[str, Any] = {
        "language": prompt.language or data_language(config.data),
        "rationale": config.rationale,
        "label_form": prompt.label_form,
        "style": prompt.style,
        "history": prompt.history,
        "layout": prompt.layout,
    }
    if prompt.file is not None:
        options["prompt_text"] = read_prompt_file(Path(prompt.file), language=options["language"])
    return configured_task(config.task, **options)


def configured_task(definition: TaskConfig, **options: Any) -> Task:
    """Return the task that a configuration defines or names; ``options`` are fields of a task.

    Raises:
        ConfigError: For labels outside the taxonomy, or a name that is not known.
    """
    if definition.taxonomy is None:
        return get_task(definition.name, **options)
    if isinstance(definition.taxonomy, str):
        raise ConfigError(
            f"task.taxonomy: {definition.taxonomy!r} is a name; "
            "load the configuration with load_config"
        )
    return define_task(
        name=definition.name,
        taxonomy=taxonomy_from_dict(definition.taxonomy),
        labels=definition.labels,
        within=definition.within,
        role=definition.role,
        instruction=definition.instruction,
        **options,
    )


def model_settings(config: RunConfig, task: Task) -> ModelSettings:
    """Return what a model of this run has to be told of how it was trained."""
    from recap.models.export import ModelSettings

    precision = config.trainer.precision
    dtype = weights_dtype(precision, config.backbone.dtype)
    quantize = config.finetune.method == "qlora"
    return ModelSettings(
        task=task,
        max_prompt_tokens=config.prompt.max_tokens,
        max_new_tokens=config.decoding.max_new_tokens,
        dtype=dtype,
        compute_dtype=compute_dtype(precision, "float32" if quantize else dtype),
        quantize=quantize,
    )


def build_corpus(config: RunConfig, task: Task) -> Corpus:
    """Return the data set's labeled examples, with all labels, before the task selects.

    Raises:
        DataError: When the file is missing, or holds rows at fault and ``data.on_error`` is
            ``fail``.
    """
    data = config.data
    corpus = read_corpus(
        reader=data.reader,
        path=Path(data.path) if data.path is not None else None,
        name=data.name,
        taxonomy=task.taxonomy,
        on_error=data.on_error,
        duplicates=data.duplicates,
        merge_adjacent=data.merge_adjacent,
        no_intervention=data.no_intervention,
        options=reader_options(data),
    )
    if config.cv.max_examples is None or len(corpus.examples) <= config.cv.max_examples:
        return corpus
    drawn = draw_examples(corpus.examples, config.cv.max_examples)
    counts = {**corpus.counts, "not_drawn": len(corpus.examples) - len(drawn)}
    return replace(corpus, examples=drawn, counts=counts)


def data_language(data: DataConfig) -> Literal["en", "zh"]:
    """Return the language that prompts and pages are in where nobody names one."""
    return "zh" if data.language == "zh" else "en"


def reader_options(data: DataConfig) -> dict[str, Any]:
    """Return the options of a data set's reader; the demo corpus is written in its language."""
    options = dict(data.options)
    if data.reader == "demo" and data.language is not None:
        options.setdefault("language", data.language)
    return options


def draw_examples(examples: Sequence[Example], n: int) -> tuple[Example, ...]:
    """Return ``n`` examples, as even over labels as can be, the same for any order of rows."""
    by_label: dict[str, list[int]] = defaultdict(list)
    for index in sorted(
        range(len(examples)), key=lambda i: (content_key(examples[i]), examples[i].id)
    ):
        by_label[examples[index].label or ""].append(index)
    ranked = [
        (rank, label, index)
        for label, group in by_label.items()
        for rank, index in enumerate(group)
    ]
    chosen = sorted(index for _, _, index in sorted(ranked)[:n])
    return tuple(examples[index] for index in chosen)


def backbone_source(backbone: BackboneConfig) -> dict[str, Any]:
    """Return which weights and tokenizer a backbone has, as arguments of what loads them."""
    return {
        "name": backbone.name,
        "family": backbone.family,
        "hub_id": backbone.hub_id,
        "path": backbone.path,
    }


def build_model(config: RunConfig) -> tuple[Any, Any, LazyWeights | None]:
    """Return the model to tune, its tokenizer, and its weights if they are still to be read.

    Raises:
        ConfigError: When the backbone's weights are missing or of another family.
    """
    from recap.models.backbone import load_backbone, load_backbone_lazily
    from recap.models.finetune import apply_finetune, checkpoint_gradients

    backbone, finetune = config.backbone, config.finetune
    source, weights = backbone_source(backbone), None
    if config.trainer.strategy == "fsdp" and (backbone.path or backbone.hub_id):
        model, tokenizer, weights = load_backbone_lazily(
            **source, dtype=backbone.dtype, seed=config.seed
        )
    else:
        model, tokenizer = load_backbone(
            **source,
            dtype=backbone.dtype,
            quantize=finetune.method == "qlora",
            compute_dtype=compute_dtype(config.trainer.precision),
            seed=config.seed,
        )
    tuned = apply_finetune(
        model,
        method=finetune.method,
        rank=finetune.rank,
        alpha=finetune.alpha,
        dropout=finetune.dropout,
        target_modules=finetune.target_modules,
        seed=config.seed,
    )
    if config.trainer.gradient_checkpointing:
        checkpoint_gradients(tuned)
    return tuned, tokenizer, weights


def build_tracker(
    config: RunConfig, folder: Path, *, prompted: Mapping[str, Any] | None = None
) -> Tracker:
    """Return what is told of the run beside the run folder's own files.

    ``prompted`` is what config.yaml holds besides of a prompted system.
    """
    from recap.runs.history import Tracker
    from recap.runs.wandb import WandbTracker

    if config.logger.name != "wandb":
        return Tracker()
    return WandbTracker(
        folder=folder,
        group=config.run,
        project=config.logger.project,
        mode=config.logger.mode,
        options=result_options(config, prompted),
    )


def build_callbacks(callbacks: Mapping[str, Any]) -> list[lightning.Callback]:
    """Return the user's own callbacks.

    Raises:
        ConfigError: When one cannot be imported or refuses its arguments.
    """
    import lightning

    built: list[lightning.Callback] = []
    for key, entry in callbacks.items():
        arguments = dict(entry)
        name = arguments.pop("name", None)
        if not isinstance(name, str):
            raise ConfigError(f"callbacks.{key}: needs a name, such as name: package.module:Class")
        made = CALLBACKS.get(name)
        if not isinstance(made, type) or not issubclass(made, lightning.Callback):
            raise ConfigError(f"callbacks.{key}: {name} is no subclass of lightning.Callback")
        try:
            built.append(made(**arguments))
        except TypeError as error:
            raise ConfigError(f"callbacks.{key}: {name} refuses its arguments ({error})") from error
    return built
