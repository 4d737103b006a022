"""Operations by hand on a toy, and against torch's own counter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from recap.plan.architecture import Architecture, count_parameters
from recap.plan.workload import (
    PlannedBatch,
    Setting,
    decoding_operations,
    forward_operations,
    training_operations,
)


def toy() -> Architecture:
    config = LlamaConfig(
        vocab_size=10,
        hidden_size=4,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    return Architecture(config=config, source="a test", folder=None)


# Matrices: q and o 4 x 4, k and v 4 x 2, three of 4 x 8: 144 weights.
LAYER, HEAD, ATTENTION = 2 * 144 * 5, 2 * 4 * 10 * 2, 4 * 4 * 15
ONE = [PlannedBatch(lengths=(5,), answers=(2,), prefix=0)]  # 5 tokens, 15 pairs, 2 predicted


def test_a_forward_costs_two_a_weight_and_four_a_pair_and_unit() -> None:
    counts = count_parameters(toy())
    assert counts.layer_matrices == 144
    assert forward_operations(toy(), counts, ONE) == LAYER + HEAD + ATTENTION == 1840


def test_a_backward_costs_twice_the_forward_and_checkpointing_the_layers_once_more() -> None:
    counts = count_parameters(toy())
    plain = training_operations(toy(), counts, Setting(), ONE)
    assert plain == 3 * 1840
    again = training_operations(toy(), counts, Setting(gradient_checkpointing=True), ONE)
    assert again == plain + LAYER + ATTENTION


def test_frozen_weights_have_no_gradient_to_pay_for() -> None:
    setting = Setting(method="lora", rank=1)
    counts = count_parameters(toy(), method="lora", rank=1)
    # Widths on both sides: q and o 8, k and v 6, three of 12.
    assert counts.adapters == 64
    adapters = 2 * 64 * 5
    assert training_operations(toy(), counts, setting, ONE) == (
        2 * (LAYER + HEAD) + 3 * (adapters + ATTENTION)
    )


def test_torch_counts_the_same_matrix_products_in_a_training_step() -> None:
    model: Any = LlamaForCausalLM(toy().config)
    with FlopCounterMode(display=False) as counter:
        model(torch.arange(5)[None]).logits.sum().backward()
    by_operator = counter.get_flop_counts()["Global"]
    products = sum(n for name, n in by_operator.items() if "mm" in str(name))
    row = PlannedBatch(lengths=(5,), answers=(5,), prefix=0)
    counted = training_operations(toy(), count_parameters(toy()), Setting(), [row])
    # The kernel of attention is no matrix product to the counter.
    assert counted - 3 * ATTENTION == products


def test_sharing_computes_the_common_tokens_once() -> None:
    alone = PlannedBatch(lengths=(30,) * 4, answers=(5,) * 4, prefix=None)
    shared = PlannedBatch(lengths=(30,) * 4, answers=(5,) * 4, prefix=20)
    assert alone.tokens == 120
    assert shared.tokens == 20 + 4 * 10
    # Queries of a rest see the prefix and themselves, as in a row of their own.
    assert alone.pairs - shared.pairs == 3 * (20 * 21 // 2)
    counts = count_parameters(toy())
    once = forward_operations(toy(), counts, [shared])
    assert forward_operations(toy(), counts, [shared, shared]) == 2 * once


def test_an_answer_costs_its_prompt_and_itself_once() -> None:
    counts = count_parameters(toy())
    assert decoding_operations(toy(), counts, [(3, 0, 2), (3, 0, 2)]) == pytest.approx(2 * 1840)
    # The matrices (2 x 144 a token) of one of the two common tokens, and its pair, are spared.
    spared = 2 * 144 * 1 + 4 * 4 * 1
    found = decoding_operations(toy(), counts, [(3, 0, 2), (3, 1, 2)])
    assert found == pytest.approx(2 * 1840 - spared)
