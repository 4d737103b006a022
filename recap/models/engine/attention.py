"""Attention in rows of trunks and teeth, and how a decoder is run over them.

In a row (:class:`recap.data.layout.Layout`) each span sees what stands before it in its own
sequence, and causally itself: what it would see alone, so that hidden states, loss and gradients
are those of separate rows, and answers those of separate prompts. Without trunks this is packing.

The idea is not ours: prefix sharing in preference optimization (Wang and Hegde, 2024), Prefix
Grouper (2025) and, for inference, Hydragen (Juravsky et al., 2024). Here it is an attention
function under transformers' ``AttentionInterface``, which a call without a row falls through.

On a CPU, feed-forward blocks take a thousand tokens at a time. A row of many examples has a few
large tensors inside each block. They do not fit a processor's cache, and glibc asks the system for
every block above 32 MiB anew, which hands out pages of zeros. Tokens do not meet in there, so they
may as well pass in parts: what is computed, and the memory that the backward needs, stay the same.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from recap.data.layout import Layout

if TYPE_CHECKING:
    from recap.models.engine.generate import LabelTree

TOKENS_AT_ONCE = 1024
"""Half or twice as many made no difference at a width of 1,408 (Zen 3, 32 MiB of cache)."""

QUERIES_AT_ONCE = 128
"""From 32 to 192 made no difference beyond that of two runs; all 371 of a suffix were slower."""

TESTED = (
    *("apertus", "arcee", "ernie4_5", "exaone4", "gemma", "gemma2", "gemma3_text", "glm", "glm4"),
    *("granite", "llama", "mistral", "mixtral", "olmo2", "olmo3", "phi3", "qwen2", "qwen3"),
    *("qwen3_moe", "seed_oss", "smollm3"),
)
"""Architectures (``config.model_type``) whose results are tested to be exact."""

_KINDS = {"full_attention", "sliding_attention"}
_PREFIX = "recap_row_over_"
_ROW = "recap_row"
"""The keyword under which a decoder is given the row that its tokens are laid out in."""

Cache = dict[int, tuple[Tensor, Tensor]]
"""For each layer keys and values, both ``(1, key_value_heads, time, head_dim)``."""


class Attending(Protocol):
    """A row of tokens that attend to each other, or to others computed before, as it says."""

    def attend(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        window: int | None,
        scale: float,
    ) -> Tensor:
        """Return the attention ``(batch, heads, time, head_dim)`` of one layer.

        Args:
            module: The layer's attention, which knows its ``layer_idx``.
            query: ``(batch, heads, time, head_dim)``.
            key: ``(batch, key_value_heads, time, head_dim)``.
            value: As ``key``.
            window: How many tokens each sees at most, itself included; ``None`` for all.
            scale: What scores are multiplied by.
        """
        ...


class Row:
    """Spans of a layout, computed together.

    Args:
        layout: What stands where.
        chosen: Which of its spans; ``None`` for all that stand in the row.
        before: Keys and values of trunks that were computed before.
        tree: Labels whose inner nodes stand behind each tooth and see it and those above them.
        keeps: Whether the keys and values of all spans are laid aside, in :attr:`found`.
        saves_weights: Whether teeth keep weights for the backward (:func:`attend_behind`).
    """

    def __init__(
        self,
        layout: Layout,
        chosen: Sequence[int] | None = None,
        *,
        before: Mapping[int, Cache] | None = None,
        tree: LabelTree | None = None,
        keeps: bool = False,
        saves_weights: bool = False,
    ) -> None:
        self.layout = layout
        self.chosen = layout.standing if chosen is None else chosen
        self.before = before or {}
        self.found: dict[int, Cache] = {number: {} for number in self.chosen}
        self._tree = tree
        self._keeps = keeps
        self._saves_weights = saves_weights
        self._masks: dict[Any, Tensor] = {}

    def n_nodes(self, number: int) -> int:
        """Return how many nodes of the tree stand behind a span."""
        is_tooth = number >= len(self.layout.trunks)
        return self._tree.n_inner if self._tree is not None and is_tooth else 0

    def attend(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        window: int | None,
        scale: float,
    ) -> Tensor:
        """Return the attention of one row, span after span."""
        layer = module.layer_idx
        spans = self.layout.spans
        sizes = [spans[number].length + self.n_nodes(number) for number in self.chosen]
        computed: dict[int, tuple[Tensor, Tensor]] = {}
        outputs = []
        split = (torch.split(each, sizes, dim=2) for each in (query, key, value))
        for number, own_query, *own in zip(self.chosen, *split, strict=True):
            computed[number] = own[0], own[1]
            if self._keeps:
                # A layer that is computed again comes here again; others have seen the first.
                self.found[number].setdefault(layer, computed[number])
            pieces = []
            for trunk, n in self.layout.pieces(number):
                held = computed[trunk] if trunk in computed else self.before[trunk][layer]
                pieces.append([each[:, :, :n] for each in held])
            keys, values = (
                torch.cat(both, dim=2) if pieces else both[0]
                for both in zip(*pieces, own, strict=True)
            )
            outputs.append(self._span(number, own_query, keys, values, window, scale))
        return torch.cat(outputs, dim=2)

    def _span(
        self,
        number: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        window: int | None,
        scale: float,
    ) -> Tensor:
        length, all_time = query.shape[2], key.shape[2]
        window = window if window is not None and window < all_time else None
        grouped: dict[str, Any] = {"scale": scale, "enable_gqa": key.shape[1] != query.shape[1]}
        nodes = self.n_nodes(number)
        if not nodes and window is None:
            if length == all_time:
                return scaled_dot_product_attention(query, key, value, is_causal=True, **grouped)
            if flash_supports(query, key, value, **grouped):
                # FlashAttention takes no mask; torch's own bias names the pattern.
                bias = causal_lower_right(length, all_time)
                return scaled_dot_product_attention(query, key, value, attn_mask=bias, **grouped)
        learns = torch.is_grad_enabled() and query.requires_grad
        is_tooth = number >= len(self.layout.trunks)
        if learns and not (self._saves_weights and is_tooth and _is_full(query)):
            mask = self._mask(length, all_time, window, query)
            return scaled_dot_product_attention(query, key, value, attn_mask=mask, **grouped)
        own = self._own_mask(length - nodes, query) if nodes else None
        reach = None
        if window is not None:
            reach = self._masked(length, all_time, window, query, nodes)
        return attend_behind(query, key, value, scale=scale, own=own, beyond=reach)

    def _mask(self, length: int, all_time: int, window: int | None, like: Tensor) -> Tensor:
        """Return what the last ``length`` of all tokens see, to add to scores ``(length, all)``.

        Without a window the masks of all spans are parts of one.
        """
        if window is not None:
            return self._masked(length, all_time, window, like, 0)
        key = (like.dtype, like.device)
        before = all_time - length
        if key not in self._masks:
            spans = [self.layout.spans[number] for number in self.chosen]
            longest = max(span.length for span in spans)
            most = max(span.seen for span in spans)
            seen = torch.ones((longest, most + longest), dtype=torch.bool, device=like.device)
            self._masks[key] = _additive(seen.tril(most), like)
        mask = self._masks[key]
        start = mask.shape[1] - mask.shape[0] - before
        found = mask[:length, start : start + all_time]
        return found.contiguous() if like.is_cuda else found

    def _masked(self, length: int, all_time: int, window: int, like: Tensor, nodes: int) -> Tensor:
        """Return the same of a window, in which a node stands as deep as it is in its tree."""
        key = (length, all_time, window, nodes, like.dtype)
        if key not in self._masks:
            places = torch.arange(all_time, device=like.device)
            if nodes:
                assert self._tree is not None
                depths = torch.tensor(self._tree.depths[:nodes], device=like.device)
                places[all_time - nodes :] = all_time - nodes + depths
            own = places[all_time - length :, None]
            seen = (places > own - window) & (places <= own)
            self._masks[key] = _additive(seen, like)
        return self._masks[key]

    def _own_mask(self, length: int, like: Tensor) -> Tensor:
        """Return what a tooth and the nodes behind it see of themselves, to add to scores."""
        key = (length, like.dtype)
        if key not in self._masks:
            assert self._tree is not None
            n = length + self._tree.n_inner
            seen = torch.ones((n, n), dtype=torch.bool, device=like.device).tril()
            seen[length:, length:] = False
            for node in range(self._tree.n_inner):
                seen[length + node, [length + above for above in self._tree.ancestors[node]]] = True
            self._masks[key] = _additive(seen, like)
        return self._masks[key]


def _additive(seen: Tensor, like: Tensor) -> Tensor:
    mask = torch.zeros(seen.shape, dtype=like.dtype, device=like.device)
    return mask.masked_fill_(~seen, -torch.inf)


def attach(decoder: Any) -> None:
    """Make a decoder look our attention up; calls without a row go on to the one it had."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    own = decoder.config._attn_implementation
    if own.startswith(_PREFIX):
        return
    # Kept in the architecture's own file, for it is the only one that every architecture has.
    eager = sys.modules[type(decoder.layers[0].self_attn).__module__]
    plain = getattr(eager, "eager_attention_forward", None)
    name = f"{_PREFIX}{own}"
    if own != "eager":
        plain = ALL_ATTENTION_FUNCTIONS[own]
    else:
        name += f"_{decoder.config.model_type}"
    AttentionInterface.register(name, functools.partial(_attention, plain))
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[own])
    decoder.config._attn_implementation = name
    for layer in decoder.layers:
        feed_in_parts(layer.mlp)


def run_row(decoder: Any, row: Attending, *, input_ids: Tensor, position_ids: Tensor) -> Tensor:
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
    other = set(getattr(config, "layer_types", None) or ()) - _KINDS
    if other:
        return f"the model has layers of {', '.join(sorted(other))}"
    if getattr(config, "attn_logit_softcapping", None):
        return "the model bounds the scores of attention (attn_logit_softcapping)"
    return ""


def flash_supports(
    query: Tensor, key: Tensor, value: Tensor, *, scale: float, enable_gqa: bool
) -> bool:
    """Return whether FlashAttention computes this call: on a GPU that has it, in 16 bits."""
    if not query.is_cuda:
        return False
    from torch.backends.cuda import SDPAParams, can_use_flash_attention

    # Not said to be causal: torch takes that for the upper left corner, and refuses (2.13).
    return can_use_flash_attention(SDPAParams(query, key, value, None, 0.0, False, enable_gqa))


def _attention(
    plain: Any,
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, Any]:
    """Return attention ``(batch, time, heads, head_dim)``, as transformers calls it."""
    row: Attending | None = options.pop(_ROW, None)
    if row is None:
        options |= {"scaling": scaling, "dropout": dropout, "sliding_window": sliding_window}
        attended: tuple[Tensor, Any] = plain(module, query, key, value, attention_mask, **options)
        return attended
    query, key, value = map(_as_computed, (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    found = row.attend(module, query, key, value, sliding_window, scale)
    return found.transpose(1, 2).contiguous(), None


def _as_computed(tensor: Tensor) -> Tensor:
    """Return a tensor in the type that attention computes in.

    Under mixed precision rotated queries and keys come in float32 and values in 16 bits. Attention
    casts them itself, but not where a bias of torch's own is given, which looks at types first.
    """
    kind = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else tensor


def _is_full(query: Tensor) -> bool:
    return query.device.type == "cpu" and query.dtype in (torch.float32, torch.float64)


def attend_behind(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float,
    own: Tensor | None = None,
    beyond: Tensor | None = None,
) -> Tensor:
    """Return the attention of the last tokens of a sequence, ``(1, heads, time, head_dim)``.

    On a CPU this keeps the weights for the backward, if there is one: torch's flash kernel for CPUs
    (2.13) computes them once more in the backward and multiplies in small blocks. Where a few teeth
    are computed at a time there is room for their weights: four products instead of five in the
    backward, all of them large, and none for pairs that the causal pattern hides. It takes a sixth
    to a fifth less than the kernel, forward and backward (prefixes of 850 and of 4,000 tokens, one
    core).

    Args:
        query: ``(1, heads, time, head_dim)``, of the last ``time`` tokens.
        key: ``(1, key_value_heads, all_time, head_dim)``, of all tokens up to them.
        value: As ``key``.
        scale: Of the scores.
        own: Added to the scores of the last tokens among themselves, ``(time, time)``; ``None`` for
            the causal pattern.
        beyond: Added to all scores, ``(time, all_time)``: what is too far away, and ``own`` is
            ignored for the causal pattern.
    """
    attended: Tensor = _SavedWeightsAttention.apply(query, key, value, scale, own, beyond)  # type: ignore[no-untyped-call]
    return attended


class _SavedWeightsAttention(torch.autograd.Function):
    """Attention by matrix products, so many queries of all heads of one key at a time."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        own: Tensor | None,
        beyond: Tensor | None,
    ) -> Tensor:
        """Return attention as large as ``query``."""
        _, heads, time, width = query.shape
        groups, all_time = key.shape[1:3]
        keys, values = key[0], value[0]
        # Heads that share a key stand side by side: (key_value_heads, heads of each, time, width).
        queries = (query[0] * scale).reshape(groups, heads // groups, time, width)
        attended = torch.empty_like(queries)
        kept = []
        for start, end in query_parts(time):
            seen = all_time - time + end
            part = queries[:, :, start:end].reshape(groups, -1, width)
            scores = torch.bmm(part, keys[:, :seen].transpose(1, 2))
            rows = scores.view(groups, -1, end - start, seen)
            if own is not None:
                rows[..., all_time - time :].add_(own[start:end, :end])
            else:
                hidden = scores.new_full((end - start, end - start), -torch.inf).triu_(1)
                rows[..., seen - (end - start) :].add_(hidden)
            if beyond is not None:
                rows.add_(beyond[start:end, :seen])
            exact = torch.promote_types(scores.dtype, torch.float32)
            weights = torch.softmax(scores, dim=-1, dtype=exact).to(scores.dtype)
            attended[:, :, start:end] = torch.bmm(weights, values[:, :seen]).view(
                groups, -1, end - start, width
            )
            if any(ctx.needs_input_grad):
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
        for (start, end), weights in zip(query_parts(time), kept, strict=True):
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
        return of_query, of_keys[None], of_values[None], None, None, None


def query_parts(time: int) -> list[tuple[int, int]]:
    """Return where the parts of so many queries start and end."""
    starts = range(0, time, QUERIES_AT_ONCE)
    return [(start, min(start + QUERIES_AT_ONCE, time)) for start in starts]


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
