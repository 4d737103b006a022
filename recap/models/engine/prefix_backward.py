"""The prefix-then-suffix backward: a row's loss and gradients, a few suffixes at a time.

A row ``[prefix | suffix 1 | suffix 2 | …]`` keeps the activations of all its examples for the
backward. But suffixes meet only in the keys and values of the prefix. So the prefix is computed
once; then a few suffixes at a time, forward and backward, while gradients gather in the weights and
in the prefix' keys and values; last the prefix' own backward, from these. Sums are taken in another
order, nothing else changes: memory is that of the prefix and of a few suffixes, however many share
it.

Like the loss itself (:mod:`recap.models.engine.loss`) this makes its gradients with the loss and
hands them over in the backward, scaled: accumulation, clipping, scaled losses and DDP see one loss
with one backward. For that the gradients of the tuned weights exist twice for a moment.

On a CPU, attention of a suffix to what stands before it keeps its weights for the backward: torch's
flash kernel for CPUs (2.13) computes the weights of attention once more in the backward and
multiplies in small blocks. Where a few suffixes are computed at a time there is room for their
weights: four products instead of five in the backward, all of them large, and none for pairs that
the causal pattern hides. It takes a sixth to a fifth less than the kernel, forward and backward
(prefixes of 850 and of 4,000 tokens, one core).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recap.data.batches import Batch, Layout
from recap.models.engine.loss import answer_loss, loss_of_states, scaled_gradients
from recap.models.engine.prefix_attention import attach, run_row
from recap.models.engine.shared_prefix import SharingRow, choose_batching
from recap.models.finetune import causal_model
from recap.models.strategy import is_sharded

QUERIES_AT_ONCE = 128
"""From 32 to 192 made no difference beyond that of two runs; all 371 of a suffix were slower."""


def saved_weights_support(query: Tensor, shared: dict[str, Any]) -> bool:
    """Return whether :func:`suffix_attention` computes this call: on a CPU, without 16 bits."""
    full = query.dtype in (torch.float32, torch.float64)
    return query.device.type == "cpu" and full and not shared["dropout_p"]


def suffix_attention(query: Tensor, key: Tensor, value: Tensor, *, scale: float | None) -> Tensor:
    """Return the attention of the last tokens of a sequence, ``(1, heads, time, head_dim)``.

    Args:
        query: ``(1, heads, time, head_dim)``, of the last ``time`` tokens.
        key: ``(1, key_value_heads, all_time, head_dim)``, of all tokens up to them.
        value: As ``key``.
        scale: Of the scores; ``None`` for one over the root of ``head_dim``.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    attended: Tensor = _SavedWeightsAttention.apply(query, key, value, scale)  # type: ignore[no-untyped-call]
    return attended


class _SavedWeightsAttention(torch.autograd.Function):
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
        for start, end in query_parts(time):
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
        return of_query, of_keys[None], of_values[None], None


def query_parts(time: int) -> list[tuple[int, int]]:
    """Return where the parts of so many queries start and end."""
    starts = range(0, time, QUERIES_AT_ONCE)
    return [(start, min(start + QUERIES_AT_ONCE, time)) for start in starts]


TOKENS_AT_ONCE = 1024
"""Tokens of suffixes that are computed together, or one suffix. On a CPU half as many are slower,
since gradients are added up more often, and twice as many no faster."""


def training_loss(model: Any, batch: Batch) -> Tensor:
    """Return the loss of the answers and its gradients, by prefix and suffixes if that pays.

    Args:
        model: A ``transformers`` causal language model, or a PEFT model around one.
        batch: Padded rows or one row of several examples.
    """
    if not splits_backward(model, batch):
        return answer_loss(model, batch)
    tuned = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    loss: Tensor = _SplitBackward.apply(  # type: ignore[no-untyped-call]
        model, batch, tuple(tuned), *tuned.values()
    )
    return loss


def splits_backward(model: Any, batch: Batch) -> bool:
    """Return whether a batch's backward is split: where that is exact and saves memory."""
    layout = batch.layout
    if layout is None or not torch.is_grad_enabled() or not batch.answer_mask.any():
        return False
    causal = causal_model(model)
    # On a GPU larger rows are faster, and what they gain there was not measured.
    exact = (
        batch.input_ids.device.type == "cpu"
        and choose_batching(model).batching == "shared_prefix"
        and not any(is_sharded(layer) for layer in causal.get_decoder().layers)
        and not _is_reentrant(causal)
    )
    if not exact:
        return False
    tuned = [weight for weight in model.parameters() if weight.requires_grad]
    config = causal.config
    return bool(tuned) and splitting_pays(
        layout,
        layers=config.num_hidden_layers,
        numbers=numbers_saved(
            config.hidden_size, config.intermediate_size, again=_computes_again(causal)
        ),
        width=causal.dtype.itemsize,
        gradient_bytes=sum(weight.numel() * weight.element_size() for weight in tuned),
    )


def splitting_pays(
    layout: Layout, *, layers: int, numbers: int, width: int, gradient_bytes: float
) -> bool:
    """Return whether a split backward saves more than the gradients that it holds twice.

    Args:
        layout: The row.
        layers: Layers of the model.
        numbers: About how many numbers a layer keeps of each token.
        width: Bytes of a number.
        gradient_bytes: Of all tuned weights' gradients.
    """
    if not layout.prefix:
        return False
    at_once = [sum(layout.lengths[part]) for part in suffix_groups(layout.lengths)]
    put_off = sum(at_once) - max(at_once)
    return put_off * layers * numbers * width > gradient_bytes


def numbers_saved(hidden: int, intermediate: int, *, again: bool) -> int:
    """Return about how many numbers a layer keeps of each token, at least.

    Its input, and where it is not computed ``again`` gate, up and their product.
    """
    return hidden if again else hidden + 3 * intermediate


def suffix_groups(lengths: Sequence[int]) -> list[slice]:
    """Return which suffixes are computed together, in order.

    >>> suffix_groups((400, 500, 300, 2000, 100))
    [slice(0, 2, None), slice(2, 3, None), slice(3, 4, None), slice(4, 5, None)]
    """
    found, first, tokens = [], 0, 0
    for place, length in enumerate(lengths):
        if place > first and tokens + length > TOKENS_AT_ONCE:
            found.append(slice(first, place))
            first, tokens = place, 0
        tokens += length
    return [*found, slice(first, len(lengths))]


def _computes_again(causal: Any) -> bool:
    """Return whether layers are computed again in the backward."""
    return bool(getattr(causal.get_decoder().layers[0], "gradient_checkpointing", False))


def _is_reentrant(causal: Any) -> bool:
    """Return whether that happens in a way that cuts what leaves a layer beside its output."""
    again = getattr(causal.get_decoder().layers[0], "_gradient_checkpointing_func", None)
    return _computes_again(causal) and getattr(again, "keywords", {}).get("use_reentrant", True)


class _SplitBackward(torch.autograd.Function):
    """The loss of a row, whose gradients are made with it; the backward scales and hands over."""

    @staticmethod
    def forward(ctx: Any, model: Any, batch: Batch, names: tuple[str, ...], *tuned: Tensor) -> Any:
        """Return the summed loss."""
        # In the place of the weights, so that gradients gather apart from theirs: DDP, for one,
        # counts the times that a weight gets a gradient.
        apart = [weight.detach().requires_grad_() for weight in tuned]
        row = _SplitRow(model, batch)
        renamed = {f"model.{name}": weight for name, weight in zip(names, apart, strict=True)}
        with torch.enable_grad():
            loss = torch.func.functional_call(row, renamed, ())
        ctx.gradients = [weight.grad for weight in apart]
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, scale: Tensor) -> Any:
        """Return the gradients times ``scale``."""
        return None, None, None, *scaled_gradients(ctx, scale)


class _SplitRow(torch.nn.Module):
    """The split forward and backward, as a module whose weights can be exchanged for a call."""

    def __init__(self, model: Any, batch: Batch) -> None:
        super().__init__()
        self.model = model
        self._batch = batch

    def forward(self) -> Tensor:
        """Return the summed loss, after its backward."""
        layout = self._batch.layout
        assert layout is not None
        attach(causal_model(self.model).get_decoder())
        prefix = _Prefix(layout.prefix)
        self._states(0, layout.prefix, prefix)
        made = [tensor for pair in prefix.found.values() for tensor in pair]
        apart = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in made]
        pairs = zip(apart[::2], apart[1::2], strict=True)
        shared = dict(zip(prefix.found, pairs, strict=True))
        losses = [self._learn(part, shared) for part in self._parts(layout)]
        learned = [
            (one, other.grad) for one, other in zip(made, apart, strict=True) if other.requires_grad
        ]
        torch.autograd.backward([one for one, _ in learned], [of_one for _, of_one in learned])
        return torch.stack(losses).sum()

    def _learn(self, part: _Part, shared: dict[int, tuple[Tensor, Tensor]]) -> Tensor:
        """Return the loss of a few suffixes, after its backward."""
        answered = self._batch.answer_mask[0, part.start : part.end]
        states = self._states(part.start, part.end, _Suffixes(part.layout, shared))
        targets = self._batch.input_ids[0, part.start : part.end][answered]
        loss = loss_of_states(self.model, states[0, :-1][answered[1:]], targets)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _states(self, start: int, end: int, row: Any) -> Tensor:
        """Return the last hidden states ``(1, time, hidden)`` of a part of the row."""
        positions = self._batch.position_ids
        assert positions is not None
        return run_row(
            causal_model(self.model).get_decoder(),
            row,
            input_ids=self._batch.input_ids[:, start:end],
            position_ids=positions[:, start:end],
        )

    def _parts(self, layout: Layout) -> Iterator[_Part]:
        start = layout.prefix
        for part in suffix_groups(layout.lengths):
            lengths = layout.lengths[part]
            yield _Part(start=start, layout=Layout(prefix=layout.prefix, lengths=lengths))
            start += sum(lengths)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """A few suffixes of a row, and where they start in it."""

    start: int
    layout: Layout

    @property
    def end(self) -> int:
        return self.start + sum(self.layout.lengths)


class _Prefix:
    """A row of the prefix alone, which lays its layers' keys and values aside."""

    own_attention: str

    def __init__(self, length: int) -> None:
        self.layout = Layout(prefix=length, lengths=())
        self.found: dict[int, tuple[Tensor, Tensor]] = {}
        self._row = SharingRow(self.layout)

    def attend(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        **shared: Any,
    ) -> Tensor:
        """Return the causal attention of the prefix."""
        # A layer that is computed again comes here again; suffixes have seen what it gave first.
        self.found.setdefault(module.layer_idx, (key, value))
        return self._row.attend(module, query, key, value, **shared)


class _Suffixes(SharingRow):
    """A row of suffixes, behind keys and values of a prefix that was computed before."""

    def __init__(self, layout: Layout, shared: dict[int, tuple[Tensor, Tensor]]) -> None:
        super().__init__(layout)
        self._shared = shared

    def attend(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        **shared: Any,
    ) -> Tensor:
        """Return the attention of each suffix to the prefix and to itself."""
        before = self._shared[module.layer_idx]
        lengths = list(self.lengths)
        suffixes = zip(
            *(torch.split(each, lengths, dim=2) for each in (query, key, value)), strict=True
        )
        return torch.cat(
            [self.attend_suffix(before, *suffix, **shared) for suffix in suffixes], dim=2
        )

    def _behind(self, query: Tensor, key: Tensor, value: Tensor, **shared: Any) -> Tensor:
        if saved_weights_support(query, shared):
            return suffix_attention(query, key, value, scale=shared["scale"])
        return super()._behind(query, key, value, **shared)
