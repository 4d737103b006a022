"""The formulas against the tensors that autograd really saves, layer by layer, to the byte."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from recap.data.batches import MicroBatch, collate
from recap.data.encode import EncodedExample
from recap.models.engine.loss import predicting_states
from recap.models.finetune import apply_finetune, checkpoint_gradients
from recap.plan.architecture import Architecture
from recap.plan.memory import Activations
from recap.plan.workload import PlannedBatch, Setting

SHARED, RESTS, ANSWER = 40, (20, 30, 25), 6
LAYOUTS = {"padded": None, "packed": 0, "trunk": SHARED}
FAMILIES = {"qwen2": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}


def architecture_of(n_layers: int, family: str = "qwen2") -> Architecture:
    make_config: Any = FAMILIES[family][0]
    config = make_config(
        vocab_size=500,
        hidden_size=48,
        intermediate_size=160,
        num_hidden_layers=n_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    return Architecture(config=config, source="a test", folder=None)


def group_of(prefix: int | None) -> PlannedBatch:
    return PlannedBatch(
        lengths=tuple(SHARED + rest for rest in RESTS), answers=(ANSWER,) * 3, prefix=prefix
    )


def saved_bytes(
    n_layers: int, setting: Setting, prefix: int | None, family: str = "qwen2"
) -> float:
    """Return the bytes that one forward saves for its backward, each storage once, less weights."""
    model: Any = FAMILIES[family][1](architecture_of(n_layers, family).config)
    model = model.train().to(getattr(torch, setting.dtype))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        if setting.adapted:
            model = apply_finetune(
                model, method="lora", rank=8, target_modules=setting.target_modules
            )
    if setting.precision == "bf16-true":
        model = model.bfloat16()
    if setting.gradient_checkpointing:
        checkpoint_gradients(model)
    examples = [
        EncodedExample(
            id=str(i),
            prompt=(1,) * SHARED + (2 + i,) * (rest - ANSWER),
            answer=(9,) * ANSWER,
            gold=0,
        )
        for i, rest in enumerate(RESTS)
    ]
    plan = MicroBatch(indices=(0, 1, 2), step_tokens=1, number=0, ends_step=True)
    batch = collate(examples, plan, 0, prefix)
    shapes = {tuple(p.shape) for p in model.parameters()}
    shapes |= {shape[::-1] for shape in shapes}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept, storages = [], {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        # A copy of a weight in another type has a weight's shape; it is counted elsewhere.
        if tuple(tensor.shape) not in shapes:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    mixed = setting.precision == "bf16-mixed"
    autocast = torch.autocast("cpu", torch.bfloat16) if mixed else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), autocast:
        predicting_states(model, batch)
    return float(sum(size for place, size in storages.items() if place not in weights))


TYPES = [
    ("float32", "32-true"),
    ("float32", "bf16-mixed"),
    ("bfloat16", "32-true"),
    ("bfloat16", "bf16-mixed"),
    ("float32", "bf16-true"),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("dtype", "precision"), TYPES)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_layer_keeps_what_autograd_saves_for_it(
    method: Any, dtype: str, precision: str, layout: str
) -> None:
    setting = Setting(method=method, dtype=dtype, precision=precision)
    prefix = LAYOUTS[layout]
    measured = (saved_bytes(4, setting, prefix) - saved_bytes(2, setting, prefix)) / 2
    assert Activations(architecture_of(1), setting).layer(group_of(prefix)) == measured


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_holds_for_llama_and_for_adapters_on_two_projections(layout: str) -> None:
    setting = Setting(method="lora", target_modules=("q_proj", "v_proj"))
    prefix = LAYOUTS[layout]
    measured = saved_bytes(3, setting, prefix, "llama") - saved_bytes(2, setting, prefix, "llama")
    assert Activations(architecture_of(1, "llama"), setting).layer(group_of(prefix)) == measured


def test_with_gradient_checkpointing_a_layer_keeps_its_input_alone() -> None:
    setting = Setting(gradient_checkpointing=True)
    for prefix in LAYOUTS.values():
        measured = saved_bytes(3, setting, prefix) - saved_bytes(2, setting, prefix)
        assert measured == 48 * 4 * group_of(prefix).tokens


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_whole_forward_keeps_its_layers_and_little_else(layout: str) -> None:
    prefix = LAYOUTS[layout]
    measured = saved_bytes(8, Setting(), prefix)
    kept = Activations(architecture_of(8), Setting()).kept(group_of(prefix))
    assert kept == pytest.approx(measured, rel=0.02)
