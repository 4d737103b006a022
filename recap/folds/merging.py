"""A run's adapters turned into merged models, each scored again before it takes their place."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from recap.config import COMPUTE_DTYPES, TRUE_DTYPES, RunConfig
from recap.data.batches import BatchLimits
from recap.data.encode import EncodedExample
from recap.data.loaders import ScoringLoader
from recap.errors import ConfigError
from recap.folds.partition import Setup
from recap.folds.results import read_scores, write_model_cards
from recap.models.backbone import load_backbone
from recap.models.export import Merged, is_adapter_folder, mean_answer_loss, merge_adapter
from recap.models.hub import read_adapter
from recap.runs.folder import FoldFolder

N_EXAMPLES = 256
"""How many examples the final model is compared on: none are held out, so its own are taken."""


def default_tolerance(config: RunConfig) -> float:
    """Return how much merging may change the loss, in nats a token, unless the user says.

    Rounding in 32 bits stays far below 1e-5, and in 16 bits below 0.01. Weights in 4 bits differ
    from the unquantised ones, and 0.05 nats (a perplexity of 5 % more or less) are accepted.
    """
    if config.finetune.method == "qlora":
        return 0.05
    in_32_bits = config.backbone.dtype == "float32" and config.trainer.precision in (
        "32-true",
        "64-true",
    )
    return 1e-5 if in_32_bits else 0.01


def merge_models(
    setup: Setup, names: Iterable[str], *, on_merged: Callable[[str, Merged], None]
) -> None:
    """Put merged models in the place of the adapters of these folds (``fold0``, ``final``).

    A fold's merged model has to come near the loss in its scores.json on all of its test examples;
    the final one near that of its adapter on at most :data:`N_EXAMPLES` of its training examples.
    The manifest keeps both losses. A fold without an adapter is passed over.

    Raises:
        ConfigError: When one comes not near enough, after the others were merged; that adapter
            stays.
    """
    refused = []
    for name in names:
        folder = FoldFolder(path=setup.folder.path / name)
        if not is_adapter_folder(folder.model):
            continue
        try:
            merged = _merge(setup, folder)
        except ConfigError as error:
            refused.append(str(error))
            continue
        setup.folder.update_manifest(merges={name: asdict(merged)})
        on_merged(name, merged)
    write_model_cards(setup)
    if refused:
        raise ConfigError("\n".join(refused))


def _merge(setup: Setup, folder: FoldFolder) -> Merged:
    config = setup.config
    device = "cpu"
    if torch.cuda.is_available() and config.trainer.accelerator != "cpu":
        device = "cuda"
    if folder.path == setup.folder.final.path:
        every = -(-len(setup.encoding.examples) // N_EXAMPLES)
        examples: Sequence[EncodedExample] = setup.encoding.examples[::every]
        loss = _loss_of_adapter(setup, folder.model, examples, device)
    else:
        fold = next(f for f in setup.folds if setup.folder.fold(f.index) == folder)
        examples = setup.encoded(fold.test)
        known = read_scores(folder).metrics["loss"]
        assert known is not None
        loss = known
    tolerance = config.merge_tolerance
    return merge_adapter(
        folder.model,
        folder.model,
        batches=_batches(setup, examples),
        adapted_loss=loss,
        tolerance=default_tolerance(config) if tolerance is None else tolerance,
        dtype=TRUE_DTYPES.get(config.trainer.precision, config.backbone.dtype),
        device=device,
        autocast=_autocast(config),
    )


def _loss_of_adapter(
    setup: Setup, folder: Path, examples: Sequence[EncodedExample], device: str
) -> float:
    """Return the loss with the adapter beside the weights that it was trained with."""
    config = setup.config
    model, _ = load_backbone(
        name=config.backbone.name,
        family=config.backbone.family,
        hub_id=config.backbone.hub_id,
        path=config.backbone.path,
        dtype=TRUE_DTYPES.get(config.trainer.precision, config.backbone.dtype),
        quantize=config.finetune.method == "qlora",
        compute_dtype=COMPUTE_DTYPES.get(config.trainer.precision, "float32"),
        seed=config.seed,
    )
    adapted = read_adapter(model, folder).to(device)
    loss = mean_answer_loss(adapted, _batches(setup, examples), autocast=_autocast(config))
    del adapted, model
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    return loss


def _batches(setup: Setup, examples: Sequence[EncodedExample]) -> ScoringLoader:
    """Return padded batches: any model can be scored on them, however it was trained."""
    trainer = setup.config.trainer
    limits = BatchLimits(
        examples=trainer.per_device_batch_size, tokens=trainer.max_tokens_per_device
    )
    return ScoringLoader(examples, pad_id=setup.encoder.pad_id, limits=limits)


def _autocast(config: RunConfig) -> torch.dtype | None:
    mixed = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    return mixed.get(config.trainer.precision)
