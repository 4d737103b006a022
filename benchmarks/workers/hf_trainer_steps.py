"""Optimiser steps of transformers' Trainer: padded batches, grouped by length."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
)

from harness.measure import Meter
from harness.workload import examples, workload_of
from transformers_steps import Clock, arguments


def run(spec: dict[str, Any]) -> None:
    """Train and write a result."""
    rows = [
        {"input_ids": each.ids, "labels": each.labels, "attention_mask": [1] * len(each.ids)}
        for each in examples(workload_of(spec["workload"]))
    ]
    tokenizer = AutoTokenizer.from_pretrained(spec["model"], local_files_only=True)
    meter = Meter()
    trainer = Trainer(
        model=AutoModelForCausalLM.from_pretrained(spec["model"], local_files_only=True),
        args=TrainingArguments(**arguments(spec), train_sampling_strategy="group_by_length"),
        train_dataset=rows,
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100),
        callbacks=[Clock(meter, spec)],
    )
    trainer.train()
    meter.write(spec["result"])


if __name__ == "__main__":
    run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
