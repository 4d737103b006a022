"""Memory by hand: parameters times bytes, for models whose sizes are published."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

import recap
from recap.plan.architecture import Architecture, count_parameters, find_architecture
from recap.plan.memory import DecodedBatch, Memory, device_memory
from recap.plan.plan import Demand, changes_that_fit, disk_bytes
from recap.plan.workload import PlannedBatch, Setting, largest_group

GROUP = PlannedBatch(lengths=(1000,) * 4, answers=(30,) * 4, prefix=850)
LLAMA_8B = 8_030_261_248
LLAMA_8B_MATRICES = 6_979_321_856
LLAMA_8B_EMBEDDING = 128_256 * 4096


@cache
def architecture_of(name: str) -> Architecture:
    backbone = recap.load_config(["run=r", f"backbone={name}"]).backbone
    return find_architecture(
        name=backbone.name, family=backbone.family, declared=backbone.architecture
    )


def memory_of(name: str, **setting: Any) -> Memory:
    architecture, chosen = architecture_of(name), Setting(**setting)
    counts = count_parameters(architecture, method=chosen.method)
    return device_memory(architecture, counts, chosen, group=GROUP)


def held_in_step(memory: Memory) -> float:
    held = memory.table["step"]
    return held["weights"] + held["gradients"] + held["optimizer"]


def test_full_tuning_in_float32_takes_sixteen_bytes_a_parameter() -> None:
    held = held_in_step(memory_of("llama8b"))
    assert held == 16 * LLAMA_8B
    assert held / 1e9 == pytest.approx(128.5, abs=0.05)


def test_eight_devices_hold_an_eighth_each_under_fsdp_and_all_of_it_under_ddp() -> None:
    assert held_in_step(memory_of("llama8b", strategy="fsdp", n_devices=8)) == 2 * LLAMA_8B
    assert held_in_step(memory_of("llama8b", strategy="ddp", n_devices=8)) == 16 * LLAMA_8B


def test_shares_on_the_host_take_no_memory_of_the_device() -> None:
    memory = memory_of("llama8b", strategy="fsdp", n_devices=8, cpu_offload=True)
    assert held_in_step(memory) == 0
    # But what is gathered to compute: embedding, output layer and two layers.
    gathered = 4 * (2 * LLAMA_8B_EMBEDDING + 2 * LLAMA_8B_MATRICES / 32)
    assert memory.table["forward"]["weights"] == gathered


def test_moments_in_eight_bits_take_two_bytes_and_their_scales() -> None:
    state = memory_of("llama8b", optimizer="adamw8bit").table["step"]["optimizer"]
    # Two bytes, and two scales of four bytes a block of 256; no vector has 4,096 weights or fewer
    # but norms, which have exactly 4,096.
    assert state == pytest.approx((2 + 8 / 256) * LLAMA_8B)


def test_weights_in_four_bits_take_half_a_byte_and_their_scales() -> None:
    held = memory_of("llama8b", method="qlora", dtype="bfloat16").table["step"]
    matrices = LLAMA_8B_MATRICES * (0.5 + 1 / 64 + 1 / 4096)
    others = 2 * (LLAMA_8B - LLAMA_8B_MATRICES)
    adapters = 4 * 20_971_520
    assert held["weights"] == pytest.approx(matrices + others + adapters)
    # 5.8 GB, and 0.25 GB for gradients and moments of the adapters.
    assert sum(held[kind] for kind in ("weights", "gradients", "optimizer")) / 1e9 == pytest.approx(
        6.04, abs=0.01
    )


def test_adapters_alone_have_gradients_and_moments() -> None:
    held = memory_of("llama8b", method="lora").table["step"]
    assert held["gradients"] == 4 * 20_971_520
    assert held["optimizer"] == 8 * 20_971_520


def test_mixed_precision_keeps_a_copy_of_every_matrix_of_the_layers() -> None:
    plain, mixed = memory_of("llama8b"), memory_of("llama8b", precision="bf16-mixed")
    added = mixed.table["forward"]["weights"] - plain.table["forward"]["weights"]
    assert added == 2 * LLAMA_8B_MATRICES


def test_checkpointing_trades_layers_for_their_inputs() -> None:
    kept = memory_of("llama8b", gradient_checkpointing=True).table["forward"]["activations"]
    assert kept < 0.1 * memory_of("llama8b").table["forward"]["activations"]


def test_the_cache_of_decoding_is_keys_and_values_of_every_layer() -> None:
    architecture = architecture_of("llama8b")
    batch = DecodedBatch(n_examples=32, prompt=1000, answer=128)
    memory = device_memory(
        architecture,
        count_parameters(architecture),
        Setting(dtype="bfloat16"),
        group=GROUP,
        decoding=batch,
    )
    # Two, for keys and values; 32 layers of 8 heads of 128; two bytes each.
    assert memory.table["decoding"]["cache"] == 2 * 32 * 8 * 128 * 2 * 32 * 1128
    sharing = device_memory(
        architecture,
        count_parameters(architecture),
        Setting(dtype="bfloat16"),
        group=GROUP,
        decoding=replace(batch, prefix=800),
    )
    assert sharing.table["decoding"]["cache"] == 2 * 32 * 8 * 128 * 2 * (800 + 32 * 328)


def test_an_untouched_backbone_is_decoded_and_never_trained() -> None:
    architecture = architecture_of("qwen0_5b")
    memory = device_memory(
        architecture,
        count_parameters(architecture, method="none"),
        Setting(method="none"),
        group=GROUP,
        decoding=DecodedBatch(n_examples=1, prompt=10, answer=10),
    )
    assert list(memory.table) == ["decoding"]


def test_the_peak_is_the_moment_that_holds_most() -> None:
    memory = Memory(table={"forward": {"weights": 3.0, "logits": 1.0}, "step": {"weights": 3.5}})
    assert (memory.peak_moment, memory.peak) == ("forward", 4.0)


def test_the_largest_group_is_the_longest_examples_that_have_room() -> None:
    examples = [(10, 1), (30, 3), (20, 2)]
    assert largest_group(examples, n_examples=2, n_tokens=None, prefix=None).lengths == (30, 20)
    assert largest_group(examples, n_examples=3, n_tokens=50, prefix=0).lengths == (30, 20)
    assert largest_group(examples, n_examples=3, n_tokens=43, prefix=8).lengths == (30, 20)
    assert largest_group(examples, n_examples=3, n_tokens=5, prefix=0).lengths == (30,)


def demand(**changed: Any) -> Demand:
    setting = Setting(precision="bf16-mixed")
    given: dict[str, Any] = {
        "architecture": architecture_of("llama8b"),
        "setting": setting,
        "examples": ((1000, 30),) * 200,
        "prefix": 850,
        "global_batch_size": 128,
        "per_device_batch_size": 4,
        "max_tokens": None,
        "decoding_batch_size": 32,
        "max_new_tokens": 128,
    }
    return replace(Demand(**given), **changed)


def test_a_step_of_more_examples_than_fit_at_once_accumulates() -> None:
    assert demand().accumulates
    assert not demand(global_batch_size=4).accumulates
    assert not demand(setting=Setting(n_devices=32, strategy="fsdp")).accumulates


def test_changes_are_overrides_and_bring_the_peak_under_the_limit() -> None:
    limit = 80 * 2.0**30
    changes = changes_that_fit(demand(), limit)
    assert changes
    assert all(change.peak_bytes <= limit for change in changes)
    assert any("trainer.strategy=fsdp" in change.overrides for change in changes)
    assert any("finetune=lora" in change.overrides for change in changes)
    assert any("finetune=qlora" in change.overrides for change in changes)
    composed = [recap.load_config(["run=r", "backbone=llama8b", *c.overrides]) for c in changes]
    assert {config.finetune.method for config in composed} >= {"full", "lora", "qlora"}


def test_one_device_of_that_size_holds_a_full_tuning_only_with_moments_in_8_bits() -> None:
    # 16 bytes a parameter are 128.5 GB; with 10, and layers computed again, 80.3 are left.
    ways = changes_that_fit(demand(), 80 * 2.0**30)
    assert all(
        any(
            o.startswith(("finetune=", "trainer.strategy=", "optimizer=adamw8bit"))
            for o in way.overrides
        )
        for way in ways
    )


def test_what_no_change_makes_fit_gets_none() -> None:
    assert changes_that_fit(demand(), 1e6) == []


def test_models_and_checkpoints_take_their_place_on_the_disk() -> None:
    counts = count_parameters(architecture_of("llama8b"))
    disk = disk_bytes(counts, Setting(), n_models=5, keep="all")
    assert disk.model == 4 * LLAMA_8B
    assert disk.models == 5 * disk.model
    assert disk.checkpoint == 12 * LLAMA_8B
    assert disk_bytes(counts, Setting(), n_models=5, keep="best").models == disk.model
    assert disk_bytes(counts, Setting(), n_models=5, keep="none").models == 0
    adapters = count_parameters(architecture_of("llama8b"), method="lora")
    small = disk_bytes(adapters, Setting(method="lora"), n_models=5, keep="all")
    assert small.model == 4 * 20_971_520
    merged = disk_bytes(adapters, Setting(method="lora"), n_models=5, keep="all", whole=True)
    assert merged.model == 4 * LLAMA_8B + small.model
