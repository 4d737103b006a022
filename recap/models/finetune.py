"""Which weights are tuned: all of them, low-rank adapters, or none."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from recap.config import FinetuneMethod
from recap.errors import ConfigError, did_you_mean
from recap.models.hub import silence_bitsandbytes

METHODS = get_args(FinetuneMethod)

_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TARGET_MODULES = {"qwen2": _PROJECTIONS, "qwen3": _PROJECTIONS, "llama": _PROJECTIONS}
"""The layers that get adapters, by family: every projection of attention and feed-forward
blocks.
"""

_PEFT_PREFIX = "base_model.model."
"""What peft puts before the names of a model that it wraps."""


def apply_finetune(
    model: Any,
    *,
    method: str,
    rank: int = 8,
    alpha: float = 16,
    dropout: float = 0.0,
    target_modules: Sequence[str] | None = None,
    seed: int = 0,
) -> Any:
    """Return the model with exactly those weights trainable that the method tunes.

    Args:
        model: A ``transformers`` causal language model; changed in place.
        method: ``full``: every weight; ``lora``: adapters through ``peft``, the rest frozen;
            ``qlora``: the same over a model that was loaded in 4 bits; ``none``: nothing.
        rank: Rank of the adapters (paper: 8).
        alpha: The adapters are scaled by ``alpha / rank``.
        dropout: Dropout inside the adapters.
        target_modules: Names of the layers that get adapters; ``None`` for the family's
            projections.
        seed: Of the adapters' first weights; the global random state is left alone.

    Raises:
        ConfigError: When the method is unknown, no layer has one of the names, or ``qlora`` meets a
            model that is not in 4 bits.
    """
    if method not in METHODS:
        raise ConfigError(
            f"there is no finetune.method {method!r}{did_you_mean(method, METHODS)}; "
            f"known: {', '.join(METHODS)}"
        )
    if method in ("full", "none"):
        return model.requires_grad_(method == "full")
    if method == "qlora" and not getattr(model, "is_loaded_in_4bit", False):
        raise ConfigError(
            "finetune.method=qlora needs a model in 4 bits; "
            "load it with load_backbone(quantize=True), or use lora"
        )
    targets = list(target_modules or _targets_of(model))
    _check_targets(model, targets)
    silence_bitsandbytes()
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # a scale; peft divides it by the rank
        lora_dropout=dropout,
        target_modules=targets,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted = get_peft_model(model, config)
    config.target_modules = sorted(targets)  # type: ignore[assignment]  # a set is written in any order
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if is_adapter_weight(name) and not weight.is_meta:
                weight.copy_(draw_adapter(name, weight, seed))
    return adapted


def plain_name(name: str) -> str:
    """Return the name that a weight of an adapted model has without adapters."""
    return name.removeprefix(_PEFT_PREFIX).replace(".base_layer.", ".")


def is_adapter_weight(name: str) -> bool:
    """Return whether a parameter of that name is a factor of an adapter of a linear layer."""
    return ".lora_A." in name or ".lora_B." in name


def draw_adapter(name: str, like: Tensor, seed: int) -> Tensor:
    """Return the first value of an adapter's factor, the same in whatever order factors are drawn.

    The distributions are peft's own (0.21): the first factor uniform within 1 / sqrt(fan in), the
    second zero, so that an adapter changes nothing to begin with.

    Args:
        name: Name of the parameter.
        like: Gives shape and type; its values, and whether it has any, do not matter.
        seed: Together with the name, of the random numbers.
    """
    if ".lora_B." in name:
        return torch.zeros(like.shape, dtype=like.dtype)
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
    bound = like.shape[1] ** -0.5
    drawn = torch.empty(like.shape).uniform_(-bound, bound, generator=generator)
    return drawn.to(like.dtype)


def checkpoint_gradients(model: Any) -> None:
    """Have every layer computed again in the backward: the same gradients, less memory.

    Without re-entrance, so that a frozen embedding below adapters needs no gradient of its own, and
    layers meet the very arguments again that they met first.
    """
    with warnings.catch_warnings():
        # transformers 5.23 announces another name for this method, which earlier releases lack.
        warnings.simplefilter("ignore", FutureWarning)
        causal_model(model).gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": False}
        )


def causal_model(model: Any) -> Any:
    """Return the causal language model out of a PEFT wrapper; the adapters stay in place."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def is_adapted(model: Any) -> bool:
    """Return whether a model carries adapters beside frozen weights."""
    return hasattr(model, "peft_config")


def _targets_of(model: Any) -> tuple[str, ...]:
    family = model.config.model_type
    if family not in TARGET_MODULES:
        raise ConfigError(
            f"no adapter layers are known for models of type {family!r}; "
            "name them in finetune.target_modules"
        )
    return TARGET_MODULES[family]


def _check_targets(model: Any, targets: list[str]) -> None:
    """Refuse a misspelt name among good ones, which peft passes over in silence."""
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    for target in targets:
        if target not in names:
            raise ConfigError(
                f"finetune.target_modules: the model has no layer {target!r}"
                f"{did_you_mean(target, names)}; name a layer of the model"
            )
