"""Optimiser steps of recap, through its public parts and a lightning.Trainer."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning
import torch

from harness.measure import Meter
from harness.workload import examples, workload_of
from recap.cli.compose import load_config
from recap.config import OptimizerConfig, SchedulerConfig
from recap.data.encode import ChatEncoder, EncodedExample
from recap.data.loaders import DataModule
from recap.models.backbone import load_backbone
from recap.models.engine.training import training_loss
from recap.models.module import ResponseModule
from recap.tasks.library import build_task


class Clock(lightning.Callback):
    """Tells the meter when training starts and when a step has ended."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._steps = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Warm up and start the clock."""
        self._meter.load_ends()
        # As for the others one micro-batch, in this system's own way of computing it.
        training_loss(pl_module.model, next(iter(trainer.datamodule.train_dataloader()))).backward()
        pl_module.zero_grad(set_to_none=True)
        self._meter.start()

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Note the first step's gradient, before it is clipped."""
        if self._steps == 0:
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            self._meter.note(gradient_norm=float(torch.nn.utils.get_total_norm(gradients)))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Stop the clock after each optimiser step."""
        if trainer.global_step > self._steps:
            self._steps = trainer.global_step
            self._meter.step()
            self._meter.note(loss=float(trainer.callback_metrics["train_loss"]))


def run(spec: dict[str, Any]) -> None:
    """Train ``spec["steps"]`` optimiser steps of all examples of the workload and write a result.

    With ``global_batch_size`` in the spec a step has that many examples instead.
    """
    warnings.filterwarnings("ignore", module="lightning")
    drawn = examples(workload_of(spec["workload"]))
    encoded = [
        EncodedExample(id=str(i), prompt=each.prompt, answer=each.answer, gold=0)
        for i, each in enumerate(drawn)
    ]
    model, tokenizer = load_backbone(name="benchmark", family="qwen2", path=spec["model"])
    encoder = ChatEncoder(tokenizer)
    data = DataModule(
        train=encoded,
        pad_id=encoder.pad_id,
        global_batch_size=spec.get("global_batch_size", len(encoded)),
        per_device_batch_size=spec["micro_batch"],
        batching=spec["batching"],
    )
    meter = Meter()
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=spec["steps"],
        max_epochs=-1,
        accumulate_grad_batches=data.accumulation(),
        gradient_clip_val=1.0,
        callbacks=[Clock(meter)],
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    module = ResponseModule(
        model=model,
        task=build_task(load_config(["experiment=smoke", "logger=none"])),
        encoder=encoder,
        optimizer=OptimizerConfig(learning_rate=spec["learning_rate"]),
        scheduler=SchedulerConfig(name="constant", warmup_fraction=0.0),
        total_steps=spec["steps"],
    )
    trainer.fit(module, datamodule=data)
    meter.write(spec["result"])


if __name__ == "__main__":
    run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
