"""Bytes on the disk: models that stay, and checkpoints while a fold is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from recap.models.architecture import ParameterCounts
from recap.planning.setting import OPTIMIZER_BYTES, Setting

CHECKPOINTS_AT_ONCE = 5
"""The two newest, the two best, and one that is being written."""


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Bytes of one run folder."""

    model: float
    """Of one fold's model."""
    models: float
    """Of all models that stay."""
    checkpoint: float
    """Of one checkpoint: tuned weights and the optimiser's state."""

    @property
    def most(self) -> float:
        """While the last fold is trained."""
        return self.models + CHECKPOINTS_AT_ONCE * self.checkpoint


def disk_bytes(
    counts: ParameterCounts,
    setting: Setting,
    *,
    n_models: int,
    keep: Literal["all", "best", "none"],
    whole: bool = False,
) -> Disk:
    """Return what a run leaves on the disk.

    Args:
        counts: Parameters under the tuning method.
        setting: How they are trained.
        n_models: Trainings of the run.
        keep: As ``keep_models``.
        whole: Whether an adapter's folder carries the backbone too: ``merge=true``, or a backbone
            that exists nowhere else.
    """
    if setting.method == "none":
        return Disk(model=0.0, models=0.0, checkpoint=0.0)
    model: float = setting.weight_bytes * counts.total
    if setting.adapted:
        model = setting.adapter_bytes * counts.adapters + (model if whole else 0)
    state = OPTIMIZER_BYTES.get(setting.optimizer, OPTIMIZER_BYTES["adamw"])
    kept = {"all": n_models, "best": min(1, n_models), "none": 0}[keep]
    return Disk(
        model=model,
        models=kept * model,
        checkpoint=(setting.tuned_bytes + state) * counts.trainable,
    )
