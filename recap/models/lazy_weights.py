"""Weights that are read when their layer is spread over devices, not when the model is built.

The model is built on the meta device, where it takes no memory. Then each layer is filled from the
files and spread at once, so that a rank never holds the whole model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recap.errors import ConfigError
from recap.models.finetune import PEFT_PREFIX, draw_adapter, is_adapter_weight
from recap.models.hub import read_model_config

_INDEX = "model.safetensors.index.json"


class LazyWeights:
    """The weights of a Hugging Face folder, read by name, and those that adapters begin with.

    Args:
        folder: Holds ``*.safetensors``.
        seed: Of the adapters' first weights.

    Raises:
        ConfigError: When the folder holds no weights in this format.
    """

    def __init__(self, folder: Path, *, seed: int) -> None:
        self._folder = folder
        self._seed = seed
        self._file_of = _files_by_name(folder)

    def fill(self, model: Any, part: torch.nn.Module) -> None:
        """Give values to the weights of a part of a model that are still on the meta device.

        Args:
            model: The whole model, with or without adapters, whose names count.
            part: The model itself or a module within it.

        Raises:
            ConfigError: When the folder lacks a weight.
        """
        names = {id(weight): name for name, weight in model.named_parameters()}
        for module in part.modules():
            for key, weight in module.named_parameters(recurse=False):
                if weight.is_meta:
                    value = self._value(names[id(weight)], weight)
                    module._parameters[key] = torch.nn.Parameter(
                        value, requires_grad=weight.requires_grad
                    )

    def _value(self, name: str, weight: Tensor) -> Tensor:
        if is_adapter_weight(name):
            return draw_adapter(name, weight, self._seed)
        from safetensors import safe_open

        plain = name.removeprefix(PEFT_PREFIX).replace(".base_layer.", ".")
        if plain not in self._file_of:
            raise ConfigError(
                f"backbone.path={self._folder}: the weight {plain} is missing; "
                "copy all *.safetensors of the model"
            )
        with safe_open(self._file_of[plain], framework="pt") as file:
            value: Tensor = file.get_tensor(plain)
        if value.shape != weight.shape:
            raise ConfigError(
                f"backbone.path={self._folder}: the weight {plain} is {tuple(value.shape)}, its "
                f"config.json says {tuple(weight.shape)}; they do not belong together"
            )
        return value.to(weight.dtype)


def build_without_weights(folder: Path, *, dtype: torch.dtype) -> Any:
    """Return the causal language model of a folder without its weights, on the meta device.

    Raises:
        ConfigError: When something other than weights would stay without values.
    """
    from transformers import AutoModelForCausalLM

    config = read_model_config(folder)
    auto_model: Any = AutoModelForCausalLM
    with torch.device("meta"):
        model = auto_model.from_config(config, dtype=dtype)
    decoder = model.get_decoder()
    # Frequencies are computed, not stored.
    decoder.rotary_emb = type(decoder.rotary_emb)(config=config)
    left = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    if left:
        raise ConfigError(
            f"models of type {config.model_type!r} cannot be spread while they are loaded "
            f"({left[0]} is computed); set trainer.strategy=ddp"
        )
    return model


def _files_by_name(folder: Path) -> dict[str, Path]:
    from safetensors import safe_open

    index = folder / _INDEX
    if index.is_file():
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {name: folder / file for name, file in found.items()}
    names: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            names |= dict.fromkeys(file.keys(), path)
    if not names:
        raise ConfigError(
            f"backbone.path={folder} holds no *.safetensors, which trainer.strategy=fsdp reads a "
            "layer at a time; save the weights in that format, or set trainer.strategy=ddp"
        )
    return names
