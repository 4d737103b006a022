"""What ``conf/plan.yaml`` adds to the configuration of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from recap.cli.prompted import PromptedConfig, load_prompted
from recap.config import RunConfig, validated

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PlanOptions:
    """What is assumed of the devices."""

    utilization: float = Field(default=0.4, gt=0, le=1)
    """Share of the peak that a device reaches over a whole training."""
    tflops: float | None = Field(default=None, gt=0)
    """Peak of one device in 10^12 operations a second; ``None``: an A100's."""
    tokenizer: str | None = None
    """A model's folder whose tokenizer counts what a server is sent; ``None``: an estimate."""
    device_memory_gib: float | None = Field(default=None, gt=0)
    """Memory of one device, in GiB (2^30 bytes); ``None``: 80, and on a CPU what this machine
    has."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PlanConfig:
    """A run and the devices to plan it for."""

    training: RunConfig
    """The run, as ``recap.train`` would have it."""
    shots: Literal[0, 1] = 0
    """As ``recap.prompt`` has them."""
    shot_categories: Literal["labels", "leaves"] = "labels"
    """Likewise."""
    prompted: PromptedConfig | None = None
    """The run as ``recap.prompt`` would have it, where a model is prompted as it is."""
    plan: PlanOptions
    """The devices."""
    out: str | None = None
    """Folder for the plan's files; ``None``: the console alone."""

    @property
    def run(self) -> str:
        """Name of the run."""
        return self.training.run


def load_plan(overrides: Sequence[str], *, config_dir: str | None = None) -> PlanConfig:
    """Return what is to be planned; a run that trains nothing as ``recap.prompt`` would have it.

    Raises:
        ConfigError: As the command that would run it.
    """
    from recap.cli.compose import compose_run, load_verb

    values, _ = compose_run("plan", overrides, config_dir)
    if not ("client" in values or values["shots"] or values["finetune"]["method"] == "none"):
        planned: PlanConfig = load_verb("plan", overrides, config_dir=config_dir)
        return planned
    run = [one for one in overrides if not one.lstrip("+").startswith(("plan.", "out="))]
    prompted = load_prompted(run, config_dir=config_dir)
    own = {"plan": values["plan"], "out": values["out"]}
    return validated(PlanConfig, {**own, "training": prompted.training, "prompted": prompted})
