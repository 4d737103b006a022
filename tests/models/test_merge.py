"""Adapters merged onto their unquantized base: the same answers, as a folder of its own."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import four_bits
import pytest
import shrunk
import torch
from bitsandbytes.nn import Linear4bit
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from recap.data.batches import BatchLimits, ScoringLoader
from recap.data.encode import ChatEncoder, EncodedExample
from recap.errors import ConfigError
from recap.models.backbone import load_backbone
from recap.models.export import mean_answer_loss, merge_adapter, save_model
from recap.models.finetune import apply_finetune
from recap.records import Message

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])
MESSAGES = [Message(role="user", text="Client: 我不知道 1999 don't.")]
EXAMPLES = [
    EncodedExample(id=str(i), prompt=(5, 6, 7 + i), answer=(8,) * (1 + i % 3) + (2,), gold=0)
    for i in range(7)
]
FAMILIES = ["qwen2", "llama"]
RELATIVE = 1e-5
"""Of the largest number: 84 units in the last place of float32, for sums of 128 products."""


def merged_by_hand(source: Path, adapted: Any, *, on_four_bits: bool) -> Any:
    """Return a plain model with the adapters' products added to its weights, or to their 4 bits."""
    plain = AutoModelForCausalLM.from_pretrained(source)
    layers = dict(plain.named_modules())
    settings = adapted.peft_config["default"]
    with torch.no_grad():
        for name, layer in adapted.get_base_model().named_modules():
            if not hasattr(layer, "lora_A"):
                continue
            weight = layers[name].weight
            if on_four_bits:
                assert isinstance(layer.base_layer, Linear4bit)
                weight.copy_(four_bits.read(layer.base_layer.weight))
            product = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
            weight += settings.lora_alpha / settings.r * product
    return plain


def batches() -> ScoringLoader:
    return ScoringLoader(EXAMPLES, pad_id=0, limits=BatchLimits(examples=3))


def write_adapter(folder: Path, family: str, method: str = "lora") -> tuple[Any, ChatEncoder]:
    """Write a base and an adapter that says something else than it; return the adapted model."""
    source = shrunk.write_family(folder / "source", family, widths=shrunk.IN_BLOCKS)
    model, tokenizer = load_backbone(
        name="any", family=family, path=source, quantize=method == "qlora"
    )
    model = apply_finetune(model, method=method)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1, generator=generator)
    encoder = ChatEncoder(tokenizer)
    save_model(
        model,
        tokenizer,
        folder / "adapter",
        end_of_turn_id=encoder.end_of_turn_id,
        pad_id=encoder.pad_id,
    )
    return model.eval(), encoder


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_plain_transformers_loads_the_merged_model_with_pefts_logits(
    tmp_path: Path, family: str, in_place: bool
) -> None:
    model, encoder = write_adapter(tmp_path, family)
    adapter = tmp_path / "adapter"
    expected = AutoPeftModelForCausalLM.from_pretrained(adapter).merge_and_unload()(IDS).logits
    output = adapter if in_place else tmp_path / "merged"
    loss = mean_answer_loss(model, batches())
    options = {"batches": batches(), "adapted_loss": loss, "tolerance": RELATIVE * loss}
    merged = merge_adapter(adapter, output, **options)
    assert merged.adapted_loss == loss
    assert merged.merged_loss == pytest.approx(loss, rel=RELATIVE)
    loaded = AutoModelForCausalLM.from_pretrained(output)
    within = {"rtol": 0, "atol": RELATIVE * float(expected.abs().max())}
    torch.testing.assert_close(loaded(IDS).logits, expected, **within)
    torch.testing.assert_close(loaded(IDS).logits, model(IDS).logits, **within)
    untuned = AutoModelForCausalLM.from_pretrained(tmp_path / "source")
    assert not torch.allclose(loaded(IDS).logits, untuned(IDS).logits, atol=1e-2)
    assert not (output / "adapter_config.json").exists()
    assert (adapter / "adapter_config.json").exists() is not in_place
    tokenizer = AutoTokenizer.from_pretrained(output)
    assert (output / "chat_template.jinja").is_file()
    assert ChatEncoder(tokenizer).prompt_ids(MESSAGES) == encoder.prompt_ids(MESSAGES)
    settings = GenerationConfig.from_pretrained(output)
    assert (settings.eos_token_id, settings.pad_token_id) == (
        encoder.end_of_turn_id,
        encoder.pad_id,
    )


def test_a_base_inside_the_folder_is_found_after_the_folder_was_moved(tmp_path: Path) -> None:
    tokenizer = shrunk.qwen2_tokenizer()
    model = apply_finetune(shrunk.model_of("qwen2", len(tokenizer)), method="lora")
    encoder = ChatEncoder(tokenizer)
    options = {"end_of_turn_id": encoder.end_of_turn_id, "pad_id": encoder.pad_id}
    save_model(model, tokenizer, tmp_path / "there", **options)
    (tmp_path / "there").rename(tmp_path / "here")
    loss = mean_answer_loss(model, batches())
    merge_adapter(
        tmp_path / "here",
        tmp_path / "merged",
        batches=batches(),
        adapted_loss=loss,
        tolerance=1e-5,
    )
    assert (tmp_path / "merged" / "model.safetensors").is_file()


@pytest.mark.parametrize("family", FAMILIES)
def test_four_bits_are_merged_onto_the_weights_they_stood_for(tmp_path: Path, family: str) -> None:
    model, _ = write_adapter(tmp_path, family, "qlora")
    adapter, output = tmp_path / "adapter", tmp_path / "merged"
    loss = mean_answer_loss(model, batches())
    trained_on = merged_by_hand(tmp_path / "source", model, on_four_bits=True)
    assert loss == pytest.approx(mean_answer_loss(trained_on, batches()), rel=1e-5)
    expected = merged_by_hand(tmp_path / "source", model, on_four_bits=False)
    cost = abs(mean_answer_loss(expected, batches()) - loss)
    assert cost > 0.01, "4 bits that cost nothing would compare a model with itself"
    options: dict[str, Any] = {"batches": batches(), "adapted_loss": loss}
    with pytest.raises(ConfigError, match="merge_tolerance"):
        merge_adapter(adapter, output, tolerance=0.9 * cost, **options)
    assert not output.exists()
    merged = merge_adapter(adapter, output, tolerance=1.1 * cost, **options)
    assert abs(merged.merged_loss - loss) == pytest.approx(cost, abs=1e-4)
    loaded = AutoModelForCausalLM.from_pretrained(output)
    assert loaded.dtype == torch.float32
    assert not hasattr(loaded.config, "quantization_config")
    found = dict(loaded.named_parameters())
    assert found.keys() == dict(expected.named_parameters()).keys()
    for name, weight in expected.named_parameters():
        # Sums of eight products, added to a weight below 1: a few units in the seventh digit.
        torch.testing.assert_close(found[name], weight, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("change", [0.5, math.nan])
def test_a_tampered_adapter_is_refused_with_both_figures_and_kept_as_it_is(
    tmp_path: Path, change: float
) -> None:
    model, _ = write_adapter(tmp_path, "llama")
    adapter = tmp_path / "adapter"
    weights = load_file(adapter / "adapter_model.safetensors")
    for name in weights:
        if "q_proj.lora_B" in name:
            weights[name] += change
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    before = {file.name: file.read_bytes() for file in adapter.iterdir() if file.is_file()}
    loss = mean_answer_loss(model, batches())
    with pytest.raises(ConfigError) as refused:
        merge_adapter(adapter, adapter, batches=batches(), adapted_loss=loss, tolerance=1e-2)
    assert f"as it was trained {loss:.6f}" in str(refused.value)
    assert "merged model's loss is" in str(refused.value)
    after = {file.name: file.read_bytes() for file in adapter.iterdir() if file.is_file()}
    assert after == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "source"]


def test_the_loss_is_the_mean_over_all_answer_tokens(tmp_path: Path) -> None:
    model = shrunk.model_of("qwen2", 60)
    losses = []
    for example in EXAMPLES:
        logits = model(torch.tensor([example.prompt + example.answer])).logits[0]
        predicted = logits[len(example.prompt) - 1 : -1]
        losses.append(cross_entropy(predicted, torch.tensor(example.answer), reduction="none"))
    expected = torch.cat(losses).mean().item()
    assert mean_answer_loss(model, batches()) == pytest.approx(expected, rel=1e-5)


def test_what_cannot_be_merged_is_refused(tmp_path: Path) -> None:
    write_adapter(tmp_path, "qwen2")
    options: dict[str, Any] = {"batches": batches(), "adapted_loss": 0.0, "tolerance": 1.0}
    with pytest.raises(ConfigError, match="holds no adapter"):
        merge_adapter(tmp_path / "source", tmp_path / "merged", **options)
    shutil.rmtree(tmp_path / "source")
    with pytest.raises(ConfigError, match=r"base is not at .*source"):
        merge_adapter(tmp_path / "adapter", tmp_path / "merged", **options)
