"""What the trainers that derive from transformers' have in common: the clock and the arguments."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from harness.measure import Meter, warm_up
from harness.workload import lengths, workload_of


class Clock(TrainerCallback):
    """Tells the meter when training starts, when a step has ended, and the first step's loss."""

    def __init__(self, meter: Meter, spec: dict[str, Any]) -> None:
        self._meter = meter
        work = workload_of(spec["workload"])
        # Packs come one a micro-batch; where masks are dense the longest example has to do.
        self._rows = 1 if spec.get("variant") == "packed" else spec["micro_batch"]
        self._tokens = work.prefix + max(lengths(work))

    def on_train_begin(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """Warm up and start the clock."""
        self._meter.load_ends()
        warm_up(objects["model"], rows=self._rows, tokens=self._tokens)
        self._meter.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop the clock."""
        self._meter.step()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Note loss and gradient of the first step, as the trainer logs them."""
        if logs and "loss" in logs:
            self._meter.note(loss=float(logs["loss"]), gradient_norm=float(logs["grad_norm"]))


def arguments(spec: dict[str, Any]) -> dict[str, Any]:
    """Return training arguments under which an epoch is one optimiser step of all examples.

    Float32 on the CPU without gradient checkpointing, which is the fastest that each can do; what
    they log is what one step has.
    """
    return {
        "output_dir": spec["scratch"],
        "per_device_train_batch_size": spec["micro_batch"],
        "gradient_accumulation_steps": spec["accumulation"],
        "num_train_epochs": spec["steps"],
        "learning_rate": spec["learning_rate"],
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }
