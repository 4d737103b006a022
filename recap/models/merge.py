"""Adapters merged onto their unquantised base: a model of its own, scored again before it is kept.

Merging adds the adapters' product to the weights that they stand beside. Over a base in full
precision nothing but rounding changes. QLoRA's adapters were trained beside weights in 4 bits and
made up for their errors too, so that beside the unquantised weights they are not quite at home:
how much that costs is measured, never assumed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from recap.data.batches import Batch
from recap.errors import ConfigError
from recap.models.export import BASE_FOLDER, CARD_FILE, save_model
from recap.models.folders import read_adapter, read_model, read_tokenizer
from recap.models.loss import answer_loss
from recap.models.settings import read_settings

ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Merged:
    """What merging changed: the answers' loss before and after, token means in nats."""

    adapted_loss: float
    merged_loss: float
    tolerance: float


def is_adapter_folder(folder: Path) -> bool:
    """Return whether a folder holds a PEFT adapter and not a whole model."""
    return (folder / ADAPTER_CONFIG).is_file()


def merge_adapter(
    folder: Path,
    output: Path,
    *,
    batches: Iterable[Batch],
    adapted_loss: float,
    tolerance: float,
    dtype: str = "float32",
    device: str | torch.device = "cpu",
    autocast: torch.dtype | None = None,
) -> Merged:
    """Write an adapter merged onto its unquantised base as a Hugging Face folder.

    Args:
        folder: A PEFT adapter as :func:`recap.models.export.save_model` writes it.
        output: Where the merged model goes, whole or not at all; may be ``folder`` itself.
        batches: Examples to score the merged model on, the ones behind ``adapted_loss``.
        adapted_loss: :func:`mean_answer_loss` of the model with its adapter, as it was trained.
        tolerance: Largest difference of the two losses, in nats a token.
        dtype: Type of the base's weights and of the merged ones, by its name in torch.
        device: Where the merged model is scored; it has to fit there.
        autocast: Type to compute in, as in training with mixed precision.

    Raises:
        ConfigError: When the folder holds no adapter, its base is not there, or the losses differ
            by more than the tolerance; nothing is written then.
    """
    if not is_adapter_folder(folder):
        raise ConfigError(f"{folder}: holds no adapter ({ADAPTER_CONFIG}), so nothing to merge")
    model, tokenizer, settings = _load_merged(folder, dtype)
    merged_loss = mean_answer_loss(model.to(device), batches, autocast=autocast)
    difference = abs(merged_loss - adapted_loss)
    # Written so that a loss that is not a number is refused.
    if not difference <= tolerance:
        raise ConfigError(
            f"{folder}: the merged model's loss is {merged_loss:.6f} nats a token, that of the "
            f"adapter as it was trained {adapted_loss:.6f}; they differ by {difference:.1e}, more "
            f"than {tolerance:.1e}. The adapter is kept as it was; use it unmerged (merge=false), "
            "or set merge_tolerance if that much is acceptable"
        )
    asked, card = read_settings(folder), folder / CARD_FILE
    save_model(
        model.to("cpu"),
        tokenizer,
        output,
        end_of_turn_id=settings.eos_token_id,
        pad_id=settings.pad_token_id,
        settings=asked and replace(asked, dtype=dtype, quantize=False),
        card=card.read_text(encoding="utf-8") if card.is_file() else None,
    )
    return Merged(adapted_loss=adapted_loss, merged_loss=merged_loss, tolerance=tolerance)


def mean_answer_loss(
    model: Any, batches: Iterable[Batch], *, autocast: torch.dtype | None = None
) -> float:
    """Return the answers' loss over all batches, the mean over their tokens in nats.

    Args:
        model: A ``transformers`` causal language model, or a PEFT model around one.
        batches: At least one answer token among them.
        autocast: Type to compute in beside the weights' own.
    """
    device = next(model.parameters()).device
    mixed = nullcontext() if autocast is None else torch.autocast(device.type, dtype=autocast)
    total, n_tokens = 0.0, 0
    model.eval()
    with torch.no_grad(), mixed:
        for batch in batches:
            total += float(answer_loss(model, batch.to(device)))
            n_tokens += int(batch.answer_mask.sum())
    return total / n_tokens


def _load_merged(folder: Path, dtype: str) -> tuple[Any, Any, Any]:
    """Return the merged model, the adapter's tokenizer and its generation settings."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    base = base_of(folder)
    try:
        model = read_model(AutoModelForCausalLM, base, dtype=getattr(torch, dtype))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folder}: the adapter's base cannot be loaded from {base}; put its weights back "
            f"there, or correct base_model_name_or_path in {ADAPTER_CONFIG}"
        ) from error
    adapted = read_adapter(model, folder)
    return (
        adapted.merge_and_unload(),
        read_tokenizer(folder),
        GenerationConfig.from_pretrained(folder),
    )


def base_of(folder: Path) -> str:
    """Return where an adapter's base is, or its hub id; one inside the folder moves with it."""
    inside = folder / BASE_FOLDER
    if inside.is_dir():
        return str(inside)
    named = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    return str(named["base_model_name_or_path"])
