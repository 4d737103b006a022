"""Attention for rows in which the examples' common beginning stands once.

In a row ``[prefix | suffix 1 | suffix 2 | …]`` the prefix attends causally to itself, and each
suffix to the prefix and causally to itself: what it would see in a row of its own, so that hidden
states, loss and gradients are those of separate rows. Without a prefix this is packing.

The idea is not ours: prefix sharing in preference optimization (Wang and Hegde, 2024), Prefix
Grouper (2025) and, for inference, Hydragen (Juravsky et al., 2024). Here it is an attention
function under transformers' ``AttentionInterface``, looked up for the calls that carry a layout and
for no other: decoding keeps the model's own attention.
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
from recap.models.engine.prefix_attention import (
    TESTED,
    attach,
    flash_supports,
    run_row,
    why_unsupported,
)
from recap.models.finetune import causal_model


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

    Args:
        model: A ``transformers`` causal language model, or a PEFT model around one.
        batch: Padded rows or one row of several examples.

    Raises:
        ConfigError: When the batch shares a prefix and the model cannot.
    """
    causal = causal_model(model)
    decoder = causal.get_decoder()
    options: dict[str, Any] = {}
    if batch.layout is not None:
        not_shared = _why_not_shared(causal)
        if not not_shared:
            attach(decoder)
            return run_row(
                decoder,
                SharingRow(batch.layout),
                input_ids=batch.input_ids,
                position_ids=batch.position_ids,
            )
        if batch.layout.prefix:
            raise ConfigError(f"batching=shared_prefix: {not_shared}; set batching=packed")
        # transformers finds from the positions where examples begin, and masks (5.23).
        options = {"position_ids": batch.position_ids}
    states: Tensor = decoder(
        input_ids=batch.input_ids, use_cache=False, **options
    ).last_hidden_state
    return states


def predicting_states(model: Any, batch: Batch) -> Tensor:
    """Return the last hidden states ``(positions, hidden)`` that predict the answers' tokens.

    The state at a position predicts the token after it. That also holds within a row of several
    examples: each has a last prompt token of its own before its answer.

    Raises:
        ConfigError: When the batch shares a prefix and the model cannot.
    """
    return hidden_states(model, batch)[:, :-1][batch.answer_mask[:, 1:]]


class SharingRow:
    """The layout of one row and its mask, made once for all layers."""

    own_attention: str

    def __init__(self, layout: Layout) -> None:
        self.prefix = layout.prefix
        self.lengths = layout.lengths
        self._masks: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def attend(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        **shared: Any,
    ) -> Tensor:
        """Return the attention of one row, of the prefix and of each suffix after it."""
        sizes = [self.prefix, *self.lengths]
        (first_query, *queries), (first_key, *keys), (first_value, *values) = (
            torch.split(tensor, sizes, dim=2) for tensor in (query, key, value)
        )
        outputs = []
        if self.prefix:
            outputs.append(
                scaled_dot_product_attention(
                    first_query, first_key, first_value, is_causal=True, **shared
                )
            )
        first = (first_key, first_value) if self.prefix else None
        for suffix in zip(queries, keys, values, strict=True):
            outputs.append(self.attend_suffix(first, *suffix, **shared))
        return torch.cat(outputs, dim=2)

    def attend_suffix(
        self,
        first: tuple[Tensor, Tensor] | None,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        **shared: Any,
    ) -> Tensor:
        """Return the attention of one suffix to itself, and to the ``first`` keys and values."""
        if first is None:
            return scaled_dot_product_attention(query, key, value, is_causal=True, **shared)
        key, value = (
            torch.cat([before, own], dim=2) for before, own in zip(first, (key, value), strict=True)
        )
        return self._behind(query, key, value, **shared)

    def _behind(self, query: Tensor, key: Tensor, value: Tensor, **shared: Any) -> Tensor:
        """Return the attention of a suffix to all that stands before it and to itself."""
        bias = self._bias(query, flash=flash_supports(query, key, value, shared))
        return scaled_dot_product_attention(query, key, value, attn_mask=bias, **shared)

    def _bias(self, query: Tensor, *, flash: bool) -> Tensor:
        """Return what a suffix's queries may see of both, ``(length, prefix + length)``.

        FlashAttention takes no mask; torch's own bias names the pattern without filling it in.
        """
        length = query.shape[2]
        if flash:
            return causal_lower_right(length, self.prefix + length)
        return self._mask(length, query)

    def _mask(self, length: int, like: Tensor) -> Tensor:
        """Return the same as a tensor to be added to the scores.

        The masks of shorter suffixes are corners of that of the longest.
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


def _why_not_shared(causal: Any) -> str:
    """Return why a prefix cannot be shared exactly; empty when it can."""
    not_served = why_unsupported(causal)
    if not_served:
        return not_served
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
        and (kinds or family in TESTED)
    )
    if masked_by_positions:
        return ""
    return f"models of type {family!r} are not known to keep the examples of a row apart"
