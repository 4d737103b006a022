"""Loading language models from folders, and what is said when there are no weights."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import shrunk
import torch
import yaml
from transformers import (
    AutoConfig,
    BloomConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)

from recap.errors import ConfigError
from recap.models.backbone import load_backbone, load_skeleton, positions_of
from recap.models.engine.attention import TESTED
from recap.system.files import conf_dir

PRESETS = sorted((conf_dir() / "backbone").glob("*[0-9]b.yaml"))
"""Every backbone of conf/ that is on the hub and named by its size."""


def preset(path: Path) -> dict[str, Any]:
    """Return what a choice says, over what it takes from ``local``."""
    values = yaml.safe_load((conf_dir() / "backbone" / "local.yaml").read_text())
    values |= yaml.safe_load(path.read_text())
    return {key: value for key, value in values.items() if key != "defaults"}


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_a_folder_of_the_family_is_loaded_in_the_type_asked_for(
    tmp_path: Path, family: str
) -> None:
    folder = shrunk.write_family(tmp_path / "weights", family)
    model, tokenizer = load_backbone(name="any", family=family, path=folder, dtype="bfloat16")
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert model.config.model_type == family
    text = "Client: I don't know 咨询师 1999"
    assert tokenizer(text)["input_ids"] == shrunk.tokenizer_of(family)(text)["input_ids"]


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_a_skeleton_is_the_model_without_its_weights(tmp_path: Path, family: str) -> None:
    folder = shrunk.write_family(tmp_path / "weights", family)
    model, _ = load_backbone(name="any", family=family, path=folder)
    (folder / "model.safetensors").write_bytes(b"not read")
    skeleton = load_skeleton(name="any", family=family, path=folder)
    assert type(skeleton) is type(model)
    assert all(weight.is_meta for weight in skeleton.parameters())
    shapes = [{n: w.shape for n, w in each.named_parameters()} for each in (skeleton, model)]
    assert shapes[0] == shapes[1]
    with pytest.raises(ConfigError, match="expects weights of the family"):
        load_skeleton(name="any", family="llama" if family == "qwen2" else "qwen2", path=folder)


def test_the_backbone_made_on_the_spot_has_a_skeleton_too() -> None:
    skeleton = load_skeleton(name="tiny", family="qwen2")
    assert all(weight.is_meta for weight in skeleton.parameters())


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_names_itself_and_its_architecture(path: Path) -> None:
    values = preset(path)
    assert values["name"] == path.stem
    assert values["family"] in TESTED
    assert values["path"] is None
    config = AutoConfig.for_model(values["family"], **values["architecture"])
    assert {key: getattr(config, key) for key in values["architecture"]} == values["architecture"]


@pytest.mark.parametrize("name", ["qwen7b", "llama8b", "qwen3_4b"])
def test_without_weights_a_backbone_fails_within_seconds_and_says_how_to_supply_them(
    name: str,
) -> None:
    values = preset(conf_dir() / "backbone" / f"{name}.yaml")
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=r"backbone\.path=FOLDER") as raised:
        load_backbone(**{k: v for k, v in values.items() if k != "architecture"})
    assert time.perf_counter() - start < 10
    assert f"hf download {values['hub_id']}" in str(raised.value)


def test_a_hub_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    from huggingface_hub import constants

    silent = socket.create_server(("127.0.0.1", 0))  # accepts, and never says a word
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
    monkeypatch.setattr("recap.models.hub.HUB_TIMEOUT_SECONDS", 0.5)
    with silent, pytest.raises(ConfigError, match=r"the hub did not answer|timed out"):
        load_backbone(name="qwen7b", family="qwen2", hub_id="Qwen/Qwen2.5-7B-Instruct")


def test_weights_of_another_family_are_refused(tmp_path: Path) -> None:
    folder = shrunk.write_family(tmp_path / "weights", "llama")
    with pytest.raises(
        ConfigError, match=r"expects weights of the family 'qwen2', but .* holds 'llama'"
    ):
        load_backbone(name="qwen7b", family="qwen2", path=folder)


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("*", "is not a folder"),
        ("config.json", "holds no config.json"),
        ("*.safetensors", r"holds no \*.safetensors"),
    ],
)
def test_a_folder_that_lacks_something_is_named_with_what_it_lacks(
    tmp_path: Path, lost: str, said: str
) -> None:
    folder = shrunk.write_family(tmp_path / "weights", "qwen2")
    if lost == "*":
        shutil.rmtree(folder)
    else:
        next(folder.glob(lost)).unlink()
    with pytest.raises(ConfigError, match=said):
        load_backbone(name="qwen7b", family="qwen2", path=folder)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = shrunk.write_family(tmp_path / "weights", "qwen2")
    tokenizer = shrunk.qwen2_tokenizer()
    tokenizer.add_tokens([f"<extra_{i}>" for i in range(9)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ConfigError, match="do not belong together"):
        load_backbone(name="qwen7b", family="qwen2", path=folder)


def test_weights_that_are_cut_off_or_incomplete_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shrunk.write_family(tmp_path / "weights", "llama")
    (weights,) = folder.glob("*.safetensors")
    tensors = load_file(weights)
    lost = tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="1 weights are missing"):
        load_backbone(name="llama8b", family="llama", path=folder)
    save_file(tensors | {"model.layers.1.mlp.up_proj.weight": lost[1:]}, weights)
    with pytest.raises(ConfigError, match=r"cannot be loaded|cannot be read"):
        load_backbone(name="llama8b", family="llama", path=folder)
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ConfigError, match=r"cannot be loaded|cannot be read"):
        load_backbone(name="llama8b", family="llama", path=folder)


@pytest.mark.parametrize(("dtype", "needed"), [("float32", 4398.0), ("bfloat16", 2199.0)])
def test_weights_that_do_not_fit_in_memory_are_refused_before_they_are_read(
    tmp_path: Path, dtype: str, needed: float
) -> None:
    folder = shrunk.write_family(tmp_path / "model", "llama", tied=True)
    file = folder / "config.json"
    # Four matrices of 65,536 x 65,536, three of 65,536 x 262,144, in each of 16 layers: 2^40.
    sizes = {"hidden_size": 1 << 16, "intermediate_size": 1 << 18, "num_hidden_layers": 16}
    heads = {"num_attention_heads": 512, "num_key_value_heads": 512, "head_dim": 128}
    file.write_text(json.dumps({**json.loads(file.read_text()), **sizes, **heads}))
    with pytest.raises(ConfigError) as caught:
        load_backbone(name="huge", family="llama", path=folder, dtype=dtype)
    said = str(caught.value)
    found = float(said.partition(" take ")[2].split()[0])
    # The embedding's rows come on top.
    assert needed <= found < needed * 1.001
    assert dtype in said
    assert "python -m recap.plan" in said
    assert ("backbone.dtype=bfloat16" in said) == (dtype == "float32")


@pytest.mark.parametrize("content", [b"hello", b"GGUF\3\0\0\0"])
def test_a_gguf_file_that_cannot_be_loaded_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "mine.gguf"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"mine\.gguf: transformers cannot load this file"):
        load_backbone(name="mine", family=None, path=file)


def test_a_broken_configuration_is_named(tmp_path: Path) -> None:
    folder = shrunk.write_family(tmp_path / "weights", "qwen2")
    (folder / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json cannot be read"):
        load_backbone(name="qwen7b", family="qwen2", path=folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "unheard_of"}))
    with pytest.raises(ConfigError, match=r"unheard_of"):
        load_backbone(name="qwen7b", family="qwen2", path=folder)


def test_the_tiny_backbone_is_made_from_its_seed_without_touching_the_random_state() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, _ = load_backbone(name="tiny", family="qwen2", seed=1)
    again, _ = load_backbone(name="tiny", family="qwen2", seed=1)
    other, _ = load_backbone(name="tiny", family="qwen2", seed=2)
    assert torch.equal(before, torch.random.get_rng_state())
    weights = [model.get_input_embeddings().weight for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize(
    ("config", "longest", "positions"),
    [
        # The numbers that Qwen2.5-7B-Instruct's files have, whose tokenizer says 131072.
        (Qwen2Config(max_position_embeddings=32768), 131072, 32768),
        # Its README: "context length up to 131,072 tokens" with these lines added.
        (Qwen2Config(max_position_embeddings=32768, rope_scaling=YARN), 131072, 131072),
        # Llama-3.2-1B-Instruct: 128k, which the factor times 8192 is not.
        (LlamaConfig(max_position_embeddings=131072, rope_scaling=LLAMA3), 131072, 131072),
        (LlamaConfig(max_position_embeddings=8192), 2048, 8192),
        # Mistral-7B-v0.1.
        (MistralConfig(max_position_embeddings=32768, sliding_window=4096), 10**30, 32768),
        (GPT2Config(n_positions=1024), 1024, 1024),
        # ALiBi: only the tokenizer may know.
        (BloomConfig(), 2048, 2048),
        (BloomConfig(), 10**30, None),
    ],
)
def test_the_positions_of_a_model_are_those_of_its_configuration(
    config: Any, longest: int, positions: int | None
) -> None:
    tokenizer = shrunk.qwen2_tokenizer()
    tokenizer.model_max_length = longest
    assert positions_of(config, tokenizer) == positions
