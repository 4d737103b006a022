"""A run's adapters turned into merged models, each scored again before it takes their place."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from recap.config import (
    RunConfig,
    TrainerConfig,
    autocast_dtype,
    compute_dtype,
    weights_dtype,
)
from recap.data.batches import BatchLimits
from recap.data.encode import EncodedExample
from recap.data.loaders import ScoringLoader
from recap.errors import ConfigError
from recap.folds.results import read_scores, write_model_cards
from recap.folds.run import Run
from recap.models.backbone import load_backbone
from recap.models.export import Merged, is_adapter_folder, mean_answer_loss, merge_adapter
from recap.models.hub import read_adapter
from recap.runs.build import backbone_source
from recap.runs.folder import FoldFolder

N_EXAMPLES = 256
"""How many examples the final model is compared on: none are held out, so its own are taken."""


def default_tolerance(config: RunConfig) -> float:
    """Return how much merging may change the loss, in nats a token, unless the user says.

    Rounding in 32 bits stays far below 1e-5, and in 16 bits below 0.01. Weights in 4 bits differ
    from the unquantized ones, and 0.05 nats (a perplexity of 5 % more or less) are accepted.
    """
    if config.finetune.method == "qlora":
        return 0.05
    in_32_bits = config.backbone.dtype == "float32" and config.trainer.precision in (
        "32-true",
        "64-true",
    )
    return 1e-5 if in_32_bits else 0.01


def merge_models(
    run: Run,
    folders: Iterable[FoldFolder],
    *,
    pad_id: int,
    on_merged: Callable[[str, Merged], None],
) -> None:
    """Put merged models in the place of the adapters of these folds, or of the final model.

    A fold's merged model has to come near the loss in its scores.json on all of its test examples;
    the final one near that of its adapter on at most :data:`N_EXAMPLES` of its training examples.
    The manifest keeps both losses. A fold without an adapter is passed over.

    Raises:
        ConfigError: When one comes not near enough, after the others were merged; that adapter
            stays.
    """
    refused = []
    for folder in folders:
        if not is_adapter_folder(folder.model):
            continue
        name = folder.path.name
        try:
            merged = _merge(run, folder, pad_id)
        except ConfigError as error:
            refused.append(str(error))
            continue
        run.folder.update_manifest(merges={name: asdict(merged)})
        on_merged(name, merged)
    write_model_cards(run)
    if refused:
        raise ConfigError("\n".join(refused))


def _merge(run: Run, folder: FoldFolder, pad_id: int) -> Merged:
    config = run.config
    device = "cpu"
    if torch.cuda.is_available() and config.trainer.accelerator != "cpu":
        device = "cuda"
    fold = next((f for f in run.folds if run.folder.fold(f.index) == folder), None)
    if fold is None:
        assert run.encoding is not None
        every = -(-len(run.selected) // N_EXAMPLES)
        batches = _batches(run.encoding.examples[::every], config.trainer, pad_id)
        loss = _loss_of_adapter(config, folder.model, batches, device)
    else:
        batches = _batches(run.encoded(fold.test), config.trainer, pad_id)
        known = read_scores(folder).metrics["loss"]
        assert known is not None
        loss = known
    tolerance = config.merge_tolerance
    return merge_adapter(
        folder.model,
        folder.model,
        batches=batches,
        adapted_loss=loss,
        tolerance=default_tolerance(config) if tolerance is None else tolerance,
        dtype=weights_dtype(config.trainer.precision, config.backbone.dtype),
        device=device,
        autocast=_autocast(config.trainer.precision),
    )


def _loss_of_adapter(config: RunConfig, folder: Path, batches: ScoringLoader, device: str) -> float:
    """Return the loss with the adapter beside the weights that it was trained with."""
    precision = config.trainer.precision
    model, _ = load_backbone(
        **backbone_source(config.backbone),
        dtype=weights_dtype(precision, config.backbone.dtype),
        quantize=config.finetune.method == "qlora",
        compute_dtype=compute_dtype(precision),
        seed=config.seed,
    )
    adapted = read_adapter(model, folder).to(device)
    loss = mean_answer_loss(adapted, batches, autocast=_autocast(precision))
    del adapted, model
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    return loss


def _batches(
    examples: Sequence[EncodedExample], trainer: TrainerConfig, pad_id: int
) -> ScoringLoader:
    """Return padded batches: any model can be scored on them, however it was trained."""
    limits = BatchLimits(
        examples=trainer.per_device_batch_size, tokens=trainer.max_tokens_per_device
    )
    return ScoringLoader(examples, pad_id=pad_id, limits=limits)


def _autocast(precision: str) -> torch.dtype | None:
    mixed = autocast_dtype(precision)
    return None if mixed is None else getattr(torch, mixed)
