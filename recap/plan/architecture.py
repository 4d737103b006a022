"""The shape of a backbone without its weights: sizes, numbers of parameters, tokenizer."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recap.errors import ConfigError
from recap.models.backbone import build_skeleton, require_family, tiny_config, tiny_tokenizer
from recap.models.finetune import apply_finetune, causal_model
from recap.models.hub import cached_folder, local_path, read_model_config, read_tokenizer


@dataclass(frozen=True, kw_only=True, eq=False)
class Architecture:
    """The sizes that memory and operations follow from."""

    config: Any
    """The ``transformers`` configuration."""
    source: str
    """Where it was found, in words."""
    folder: Path | None
    """The folder with the tokenizer, if there is one on this machine."""

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return int(self.config.hidden_size)

    @property
    def layers(self) -> int:
        """Number of decoder layers."""
        return int(self.config.num_hidden_layers)

    @property
    def heads(self) -> int:
        """Number of attention heads."""
        return int(self.config.num_attention_heads)

    @property
    def query(self) -> int:
        """Width of all queries together."""
        return self.heads * self.head_dim

    @property
    def key(self) -> int:
        """Width of all keys together, and of all values."""
        return int(self.config.num_key_value_heads) * self.head_dim

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return int(getattr(self.config, "head_dim", None) or self.hidden // self.heads)

    @property
    def intermediate(self) -> int:
        """Width inside the feed-forward blocks."""
        return int(self.config.intermediate_size)

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding and of the output layer."""
        return int(self.config.vocab_size)


@dataclass(frozen=True, kw_only=True)
class ParameterCounts:
    """How many parameters a model has, by what becomes of them."""

    embedding: int
    """Of the input embedding, and of the output layer where the two are tied."""
    head: int
    """Of an output layer of its own; 0 where it is tied to the embedding."""
    layer_matrices: int
    """Of the matrices of all decoder layers, without adapters: what ``qlora`` keeps in 4 bits."""
    vectors: int
    """Of norms and biases."""
    adapters: int
    """Of low-rank adapters."""
    trainable: int
    """Of those that are tuned."""
    small: int
    """Of tuned tensors of fewer than 4,096 weights."""
    largest_trainable: int
    """Of the largest tuned tensor."""

    @property
    def total(self) -> int:
        """All of them, adapters apart."""
        return self.embedding + self.head + self.layer_matrices + self.vectors


def find_architecture(
    *,
    name: str,
    family: str | None,
    hub_id: str | None = None,
    path: str | Path | None = None,
    declared: Mapping[str, Any] | None = None,
) -> Architecture:
    """Return a backbone's architecture without its weights and without asking the hub.

    From ``config.json`` in the folder ``path``, else in the local cache of ``hub_id``, else from
    the sizes that the configuration declares; ``tiny`` is known.

    Raises:
        ConfigError: When nothing says how large the backbone is, or a folder holds another family.
    """
    from transformers import AutoConfig

    folder = local_path(path) if path is not None else (cached_folder(hub_id) if hub_id else None)
    if declared and folder is not None and not folder.exists():
        folder = None
    if folder is not None:
        config = read_model_config(folder)
        require_family(config, family, name=name, folder=folder)
        return Architecture(config=config, source=f"config.json of {folder}", folder=folder)
    if declared:
        # Where nobody names the positions, those of the family's first model limit nothing.
        config = AutoConfig.for_model(
            str(family), **{"max_position_embeddings": 1 << 30, **declared}
        )
        return Architecture(config=config, source=f"conf/backbone/{name}.yaml", folder=None)
    if name == "tiny":
        config = tiny_config()
        return Architecture(config=config, source="the tiny backbone itself", folder=None)
    raise ConfigError(
        f"nothing says how large backbone {name!r} is: give backbone.path=FOLDER with its "
        "config.json, or its sizes under architecture: in its YAML file, as conf/backbone/qwen7b "
        "has them"
    )


def find_tokenizer(architecture: Architecture, name: str) -> Any | None:
    """Return the backbone's tokenizer, ``None`` when it is not on this machine."""
    if architecture.folder is None:
        return tiny_tokenizer() if name == "tiny" else None
    try:
        return read_tokenizer(architecture.folder)
    except ConfigError:
        return None


def count_parameters(
    architecture: Architecture,
    *,
    method: str = "full",
    rank: int = 8,
    target_modules: Sequence[str] | None = None,
) -> ParameterCounts:
    """Return the numbers of parameters under a tuning method, from a model on the meta device.

    Raises:
        ConfigError: As :func:`recap.models.finetune.apply_finetune`.
    """
    model = build_skeleton(architecture.config)
    # In 4 bits or not, adapters are the same; bitsandbytes cannot build on the meta device.
    with warnings.catch_warnings():
        # peft asks transformers 5.23 for gradient checkpointing by a name that it will drop.
        warnings.simplefilter("ignore", FutureWarning)
        tuned = apply_finetune(
            model,
            method="lora" if method == "qlora" else method,
            rank=rank,
            target_modules=target_modules,
        )
    causal = causal_model(tuned)
    embedding = causal.get_input_embeddings().weight
    head = causal.get_output_embeddings().weight
    adapters = [p.numel() for name, p in tuned.named_parameters() if ".lora_" in name]
    plain = [p for name, p in tuned.named_parameters() if ".lora_" not in name]
    trainable = [p.numel() for p in tuned.parameters() if p.requires_grad]
    matrices = sum(p.numel() for p in plain if p.ndim >= 2)
    own_head = 0 if head is embedding else head.numel()
    return ParameterCounts(
        embedding=embedding.numel(),
        head=own_head,
        layer_matrices=matrices - embedding.numel() - own_head,
        vectors=sum(p.numel() for p in plain if p.ndim < 2),
        adapters=sum(adapters),
        trainable=sum(trainable),
        small=sum(n for n in trainable if n < 4096),
        largest_trainable=max(trainable, default=0),
    )
