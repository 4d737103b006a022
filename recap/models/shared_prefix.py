"""Attention for rows in which the examples' common beginning stands once.

In a row ``[prefix | rest 1 | rest 2 | …]`` the prefix attends causally to itself, and each rest to
the prefix and causally to itself: what it would see in a row of its own, so that hidden states,
loss and gradients are those of separate rows. Without a prefix this is packing.

The idea is not ours: prefix sharing in preference optimisation (Wang and Hegde, 2024), Prefix
Grouper (2025) and, for inference, Hydragen (Juravsky et al., 2024). Here it is an attention
function under transformers' ``AttentionInterface``, looked up for the calls that carry a layout and
for no other: decoding keeps the model's own attention.

For a loss the last layer is computed for the tokens that have one (:mod:`recap.models.last_layer`).
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from recap.data.batches import Batch, Batching, Layout
from recap.errors import ConfigError
from recap.models.feed_forward import feed_in_parts
from recap.models.finetune import causal_model
from recap.models.last_layer import ASKED, WANTED, Asked, attention_of_asked, crop_last_layer

ATTENTION = "recap_shared_prefix"
"""The name of the attention function in transformers' ``AttentionInterface``."""

SERVED = ("llama", "qwen2", "qwen3")
"""Architectures (``config.model_type``) whose loss and gradients are tested to be exact."""

_LAYOUT = "recap_layout"


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchingChoice:
    """How batches are laid out, and why not as they would best be (empty when they are)."""

    batching: Batching
    reason: str = ""


def choose_batching(model: Any, requested: str = "auto") -> BatchingChoice:
    """Return how batches for a model are laid out.

    Args:
        model: A ``transformers`` causal language model, or a PEFT model around one.
        requested: ``auto`` takes the fastest that is exact: ``shared_prefix``, or ``packed``, or
            ``padded``. Any of these three is taken as it is, or refused.

    Raises:
        ConfigError: When what was requested would not be exact for this model.
    """
    causal = causal_model(model)
    not_shared, not_packed = _why_not_shared(causal), _why_not_packed(causal)
    if requested == "padded" or (requested == "auto" and not_shared and not_packed):
        return BatchingChoice(batching="padded", reason=not_packed if requested == "auto" else "")
    if requested == "packed" or (requested == "auto" and not_shared):
        if not_packed:
            raise ConfigError(f"batching=packed: {not_packed}; set batching=padded")
        return BatchingChoice(batching="packed", reason=not_shared if requested == "auto" else "")
    if not_shared:
        other = "padded" if not_packed else "packed"
        raise ConfigError(f"batching=shared_prefix: {not_shared}; set batching={other}")
    return BatchingChoice(batching="shared_prefix")


def hidden_states(model: Any, batch: Batch) -> Tensor:
    """Return the last hidden states ``(batch, time, hidden)`` of a batch, whatever its layout.

    Raises:
        ConfigError: When the batch shares a prefix and the model cannot.
    """
    return _last_states(model, batch)


def predicting_states(model: Any, batch: Batch) -> Tensor:
    """Return the last hidden states ``(positions, hidden)`` that predict the answers' tokens.

    The state at a position predicts the token after it. That also holds within a row of several
    examples: each has a last prompt token of its own before its answer.

    Raises:
        ConfigError: When the batch shares a prefix and the model cannot.
    """
    predicts = batch.answer_mask[:, 1:]
    if batch.layout is None or not predicts.any() or _why_not_shared(causal_model(model)):
        return _last_states(model, batch)[:, :-1][predicts]
    asked = Asked(positions=predicts[0].nonzero()[:, 0], layout=batch.layout)
    return _last_states(model, batch, asked)[0]


def _last_states(model: Any, batch: Batch, asked: Asked | None = None) -> Tensor:
    """Return the last hidden states of a batch; where something is asked of its row, only those."""
    causal = causal_model(model)
    decoder = causal.get_decoder()
    options: dict[str, Any] = {"input_ids": batch.input_ids, "use_cache": False}
    if batch.layout is not None:
        options["position_ids"] = batch.position_ids
        not_shared = _why_not_shared(causal)
        if not not_shared:
            _attach(decoder)
            options[_LAYOUT] = _Row(batch.layout)
            options[WANTED] = asked
            # transformers takes a mask of four dimensions for finished and builds none of its own.
            options["attention_mask"] = batch.input_ids.new_zeros((1, 1, 1, 1))
        elif batch.layout.prefix:
            raise ConfigError(f"batching=shared_prefix: {not_shared}; set batching=packed")
        # Otherwise transformers finds from the positions where examples begin, and masks (5.23).
    states: Tensor = decoder(**options).last_hidden_state
    return states


class _Row:
    """The layout of one row and its mask, made once for all layers."""

    def __init__(self, layout: Layout) -> None:
        self.prefix = layout.prefix
        self.lengths = layout.lengths
        self._masks: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def bias(self, query: Tensor, *, flash: bool) -> Tensor:
        """Return what a rest's queries may see of prefix and rest, ``(length, prefix + length)``.

        FlashAttention takes no mask; torch's own bias names the pattern without filling it in.
        """
        length = query.shape[2]
        if flash:
            return causal_lower_right(length, self.prefix + length)
        return self._mask(length, query)

    def _mask(self, length: int, like: Tensor) -> Tensor:
        """Return the same as a tensor to be added to the scores.

        The masks of shorter rests are corners of that of the longest.
        """
        key = like.dtype, like.device
        if key not in self._masks:
            longest = max(self.lengths)
            hidden = torch.ones(
                (longest, self.prefix + longest), dtype=torch.bool, device=like.device
            ).triu(self.prefix + 1)
            self._masks[key] = torch.zeros(
                hidden.shape, dtype=like.dtype, device=like.device
            ).masked_fill_(hidden, -torch.inf)
        return self._masks[key][:length, : self.prefix + length]


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """Return the attention of one row ``(1, time, heads, head_dim)``, as transformers calls it.

    Queries are ``(1, heads, time, head_dim)``, keys and values ``(1, key_value_heads, …)``.
    """
    row: _Row = options[_LAYOUT]
    query, key, value = map(_as_computed, (query, key, value))
    sizes = [row.prefix, *row.lengths]
    (first_query, *queries), (first_key, *keys), (first_value, *values) = (
        torch.split(tensor, sizes, dim=2) for tensor in (query, key, value)
    )
    shared: dict[str, Any] = {
        "scale": scaling,
        "dropout_p": dropout,
        "enable_gqa": key.shape[1] != query.shape[1],
    }
    if ASKED in options:
        cropped = attention_of_asked(options[ASKED], query, key, value, **shared)
        return cropped.transpose(1, 2).contiguous(), None
    outputs = []
    if row.prefix:
        outputs.append(
            scaled_dot_product_attention(
                first_query, first_key, first_value, is_causal=True, **shared
            )
        )
    for own_query, own_key, own_value in zip(queries, keys, values, strict=True):
        if row.prefix:
            own_key = torch.cat([first_key, own_key], dim=2)
            own_value = torch.cat([first_value, own_value], dim=2)
            flash = _flash_serves(own_query, own_key, own_value, shared)
            seen: dict[str, Any] = {"attn_mask": row.bias(own_query, flash=flash)}
        else:
            seen = {"is_causal": True}
        outputs.append(
            scaled_dot_product_attention(own_query, own_key, own_value, **seen, **shared)
        )
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _as_computed(tensor: Tensor) -> Tensor:
    """Return a tensor in the type that attention computes in.

    Under mixed precision rotated queries and keys come in float32 and values in 16 bits. Attention
    casts them itself, but not where a bias of torch's own is given, which looks at types first.
    """
    kind = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else tensor


def _flash_serves(query: Tensor, key: Tensor, value: Tensor, shared: dict[str, Any]) -> bool:
    """Return whether FlashAttention computes this call: on a GPU that has it, in 16 bits."""
    if not query.is_cuda:
        return False
    from torch.backends.cuda import SDPAParams, can_use_flash_attention

    # Not said to be causal: torch takes that for the upper left corner, and refuses (2.13).
    call = SDPAParams(query, key, value, None, shared["dropout_p"], False, shared["enable_gqa"])
    return can_use_flash_attention(call)


def _attach(decoder: Any) -> None:
    """Make the layers look our attention up whenever a call carries a layout.

    By hooks on each attention module and not by a switch around the forward: under gradient
    checkpointing the layers run once more in the backward, when such a switch is back again.
    """
    from transformers import AttentionInterface

    if getattr(decoder, "_recap_attached", False):
        return
    AttentionInterface.register(ATTENTION, _attention)
    for layer in decoder.layers:
        layer.self_attn.register_forward_pre_hook(_switch_on, with_kwargs=True)
        layer.self_attn.register_forward_hook(_switch_back, with_kwargs=True, always_call=True)
        feed_in_parts(layer.mlp)
    crop_last_layer(decoder.layers[-1])
    decoder._recap_attached = True


def _switch_on(module: Any, arguments: Any, options: dict[str, Any]) -> None:
    row = options.get(_LAYOUT)
    if row is not None:
        row.own_attention = module.config._attn_implementation
        module.config._attn_implementation = ATTENTION


def _switch_back(module: Any, arguments: Any, options: dict[str, Any], output: Any) -> None:
    row = options.get(_LAYOUT)
    if row is not None:
        module.config._attn_implementation = row.own_attention


def _why_not_shared(causal: Any) -> str:
    """Return why a prefix cannot be shared exactly; empty when it can."""
    config = causal.config
    if config.model_type not in SERVED:
        return f"it is not made for models of type {config.model_type!r} ({', '.join(SERVED)})"
    other = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if other:
        return f"the model has layers of {', '.join(sorted(other))}"
    if any(layer.self_attn.attention_dropout for layer in causal.get_decoder().layers):
        return "shared tokens would share the model's attention dropout (its attention_dropout)"
    return ""


def _why_not_packed(causal: Any) -> str:
    """Return why several examples in one row would see each other; empty when they do not."""
    family = causal.config.model_type
    kinds = set(getattr(causal.config, "layer_types", None) or ())
    decoder = causal.get_decoder()
    masked_by_positions = (
        getattr(decoder, "_supports_attention_backend", False)
        and "position_ids" in inspect.signature(decoder.forward).parameters
        # Layers that carry a state from token to token do not look at positions.
        and kinds <= {"full_attention", "sliding_attention"}
        and (kinds or family in SERVED)
    )
    if masked_by_positions:
        return ""
    return f"models of type {family!r} are not known to keep the examples of a row apart"
