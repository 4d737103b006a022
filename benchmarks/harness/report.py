"""Rows, ratios and what is missing, from the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from harness.ledger import Ledger
from harness.plan import above_baseline, step_seconds
from harness.systems import System

LARGEST_DIFFERENCE = 1e-4
"""Relative, between the systems' losses and gradient norms in the first step."""

MEASURED = "trunk"


def summarize(
    ledger: Ledger, systems: Sequence[System], clock: str, absent: dict[str, str]
) -> dict[str, Any]:
    """Return ``{"rows", "ratios", "missing"}``.

    A ratio is what a system takes over what :data:`MEASURED` takes: larger is better for recap. A
    system about which nothing is claimed has a row, with the reason, and no ratio.

    Args:
        ledger: What was measured.
        systems: Those that were asked for, in order.
        clock: Field of the rows that is compared.
        absent: Systems that could not be run, each with the reason.
    """
    rows: list[dict[str, Any]] = []
    ratios: dict[str, float] = {}
    for shape in ("zero_shot", "few_shot"):
        of_shape = [
            row for system in systems if (row := _row(ledger, system, shape, clock)) is not None
        ]
        _judge_losses(of_shape)
        rows += of_shape
        ratios |= _ratios(of_shape, shape, {s.name for s in systems if s.claims})
    rows += _loss_rows(ledger)
    same, of_same = _memory_rows(ledger)
    rows += same
    ratios |= of_same
    ratios |= _loss_ratios(ledger)
    rows += _scaling_rows(ledger, clock)
    failed = {
        row["system"]: f"{row['part']} {row.get('shape')}: {row['error']}"
        for row in ledger.errors()
    }
    missing = [{"system": name, "reason": why} for name, why in {**failed, **absent}.items()]
    return {"rows": rows, "ratios": ratios, "missing": missing}


def disagreeing(report: dict[str, Any]) -> list[str]:
    """Return the systems whose first step is not that of the others."""
    return [
        f"{row['shape']} {row['system']}" for row in report["rows"] if row.get("same_step") is False
    ]


def _row(ledger: Ledger, system: System, shape: str, clock: str) -> dict[str, Any] | None:
    measured = ledger.select(part="step", shape=shape, system=system.name)
    if not measured:
        return None
    row = {
        "part": "step",
        "shape": shape,
        "system": system.name,
        "micro_batch": measured[0]["micro_batch"],
        "rounds": len(measured),
        "seconds": median(step_seconds(each, clock) for each in measured),
        "seconds_by_round": [step_seconds(each, clock) for each in measured],
        "wall_seconds": median(step_seconds(each, "seconds") for each in measured),
        "peak_bytes": median(each["peak_bytes"] for each in measured),
        "above_baseline_bytes": median(above_baseline(each) for each in measured),
        "loss": measured[0]["loss"],
        "gradient_norm": measured[0]["gradient_norm"],
        "note": system.note,
    }
    if "rows" in measured[0]:
        row["rows_an_epoch"] = measured[0]["rows"]
    return row


def _judge_losses(rows: list[dict[str, Any]]) -> None:
    """Say of each row whether its first step was that of the measured system."""
    reference = next((row for row in rows if row["system"] == MEASURED), None)
    for row in rows if reference else ():
        apart = max(abs(row[name] / reference[name] - 1.0) for name in ("loss", "gradient_norm"))
        row["difference"] = apart
        row["same_step"] = apart <= LARGEST_DIFFERENCE


def _ratios(rows: list[dict[str, Any]], shape: str, claimed: set[str]) -> dict[str, float]:
    reference = next((row for row in rows if row["system"] == MEASURED), None)
    if reference is None:
        return {}
    found = {}
    for row in rows:
        if row is not reference and row["system"] in claimed:
            name = f"{shape}/{row['system']}"
            found[f"speed/{name}"] = row["seconds"] / reference["seconds"]
            found[f"memory/{name}"] = (
                row["above_baseline_bytes"] / reference["above_baseline_bytes"]
            )
    return found


def _memory_rows(ledger: Ledger) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Return memory with as many examples computed together in every system, and its ratios."""
    rows = [
        {
            "part": "memory",
            "shape": row["shape"],
            "system": row["system"],
            "micro_batch": row["micro_batch"],
            "above_baseline_bytes": above_baseline(row),
            "peak_bytes": row["peak_bytes"],
        }
        for row in ledger.select(part="memory")
    ]
    ours = next((row for row in rows if row["system"] == MEASURED), None)
    ratios = {
        f"memory/{row['shape']}/{row['system']}_micro_batch_{row['micro_batch']}": (
            row["above_baseline_bytes"] / ours["above_baseline_bytes"]
        )
        for row in rows
        if ours and row is not ours
    }
    return rows, ratios


def _loss_rows(ledger: Ledger) -> list[dict[str, Any]]:
    return [
        {
            "part": "loss",
            "shape": row["shape"],
            "system": row["system"],
            "micro_batch": row["micro_batch"],
            "above_baseline_bytes": above_baseline(row),
            "loss": row["loss"],
            "gradient_norm": row["gradient_norm"],
        }
        for row in ledger.select(part="loss")
    ]


def _loss_ratios(ledger: Ledger) -> dict[str, float]:
    found = {}
    for row in ledger.select(part="loss", system="full_logits"):
        micro_batch = row["micro_batch"]
        chunked = ledger.select(part="loss", system="chunked", micro_batch=micro_batch)
        suffix = "" if micro_batch == 1 else f"_micro_batch_{micro_batch}"
        if chunked:
            found[f"memory/zero_shot/full_logits{suffix}"] = above_baseline(row) / above_baseline(
                chunked[0]
            )
    return found


def _scaling_rows(ledger: Ledger, clock: str) -> list[dict[str, Any]]:
    found = []
    for row in ledger.select(part="group") + ledger.select(part="corpus"):
        n_examples = 32 if row["part"] == "group" else 16
        found.append(
            {
                "part": row["part"],
                "shape": row["shape"],
                "system": row["system"],
                "micro_batch": row["micro_batch"],
                "n_examples": row.get("n_examples", n_examples),
                "seconds_per_example": step_seconds(row, clock) / n_examples,
                "above_baseline_bytes": above_baseline(row),
            }
        )
    return found


def table(report: dict[str, Any], shape: str) -> str:
    """Return the steps of one shape as a Markdown table."""
    lines = [
        "| system | micro-batch | seconds a step | times ours | MiB above loading | MiB in all |",
        "|---|---|---|---|---|---|",
    ]
    rows = [row for row in report["rows"] if row["part"] == "step" and row["shape"] == shape]
    reference = next((row for row in rows if row["system"] == MEASURED), None)
    for row in rows:
        times = f"{row['seconds'] / reference['seconds']:.2f}" if reference else ""
        batch = row["rows_an_epoch"] if "packed" in row["system"] and "rows_an_epoch" in row else 0
        shown = f"{batch} rows a step" if batch else row["micro_batch"]
        mark = " *" if row["note"] else ""
        lines.append(
            f"| {row['system']}{mark} | {shown} | {row['seconds']:.2f} | {times} | "
            f"{row['above_baseline_bytes'] / 2**20:.0f} | {row['peak_bytes'] / 2**20:.0f} |"
        )
    return "\n".join(lines)
