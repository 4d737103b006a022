"""recap.plan's figures for the paper's rows that run on one's own GPUs, for docs/reproduce.md.

    python benchmarks/paper_plans.py     the table in Markdown; about three minutes

The corpus is the built-in one in Chinese, at the size of ClientResistance (Table 3: 23,930
utterances, 10,398 of them resistant). Tokens are estimated: on a machine that has a backbone's
tokenizer, which would count them, the script stops, for the table would be another.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recap.plan.plan import Plan
    from recap.plan.workload import RunWorkload

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ("data.options.size=23930", "data.language=zh")
TASKS = ("binary", "fine_grained")
TRAINED = tuple(
    f"experiment=paper/finetuned backbone={backbone} finetune={method} rationale={rationale}"
    for backbone in ("llama8b", "qwen7b")
    for method in ("full", "lora")
    for rationale in ("true", "false")
)
PROMPTED = tuple(
    f"experiment=paper/prompted backbone={backbone} backbone.dtype=bfloat16"
    for backbone in ("llama8b", "qwen7b", "qwen14b", "qwen32b")
)
EIGHT = ("trainer.devices=8",)
"""A prompted backbone is asked on one device."""

HEADER = (
    "| rows | GPUs | GB a GPU | steps, binary | hours, binary | steps, fine | hours, fine |",
    "|---|--:|--:|--:|--:|--:|--:|",
)


def table(rows: Sequence[str] = (*TRAINED, *PROMPTED)) -> Iterator[str]:
    """Yield the lines of the table: a header, then one line for each row's two tasks."""
    read: dict[tuple[str, bool], RunWorkload] = {}
    yield from HEADER
    for row in rows:
        binary, fine = (_plan(row, task, read) for task in TASKS)
        peak = max(binary.demand.memory.peak, fine.demand.memory.peak) / 1e9
        cells = [f"`{row}`", str(binary.demand.setting.n_devices), f"{peak:.1f}"]
        for plan in (binary, fine):
            cells += [f"{sum(plan.steps):,}" if plan.epochs else "–", f"{plan.hours():.2f}"]
        yield f"| {' | '.join(cells)} |"


def _plan(row: str, task: str, read: dict[tuple[str, bool], RunWorkload]) -> Plan:
    """Return a row's plan; ``read`` keeps the examples, which backbones share."""
    from recap.cli.compose import load_verb
    from recap.plan.plan import make_plan

    devices = () if row in PROMPTED else EIGHT
    config = load_verb("plan", [*row.split(), f"task={task}", *devices, *CORPUS])
    key = (task, config.training.rationale)
    plan = make_plan(config.training, config.plan, workload=read.get(key))
    assert plan.workload.counted_by.startswith("an estimate"), "a tokenizer lies on this machine"
    read[key] = plan.workload
    return plan


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from recap.system.processes import limit_library_logging

    limit_library_logging()
    for line in table():
        print(line, flush=True)
