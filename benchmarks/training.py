"""Training steps of recap against other trainers: same model, same ids, same precision, on a CPU.

python benchmarks/training.py                     all of it; stopped, it goes on where it was
python benchmarks/training.py --quick             under ten minutes on two cores
python benchmarks/training.py --json FILE         also write rows, ratios and what is missing
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from harness import plan
from harness.ledger import Ledger
from harness.report import disagreeing, summarize, table
from harness.run import run_worker, step_spec, write_model
from harness.systems import OWN, PEERS, ROW_TOKENS, System
from harness.workload import AFTER_DIALOGUE, ANSWER, DIALOGUE_QUANTILES, PREFIXES, Workload, lengths

SAME_MICRO_BATCH = 4
"""Examples a micro-batch where memory is compared at the same number for all."""

QUICK_MICRO_BATCHES = {"trunk": 16, "packed": 2, "padded": 2}
"""Instead of a search; peers get 2 examples a micro-batch."""


def main(arguments: list[str] | None = None) -> int:
    """Measure what is not measured yet, print the tables, and return the exit code.

    1 when the systems' first steps are not the same, so that the figures compare nothing.
    """
    options = parse(arguments)
    limits = plan.Limits(
        memory_bytes=round(options.memory_gib * 2**30), clock=options.clock, rounds=options.rounds
    )
    settings = {
        "quick": options.quick,
        "threads": options.threads,
        "hidden": options.hidden,
        "layers": options.layers,
        "scale": options.scale,
        "memory_bytes": limits.memory_bytes,
    }
    state = options.state or options.work / ("quick.jsonl" if options.quick else "training.jsonl")
    ledger = Ledger(state, settings)
    absent = {system.name: why for system in PEERS if (why := system.missing) is not None}
    systems = [system for system in (*OWN, *PEERS) if system.name not in absent]
    if options.systems:
        systems = [system for system in systems if system.name in options.systems.split(",")]
    print(about(options))
    model = options.work / f"model-{options.hidden}-{options.layers}"
    write_model(
        model,
        vocabulary=8192,
        hidden=options.hidden,
        layers=options.layers,
        threads=options.threads,
    )
    chosen = quick if options.quick else full
    steps = chosen(ledger, systems, limits, options.scale)
    expected = (len(systems) * limits.rounds + 2) if options.quick else 75
    measure_all(steps, ledger, model, options, plan.Progress(expected, say))
    report = summarize(ledger, systems, limits.clock, absent)
    report["settings"] = {**settings, "clock": limits.clock, "rounds": limits.rounds}
    show(report)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    wrong = disagreeing(report)
    if wrong:
        print(f"not the same first step as trunk: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options of a command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="zero-shot only, without a search")
    parser.add_argument("--json", type=Path, help="file for rows, ratios and what is missing")
    parser.add_argument("--rounds", type=int, help="default 3, quick 1")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--memory-gib", type=float, default=4.0, help="above the loaded baseline")
    parser.add_argument(
        "--clock",
        choices=("seconds", "processor_seconds"),
        default="seconds",
        help="what is compared; processor_seconds on one thread of a machine that others use too",
    )
    parser.add_argument("--state", type=Path, help="file of measured rows; default under --work")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--systems", help="names separated by commas; default all")
    parser.add_argument("--hidden", type=int, default=256, help="width of the model")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="factor on all lengths, for trials"
    )
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else 3)
    return options


def full(
    ledger: Ledger, systems: list[System], limits: plan.Limits, scale: float
) -> Iterator[plan.Step]:
    """Yield all measurements."""
    own = [system for system in systems if system.peer is None and system in OWN]
    for system in systems:
        if system.searches:
            yield from plan.search(ledger, system, "zero_shot", limits, plan.MICRO_BATCHES)
    yield from plan.rounds(ledger, systems, "zero_shot", limits)
    fastest = plan.fastest_peer(ledger, [s for s in systems if s in PEERS], limits)
    few = [s for s in own if s.name != "padded"] + ([fastest] if fastest else [])
    for system in few:
        # Rows of 4,000 tokens gain even less from company than those of the zero-shot shape.
        candidates = (4, 8, 16) if system.name == "trunk" else (1,)
        yield from plan.search(ledger, system, "few_shot", limits, candidates)
    yield from plan.rounds(ledger, few, "few_shot", limits)
    yield from plan.loss_memory((1, 4), scale)
    yield from plan.equal_groups(systems, SAME_MICRO_BATCH)
    if own:
        yield from plan.scaling(
            own[0],
            groups=(1, 2, 4, 8, 16, 32),
            corpora=(100, 1000, 10_000),
            micro_batch=16,
            scale=scale,
        )


def quick(
    ledger: Ledger, systems: list[System], limits: plan.Limits, scale: float
) -> Iterator[plan.Step]:
    """Yield the zero-shot shape at given batch sizes, and the memory of one loss."""
    micro_batches = {system.name: 2 for system in systems} | QUICK_MICRO_BATCHES
    yield from plan.rounds(ledger, systems, "zero_shot", limits, micro_batches)
    yield from plan.loss_memory((1,), scale)


def measure_all(
    steps: Iterable[plan.Step],
    ledger: Ledger,
    model: Path,
    options: argparse.Namespace,
    progress: plan.Progress,
) -> None:
    """Run each measurement that the ledger lacks. A system that fails is not tried again."""
    failed: set[str] = set()
    for step in steps:
        if ledger.find(step.key) is not None:
            progress.skipped()
        elif step.system.name not in failed:
            prefix = round(options.scale * PREFIXES[step.key["shape"]])
            spec = step_spec(
                Workload(prefix=prefix, scale=options.scale),
                model=model,
                micro_batch=step.key["micro_batch"],
                row_tokens=ROW_TOKENS,
            )
            spec |= step.more
            row = step.key | run_worker(step.system, spec, threads=options.threads)
            ledger.add(row)
            progress.done(row, options.clock)
            if "error" in row:
                failed.add(step.system.name)


def say(line: str) -> None:
    """Print a line at once, also into a file."""
    print(line, flush=True)


def about(options: argparse.Namespace) -> str:
    """Return what is compared, and on which lengths."""
    found = sorted(lengths(Workload(prefix=0)))
    return f"""\
Qwen2, hidden {options.hidden}, {options.layers} layers, vocabulary 8192, float32, CPU, \
{options.threads} thread(s); 16 examples an optimiser step
prefix: {PREFIXES["zero_shot"]} tokens (zero-shot), {PREFIXES["few_shot"]} (few-shot)
history and response: {" ".join(map(str, DIALOGUE_QUANTILES))} tokens at 0, 5, …, 100 % of real \
dialogues
and {AFTER_DIALOGUE} of format and template, {ANSWER} of the answer; the 16 examples after their \
prefix: {" ".join(map(str, found))}, mean {sum(found) / len(found):.0f}
memory above the loaded baseline: at most {options.memory_gib} GiB"""


def show(report: dict[str, Any]) -> None:
    """Print tables, ratios and what is missing."""
    for shape in ("zero_shot", "few_shot"):
        if any(row["part"] == "step" and row["shape"] == shape for row in report["rows"]):
            print(f"\n{shape}\n{table(report, shape)}")
    for note in sorted({row["note"] for row in report["rows"] if row.get("note")}):
        print(f"* {note}")
    print()
    for name, ratio in report["ratios"].items():
        print(f"{name}: {ratio:.2f}")
    for each in report["missing"]:
        print(f"missing: {each['system']}: {each['reason']}")


if __name__ == "__main__":
    sys.exit(main())
