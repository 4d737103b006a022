"""The loss over answer tokens against the full computation that transformers does."""

from __future__ import annotations

from typing import Any

import pytest
import shrunk
import torch
from torch.nn.functional import cross_entropy

from recap.data.batches import Batch, MicroBatch, collate
from recap.data.encode import EncodedExample
from recap.models.finetune import apply_finetune
from recap.models.loss import answer_loss

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
    torch.testing.assert_close(loss, full, rtol=1e-6, atol=0)
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
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=0)


def test_only_the_answer_is_learned() -> None:
    model = build("qwen2", "full")
    (example,) = EXAMPLES[:1]
    ids = torch.tensor([example.prompt + example.answer])
    log_probabilities = model(input_ids=ids).logits[0].log_softmax(-1)
    by_hand = -sum(log_probabilities[2 + i, token] for i, token in enumerate(example.answer))
    torch.testing.assert_close(answer_loss(model, batch_of([example])), by_hand, rtol=1e-6, atol=0)


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
