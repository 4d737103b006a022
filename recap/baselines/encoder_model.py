"""The encoder with its head and its tokenizer: from a folder, from the hub, or from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recap.errors import ConfigError
from recap.models.folders import read_model, read_tokenizer
from recap.models.hub import first_line, hub_folder
from recap.models.tiny import tiny_tokenizer

_WITH_OFFSET = ("roberta", "xlm-roberta", "camembert")
"""Families that count positions from behind the padding's id (transformers 5.23)."""


@dataclass(frozen=True, kw_only=True)
class TinyEncoderSizes:
    """Sizes of the tiny encoder; the defaults make about a million weights."""

    hidden: int = 128
    layers: int = 3
    heads: int = 4
    intermediate: int = 384
    max_positions: int = 512
    dropout: float = 0.1
    initial_deviation: float = 0.06
    """Of the random weights; BERT's 0.02 is meant for six times the width."""


@dataclass(frozen=True, kw_only=True)
class LoadedEncoder:
    """An encoder with a head over some labels, and its tokenizer."""

    model: Any
    tokenizer: Any
    longest: int
    """Tokens that it can read."""


def load_encoder(
    *,
    name: str,
    labels: Sequence[str],
    hub_id: str | None = None,
    path: str | Path | None = None,
    seed: int = 0,
) -> LoadedEncoder:
    """Return an encoder whose classification head is new, one output a label.

    Args:
        name: ``tiny`` without a path is made from random weights.
        labels: Their order is the class index.
        hub_id: Looked for in the local cache first, then on the hub.
        path: A folder with weights and tokenizer in Hugging Face's format; goes before ``hub_id``.
        seed: Of the head, and of all weights of ``tiny``; the global random state is left alone.

    Raises:
        ConfigError: Within seconds when there are no weights, or they are not an encoder's.
    """
    import torch

    source = _source(name, hub_id, path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, tokenizer = (
            _tiny(labels) if source is None else _load(source, name=name, labels=labels)
        )
    pad_id = tokenizer.pad_token_id
    if model.config.pad_token_id is None:
        model.config.pad_token_id = pad_id
    return LoadedEncoder(model=model, tokenizer=tokenizer, longest=_longest(model, tokenizer))


def _source(name: str, hub_id: str | None, path: str | Path | None) -> Path | None:
    if path is not None:
        folder = Path(path)
        if not (folder / "config.json").is_file():
            raise ConfigError(
                f"encoder.path={folder} is no folder with a model (it holds no config.json); it "
                "has to hold config.json, *.safetensors and the tokenizer's files"
            )
        return folder
    if hub_id is not None:
        return hub_folder(hub_id, name, "encoder", group="encoder")
    if name != "tiny":
        raise ConfigError(f"encoder {name!r} has neither path nor hub_id; give encoder.path=FOLDER")
    return None


def _load(source: Path, *, name: str, labels: Sequence[str]) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification

    try:
        model, found = read_model(
            AutoModelForSequenceClassification,
            source,
            **_head(labels),
            output_loading_info=True,
            # A head for other labels, as a fine-tuned classifier has one, is replaced.
            ignore_mismatched_sizes=True,
        )
        tokenizer = read_tokenizer(source)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"encoder {name!r} cannot be loaded from {source}: {first_line(error)}; "
            "encoder.path=FOLDER has to hold config.json, *.safetensors and the tokenizer's files"
        ) from error
    body = f"{model.base_model_prefix}."
    missing = [
        key for key in found["missing_keys"] if key.startswith(body) and ".pooler." not in key
    ]
    if missing:
        raise ConfigError(
            f"encoder {name!r}: {len(missing)} weights of the encoder itself are missing in "
            f"{source}; copy all files of the model"
        )
    return model, tokenizer


def _tiny(labels: Sequence[str]) -> tuple[Any, Any]:
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer, sizes = tiny_tokenizer(), TinyEncoderSizes()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.intermediate,
        max_position_embeddings=sizes.max_positions,
        initializer_range=sizes.initial_deviation,
        hidden_dropout_prob=sizes.dropout,
        attention_probs_dropout_prob=sizes.dropout,
        pad_token_id=tokenizer.pad_token_id,
        **_head(labels),
    )
    return BertForSequenceClassification(config), tokenizer


def _head(labels: Sequence[str]) -> dict[str, Any]:
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: i for i, label in enumerate(labels)},
        "problem_type": "single_label_classification",
    }


def _longest(model: Any, tokenizer: Any) -> int:
    config = model.config
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or positions < 1:
        positions = tokenizer.model_max_length
    elif config.model_type in _WITH_OFFSET:
        positions -= config.pad_token_id + 1
    return int(min(positions, tokenizer.model_max_length))
