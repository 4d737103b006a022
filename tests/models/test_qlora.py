"""A backbone in 4 bits: how it is loaded, what its gradients are, what is saved of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import four_bits
import pytest
import shrunk
import torch
from bitsandbytes.nn import Linear4bit
from peft import AutoPeftModelForCausalLM

from recap.data.encode import ChatEncoder
from recap.errors import ConfigError
from recap.models.backbone import load_backbone
from recap.models.export import save_model
from recap.models.finetune import apply_finetune

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])
FAMILIES = ["qwen2", "llama"]


def quantized(folder: Path, family: str, compute_dtype: str = "float32") -> tuple[Any, Any]:
    source = shrunk.write_family(folder, family, widths=shrunk.IN_BLOCKS)
    return load_backbone(
        name="any", family=family, path=source, quantize=True, compute_dtype=compute_dtype
    )


def adapted(model: Any, method: str = "qlora") -> Any:
    """Return the model with adapters that already change what it says."""
    tuned = apply_finetune(model, method=method)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    return tuned


def gradients(model: Any) -> list[torch.Tensor]:
    model.train().zero_grad()
    model(input_ids=IDS, labels=IDS).loss.backward()
    return [w.grad.clone() for w in model.parameters() if w.requires_grad]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_projection_is_kept_in_nf4_with_quantized_constants(
    tmp_path: Path, family: str
) -> None:
    model, _ = quantized(tmp_path, family, "bfloat16")
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    assert len(layers) == 2 * 7  # two layers, seven projections
    assert {layer.weight.quant_state.quant_type for layer in layers} == {"nf4"}
    assert all(layer.weight.quant_state.nested for layer in layers)
    assert {layer.compute_dtype for layer in layers} == {torch.bfloat16}
    assert model.lm_head.weight.dtype == torch.float32


@pytest.mark.parametrize("family", FAMILIES)
def test_each_weight_is_read_as_the_value_of_nf4_that_is_next_to_it(
    tmp_path: Path, family: str
) -> None:
    from bitsandbytes.functional import dequantize_4bit

    model, _ = quantized(tmp_path, family)
    plain, _ = load_backbone(name="any", family=family, path=tmp_path)
    layers = dict(plain.named_modules())
    for name, layer in model.named_modules():
        if not isinstance(layer, Linear4bit):
            continue
        found = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        # One product a weight: two roundings at most, of the product and of its constant's sum.
        torch.testing.assert_close(found, four_bits.read(layer.weight), rtol=1e-6, atol=1e-8)
        blocks = layers[name].weight.detach().reshape(-1, 64)
        largest = blocks.abs().amax(dim=1)
        nearest = (blocks / largest[:, None]).unsqueeze(-1).sub(four_bits.NF4).abs().argmin(-1)
        expected = four_bits.NF4[nearest] * four_bits.constants(layer.weight)[:, None]
        torch.testing.assert_close(found.reshape(-1, 64), expected, rtol=1e-6, atol=1e-8)
        # 8 bits keep a constant to about a hundredth of the spread of constants.
        torch.testing.assert_close(four_bits.constants(layer.weight), largest, rtol=0.02, atol=0)


@pytest.mark.parametrize("widths", [(32, 64), (64, 96)])
def test_rows_that_blocks_do_not_divide_are_refused(
    tmp_path: Path, widths: tuple[int, int]
) -> None:
    source = shrunk.write_family(tmp_path, "llama", widths=widths)
    with pytest.raises(ConfigError, match=r"rows of (32|96) weights.*finetune=lora"):
        load_backbone(name="any", family="llama", path=source, quantize=True)
    load_backbone(name="any", family="llama", path=source)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_evaluation_between_two_steps_leaves_gradients_as_they_were(
    tmp_path: Path, family: str
) -> None:
    model = adapted(quantized(tmp_path, family)[0])
    before = gradients(model)
    with torch.no_grad():
        model.eval()(input_ids=IDS)
    after = gradients(model)
    assert len(before) == 2 * 7 * 2
    # The same operations on the same shapes.
    assert all(map(torch.equal, before, after))
    assert all(gradient.abs().sum() > 0 for gradient in before)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_adapters_on_the_weights_that_four_bits_stand_for(
    tmp_path: Path, family: str
) -> None:
    model, _ = quantized(tmp_path, family)
    plain, _ = load_backbone(name="any", family=family, path=tmp_path)
    layers = dict(plain.named_modules())
    for name, layer in model.named_modules():
        if isinstance(layer, Linear4bit):
            layers[name].weight.data.copy_(four_bits.read(layer.weight))
    reference = adapted(plain, "lora")
    for expected, found in zip(gradients(reference), gradients(adapted(model)), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_plain_peft_loads_the_adapter_onto_the_unquantized_base(tmp_path: Path) -> None:
    model, tokenizer = quantized(tmp_path / "source", "qwen2")
    model = adapted(model)
    encoder = ChatEncoder(tokenizer)
    folder = tmp_path / "model"
    save_model(
        model, tokenizer, folder, end_of_turn_id=encoder.end_of_turn_id, pad_id=encoder.pad_id
    )
    loaded = AutoPeftModelForCausalLM.from_pretrained(folder)
    assert loaded.peft_config["default"].base_model_name_or_path == str(tmp_path / "source")
    assert not any(isinstance(module, Linear4bit) for module in loaded.modules())
    assert not list(folder.glob("model*.safetensors")), "only the adapter is saved"
    tuned = {n: w for n, w in model.named_parameters() if w.requires_grad}
    assert all(torch.equal(w, tuned[n]) for n, w in loaded.named_parameters() if n in tuned)


def test_a_model_in_full_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs a model in 4 bits"):
        apply_finetune(shrunk.model_of("qwen2", 50), method="qlora")


def test_the_backbone_made_on_the_spot_is_refused() -> None:
    with pytest.raises(ConfigError, match="finetune=lora"):
        load_backbone(name="tiny", family="qwen2", quantize=True)
