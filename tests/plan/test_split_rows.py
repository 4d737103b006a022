"""A split backward: the formulas against the tensors that autograd really saves."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from recap.data.batches import MicroBatch, collate
from recap.data.encode import EncodedExample
from recap.models.engine import attention, training
from recap.models.engine.training import training_loss
from recap.models.finetune import apply_finetune, checkpoint_gradients
from recap.plan import memory
from recap.plan.architecture import Architecture, count_parameters
from recap.plan.memory import Activations, SplitRow, split_row
from recap.plan.workload import PlannedBatch, Setting

SHARED, SUFFIXES, ANSWER = 300, (60, 70, 90, 100, 110, 120), 6
GROUP = PlannedBatch(
    lengths=tuple(SHARED + suffix for suffix in SUFFIXES),
    answers=(ANSWER,) * len(SUFFIXES),
    prefix=SHARED,
)
AT_ONCE = 200
"""Tokens: one or two suffixes."""


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "TOKENS_AT_ONCE", AT_ONCE)
    monkeypatch.setattr(attention, "QUERIES_AT_ONCE", 32)
    for module in (training, memory):
        monkeypatch.setattr(module, "splitting_pays", lambda *_, **__: True)


def architecture_of(n_layers: int) -> Architecture:
    config = Qwen2Config(
        vocab_size=100,
        hidden_size=48,
        intermediate_size=160,
        num_hidden_layers=n_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    return Architecture(config=config, source="a test", folder=None)


def planned(n_layers: int, setting: Setting) -> SplitRow:
    architecture = architecture_of(n_layers)
    counts = count_parameters(architecture, method=setting.method)
    found = split_row(architecture, counts, setting, GROUP)
    assert found is not None
    return found


def saved_bytes(
    n_layers: int, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> tuple[float, float]:
    """Return the bytes saved for the backward of the prefix, and most of those of suffixes."""
    model: Any = Qwen2ForCausalLM(architecture_of(n_layers).config).train()
    if setting.adapted:
        model = apply_finetune(model, method="lora", rank=8, target_modules=setting.target_modules)
    if setting.gradient_checkpointing:
        checkpoint_gradients(model)
    examples = [
        EncodedExample(
            id=str(i),
            prompt=(1,) * SHARED + (2 + i,) * (suffix - ANSWER),
            answer=(9,) * ANSWER,
            gold=0,
        )
        for i, suffix in enumerate(SUFFIXES)
    ]
    plan = MicroBatch(indices=tuple(range(len(SUFFIXES))), step_tokens=1, number=0, ends_step=True)
    batch = collate(examples, plan, 0, SHARED)
    shapes = {tuple(p.shape) for p in model.parameters()}
    shapes |= {shape[::-1] for shape in shapes}
    parts: list[dict[int, int]] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tuple(tensor.shape) not in shapes:
            storage = tensor.untyped_storage()
            parts[-1][storage.data_ptr()] = storage.nbytes()
        return tensor

    states = training._SplitRow._states

    def noted(*arguments: Any) -> torch.Tensor:
        parts.append({})
        hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
        with hooks:
            return states(*arguments)

    mixed = setting.precision == "bf16-mixed"
    autocast = torch.autocast("cpu", torch.bfloat16) if mixed else contextlib.nullcontext()
    with monkeypatch.context() as patch, autocast:
        patch.setattr(training._SplitRow, "_states", noted)
        training_loss(model, batch)
    first, *others = parts
    seen = set(first)
    sums = [sum(n for place, n in part.items() if place not in seen) for part in others]
    return sum(first.values()), max(sums)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_each_part_keeps_what_autograd_saves_for_it(
    method: Any, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = Setting(method=method, precision=precision, on_gpu=False)
    of_prefix, of_suffixes = saved_bytes(6, setting, monkeypatch)
    architecture, found = architecture_of(6), planned(6, setting)
    gathered = 2 * 6 * architecture.key * (2 if setting.mixed else 4) * SHARED
    kept = Activations(architecture, setting).split_prefix(found) - gathered
    assert kept == pytest.approx(of_prefix, rel=0.05)
    assert Activations(architecture, setting).split_suffixes(found) == pytest.approx(
        of_suffixes, rel=0.05
    )


def test_layers_that_are_computed_again_keep_their_inputs_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setting = Setting(gradient_checkpointing=True, on_gpu=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        few, many = (saved_bytes(n, setting, monkeypatch) for n in (4, 8))
    assert many[0] - few[0] == 4 * 48 * 4 * SHARED
    assert many[1] - few[1] == 4 * 48 * 4 * (90 + 100)


def test_backwards_are_planned_split_where_they_are_computed_so() -> None:
    architecture = architecture_of(4)
    counts = count_parameters(architecture, method="full")
    setting = Setting(on_gpu=False)
    found = split_row(architecture, counts, setting, GROUP)
    assert found is not None
    # By length, as batches are: 60 + 70, 90 + 100, 110, 120.
    assert found.suffixes.lengths == (90, 100)
    assert found.whole.lengths == (390, 400)
    for other in (
        replace(setting, on_gpu=True),
        replace(setting, strategy="fsdp", n_devices=2),
    ):
        assert split_row(architecture, counts, other, GROUP) is None
    for prefix in (None, 0):
        apart = replace(GROUP, prefix=prefix)
        assert split_row(architecture, counts, setting, apart) is None
