"""Room on the disk, looked for before a training begins."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from recap.errors import ConfigError

_AT_ONCE = 3
"""Two whole checkpoints and one that is being written: no training of three saves has fewer."""

_GIGABYTE = 1e9


def require_free_space(folder: Path, model: Any, *, optimizer: str, n_saves: int) -> None:
    """Check that a training's checkpoints and its model have room.

    What is required is the least that the training will need, so that no run that could end is
    refused; quotas are not seen.

    Args:
        folder: Where the checkpoints go; what lies there already is not needed again.
        model: A model or an adapted one; its trainable weights are in the checkpoints.
        optimizer: Its registered name.
        n_saves: Checkpoints that are written at least.

    Raises:
        ConfigError: With what is needed and what is there.
    """
    needed = least_bytes(model, optimizer=optimizer, n_saves=n_saves) - _bytes_in(folder)
    there = folder
    while not there.is_dir():
        there = there.parent
    free = shutil.disk_usage(there).free
    if needed > free:
        raise ConfigError(
            f"{folder}: training needs at least {needed / _GIGABYTE:.3f} GB on this disk for its "
            f"checkpoints and the model, and {free / _GIGABYTE:.3f} GB are free; make room, set "
            "runs_dir to a folder on another disk, or tune less (finetune=lora)"
        )


def least_bytes(model: nn.Module, *, optimizer: str, n_saves: int) -> int:
    """Return how many bytes checkpoints and the model take together, at least.

    A checkpoint holds trainable weights and the optimiser's moments: two numbers a weight, of its
    own type (torch's AdamW), of 32 bits or of 8 (bitsandbytes 0.50). Nothing is assumed of other
    optimisers.
    """
    weights = list(model.parameters())
    tuned = [weight for weight in weights if weight.requires_grad]
    checkpoint = _bytes(tuned) + sum(_moments(weight, optimizer) for weight in tuned)
    # Only what is tuned is written where the rest is frozen.
    exported = _bytes(tuned)
    training = min(n_saves, _AT_ONCE) * checkpoint
    exporting = min(n_saves, _AT_ONCE - 1) * checkpoint + exported
    return max(training, exporting)


def _moments(weight: Tensor, optimizer: str) -> int:
    width = {"adamw": weight.element_size(), "paged_adamw32bit": 4}.get(optimizer, 0)
    width = 1 if optimizer in ("adamw8bit", "paged_adamw8bit") else width
    return 2 * width * weight.numel()


def _bytes(weights: list[Any]) -> int:
    return sum(weight.numel() * weight.element_size() for weight in weights)


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
