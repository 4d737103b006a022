"""What memory and operations depend on beside the architecture and the examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from recap.models.finetune import TARGET_MODULES

Strategy = Literal["one", "ddp", "fsdp"]

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of one number."""

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a weight in 4 bits: half a byte, a scale of one byte for each 64, and one of four bytes
for each 256 of those (Dettmers et al. 2023, section 3, double quantisation)."""

OPTIMIZER_BYTES = {"adamw": 8.0, "paged_adamw32bit": 8.0} | dict.fromkeys(
    ("adamw8bit", "paged_adamw8bit"), 2 + 2 * 4 / 256
)
"""Bytes of state for each tuned weight: two moments in 32 bits, or in 8 bits with a scale of four
bytes for each block of 256 (bitsandbytes 0.50)."""

SMALL_BYTES = 8.0
"""bitsandbytes keeps both moments of tensors below 4,096 weights in 32 bits."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a model is trained, as far as memory and operations depend on it."""

    method: Literal["full", "lora", "qlora", "none"] = "full"
    """As ``finetune.method``."""
    rank: int = 8
    """Of the adapters."""
    target_modules: Sequence[str] = TARGET_MODULES["llama"]
    """Projections that get adapters."""
    dtype: str = "float32"
    """Type in which weights are loaded (``backbone.dtype``)."""
    precision: str = "32-true"
    """As ``trainer.precision``."""
    optimizer: str = "adamw"
    """As ``optimizer.name``."""
    gradient_checkpointing: bool = False
    """Whether layers are computed again in the backward."""
    accumulates: bool = False
    """Whether an optimiser step takes more than one micro-batch."""
    strategy: Strategy = "one"
    """``one``: a single device; ``ddp``: a whole model on each; ``fsdp``: a share on each."""
    n_devices: int = 1
    """Devices of all nodes together."""
    cpu_offload: bool = False
    """Whether ``fsdp`` keeps its shares in the host's memory."""
    on_gpu: bool = True
    """Whether the device is a GPU."""

    @property
    def weight_bytes(self) -> int:
        """Bytes of a weight that is not in 4 bits."""
        if self.precision in ("bf16-true", "64-true"):
            return 2 if self.precision == "bf16-true" else 8
        return BYTES[self.dtype]

    @property
    def mixed(self) -> bool:
        """Whether autocast computes in another type than the weights have."""
        return self.precision in ("bf16-mixed", "16-mixed") and self.weight_bytes == 4

    @property
    def compute_bytes(self) -> int:
        """Bytes of a number that a matrix product gives."""
        return 2 if self.mixed else self.weight_bytes

    @property
    def adapter_bytes(self) -> int:
        """Bytes of an adapter's weight: peft keeps 16-bit ones in 32 bits (0.21)."""
        return max(4, self.weight_bytes) if self.precision != "bf16-true" else 2

    @property
    def adapted(self) -> bool:
        """Whether adapters are tuned and the rest is frozen."""
        return self.method in ("lora", "qlora")

    @property
    def tuned_bytes(self) -> int:
        """Bytes of a tuned weight, and of its gradient."""
        return self.adapter_bytes if self.adapted else self.weight_bytes
