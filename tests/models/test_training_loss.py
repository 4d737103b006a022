"""A row in two phases: loss and gradients of the row at once, of the prefix and a few rests."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import shrunk
import torch
from torch.nn.functional import scaled_dot_product_attention

from recap.data.batches import Batch, MicroBatch, collate
from recap.data.encode import EncodedExample
from recap.data.layout import Layout, Span, side_by_side
from recap.models.engine import attention, training
from recap.models.engine.attention import attend_behind
from recap.models.engine.loss import answer_loss
from recap.models.engine.training import (
    groups_at_once,
    splits_backward,
    splitting_pays,
    training_loss,
)
from recap.models.finetune import apply_finetune, causal_model, checkpoint_gradients

FAMILIES = ("qwen2", "qwen3", "llama")
N_TOKENS = 100
PREFIX = 38
ANSWERS = {"labels": (3, 2, 4, 2, 3), "rationales": (31, 8, 22, 40, 17)}
LARGEST_DIFFERENCE = {torch.float64: 1e-7, torch.float32: 5e-6, torch.bfloat16: 2e-2}


def batch_of(answers: tuple[int, ...], *, filler: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(len(answers))

    def draw(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(1, N_TOKENS, (n,), generator=generator).tolist())

    start = draw(PREFIX)
    examples = [
        EncodedExample(
            id=str(i), prompt=(*start, 50 + i, *draw(i * 5 % 17)), answer=draw(n), gold=0
        )
        for i, n in enumerate(answers)
    ]
    plan = MicroBatch(
        indices=tuple(range(len(answers))), step_tokens=1, number=0, ends_step=True, filler=filler
    )
    return collate(examples, plan, 0, PREFIX)


def build(
    family: str,
    *,
    method: str = "full",
    dtype: torch.dtype = torch.float64,
    tied: bool = False,
    **lora: Any,
) -> Any:
    """Return a model in which every layer, and every adapter, changes what it gets."""
    model = shrunk.model_of(family, N_TOKENS)
    if tied:
        model.config.tie_word_embeddings = True
        model.tie_weights()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            generator = torch.Generator().manual_seed(len(name))
            weight.normal_(std=weight.shape[-1] ** -0.5, generator=generator)
            if "norm" in name:
                weight.abs_().add_(0.5)
    tuned = apply_finetune(model, method=method, **lora)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    return tuned.to(dtype).train()


def gradients(model: Any, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat(
        [weight.grad.flatten().double() for weight in model.parameters() if weight.requires_grad]
    )


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert expected.norm() > 0
    return float((found - expected).norm() / expected.norm())


@pytest.fixture(autouse=True)
def small_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute a few dozen tokens at a time, whatever that saves."""
    monkeypatch.setattr(training, "TOKENS_AT_ONCE", 48)
    monkeypatch.setattr(attention, "QUERIES_AT_ONCE", 7)
    monkeypatch.setattr(training, "splitting_pays", lambda layout, **_: bool(layout.trunks))


@pytest.mark.parametrize("dtype", LARGEST_DIFFERENCE, ids=str)
@pytest.mark.parametrize("answers", ANSWERS.values(), ids=list(ANSWERS))
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_separate_forwards(
    family: str, method: str, answers: tuple[int, ...], dtype: torch.dtype
) -> None:
    model, batch = build(family, method=method, dtype=dtype), batch_of(answers)
    model.zero_grad()
    expected_loss = 0.0
    for example in batch.examples:
        plan = MicroBatch(indices=(0,), step_tokens=1, number=0, ends_step=True)
        one = answer_loss(model, collate([example], plan, 0))
        one.backward()
        expected_loss += one.item()
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    expected = torch.cat([weight.grad.flatten().double() for weight in learned])
    assert splits_backward(model, batch)
    loss = training_loss(model, batch)
    assert loss.item() == pytest.approx(expected_loss, rel=LARGEST_DIFFERENCE[dtype])
    assert difference(gradients(model, loss), expected) <= LARGEST_DIFFERENCE[dtype]


@pytest.mark.parametrize("tokens", [1, 60, 10_000])
@pytest.mark.parametrize("family", FAMILIES)
def test_how_many_rests_are_computed_together_changes_nothing(
    family: str, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = build(family, tied=family == "qwen2"), batch_of(ANSWERS["rationales"])
    expected_loss = answer_loss(model, batch)
    expected = gradients(model, expected_loss)
    monkeypatch.setattr(training, "TOKENS_AT_ONCE", tokens)
    loss = training_loss(model, batch)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-7)
    assert difference(gradients(model, loss), expected) <= 1e-7


@pytest.mark.parametrize("targets", [None, ("o_proj",), ("v_proj", "down_proj")])
def test_adapters_below_which_nothing_learns_are_learned(targets: Any) -> None:
    model = build("llama", method="lora", target_modules=targets)
    batch = batch_of(ANSWERS["labels"])
    expected = gradients(model, answer_loss(model, batch))
    assert difference(gradients(model, training_loss(model, batch)), expected) <= 1e-7


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_layers_that_are_computed_again_give_the_same_gradients(family: str, method: str) -> None:
    model, batch = build(family, method=method), batch_of(ANSWERS["rationales"])
    expected = gradients(model, answer_loss(model, batch))
    checkpoint_gradients(model)
    assert splits_backward(model, batch)
    assert difference(gradients(model, training_loss(model, batch)), expected) <= 1e-7


def test_mixed_precision_is_as_near_to_float32_as_one_row_in_it() -> None:
    model, batch = build("llama", dtype=torch.float32), batch_of(ANSWERS["rationales"])
    exact = gradients(model, answer_loss(model, batch))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        row, loss = answer_loss(model, batch), training_loss(model, batch)
    apart = difference(gradients(model, row), exact)
    assert loss.dtype == torch.float32
    assert difference(gradients(model, loss), exact) <= 1.5 * apart
    assert apart < 5e-2


def test_gradients_are_scaled_and_add_up_to_those_that_are_there() -> None:
    model, batch = build("qwen2"), batch_of(ANSWERS["labels"])
    expected = gradients(model, answer_loss(model, batch))
    model.zero_grad()
    for scale in (0.5, 3.0):
        (scale * training_loss(model, batch)).backward()
    found = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    assert difference(found, 3.5 * expected) <= 1e-7


def test_no_weight_gets_a_gradient_before_the_backward_and_none_gets_it_twice() -> None:
    model, batch = build("qwen2", tied=True), batch_of(ANSWERS["labels"])
    got: list[torch.Tensor] = []
    for weight in model.parameters():
        weight.register_post_accumulate_grad_hook(got.append)
    loss = training_loss(model, batch)
    assert not got
    assert all(weight.grad is None for weight in model.parameters())
    loss.backward()
    assert sorted(map(id, got)) == sorted(map(id, model.parameters()))
    with pytest.raises(RuntimeError, match="has run"):
        loss.backward()


def test_a_few_rests_are_kept_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = build("qwen2"), batch_of((30,) * 8)
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = []

    def note(_: Any, __: Any, states: torch.Tensor) -> None:
        alive.add(states)
        most.append(len(alive))

    causal_model(model).get_decoder().layers[0].register_forward_hook(note)
    training_loss(model, batch).backward()
    assert len(most) == 1 + 8
    assert max(most) <= 2, "the prefix and one rest"


def test_dropout_draws_the_same_again_from_the_same_seed() -> None:
    model = build("qwen2", method="lora", dropout=0.3)
    batch = batch_of(ANSWERS["rationales"])
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(gradients(model, training_loss(model, batch)))
    # The same operations on the same shapes.
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


# Attention with its weights kept.


@pytest.mark.parametrize("before", [0, 1, 30])
@pytest.mark.parametrize("time", [1, 7, 20])
@pytest.mark.parametrize("heads", [2, 6])
def test_attention_with_kept_weights_is_torchs(heads: int, time: int, before: int) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(heads: int, time: int) -> torch.Tensor:
        drawn = torch.randn(1, heads, time, 8, dtype=torch.float64, generator=generator)
        return drawn.requires_grad_()

    query, key, value = draw(heads, time), draw(2, before + time), draw(2, before + time)
    weights = torch.randn(1, heads, time, 8, dtype=torch.float64, generator=generator)
    visible = torch.ones(time, before + time, dtype=torch.bool).tril(before)
    expected = scaled_dot_product_attention(
        query, key, value, attn_mask=visible, scale=0.3, enable_gqa=True
    )
    found = attend_behind(query, key, value, scale=0.3)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    inputs = (query, key, value)
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), inputs),
        torch.autograd.grad((expected * weights).sum(), inputs),
        strict=True,
    ):
        assert torch.allclose(one, other, rtol=0, atol=1e-12)


# Where a row is computed in phases.


def test_rows_that_phases_would_not_serve_stay_whole() -> None:
    model, batch = build("qwen2"), batch_of(ANSWERS["labels"])
    assert splits_backward(model, batch)
    with torch.no_grad():
        assert not splits_backward(model, batch)
    assert not splits_backward(model, batch_of((3,), filler=True))
    padded = collate(batch.examples, batch.plan, 0)
    assert not splits_backward(model, padded)
    assert not splits_backward(model.requires_grad_(False), batch)
    causal_model(model).gradient_checkpointing_enable({"use_reentrant": True})
    assert not splits_backward(model.requires_grad_(True), batch)


def test_phases_pay_when_they_put_off_more_than_the_gradients_they_hold_twice() -> None:
    # 5 rests of 40 tokens, one at a time: 160 are put off, 2 layers, 10 numbers of 4 bytes each.
    teeth = tuple(Span(owner=i, parent=0, seen=10, length=40) for i in range(5))
    layout = Layout(trunks=(Span(owner=0, parent=-1, seen=0, length=10),), teeth=teeth)
    sizes = {"layers": 2, "numbers": 10, "width": 4}
    assert splitting_pays(layout, **sizes, gradient_bytes=160 * 2 * 10 * 4 - 1)
    assert not splitting_pays(layout, **sizes, gradient_bytes=160 * 2 * 10 * 4)
    alone = Layout(trunks=layout.trunks, teeth=teeth[:1])
    assert not splitting_pays(alone, **sizes, gradient_bytes=0)
    assert splitting_pays(side_by_side([40] * 5), **sizes, gradient_bytes=0), "without a trunk too"


def test_rests_are_computed_together_up_to_a_number_of_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "TOKENS_AT_ONCE", 10)
    parts = groups_at_once((5, 5, 1, 30, 2, 8))
    assert [(part.start, part.stop) for part in parts] == [(0, 2), (2, 3), (3, 4), (4, 6)]
