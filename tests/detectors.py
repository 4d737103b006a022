"""Small random models, saved as training saves them, and dialogues to ask them about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from shrunk import model_of, qwen2_tokenizer, write_family

from recap.data.encode import ChatEncoder
from recap.models.backbone import load_backbone
from recap.models.export import ModelSettings, save_model
from recap.models.finetune import apply_finetune
from recap.records import Dialogue, Turn
from recap.tasks.library import get_task
from recap.tasks.task import Task

TALK = Dialogue(
    session="s1",
    turns=(
        Turn(speaker="client", text="I did not want to come here today."),
        Turn(speaker="counselor", text="What made it hard to come?"),
        Turn(speaker="client", text="I don't know."),
        Turn(speaker="client", text="You keep asking me that."),
        Turn(speaker="counselor", text="That sounds tiring."),
        Turn(speaker="counselor", text="What would help you now?"),
        Turn(speaker="client", text=""),
        Turn(speaker="client", text="Nothing changes anyway."),
    ),
)
"""Client turns after each other, counsellor turns after each other, and one without text."""

LATER = Dialogue(
    session="s2",
    turns=(
        Turn(speaker="counselor", text="How was the week?"),
        Turn(speaker="client", text="很好，谢谢你。", id="own"),
    ),
)


def small_task(name: str, *, rationale: bool = False) -> Task:
    """Return a built-in task with short prompts."""
    return get_task(name, style="brief", rationale=rationale)


def write_model(folder: Path, task: Task, *, seed: int = 0, tokens: int = 4096) -> Path:
    """Write a whole model with random weights, its task beside it."""
    tokenizer = qwen2_tokenizer()
    model = model_of("qwen2", len(tokenizer), seed=seed)
    model.config.max_position_embeddings = tokens
    return _save(model, tokenizer, folder, task)


def write_adapter(folder: Path, task: Task, base: Path, *, seed: int = 0, **settings: Any) -> Path:
    """Write an adapter with random weights over the model in ``base``."""
    model, tokenizer = load_backbone(name="base", family="qwen2", path=base)
    adapted = apply_finetune(model, method="lora", rank=4, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in adapted.named_parameters():
        if ".lora_B." in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.3
    return _save(adapted, tokenizer, folder, task, **settings)


def write_cascade(folder: Path) -> tuple[Path, Path]:
    """Write two adapters over one base: ``binary`` and ``fine_grained``."""
    base = write_family(folder / "base", "qwen2")
    binary = write_adapter(folder / "binary", small_task("binary"), base, seed=1)
    fine = write_adapter(folder / "fine", small_task("fine_grained"), base, seed=2)
    return binary, fine


def _save(model: Any, tokenizer: Any, folder: Path, task: Task, **settings: Any) -> Path:
    encoder = ChatEncoder(tokenizer)
    save_model(
        model,
        tokenizer,
        folder,
        end_of_turn_id=encoder.end_of_turn_id,
        pad_id=encoder.pad_id,
        settings=ModelSettings(task=task, max_new_tokens=12, **settings),
    )
    return folder
