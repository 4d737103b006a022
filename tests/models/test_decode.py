"""Greedy decoding: the same tokens in any batch, and no settings but our own."""

from __future__ import annotations

from typing import Any

import pytest
import shrunk
import torch

from recap.models.engine.generate import generate

END, PAD = 7, 0
PROMPTS = [tuple(3 + (i * 31 + j * 17) % 90 for j in range(2 + i * 5 % 13)) for i in range(11)]


def build(family: str) -> Any:
    return shrunk.model_of(family, 100, seed=1)


def one_by_one(model: Any, prompt: tuple[int, ...], max_new_tokens: int) -> list[int]:
    """Return the greedy continuation by repeated whole forward passes, without a cache."""
    ids: list[int] = list(prompt)
    for _ in range(max_new_tokens):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_answers_in_batches_equal_those_of_one_prompt_at_a_time(family: str) -> None:
    model = build(family)
    unending = [one_by_one(model, prompt, 20) for prompt in PROMPTS]
    assert len({tuple(answer) for answer in unending}) > 5, (
        "a model that repeats itself would prove nothing"
    )
    end = unending[0][8]  # so that some answers end early and others do not
    expected = [answer[: answer.index(end)] if end in answer else answer for answer in unending]
    assert {len(answer) == 20 for answer in expected} == {True, False}
    for batch_size in (1, 4, 32):
        options = {
            "max_new_tokens": 20,
            "end_of_turn_id": end,
            "pad_id": PAD,
            "batch_size": batch_size,
        }
        assert generate(model, PROMPTS, **options) == expected


def test_sampling_settings_of_the_checkpoint_are_not_applied_and_come_back() -> None:
    model = build("qwen2")
    options = {"max_new_tokens": 12, "end_of_turn_id": END, "pad_id": PAD}
    expected = generate(model, PROMPTS, **options)
    settings = model.generation_config
    settings.update(repetition_penalty=5.0, do_sample=True, temperature=3.0, eos_token_id=[1, 2])
    assert generate(model, PROMPTS, **options) == expected
    assert model.generation_config is settings
    assert settings.repetition_penalty == 5.0


def test_dropout_is_off_while_decoding_and_on_again_afterwards() -> None:
    model = build("llama")
    model.config.attention_dropout = 0.9
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.9
    options = {"max_new_tokens": 6, "end_of_turn_id": END, "pad_id": PAD}
    expected = generate(model.eval(), PROMPTS, **options)
    assert generate(model.train(), PROMPTS, **options) == expected
    assert model.training


def test_no_prompts_give_no_answers() -> None:
    assert generate(build("qwen2"), [], max_new_tokens=3, end_of_turn_id=END, pad_id=PAD) == []
