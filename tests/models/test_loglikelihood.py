"""What a model makes of given tokens: against a whole forward, and against generation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from shrunk import model_of
from torch.nn.functional import cross_entropy

from recap.models.engine.generate import generate
from recap.models.engine.loss import LoglikelihoodRequest, loglikelihoods
from recap.models.finetune import apply_finetune

N_TOKENS = 300


@pytest.fixture(scope="module", params=["qwen2", "llama", "adapted"])
def model(request: pytest.FixtureRequest) -> Any:
    made = model_of("llama" if request.param == "llama" else "qwen2", N_TOKENS)
    if request.param != "adapted":
        return made
    adapted = apply_finetune(made, method="lora", rank=4)
    generator = torch.Generator().manual_seed(1)
    for name, weight in adapted.named_parameters():
        if ".lora_B." in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.3
    return adapted.eval()


def draw(n: int, seed: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(N_TOKENS, (n,), generator=generator).tolist())


@pytest.mark.parametrize("shared", [0, 40])
def test_log_perplexity_is_that_of_a_whole_forward(model: Any, shared: int) -> None:
    begin = draw(shared, 0)
    requests = [
        LoglikelihoodRequest(ids=(*begin, *draw(n, n)), start=shared + start)
        for n, start in ((9, 3), (14, 1), (7, 6), (11, 2), (8, 4))
    ]
    told: list[int] = []
    found = loglikelihoods(model, requests, batch_size=2, on_scored=told.append)
    assert sum(told) == len(requests)
    for passage, reading in zip(requests, found, strict=True):
        ids = torch.tensor(passage.ids)
        with torch.no_grad():
            logits = model(input_ids=ids[None]).logits[0]
        part = slice(passage.start - 1, len(ids) - 1)
        loss = cross_entropy(logits[part], ids[passage.start :], reduction="sum")
        assert reading.log_perplexity == pytest.approx(float(loss), rel=1e-5)


def test_greedy_says_what_generation_would_give(model: Any) -> None:
    prompts = [draw(12, seed) for seed in range(4)]
    said = generate(model, prompts, max_new_tokens=6, end_of_turn_id=N_TOKENS + 1, pad_id=0)
    own = [LoglikelihoodRequest(ids=(*p, *s), start=12) for p, s in zip(prompts, said, strict=True)]
    changed = [
        LoglikelihoodRequest(ids=(*p, *s[:-1], (s[-1] + 1) % N_TOKENS), start=12)
        for p, s in zip(prompts, said, strict=True)
    ]
    assert [reading.greedy for reading in loglikelihoods(model, own)] == [True] * 4
    assert [reading.greedy for reading in loglikelihoods(model, changed)] == [False] * 4


def test_nothing_to_read_gives_nothing(model: Any) -> None:
    assert loglikelihoods(model, []) == []
