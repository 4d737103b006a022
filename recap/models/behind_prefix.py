"""Attention of a rest to what stands before it, on a CPU, with its weights kept for the backward.

torch's flash kernel for CPUs (2.13) computes the weights of attention once more in the backward and
multiplies in small blocks. Where a few rests are computed at a time, as in
:mod:`recap.models.two_phase`, there is room for their weights: four products instead of five in the
backward, all of them large, and none for pairs that the causal pattern hides. It takes a sixth to a
fifth less than the kernel, forward and backward (prefixes of 850 and of 4,000 tokens, one core).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

QUERIES_AT_ONCE = 128
"""From 32 to 192 made no difference beyond that of two runs; all 371 of a rest were slower."""


def kept_weights_serve(query: Tensor, shared: dict[str, Any]) -> bool:
    """Return whether :func:`attend_behind` computes this call: on a CPU, without 16 bits."""
    full = query.dtype in (torch.float32, torch.float64)
    return query.device.type == "cpu" and full and not shared["dropout_p"]


def attend_behind(query: Tensor, key: Tensor, value: Tensor, *, scale: float | None) -> Tensor:
    """Return the attention of the last tokens of a sequence, ``(1, heads, time, head_dim)``.

    Args:
        query: ``(1, heads, time, head_dim)``, of the last ``time`` tokens.
        key: ``(1, key_value_heads, all_time, head_dim)``, of all tokens up to them.
        value: As ``key``.
        scale: Of the scores; ``None`` for one over the root of ``head_dim``.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    attended: Tensor = _KeptWeights.apply(query, key, value, scale)  # type: ignore[no-untyped-call]
    return attended


class _KeptWeights(torch.autograd.Function):
    """Attention by matrix products, so many queries of all heads of one key at a time."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Return attention as large as ``query``."""
        _, heads, time, width = query.shape
        groups, all_time = key.shape[1:3]
        keys, values = key[0], value[0]
        # Heads that share a key stand side by side: (key_value_heads, heads of each, time, width).
        queries = (query[0] * scale).reshape(groups, heads // groups, time, width)
        attended = torch.empty_like(queries)
        kept = []
        for start, end in _parts(time):
            seen = all_time - time + end
            part = queries[:, :, start:end].reshape(groups, -1, width)
            scores = torch.bmm(part, keys[:, :seen].transpose(1, 2))
            hidden = scores.new_full((end - start, end - start), -torch.inf).triu_(1)
            scores.view(groups, -1, end - start, seen)[..., seen - (end - start) :].add_(hidden)
            weights = torch.softmax(scores, dim=-1)
            attended[:, :, start:end] = torch.bmm(weights, values[:, :seen]).view(
                groups, -1, end - start, width
            )
            kept.append(weights)
        ctx.save_for_backward(queries, keys, values, attended, *kept)
        ctx.scale = scale
        return attended.view(query.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Return the gradients of queries, keys and values."""
        queries, keys, values, attended, *kept = ctx.saved_tensors
        groups, _, time, width = queries.shape
        of_attended = gradient[0].reshape(queries.shape)
        # What softmax takes off each row (Dao et al., 2022, FlashAttention, appendix B).
        taken_off = (of_attended * attended).sum(dim=-1, keepdim=True)
        of_queries = torch.empty_like(queries)
        of_keys, of_values = (
            torch.zeros_like(each, memory_format=torch.contiguous_format) for each in (keys, values)
        )
        for (start, end), weights in zip(_parts(time), kept, strict=True):
            seen = weights.shape[-1]
            of_part = of_attended[:, :, start:end].reshape(groups, -1, width)
            of_values[:, :seen].baddbmm_(weights.transpose(1, 2), of_part)
            of_scores = torch.bmm(of_part, values[:, :seen].transpose(1, 2))
            of_scores.sub_(taken_off[:, :, start:end].reshape(groups, -1, 1)).mul_(weights)
            of_queries[:, :, start:end] = torch.bmm(of_scores, keys[:, :seen]).view(
                groups, -1, end - start, width
            )
            part = queries[:, :, start:end].reshape(groups, -1, width)
            of_keys[:, :seen].baddbmm_(of_scores.transpose(1, 2), part)
        of_query = of_queries.mul_(ctx.scale).view(gradient.shape)
        return of_query, of_keys[None], of_values[None], None


def _parts(time: int) -> list[tuple[int, int]]:
    """Return where the parts of so many queries start and end."""
    starts = range(0, time, QUERIES_AT_ONCE)
    return [(start, min(start + QUERIES_AT_ONCE, time)) for start in starts]
