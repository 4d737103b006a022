"""Which weights a tuning method makes trainable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import shrunk
import torch

from recap.errors import ConfigError
from recap.models.finetune import apply_finetune, causal_model, checkpoint_gradients


def test_full_tuning_trains_every_weight() -> None:
    model = shrunk.model_of("qwen2", 50).requires_grad_(False)
    assert all(weight.requires_grad for weight in apply_finetune(model, method="full").parameters())


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_lora_trains_adapters_of_rank_eight_on_every_projection_and_nothing_else(
    family: str,
) -> None:
    model = apply_finetune(shrunk.model_of(family, 50), method="lora")
    trainable = {
        name: weight.shape for name, weight in model.named_parameters() if weight.requires_grad
    }
    projections = ["q", "k", "v", "o", "gate", "up", "down"]
    # Two layers, seven projections, two factors.
    assert len(trainable) == 2 * len(projections) * 2
    assert all(any(f".{p}_proj.lora_" in name for p in projections) for name in trainable)
    assert all(8 in shape for shape in trainable.values())


def test_lora_begins_as_the_model_it_adapts() -> None:
    ids = torch.tensor([[3, 4, 5]])
    expected = shrunk.model_of("llama", 50)(input_ids=ids).logits
    adapted = apply_finetune(shrunk.model_of("llama", 50), method="lora", rank=4)
    # The same operations on the same shapes, and zeros added to what they give.
    assert torch.equal(adapted(input_ids=ids).logits, expected)


def test_adapters_depend_on_the_seed_alone() -> None:
    def first_weights(seed: int) -> list[torch.Tensor]:
        torch.rand(1)
        model = apply_finetune(shrunk.model_of("qwen2", 50), method="lora", seed=seed)
        return [weight for name, weight in model.named_parameters() if "lora_A" in name]

    assert all(map(torch.equal, first_weights(0), first_weights(0)))
    assert not any(map(torch.equal, first_weights(0), first_weights(1)))


def test_equal_adapters_are_saved_with_equal_configurations(tmp_path: Path) -> None:
    adapted = apply_finetune(shrunk.model_of("qwen2", 50), method="lora")
    adapted.save_pretrained(tmp_path, save_embedding_layers=False)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]
    # peft keeps a set, which every process writes in another order.
    assert saved == [*("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")]


def test_a_method_that_does_not_exist_is_refused_with_the_closest() -> None:
    with pytest.raises(
        ConfigError, match=r"'lorra' \(did you mean 'lora'\?\); known: full, lora, qlora, none"
    ):
        apply_finetune(shrunk.model_of("qwen2", 50), method="lorra")


def test_a_misspelt_layer_among_good_ones_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no layer 'v_prj' \(did you mean 'v_proj'\?\)"):
        apply_finetune(
            shrunk.model_of("qwen2", 50), method="lora", target_modules=["q_proj", "v_prj"]
        )


def test_without_tuning_no_weight_is_trained() -> None:
    model = apply_finetune(shrunk.model_of("qwen2", 50), method="none")
    assert not any(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize("method", ["full", "lora"])
def test_gradient_checkpointing_computes_layers_twice_and_changes_no_gradient(method: str) -> None:
    ids = torch.tensor([[3, 4, 5, 6]])

    def gradients(*, checkpointed: bool) -> tuple[list[torch.Tensor], int]:
        model = apply_finetune(shrunk.model_of("llama", 50), method=method, dropout=0.1).train()
        if checkpointed:
            checkpoint_gradients(model)
        calls = []
        causal_model(model).get_decoder().layers[0].mlp.register_forward_pre_hook(
            lambda *_: calls.append(1)
        )
        torch.manual_seed(0)
        model(input_ids=ids, labels=ids).loss.backward()
        return [w.grad for w in model.parameters() if w.requires_grad], len(calls)

    (expected, once), (found, twice) = gradients(checkpointed=False), gradients(checkpointed=True)
    assert (once, twice) == (1, 2)
    # The same operations on the same shapes, with the same random numbers.
    assert all(map(torch.equal, expected, found))
