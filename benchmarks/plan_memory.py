"""recap.plan's memory against measured peaks: real optimiser steps on the CPU, a process each.

    python benchmarks/plan_memory.py                the check, on configurations never used before
    python benchmarks/plan_memory.py --calibration  those that the model was adjusted on
    python benchmarks/plan_memory.py --json FILE    the rows as JSON too

A child builds a random model, notes its resident memory as the baseline, trains optimiser steps
through recap's own data module, Lightning module and trainer, and reports by how much the peak of
its resident memory exceeds the baseline. So that resident memory is what tensors hold, and not what
glibc keeps for later, children run with MALLOC_MMAP_THRESHOLD_=65536 (freed tensors go back to the
system at once) and MALLOC_ARENA_MAX=1, and with one thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
SMALLEST_BYTES = 500e6
"""Smaller differences are not judged: what libraries allocate once would be a part of them."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One training: a model's sizes, how it is tuned, and what a micro-batch holds."""

    family: str = "qwen2"
    hidden: int = 512
    layers: int = 8
    heads: int = 8
    key_value_heads: int = 2
    intermediate: int = 1536
    vocabulary: int = 8192
    tied: bool = False
    method: str = "full"
    optimizer: str = "adamw"
    precision: str = "32-true"
    gradient_checkpointing: bool = False
    batching: str = "padded"
    prefix: int = 300
    rests: tuple[int, ...] = (100,) * 4
    answer: int = 30
    accumulation: int = 1

    def title(self) -> str:
        """Return the case in one line."""
        return (
            f"{self.family} {self.hidden}x{self.layers} ff {self.intermediate} vocabulary "
            f"{self.vocabulary}{' tied' if self.tied else ''}, {self.method}, {self.optimizer}, "
            f"{self.precision}, {self.batching}, {len(self.rests)} x ({self.prefix} + "
            f"{min(self.rests)} to {max(self.rests)})"
            f"{', checkpointing' if self.gradient_checkpointing else ''}"
            f"{f', accumulation {self.accumulation}' if self.accumulation > 1 else ''}"
        )


LONG = (700, 650, 600, 400)
UNEVEN = (420, 380, 300, 260, 200, 160, 120, 80)

CALIBRATION = (
    Case(prefix=600, rests=(300,) * 4),
    Case(prefix=600, rests=(300,) * 4, gradient_checkpointing=True, layers=12),
    Case(prefix=600, rests=(300,) * 4, batching="trunk"),
    Case(prefix=600, rests=(300,) * 4, batching="packed", method="lora"),
    Case(vocabulary=65536, prefix=200, rests=(50,) * 2),
    Case(vocabulary=65536, tied=True, prefix=200, rests=(50,) * 2),
    Case(vocabulary=65536, tied=True, prefix=200, rests=(50,) * 2, accumulation=2),
    Case(hidden=1024, heads=16, intermediate=3072, prefix=60, rests=(50,), precision="bf16-mixed"),
    Case(
        hidden=768, layers=10, intermediate=3072, prefix=100, rests=(20,) * 2, optimizer="adamw8bit"
    ),
)
"""What the model was adjusted on."""

CHECK = (
    Case(layers=6, hidden=640, heads=10, intermediate=1792, prefix=500, rests=LONG),
    Case(batching="packed", prefix=400, rests=LONG, layers=10, intermediate=1408),
    Case(batching="trunk", prefix=850, rests=UNEVEN, layers=6),
    Case(batching="trunk", prefix=850, rests=UNEVEN, layers=12, method="lora"),
    Case(batching="padded", prefix=850, rests=UNEVEN[:4], method="lora", family="llama", layers=7),
    Case(
        batching="trunk", prefix=1000, rests=UNEVEN, gradient_checkpointing=True,
        layers=11, hidden=576, heads=9, key_value_heads=3, intermediate=1792,
    ),
    Case(
        batching="padded", prefix=700, rests=LONG, gradient_checkpointing=True, method="lora",
        layers=8, hidden=448, heads=7, key_value_heads=1, intermediate=2688,
    ),
    Case(vocabulary=151936, hidden=256, heads=4, layers=4, prefix=300, rests=(90, 80, 60, 50)),
    Case(
        vocabulary=151936, hidden=256, heads=4, layers=4, tied=True, prefix=300, rests=(90, 60),
        batching="trunk",
    ),
    Case(
        vocabulary=151936, hidden=320, heads=5, key_value_heads=1, layers=5, tied=True,
        prefix=260, rests=(90, 60), batching="packed", accumulation=3,
    ),
    Case(hidden=1024, heads=16, layers=8, intermediate=2816, prefix=120, rests=(40, 30)),
    Case(
        hidden=1024, heads=16, layers=10, intermediate=4096, prefix=80, rests=(40, 30),
        optimizer="adamw8bit", accumulation=2,
    ),
    Case(
        batching="trunk", prefix=60, rests=(40, 35), precision="bf16-mixed", layers=9,
        family="llama", hidden=960, heads=15, key_value_heads=5, intermediate=3584,
    ),
    Case(batching="packed", prefix=400, rests=(400, 300, 300), method="lora", hidden=576, heads=9,
         key_value_heads=3, layers=14, intermediate=1600, family="llama", optimizer="adamw8bit"),
    Case(
        batching="trunk", prefix=3000, rests=(420, 300, 200, 100), layers=5,
        optimizer="adamw8bit", accumulation=2,
    ),
)  # fmt: skip
"""Configurations that were not used to write or adjust the model."""


def predict(case: Case) -> dict[str, float]:
    """Return the bytes above the loaded weights that the plan expects, and at which moment."""
    from recap.plan.architecture import Architecture, count_parameters
    from recap.plan.memory import device_memory
    from recap.plan.workload import Setting, largest_group

    architecture = Architecture(config=model_config(case), source="", folder=None)
    setting = Setting(
        method=case.method,
        optimizer=case.optimizer,
        precision=case.precision,
        gradient_checkpointing=case.gradient_checkpointing,
        accumulates=case.accumulation > 1,
        on_gpu=False,
    )
    group = largest_group(
        [(case.prefix + rest, case.answer) for rest in case.rests],
        n_examples=len(case.rests),
        n_tokens=None,
        prefix={"padded": None, "packed": 0, "trunk": case.prefix}[case.batching],
    )
    counts = count_parameters(architecture, method=case.method)
    memory = device_memory(architecture, counts, setting, group=group)
    loaded = memory.table["step"]["weights"]
    above = {moment: memory.total(moment) - loaded for moment in memory.table}
    return {**above, "peak": memory.peak - loaded}


def model_config(case: Case) -> Any:
    """Return the transformers configuration of a case's model."""
    from transformers import AutoConfig

    return AutoConfig.for_model(
        case.family,
        hidden_size=case.hidden,
        num_hidden_layers=case.layers,
        num_attention_heads=case.heads,
        num_key_value_heads=case.key_value_heads,
        intermediate_size=case.intermediate,
        vocab_size=case.vocabulary,
        tie_word_embeddings=case.tied,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )


def measure(case: Case) -> float:
    """Return by how many bytes a child's peak exceeds its loaded baseline."""
    child = [
        sys.executable,
        "-W",
        "ignore",
        __file__,
        "--child",
        json.dumps(dataclasses.asdict(case)),
    ]
    environment = {**os.environ, **ALLOCATOR, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            child, env=environment, cwd=folder, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise RuntimeError(f"{case.title()}: the child failed\n{done.stderr[-2000:]}")
    return float(done.stdout.strip().splitlines()[-1])


def run_child(case: Case) -> None:
    """Train a few optimiser steps and print how far memory rose above the loaded model."""
    import lightning
    import torch
    from transformers import AutoModelForCausalLM

    from recap.config import OptimizerConfig
    from recap.data.encode import ChatEncoder
    from recap.data.loaders import DataModule
    from recap.models.backbone import tiny_tokenizer
    from recap.models.finetune import apply_finetune, checkpoint_gradients
    from recap.models.module import ResponseModule
    from recap.tasks.library import builtin_task

    if case.optimizer != "adamw":
        import bitsandbytes  # noqa: F401 - loaded before the baseline is taken

    class Baseline(lightning.Callback):
        """Notes resident memory once everything but the steps' own is there."""

        bytes = 0

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            gc.collect()
            # Has the kernel forget the peak so far.
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            self.bytes = status_bytes("VmRSS")

    def train(case: Case, n_steps: int) -> int:
        """Train, and return resident memory before the first step."""
        baseline = Baseline()
        trainer = lightning.Trainer(
            accelerator="cpu", devices=1, precision=case.precision, max_steps=n_steps,
            accumulate_grad_batches=case.accumulation, callbacks=[baseline], gradient_clip_val=1.0,
            use_distributed_sampler=False, logger=False, enable_checkpointing=False,
            enable_model_summary=False, enable_progress_bar=False, num_sanity_val_steps=0,
        )  # fmt: skip
        trainer.fit(module_of(case), datamodule=data_of(case, DataModule))
        return baseline.bytes

    def module_of(case: Case) -> Any:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(model_config(case))
        model = apply_finetune(model, method=case.method)
        if case.gradient_checkpointing:
            checkpoint_gradients(model)
        return ResponseModule(
            model=model,
            task=builtin_task("binary"),
            encoder=ChatEncoder(tiny_tokenizer()),
            optimizer=OptimizerConfig(name=case.optimizer),
            total_steps=10,
        )

    # A first step of a small model loads what libraries load late.
    train(
        dataclasses.replace(
            case, hidden=64, layers=1, heads=4, key_value_heads=2, intermediate=64,
            vocabulary=512, prefix=20, rests=(20,), answer=5, accumulation=1,
        ), 1,
    )  # fmt: skip
    loaded = train(case, 2)
    print(status_bytes("VmHWM") - loaded)


def data_of(case: Case, make: Any) -> Any:
    """Return micro-batches that are all alike: the case's examples, again and again."""
    from recap.data.encode import EncodedExample

    examples = [
        EncodedExample(
            id=str(number),
            prompt=(7,) * case.prefix + (8 + number % 2,) * (rest - case.answer),
            answer=(9,) * case.answer,
            gold=0,
        )
        for number, rest in enumerate(case.rests * case.accumulation)
    ]
    return make(
        train=examples,
        pad_id=0,
        global_batch_size=len(examples),
        per_device_batch_size=len(case.rests),
        batching=case.batching,
    )


def status_bytes(key: str) -> int:
    """Return an entry of this process's memory as the kernel counts it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    [line] = [line for line in lines if line.startswith(f"{key}:")]
    return int(line.split()[1]) * 1024


def compare(cases: tuple[Case, ...]) -> list[dict[str, Any]]:
    """Return measured and predicted bytes of each case, and print them as they come."""
    rows = []
    for case in cases:
        measured, predicted = measure(case), predict(case)
        row = {
            "case": case.title(),
            "measured_bytes": measured,
            "predicted_bytes": predicted["peak"],
            "difference": predicted["peak"] / measured - 1,
            "moments": predicted,
            "judged": measured >= SMALLEST_BYTES,
        }
        rows.append(row)
        note = "" if row["judged"] else "  (under 500 MB: not judged)"
        print(
            f"{measured / 1e6:8.0f} MB measured {predicted['peak'] / 1e6:8.0f} MB predicted "
            f"{100 * row['difference']:+6.1f} %  {case.title()}{note}",
            flush=True,
        )
    return rows


def main() -> None:
    """Compare, print, and say how far off the worst is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calibration", action="store_true", help="the adjusted-on cases instead")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of cases, from 0")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        values = json.loads(arguments.child)
        run_child(Case(**{**values, "rests": tuple(values["rests"])}))
        return
    cases = CALIBRATION if arguments.calibration else CHECK
    if arguments.only is not None:
        cases = tuple(cases[number] for number in arguments.only)
    rows = compare(cases)
    judged = [row for row in rows if row["judged"]]
    worst = max(judged, key=lambda row: abs(row["difference"]), default=None)
    if worst is not None:
        within = sum(abs(row["difference"]) <= 0.2 for row in judged)
        print(f"{within} of {len(judged)} within 20 %; worst {100 * worst['difference']:+.1f} %")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
