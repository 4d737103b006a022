"""The loss over answer tokens against the full computation that transformers does."""

from __future__ import annotations

from typing import Any

import pytest
import shrunk
import torch
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from recap.data.batches import Batch, MicroBatch, collate
from recap.data.encode import EncodedExample
from recap.models.engine.loss import answer_loss
from recap.models.finetune import apply_finetune

EXAMPLES = [
    EncodedExample(id="short", prompt=(11, 12, 13), answer=(40, 41, 2), gold=0),
    EncodedExample(id="long", prompt=tuple(range(20, 45)), answer=(50, 2), gold=1),
    EncodedExample(id="middle", prompt=tuple(range(60, 71)), answer=(31, 32, 33, 34, 2), gold=0),
]


def batch_of(examples: list[EncodedExample], *, filler: bool = False) -> Batch:
    plan = MicroBatch(
        indices=tuple(range(len(examples))), step_tokens=10, number=0, ends_step=True, filler=filler
    )
    return collate(examples, plan, pad_id=0)


NEAR = 1e-5
"""Relative difference of losses from other shapes: logits of 10 and more, each a sum of 32
products, are off by a few units in the last place of float32 (1.2e-7), and so is each loss."""


def build(family: str, method: str, tied: bool = False) -> Any:
    model = shrunk.model_of(family, 100, tied=tied)
    tuned = apply_finetune(model, method=method)
    with torch.no_grad():  # adapters begin at zero: nothing would be tested
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    return tuned


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {
        name: weight.grad.clone()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_loss_and_gradients_equal_those_of_full_logits(
    family: str, method: str, tied: bool
) -> None:
    model, batch = build(family, method, tied), batch_of(EXAMPLES)
    labels = batch.input_ids.masked_fill(~batch.answer_mask, -100)
    attention_mask = torch.zeros_like(batch.input_ids)
    for row, example in enumerate(EXAMPLES):
        attention_mask[row, : len(example.prompt) + len(example.answer)] = 1
    logits = model(input_ids=batch.input_ids, attention_mask=attention_mask).logits
    full = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
    expected = gradients(model, full)
    loss = answer_loss(model, batch)
    actual = gradients(model, loss)
    torch.testing.assert_close(loss, full, rtol=NEAR, atol=0)
    assert actual.keys() == expected.keys()
    assert all(("lora_" in name) == (method == "lora") for name in actual)
    for name, gradient in expected.items():
        torch.testing.assert_close(
            actual[name], gradient, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_padding_changes_no_loss(family: str) -> None:
    model = build(family, "full")
    together = answer_loss(model, batch_of(EXAMPLES))
    alone = sum(answer_loss(model, batch_of([example])) for example in EXAMPLES)
    torch.testing.assert_close(together, alone, rtol=NEAR, atol=0)


def test_only_the_answer_is_learned() -> None:
    model = build("qwen2", "full")
    (example,) = EXAMPLES[:1]
    ids = torch.tensor([example.prompt + example.answer])
    log_probabilities = model(input_ids=ids).logits[0].log_softmax(-1)
    by_hand = -sum(log_probabilities[2 + i, token] for i, token in enumerate(example.answer))
    torch.testing.assert_close(answer_loss(model, batch_of([example])), by_hand, rtol=NEAR, atol=0)


def test_a_filler_has_no_loss_and_gradients_of_zero() -> None:
    model = build("llama", "full")
    loss = answer_loss(model, batch_of(EXAMPLES[:1], filler=True))
    assert loss.item() == 0
    found = gradients(model, loss)
    assert found.keys() == dict(model.named_parameters()).keys()
    assert all(not gradient.any() for gradient in found.values())


def test_the_loss_is_in_float32_for_a_model_in_bfloat16() -> None:
    model = build("qwen2", "full").bfloat16()
    assert answer_loss(model, batch_of(EXAMPLES)).dtype == torch.float32


@pytest.mark.parametrize("positions", [1, 3, 4, 10])
@pytest.mark.parametrize("head", ["plain", "tied", "bias", "adapted", "frozen"])
def test_the_size_of_the_chunks_changes_no_loss_and_no_gradient(head: str, positions: int) -> None:
    model = build("qwen2", "full", tied=head == "tied")
    if head == "bias":
        model.lm_head.bias = torch.nn.Parameter(torch.randn(model.config.vocab_size))
    if head == "frozen":
        model.lm_head.requires_grad_(False)
    if head == "adapted":
        model = apply_finetune(model, method="lora", target_modules=["lm_head", "v_proj"])
        torch.nn.init.normal_(model.base_model.model.lm_head.lora_B["default"].weight)
    model, batch = model.double(), batch_of(EXAMPLES)
    labels = batch.input_ids.masked_fill(~batch.answer_mask, -100)
    logits = model(input_ids=batch.input_ids).logits
    full = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
    expected = gradients(model, full * 0.7)
    loss = answer_loss(model, batch, logits_bytes=positions * 4 * model.config.vocab_size)
    torch.testing.assert_close(loss, full, rtol=1e-12, atol=0)
    actual = gradients(model, loss * 0.7)
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("adapted", [False, True])
def test_the_logits_of_all_answer_tokens_never_exist_together(
    adapted: bool,
) -> None:
    model = build("qwen2", "full")
    if adapted:
        model = apply_finetune(model, method="lora", target_modules=["lm_head"])
    n_tokens, weights = model.config.vocab_size, (32, 8)  # rows of the layer's own matrices
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = function(*args, **kwargs or {})
            for tensor in out if isinstance(out, tuple) else [out]:
                shape = getattr(tensor, "shape", ())
                if shape[-1:] == (n_tokens,) and shape[0] not in weights:
                    seen.append(shape.numel() // n_tokens)
            return out

    batch = batch_of(EXAMPLES)
    with Watch():
        answer_loss(model, batch, logits_bytes=3 * 4 * n_tokens).backward()
    assert max(seen) == 3
    assert int(batch.answer_mask.sum()) == 10


def test_the_gradients_of_a_loss_are_given_once() -> None:
    loss = answer_loss(build("qwen2", "full"), batch_of(EXAMPLES))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="compute the loss again"):
        loss.backward()


def test_the_loss_alone_is_the_same_without_gradients() -> None:
    model, batch = build("llama", "full"), batch_of(EXAMPLES)
    learning = answer_loss(model, batch)
    assert learning.requires_grad
    with torch.no_grad():
        # Other kernels may serve where no gradient is wanted.
        assert answer_loss(model, batch).item() == pytest.approx(learning.item(), rel=NEAR)
    assert not answer_loss(model.requires_grad_(False), batch).requires_grad
