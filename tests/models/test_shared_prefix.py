"""One row with the common beginning once: the loss and gradients of separate padded forwards."""

from __future__ import annotations

from typing import Any

import pytest
import shrunk
import torch
from torch.nn.functional import cross_entropy

from recap.data.batches import Batch, MicroBatch, collate, common_prefix
from recap.data.encode import EncodedExample
from recap.errors import ConfigError
from recap.models.decode import generate
from recap.models.finetune import apply_finetune, causal_model
from recap.models.loss import answer_loss
from recap.models.shared_prefix import choose_batching

FAMILIES = ("qwen2", "qwen3", "llama")
N_TOKENS = 100
START = tuple(range(3, 40))
LARGEST_DIFFERENCE = {torch.float64: 1e-7, torch.float32: 5e-6, torch.bfloat16: 2e-2}
"""Norm of the difference of all gradients over their norm. In float64 transformers' own norms and
rotations stay in float32; in bfloat16 a weight has three significant digits."""


def examples_of(answer_lengths: tuple[int, ...], *, own: int = 17) -> list[EncodedExample]:
    """Return examples that share ``START`` and go on with 1 to ``own`` tokens of their own."""
    generator = torch.Generator().manual_seed(len(answer_lengths))

    def draw(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(1, N_TOKENS, (n,), generator=generator).tolist())

    return [
        # The second token after the start differs, whatever is drawn: the common run is START + 1.
        EncodedExample(
            id=str(i), prompt=(*START, 7, 50 + i, *draw(i * 5 % own)), answer=draw(n), gold=0
        )
        for i, n in enumerate(answer_lengths)
    ]


LABELS = examples_of((3, 2, 4, 2, 3))
RATIONALES = examples_of((31, 8, 22, 40))
PREFIX = len(START) + 1


def batch_of(examples: list[EncodedExample], prefix: int | None) -> Batch:
    plan = MicroBatch(
        indices=tuple(range(len(examples))), step_tokens=1, number=0, ends_step=True
    )
    return collate(examples, plan, 0, prefix)


def build(family: str, *, method: str = "full", dtype: torch.dtype = torch.float64) -> Any:
    """Return a model whose layers all matter: ordinary random ones hardly change what they get."""
    model = shrunk.model_of(family, N_TOKENS)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            generator = torch.Generator().manual_seed(len(name))
            if weight.ndim == 2 and "embed" not in name and "lm_head" not in name:
                weight.normal_(std=weight.shape[1] ** -0.5, generator=generator)
            elif "norm" in name:
                weight.uniform_(0.5, 1.5, generator=generator)
            else:
                weight.normal_(std=0.5, generator=generator)
    tuned = apply_finetune(model, method=method)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    return tuned.to(dtype).train()


def gradient(model: Any, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return all_gradients(model)


def all_gradients(model: Any) -> torch.Tensor:
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    return torch.cat([weight.grad.flatten().double() for weight in learned])


def separately(model: Any, examples: list[EncodedExample]) -> tuple[float, torch.Tensor]:
    """Return loss and gradients of one forward an example by transformers alone, added up."""
    model.zero_grad()
    total = 0.0
    for example in examples:
        ids = torch.tensor([example.prompt + example.answer])
        logits = model(input_ids=ids).logits[0, len(example.prompt) - 1 : -1]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = cross_entropy(logits, torch.tensor(example.answer), reduction="sum")
        loss.backward()
        total += loss.item()
    return total, all_gradients(model)


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert expected.norm() > 0
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("dtype", LARGEST_DIFFERENCE, ids=str)
@pytest.mark.parametrize("examples", [LABELS, RATIONALES], ids=["labels", "rationales"])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("prefix", [PREFIX, 1, 0], ids=["shared", "one", "packed"])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_equal_those_of_separate_forwards(
    family: str, prefix: int, method: str, examples: list[EncodedExample], dtype: torch.dtype
) -> None:
    model = build(family, method=method, dtype=dtype)
    expected_loss, expected = separately(model, examples)
    loss = answer_loss(model, batch_of(examples, prefix))
    assert loss.item() == pytest.approx(expected_loss, rel=LARGEST_DIFFERENCE[dtype])
    assert difference(gradient(model, loss), expected) <= LARGEST_DIFFERENCE[dtype]
