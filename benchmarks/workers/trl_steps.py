"""Optimiser steps of TRL's SFTTrainer: plain, packed or padding-free."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from harness.measure import Meter
from harness.workload import examples, workload_of
from transformers_steps import Clock, arguments

OPTIONS = {
    "plain": {"train_sampling_strategy": "group_by_length", "max_length": None},
    "packed": {"packing": True, "packing_strategy": "bfd"},
    "padding_free": {"padding_free": True, "max_length": None},
}


def run(spec: dict[str, Any]) -> None:
    """Train and write a result."""
    drawn = examples(workload_of(spec["workload"]))
    data = Dataset.from_list([{"input_ids": each.ids, "labels": each.labels} for each in drawn])
    options: dict[str, Any] = {**OPTIONS[spec["variant"]]}
    if spec["variant"] == "packed":
        options["max_length"] = spec["row_tokens"]
        # An epoch has fewer rows than examples; they make one optimiser step all the same.
        spec = {**spec, "accumulation": len(drawn)}
    meter = Meter()
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(spec["model"], local_files_only=True),
        args=SFTConfig(**arguments(spec), **options),
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(spec["model"], local_files_only=True),
        callbacks=[Clock(meter, spec)],
    )
    meter.note(rows=len(trainer.train_dataset))
    trainer.train()
    meter.write(spec["result"])


if __name__ == "__main__":
    run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
