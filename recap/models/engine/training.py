"""The backward of trunks and teeth: a row's loss and gradients, a few spans at a time.

A row keeps the activations of all its examples for the backward. But teeth meet only in the keys
and values of trunks. So trunks are computed first; then what goes on from them, a few spans at a
time, forward and backward, while gradients gather in the weights and in the trunks' keys and
values; last the trunks' own backward, from these. Sums are taken in another order, nothing else
changes: memory is that of the trunks on one path and of a few teeth, however many share them.

Like the loss itself (:mod:`recap.models.engine.loss`) this makes its gradients with the loss and
hands them over in the backward, scaled: accumulation, clipping, scaled losses and DDP see one loss
with one backward. For that the gradients of the tuned weights exist twice for a moment.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from recap.data.batches import Batch
from recap.data.layout import NO_TRUNK, Layout
from recap.models.engine.attention import Cache, Row, attach, run_row
from recap.models.engine.loss import (
    answer_loss,
    choose_batching,
    loss_of_states,
    scaled_gradients,
)
from recap.models.finetune import causal_model
from recap.models.strategy import is_sharded

TOKENS_AT_ONCE = 512
"""Tokens of spans that are computed together, or one span. On a CPU twice as many took a fifth
longer and half as much memory again (SmolLM2-135M, 16 examples of 90 tokens, LoRA and full)."""


def training_loss(model: Any, batch: Batch) -> Tensor:
    """Return the loss of the answers and its gradients, a few teeth at a time if that pays.

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
        and choose_batching(model).batching == "trunk"
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
    lengths = [tooth.length for tooth in layout.teeth]
    at_once = [sum(lengths[part]) for part in groups_at_once(lengths)]
    put_off = sum(at_once) - max(at_once)
    return put_off * layers * numbers * width > gradient_bytes


def numbers_saved(hidden: int, intermediate: int, *, again: bool) -> int:
    """Return about how many numbers a layer keeps of each token, at least.

    Its input, and where it is not computed ``again`` gate, up and their product.
    """
    return hidden if again else hidden + 3 * intermediate


def groups_at_once(lengths: Sequence[int]) -> list[slice]:
    """Return which spans are computed together, in order.

    >>> groups_at_once((400, 500, 300, 2000, 100))
    [slice(0, 2, None), slice(2, 3, None), slice(3, 4, None), slice(4, 5, None)]
    """
    found, first, tokens = [], 0, 0
    for place, length in enumerate(lengths):
        if place > first and tokens + length > TOKENS_AT_ONCE:
            found.append(slice(first, place))
            first, tokens = place, 0
        tokens += length
    return [*found, slice(first, len(lengths))] if lengths else []


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
        self._layout = layout
        lengths = (span.length for span in layout.spans)
        self._starts = list(itertools.accumulate(lengths, initial=0))
        return torch.stack(self._learn_from([NO_TRUNK], {})).sum()

    def _learn_from(self, parents: Sequence[int], seen: Mapping[int, Cache]) -> list[Tensor]:
        """Return the losses of all that goes on from some trunks, after its backward."""
        n_trunks = len(self._layout.trunks)
        below = [i for i, span in enumerate(self._layout.spans) if span.parent in parents]
        losses = []
        for group in self._groups([i for i in below if i < n_trunks]):
            losses += self._learn_trunks(group, seen)
        for group in self._groups([i for i in below if i >= n_trunks]):
            losses.append(self._learn_teeth(group, seen))
        return losses

    def _learn_trunks(self, group: Sequence[int], seen: Mapping[int, Cache]) -> list[Tensor]:
        row = Row(self._layout, group, before=seen, keeps=True)
        self._states(row)
        made = [tensor for i in group for pair in row.found[i].values() for tensor in pair]
        apart = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in made]
        # In the order of made: spans, their layers, keys and values.
        rest = iter(apart)
        cut = {i: {layer: (next(rest), next(rest)) for layer in row.found[i]} for i in group}
        losses = self._learn_from(group, {**seen, **cut})
        learned = [
            (one, other.grad)
            for one, other in zip(made, apart, strict=True)
            if other.grad is not None
        ]
        torch.autograd.backward([one for one, _ in learned], [of_one for _, of_one in learned])
        return losses

    def _learn_teeth(self, group: Sequence[int], seen: Mapping[int, Cache]) -> Tensor:
        """Return the loss of a few teeth, after its backward."""
        states, places = self._states(Row(self._layout, group, before=seen, saves_weights=True))
        answered = self._batch.answer_mask[0, places]
        targets = self._batch.input_ids[0, places][answered]
        loss = loss_of_states(self.model, states[0, :-1][answered[1:]], targets)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _states(self, row: Row) -> tuple[Tensor, Tensor]:
        """Return the last hidden states ``(1, time, hidden)`` of spans, and where they stand."""
        positions = self._batch.position_ids
        assert positions is not None
        spans = self._layout.spans
        places = torch.cat(
            [torch.arange(self._starts[i], self._starts[i] + spans[i].length) for i in row.chosen]
        ).to(positions.device)
        states = run_row(
            causal_model(self.model).get_decoder(),
            row,
            input_ids=self._batch.input_ids[:, places],
            position_ids=positions[:, places],
        )
        return states, places

    def _groups(self, numbers: Sequence[int]) -> list[Sequence[int]]:
        lengths = [self._layout.spans[i].length for i in numbers]
        return [numbers[part] for part in groups_at_once(lengths)]
