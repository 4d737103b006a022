"""Saved folders as others load them: plain transformers and plain peft."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import shrunk
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from recap.data.encode import ChatEncoder
from recap.models.backbone import load_backbone
from recap.models.export import save_model
from recap.models.finetune import apply_finetune
from recap.records import Message

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])
MESSAGES = [
    Message(role="system", text="Decide."),
    Message(role="user", text="Client: 我不知道 1999 don't."),
]


def tuned(model: Any, method: str) -> Any:
    """Return a model whose tuned weights differ from what it was loaded with."""
    model = apply_finetune(model, method=method)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.05)
    return model.eval()


def assert_same(found: Any, expected: Any) -> None:
    """Compare weights bit for bit and logits to rounding.

    Weights that were loaded lie otherwise in memory, where some kernels add up in another order.
    """
    others = expected.state_dict()
    assert found.state_dict().keys() == others.keys()
    assert all(torch.equal(weight, others[name]) for name, weight in found.state_dict().items())
    logits = expected(IDS).logits
    within = 1e-5 * float(logits.abs().max())
    torch.testing.assert_close(found(IDS).logits, logits, rtol=0, atol=within)


def save(model: Any, tokenizer: Any, folder: Path) -> ChatEncoder:
    encoder = ChatEncoder(tokenizer)
    save_model(
        model, tokenizer, folder, end_of_turn_id=encoder.end_of_turn_id, pad_id=encoder.pad_id
    )
    return encoder


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_plain_transformers_loads_a_tuned_model_with_identical_logits(
    tmp_path: Path, family: str, tied: bool
) -> None:
    source = shrunk.write_family(tmp_path / "source", family, tied=tied)
    model, tokenizer = load_backbone(name="any", family=family, path=source)
    model = tuned(model, "full")
    save(model, tokenizer, tmp_path / "model")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert_same(loaded, model)
    untuned = AutoModelForCausalLM.from_pretrained(source)
    assert not torch.allclose(loaded(IDS).logits, untuned(IDS).logits, atol=1e-3)


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_plain_peft_loads_an_adapter_with_identical_logits(tmp_path: Path, family: str) -> None:
    source = shrunk.write_family(tmp_path / "source", family)
    model, tokenizer = load_backbone(name="any", family=family, path=source)
    model = tuned(model, "lora")
    save(model, tokenizer, tmp_path / "model")
    base = AutoModelForCausalLM.from_pretrained(source)
    assert_same(PeftModel.from_pretrained(base, tmp_path / "model"), model)
    # The adapter knows its base, so that the folder is enough.
    assert_same(AutoPeftModelForCausalLM.from_pretrained(tmp_path / "model"), model)
    assert not list((tmp_path / "model").glob("model*.safetensors")), "only the adapter is saved"


def test_an_adapter_finds_a_base_that_was_named_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrunk.write_family(tmp_path / "source", "llama")
    monkeypatch.chdir(tmp_path)
    model, tokenizer = load_backbone(name="any", family=None, path="source")
    model = tuned(model, "lora")
    save(model, tokenizer, tmp_path / "model")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert_same(AutoPeftModelForCausalLM.from_pretrained(tmp_path / "model"), model)


@pytest.mark.parametrize("tied", [False, True])
def test_an_adapter_on_a_base_made_on_the_spot_brings_its_base(tmp_path: Path, tied: bool) -> None:
    tokenizer = shrunk.qwen2_tokenizer()
    model = tuned(shrunk.model_of("qwen2", len(tokenizer), tied=tied), "lora")
    save(model, tokenizer, tmp_path / "model")
    assert_same(AutoPeftModelForCausalLM.from_pretrained(tmp_path / "model"), model)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "model" / "base")
    assert_same(base, model.unload())


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_the_saved_tokenizer_gives_the_same_prompt_and_generation_stops_where_we_do(
    tmp_path: Path, family: str, method: str
) -> None:
    source = shrunk.write_family(tmp_path / "source", family)
    model, tokenizer = load_backbone(name="any", family=family, path=source)
    encoder = save(tuned(model, method), tokenizer, tmp_path / "model")
    again = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert ChatEncoder(again).prompt_ids(MESSAGES) == encoder.prompt_ids(MESSAGES)
    assert ChatEncoder(shrunk.tokenizer_of(family)).prompt_ids(MESSAGES) == encoder.prompt_ids(
        MESSAGES
    )
    settings = GenerationConfig.from_pretrained(tmp_path / "model")
    assert (settings.eos_token_id, settings.pad_token_id) == (
        encoder.end_of_turn_id,
        encoder.pad_id,
    )
    assert not settings.do_sample


def test_saving_again_replaces_the_folder_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    tokenizer = shrunk.qwen2_tokenizer()
    model = shrunk.model_of("qwen2", len(tokenizer))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "adapter_config.json").write_text("{}")
    save(model, tokenizer, tmp_path / "model")
    assert not (tmp_path / "model" / "adapter_config.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
