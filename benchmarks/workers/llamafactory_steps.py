"""Optimiser steps of LLaMA-Factory: its own preprocessing of packs, collator and trainer.

It is given token ids where it would read texts, through ``tokenized_path``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from datasets import Dataset, DatasetDict
from llamafactory.data.processor.supervised import PackedSupervisedDatasetProcessor
from llamafactory.train.tuner import run_exp
from transformers import AutoTokenizer

from harness.measure import Meter
from harness.workload import TokenExample, examples, workload_of
from transformers_steps import Clock, arguments


class _PacksIds(PackedSupervisedDatasetProcessor):
    """Packs examples that are ids already, which stand where the prompt's texts would."""

    def _encode_data_example(self, prompt: Any, **_: Any) -> tuple[list[int], list[int]]:
        [example] = prompt
        return example.ids, example.labels


def run(spec: dict[str, Any]) -> None:
    """Train and write a result."""
    drawn = examples(workload_of(spec["workload"]))
    packed = spec["variant"] == "packed"
    rows = _packs(drawn, spec) if packed else _rows(drawn)
    data = Path(spec["scratch"], "data")
    DatasetDict({"train": Dataset.from_dict(rows)}).save_to_disk(str(data))
    if packed:
        spec = {**spec, "accumulation": len(rows["input_ids"])}
    meter = Meter()
    meter.note(rows=len(rows["input_ids"]))
    options = {
        **{
            name: value
            for name, value in arguments(spec).items()
            if name != "gradient_checkpointing"
        },
        "disable_gradient_checkpointing": True,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "model_name_or_path": spec["model"],
        "template": "qwen",
        "dataset": "ids",  # has to be named, and is not looked for beside a tokenized_path
        "tokenized_path": str(data),
        "cutoff_len": spec["row_tokens"],
        "packing": packed,
        "neat_packing": packed,
        "flash_attn": "sdpa",
        "train_sampling_strategy": "random" if packed else "group_by_length",
    }
    run_exp(options, callbacks=[Clock(meter, spec)])
    meter.write(spec["result"])


def _rows(drawn: list[TokenExample]) -> dict[str, list[Any]]:
    nothing = [None] * len(drawn)
    return {
        "input_ids": [each.ids for each in drawn],
        "attention_mask": [[1] * len(each.ids) for each in drawn],
        "labels": [each.labels for each in drawn],
        **dict.fromkeys(("images", "videos", "audios"), nothing),
    }


def _packs(drawn: list[TokenExample], spec: dict[str, Any]) -> dict[str, list[Any]]:
    tokenizer = AutoTokenizer.from_pretrained(spec["model"], local_files_only=True)
    # One less, as its argument parser makes it: rows end up with one token more than this.
    settings = SimpleNamespace(cutoff_len=spec["row_tokens"] - 1, neat_packing=True)
    processor = _PacksIds(template=None, tokenizer=tokenizer, processor=None, data_args=settings)
    nothing = [None] * len(drawn)
    columns = ("_response", "_system", "_tools", "_images", "_videos", "_audios")
    asked = {**dict.fromkeys(columns, nothing), "_response": [[None]] * len(drawn)}
    return dict(processor.preprocess_dataset({"_prompt": [[each] for each in drawn], **asked}))


if __name__ == "__main__":
    run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
