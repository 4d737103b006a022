"""A trained model as a folder that plain transformers or peft loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from recap.disks import whole_folder
from recap.models.finetune import PEFT_PREFIX, causal_model, is_adapted
from recap.models.settings import SETTINGS_FILE, ModelSettings, settings_text
from recap.models.sharded_checkpoint import gathered, is_first_rank

CARD_FILE = "README.md"
"""A model's card; no library loads a model from it."""

BASE_FOLDER = "base"
"""Where the frozen weights stand, inside an adapter's folder, when they exist nowhere else."""


def save_model(
    model: Any,
    tokenizer: Any,
    folder: Path,
    *,
    end_of_turn_id: int,
    pad_id: int,
    settings: ModelSettings | None = None,
    card: str | None = None,
) -> None:
    """Write a model, its tokenizer with the chat template, and settings to generate with.

    A fully tuned model becomes a Hugging Face folder, an adapted one a PEFT adapter. An adapter
    names its frozen base by hub id or folder; a base that was made on the spot (``backbone=tiny``)
    is saved beside it under ``base/``. The folder appears whole or not at all; one that is there
    already is replaced.

    Of a model that is spread over devices, every rank calls this, and the first one writes.

    Args:
        model: A ``transformers`` causal language model, or a PEFT model around one.
        tokenizer: Saved with its own chat template.
        folder: Is created; its parents have to exist.
        end_of_turn_id: Where ``generate`` stops.
        pad_id: What ``generate`` pads with.
        settings: How the model is asked, kept beside it as ``recap.json``.
        card: What its ``README.md`` says, in place of the empty form that peft writes.
    """
    adapted = is_adapted(model)
    alone = not adapted or not model.active_peft_config.base_model_name_or_path
    state = gathered(model, lambda name: alone or ".lora_" in name)
    if not is_first_rank():
        return
    causal = causal_model(model)
    own, causal.generation_config = (
        causal.generation_config,
        _greedy(causal, end_of_turn_id, pad_id),
    )
    with whole_folder(folder) as partial:
        try:
            if adapted:
                _save_adapter(model, tokenizer, partial, folder, state)
            else:
                causal.save_pretrained(partial, state_dict=state)
            causal.generation_config.save_pretrained(partial)
        finally:
            causal.generation_config = own
        tokenizer.save_pretrained(partial)
        if settings is not None:
            (partial / SETTINGS_FILE).write_text(settings_text(settings), encoding="utf-8")
        if card is not None:
            (partial / CARD_FILE).write_text(card, encoding="utf-8")


def _save_adapter(
    model: Any, tokenizer: Any, partial: Path, folder: Path, state: dict[str, Tensor]
) -> None:
    config = model.active_peft_config
    named = config.base_model_name_or_path
    if not named:
        base = partial / BASE_FOLDER
        _save_base(model, base, state)
        tokenizer.save_pretrained(base)
        config.base_model_name_or_path = str((folder / BASE_FOLDER).resolve())
    try:
        # Embeddings are not tuned; by default peft looks the base up, on the hub too, to find out.
        model.save_pretrained(partial, state_dict=state, save_embedding_layers=False)
    finally:
        config.base_model_name_or_path = named


def _save_base(model: Any, folder: Path, state: dict[str, Tensor]) -> None:
    """Save the frozen weights under the names that they have without adapters."""
    plain = {
        name.removeprefix(PEFT_PREFIX).replace(".base_layer.", "."): tensor
        for name, tensor in state.items()
        if ".lora_" not in name
    }
    causal_model(model).save_pretrained(folder, state_dict=plain)


def _greedy(causal: Any, end_of_turn_id: int, pad_id: int) -> Any:
    from transformers import GenerationConfig

    return GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=causal.config.bos_token_id,
        eos_token_id=end_of_turn_id,
        pad_token_id=pad_id,
        do_sample=False,
    )
