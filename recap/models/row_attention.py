"""An attention function of our own under transformers' ``AttentionInterface``.

It is looked up for the calls that carry a row (:class:`Row`) and for no other: everywhere else a
model keeps its own attention. A row knows what stands where in it, and computes its attention.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from recap.models.feed_forward import feed_in_parts
from recap.models.last_layer import ASKED, Asked, crop_last_layer

ATTENTION = "recap_row"
"""The name of the attention function in transformers' ``AttentionInterface``."""

ROW = "recap_row"
"""The keyword under which a decoder is given the row that its tokens are laid out in."""

SERVED = ("llama", "qwen2", "qwen3")
"""Architectures (``config.model_type``) whose results are tested to be exact."""


class Row(Protocol):
    """A row of tokens that attend to each other, or to others computed before, as it says."""

    own_attention: str
    """The model's own attention, kept while this one is in its place."""

    def attend(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        asked: Asked | None,
        **shared: Any,
    ) -> Tensor:
        """Return the attention ``(batch, heads, time, head_dim)`` of one layer.

        Args:
            module: The layer's attention, which knows its ``layer_idx``.
            query: ``(batch, heads, time, head_dim)``.
            key: ``(batch, key_value_heads, time, head_dim)``.
            value: As ``key``.
            asked: What alone is asked of the last layer; the rest of its output is not looked at.
            **shared: Options of every call of torch's attention.
        """
        ...


def attach(decoder: Any) -> None:
    """Make a decoder's layers look our attention up whenever a call carries a row.

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


def without_mask(input_ids: Tensor) -> Tensor:
    """Return what keeps transformers from making a mask of its own, which a row does not need.

    It takes a mask of four dimensions for a finished one.
    """
    return input_ids.new_zeros((1, 1, 1, 1))


def why_not_served(causal: Any) -> str:
    """Return why rows of our own are not exact for a causal model; empty when they are."""
    config = causal.config
    if config.model_type not in SERVED:
        return f"it is not made for models of type {config.model_type!r} ({', '.join(SERVED)})"
    other = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if other:
        return f"the model has layers of {', '.join(sorted(other))}"
    return ""


def flash_serves(query: Tensor, key: Tensor, value: Tensor, shared: dict[str, Any]) -> bool:
    """Return whether FlashAttention computes this call: on a GPU that has it, in 16 bits."""
    if not query.is_cuda:
        return False
    from torch.backends.cuda import SDPAParams, can_use_flash_attention

    # Not said to be causal: torch takes that for the upper left corner, and refuses (2.13).
    call = SDPAParams(query, key, value, None, shared["dropout_p"], False, shared["enable_gqa"])
    return can_use_flash_attention(call)


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
    """Return a row's attention ``(batch, time, heads, head_dim)``, as transformers calls it."""
    row: Row = options[ROW]
    query, key, value = map(_as_computed, (query, key, value))
    shared: dict[str, Any] = {
        "scale": scaling,
        "dropout_p": dropout,
        "enable_gqa": key.shape[1] != query.shape[1],
    }
    attended = row.attend(module, query, key, value, asked=options.get(ASKED), **shared)
    return attended.transpose(1, 2).contiguous(), None


def _as_computed(tensor: Tensor) -> Tensor:
    """Return a tensor in the type that attention computes in.

    Under mixed precision rotated queries and keys come in float32 and values in 16 bits. Attention
    casts them itself, but not where a bias of torch's own is given, which looks at types first.
    """
    kind = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else tensor


def _switch_on(module: Any, arguments: Any, options: dict[str, Any]) -> None:
    row: Row | None = options.get(ROW)
    if row is not None:
        row.own_attention = module.config._attn_implementation
        module.config._attn_implementation = ATTENTION


def _switch_back(module: Any, arguments: Any, options: dict[str, Any], output: Any) -> None:
    row: Row | None = options.get(ROW)
    if row is not None:
        module.config._attn_implementation = row.own_attention
