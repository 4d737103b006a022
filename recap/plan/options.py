"""What ``conf/plan.yaml`` adds to the configuration of a run."""

from __future__ import annotations

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from recap.config import RunConfig

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PlanOptions:
    """What is assumed of the devices."""

    utilization: float = Field(default=0.4, gt=0, le=1)
    """Share of the peak that a device reaches over a whole training."""
    tflops: float | None = Field(default=None, gt=0)
    """Peak of one device in 10^12 operations a second; ``None``: an A100's."""
    device_memory_gib: float | None = Field(default=None, gt=0)
    """Memory of one device, in GiB (2^30 bytes); ``None``: 80, and on a CPU what this machine
    has."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PlanConfig:
    """A run and the devices to plan it for."""

    training: RunConfig
    """The run, as ``recap.train`` would have it."""
    plan: PlanOptions
    """The devices."""
    out: str | None = None
    """Folder for the plan's files; ``None``: the console alone."""

    @property
    def run(self) -> str:
        """Name of the run."""
        return self.training.run
