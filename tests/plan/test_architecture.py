from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import recap
from recap.errors import ConfigError
from recap.plan.architecture import (
    Architecture,
    count_parameters,
    find_architecture,
    find_tokenizer,
)
from tests.shrunk import model_of, write_family

# Billions, as the models' own pages give them.
PUBLISHED = {
    "qwen0_5b": 0.49,
    "qwen1_5b": 1.54,
    "qwen3b": 3.09,
    "qwen7b": 7.61,
    "qwen14b": 14.7,
    "qwen32b": 32.5,
    "qwen72b": 72.7,
    "llama8b": 8.03,
    "llama70b": 70.6,
    "qwen3_0_6b": 0.596,
    "qwen3_1_7b": 1.72,
    "qwen3_4b": 4.02,
    "qwen3_8b": 8.19,
    "qwen3_14b": 14.8,
    "qwen3_32b": 32.8,
    "llama3_2_1b": 1.24,
    "llama3_2_3b": 3.21,
    "gemma3_1b": 1.0,
    "mistral_small": 23.6,
    "glm4_9b": 9.4,
    "smollm2": 0.135,
    "smollm2_1_7b": 1.71,
    "smollm3_3b": 3.08,
}


@cache
def architecture_of(name: str) -> Architecture:
    backbone = recap.load_config(["run=r", f"backbone={name}"]).backbone
    return find_architecture(
        name=backbone.name, family=backbone.family, declared=backbone.architecture
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_backbone_has_its_published_number_of_parameters(name: str) -> None:
    counted = count_parameters(architecture_of(name)).total
    # Qwen2.5-32B's page rounds 32.76 to 32.5.
    assert counted / 1e9 == pytest.approx(PUBLISHED[name], rel=0.01)


def test_the_published_sizes_cover_every_backbone_with_weights(project_root: Path) -> None:
    names = {file.stem for file in (project_root / "conf" / "backbone").glob("*.yaml")}
    assert names - {"tiny"} == set(PUBLISHED) | {"local", "hub"}


@pytest.mark.parametrize("family", ["qwen2", "llama"])
@pytest.mark.parametrize("tied", [False, True])
def test_counts_are_those_of_a_real_model(family: str, tied: bool) -> None:
    model = model_of(family, 100, tied=tied)
    counts = count_parameters(Architecture(config=model.config, source="a test", folder=None))
    real = dict(model.named_parameters())
    assert counts.total == sum(p.numel() for p in real.values()) == counts.trainable
    assert counts.head == (0 if tied else real["lm_head.weight"].numel())
    assert counts.embedding == real["model.embed_tokens.weight"].numel()
    assert counts.vectors == sum(p.numel() for p in real.values() if p.ndim == 1)


def test_adapters_are_counted_by_hand() -> None:
    architecture = architecture_of("llama8b")
    counts = count_parameters(architecture, method="lora", rank=8)
    # Rank times the sum of the widths on both sides: q and o, k and v, gate and up, down.
    a_layer = 8 * (2 * (4096 + 4096) + 2 * (4096 + 1024) + 2 * (4096 + 14336) + (14336 + 4096))
    assert counts.adapters == counts.trainable == 32 * a_layer == 20_971_520
    assert counts.total == 8_030_261_248


def test_a_folder_goes_before_the_declared_sizes_and_needs_no_weights(tmp_path: Path) -> None:
    write_family(tmp_path, "llama")
    for weights in tmp_path.glob("*.safetensors"):
        weights.unlink()
    found = find_architecture(
        name="mine", family="llama", path=tmp_path, declared={"hidden_size": 4096}
    )
    assert (found.hidden, found.layers, found.folder) == (32, 2, tmp_path)
    assert find_tokenizer(found, "mine") is not None


def test_a_folder_of_another_family_or_without_sizes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json cannot be read"):
        find_architecture(name="mine", family="llama", path=tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"backbone\.family=qwen2"):
        find_architecture(name="mine", family="llama", path=tmp_path)


def test_a_backbone_of_unknown_size_is_refused_with_two_ways_out() -> None:
    with pytest.raises(ConfigError, match="architecture:") as caught:
        find_architecture(name="mine", family="llama")
    assert "backbone.path=FOLDER" in str(caught.value)


def test_the_tiny_backbone_is_counted_as_it_is_built() -> None:
    from recap.models.backbone import load_tiny

    model: Any = load_tiny(seed=0)[0]
    assert count_parameters(architecture_of("tiny")).total == model.num_parameters()
