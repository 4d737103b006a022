"""Answers of recap against plain Hugging Face generation: same model, same prompts, on a CPU.

python benchmarks/inference.py                     all of it; stopped, it goes on where it was
python benchmarks/inference.py --quick             under ten minutes on two cores
python benchmarks/inference.py --json FILE         also write rows, ratios and what is missing
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.answers import differing, summarize, table
from harness.ledger import Ledger
from harness.run import run_worker, write_model
from harness.systems import System
from harness.workload import PREFIXES, Workload

WORKER = System(name="answers", worker="answers.py")
OURS, PLAIN = ("label", "rationale"), ("hf_generate", "hf_generate_label")
BATCHES = {**dict.fromkeys(OURS, (16,)), **dict.fromkeys(PLAIN, (4, 16))}
"""Prompts together; plain generation is measured at each, and its fastest counts."""

N_ANSWERS, N_CASCADE, N_LATENCY = 32, 128, 12
CORPORA = (100, 1000, 10_000)
SMALL = 0.25
"""Factor on all lengths where only the growth with the corpus is measured."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One measurement: its key in the ledger, and what its worker is told beside."""

    key: dict[str, Any]
    more: dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Measure what is not measured yet, print the tables, and return the exit code.

    1 when answers in float32 are not those of plain generation: then the figures compare nothing.
    """
    options = parse(arguments)
    settings = {
        "quick": options.quick,
        "threads": options.threads,
        "hidden": options.hidden,
        "layers": options.layers,
        "scale": options.scale,
    }
    state = options.state or options.work / (
        "inference-quick.jsonl" if options.quick else "inference.jsonl"
    )
    ledger = Ledger(state, settings)
    model = options.work / f"model-answers-{options.hidden}-{options.layers}"
    write_model(
        model,
        vocabulary=8192,
        hidden=options.hidden,
        layers=options.layers,
        threads=options.threads,
        own_head=True,
    )
    print(about(options), flush=True)
    for job in quick(options) if options.quick else full(options):
        if ledger.find(job.key) is None:
            spec = {**job.key, "model": str(model.resolve()), **job.more}
            row = job.key | run_worker(WORKER, spec, threads=options.threads)
            ledger.add(row)
            print(_said(row, options.clock), flush=True)
    report = summarize(ledger, options.clock)
    report["settings"] = {**settings, "clock": options.clock, "rounds": options.rounds}
    print(table(report))
    for name, ratio in report["ratios"].items():
        print(f"{name}: {ratio:.2f}")
    for each in report["missing"]:
        print(f"missing: {each['system']}: {each['reason']}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    wrong = differing(report)
    if wrong:
        print(f"answers differ from plain generation: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options of a command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="zero-shot only, one round")
    parser.add_argument("--json", type=Path, help="file for rows, ratios and what is missing")
    parser.add_argument("--rounds", type=int, help="default 3, quick 1")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--clock",
        choices=("seconds", "processor_seconds"),
        default="seconds",
        help="what is compared; processor_seconds on one thread of a machine that others use too",
    )
    parser.add_argument("--state", type=Path, help="file of measured rows; default under --work")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--hidden", type=int, default=256, help="width of the model")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="factor on all lengths, for trials"
    )
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else 3)
    return options


def full(options: argparse.Namespace) -> Iterator[Job]:
    """Yield all measurements, systems interleaved within each round."""
    for round_ in range(options.rounds):
        for shape in PREFIXES:
            yield from answers(options, shape, round_, BATCHES)
        yield from cascade(options, round_)
    for mode in ("conversation", "anew"):
        yield Job(
            key={"part": "latency", "shape": "zero_shot", "system": mode, "micro_batch": 1},
            more={"mode": mode, "workload": workload(options, "zero_shot", N_LATENCY)},
        )
    for mode in ("rationale", "hf_generate"):
        for batch in (1, 16):
            yield Job(
                key={
                    "part": "answers",
                    "shape": "zero_shot",
                    "system": f"{mode}_bfloat16",
                    "micro_batch": batch,
                },
                more={
                    "mode": mode,
                    "dtype": "bfloat16",
                    "workload": workload(options, "zero_shot", N_ANSWERS),
                },
            )
    for n in CORPORA:
        yield Job(
            key={
                "part": "stream",
                "shape": "zero_shot",
                "system": "label",
                "micro_batch": 32,
                "n_examples": n,
            },
            more={"workload": workload(options, "zero_shot", 1, factor=SMALL)},
        )


def quick(options: argparse.Namespace) -> Iterator[Job]:
    """Yield the zero-shot shape at given batch sizes, and the cascade."""
    batches = dict.fromkeys((*OURS, *PLAIN), (16,))
    for round_ in range(options.rounds):
        yield from answers(options, "zero_shot", round_, batches)
        yield from cascade(options, round_)


def answers(
    options: argparse.Namespace, shape: str, round_: int, batches: dict[str, tuple[int, ...]]
) -> Iterator[Job]:
    """Yield every way of answering, once."""
    for mode, sizes in batches.items():
        for batch in sizes:
            yield Job(
                key={
                    "part": "answers",
                    "shape": shape,
                    "system": mode,
                    "micro_batch": batch,
                    "round": round_,
                },
                more={"mode": mode, "workload": workload(options, shape, N_ANSWERS)},
            )


def cascade(options: argparse.Namespace, round_: int) -> Iterator[Job]:
    """Yield one stage alone, and two."""
    for mode in ("one_stage", "cascade"):
        yield Job(
            key={
                "part": "cascade",
                "shape": "zero_shot",
                "system": mode,
                "micro_batch": 32,
                "round": round_,
            },
            more={"mode": mode, "workload": workload(options, "zero_shot", N_CASCADE)},
        )


def workload(
    options: argparse.Namespace, shape: str, n: int, *, factor: float = 1.0
) -> dict[str, Any]:
    """Return the prompts of a shape, by their sizes."""
    scale = factor * options.scale
    prefix = round(scale * PREFIXES[shape])
    return Workload(prefix=prefix, n_examples=n, scale=scale).as_json()


def about(options: argparse.Namespace) -> str:
    """Return what is compared."""
    return f"""\
Qwen2, hidden {options.hidden}, {options.layers} layers, vocabulary 8192, an output layer of its \
own, float32, CPU, {options.threads} thread(s)
{N_ANSWERS} prompts, of which the first {PREFIXES["zero_shot"]} tokens (zero-shot) or \
{PREFIXES["few_shot"]} (few-shot) are the same, then a dialogue each"""


def _said(row: dict[str, Any], clock: str) -> str:
    what = " ".join(str(row[name]) for name in ("part", "shape", "system", "micro_batch"))
    return f"{what}: {row['error']}" if "error" in row else f"{what}: {row[clock][0]:.2f} s"


if __name__ == "__main__":
    sys.exit(main())
