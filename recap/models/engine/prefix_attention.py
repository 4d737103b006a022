"""Rows of tokens under an attention function of our own (transformers' ``AttentionInterface``).

It is looked up for the calls that carry a row (:func:`run_row`) and for no other: everywhere else a
model keeps its own attention. A row knows what stands where in it, and computes its attention.

On a CPU, feed-forward blocks take a thousand tokens at a time. A row of many examples has a few
large tensors inside each block. They do not fit a processor's cache, and glibc asks the system for
every block above 32 MiB anew, which hands out pages of zeros. Tokens do not meet in there, so they
may as well pass in parts: what is computed, and the memory that the backward needs, stay the same.
"""

from __future__ import annotations

import functools
from typing import Any, Protocol

import torch
from torch import Tensor

TOKENS_AT_ONCE = 1024
"""Half or twice as many made no difference at a width of 1,408 (Zen 3, 32 MiB of cache)."""


def feed_in_parts(block: Any) -> None:
    """Make a block compute long rows on a CPU in parts; elsewhere it runs as it did.

    Args:
        block: Takes states ``(batch, time, hidden)`` and treats every token by itself.
    """
    block.forward = functools.partial(_forward_in_parts, block.forward)


def _forward_in_parts(whole: Any, states: Tensor) -> Tensor:
    if states.device.type != "cpu" or states.shape[1] <= TOKENS_AT_ONCE:
        result: Tensor = whole(states)
        return result
    return torch.cat([whole(part) for part in torch.split(states, TOKENS_AT_ONCE, dim=1)], dim=1)


ATTENTION = "recap_row"
"""The name of the attention function in transformers' ``AttentionInterface``."""

_ROW = "recap_row"
"""The keyword under which a decoder is given the row that its tokens are laid out in."""

TESTED = (
    *("apertus", "arcee", "ernie4_5", "exaone4", "gemma", "gemma2", "gemma3_text", "glm", "glm4"),
    *("granite", "llama", "mistral", "mixtral", "olmo2", "olmo3", "phi3", "qwen2", "qwen3"),
    *("qwen3_moe", "seed_oss", "smollm3"),
)
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
        **shared: Any,
    ) -> Tensor:
        """Return the attention ``(batch, heads, time, head_dim)`` of one layer.

        Args:
            module: The layer's attention, which knows its ``layer_idx``.
            query: ``(batch, heads, time, head_dim)``.
            key: ``(batch, key_value_heads, time, head_dim)``.
            value: As ``key``.
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
    decoder._recap_attached = True


def run_row(
    decoder: Any,
    row: Row,
    *,
    input_ids: Tensor,
    position_ids: Tensor | None,
) -> Tensor:
    """Return the last hidden states ``(batch, time, hidden)`` of a row.

    Args:
        decoder: That :func:`attach` was called on.
        row: The layout of the tokens.
        input_ids: ``(batch, time)``.
        position_ids: ``(batch, time)``: each token's place in its own example.
    """
    states: Tensor = decoder(
        input_ids=input_ids,
        position_ids=position_ids,
        # A mask of four dimensions is a finished one: transformers makes none of its own.
        attention_mask=input_ids.new_zeros((1, 1, 1, 1)),
        use_cache=False,
        **{_ROW: row},
    ).last_hidden_state
    return states


def why_unsupported(causal: Any) -> str:
    """Return why rows of our own are not exact for a causal model; empty when they are."""
    config = causal.config
    if config.model_type not in TESTED:
        return f"it is not tested for models of type {config.model_type!r}"
    other = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if other:
        return f"the model has layers of {', '.join(sorted(other))}"
    if not getattr(config, "layer_types", None) and getattr(config, "sliding_window", None):
        return f"the model sees {config.sliding_window} tokens at a time (sliding_window)"
    if getattr(config, "attn_logit_softcapping", None):
        return "the model bounds the scores of attention (attn_logit_softcapping)"
    return ""


def flash_supports(query: Tensor, key: Tensor, value: Tensor, shared: dict[str, Any]) -> bool:
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
    row: Row = options[_ROW]
    query, key, value = map(_as_computed, (query, key, value))
    shared: dict[str, Any] = {
        "scale": scaling,
        "dropout_p": dropout,
        "enable_gqa": key.shape[1] != query.shape[1],
    }
    attended = row.attend(module, query, key, value, **shared)
    return attended.transpose(1, 2).contiguous(), None


def _as_computed(tensor: Tensor) -> Tensor:
    """Return a tensor in the type that attention computes in.

    Under mixed precision rotated queries and keys come in float32 and values in 16 bits. Attention
    casts them itself, but not where a bias of torch's own is given, which looks at types first.
    """
    kind = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else tensor


def _switch_on(module: Any, arguments: Any, options: dict[str, Any]) -> None:
    row: Row | None = options.get(_ROW)
    if row is not None:
        row.own_attention = module.config._attn_implementation
        module.config._attn_implementation = ATTENTION


def _switch_back(module: Any, arguments: Any, options: dict[str, Any], output: Any) -> None:
    row: Row | None = options.get(_ROW)
    if row is not None:
        module.config._attn_implementation = row.own_attention
