"""Rows, ratios and what is missing of the inference benchmark, from its ledger."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any

from harness.ledger import Ledger
from harness.plan import above_baseline

COMPARED = {
    "hf_generate": ("label", "hf_generate"),
    "hf_generate_label": ("label", "hf_generate_label"),
    "hf_generate_rationale": ("rationale", "hf_generate"),
}
"""Name of a ratio -> ours and what it is measured against: a label with all probabilities beside
the whole answer, and beside the label's tokens alone; label and reason beside the whole answer."""


def summarize(ledger: Ledger, clock: str) -> dict[str, Any]:
    """Return ``{"rows", "ratios", "missing"}``; every ratio is the larger the better recap is."""
    rows: list[dict[str, Any]] = []
    ratios: dict[str, float] = {}
    for shape in ("zero_shot", "few_shot"):
        found = {
            system: _fastest(ledger, shape, system, clock) for system in _systems(ledger, shape)
        }
        rows += [row for row in found.values() if row]
        for name, (ours, other) in COMPARED.items():
            one, two = found.get(ours), found.get(other)
            if one and two:
                ratios[f"speed/{shape}/{name}"] = two["seconds"] / one["seconds"]
                ratios[f"memory/{shape}/{name}"] = two["bytes"] / one["bytes"]
    rows += _cascade(ledger, clock)
    by_system = {row["system"]: row for row in rows if row["part"] == "cascade"}
    if len(by_system) == 2:
        ratios["speed/zero_shot/cascade"] = (
            by_system["one_stage"]["seconds"] / by_system["cascade"]["seconds"]
        )
    rows += _latencies(ledger) + _streams(ledger, clock)
    missing = [
        {"system": row["system"], "reason": f"{row['part']}: {row['error']}"}
        for row in ledger.errors()
    ]
    return {"rows": rows, "ratios": ratios, "missing": missing, "bfloat16": _bfloat16(ledger)}


def differing(report: dict[str, Any]) -> list[str]:
    """Return the rows of ours whose tokens in float32 are not those of plain generation."""
    answers = {
        (row["shape"], row["system"]): row["answers"]
        for row in report["rows"]
        if row["part"] == "answers"
    }
    return [
        f"{shape} {system}"
        for (shape, system), found in answers.items()
        if system == "rationale" and found != answers.get((shape, "hf_generate"), found)
    ]


def table(report: dict[str, Any]) -> str:
    """Return the rows as lines of text."""
    lines = ["", f"{'':<38}{'batch':>6}{'s':>9}{'ms each':>9}{'MiB':>8}"]
    for row in report["rows"]:
        name = f"{row['part']} {row['shape']} {row['system']}"
        if row["part"] == "latency":
            lines.append(
                f"{name:<38} median {1000 * row['median_seconds']:.0f} ms, "
                f"95 % {1000 * row['p95_seconds']:.0f} ms of {row['n']} turns"
            )
            continue
        lines.append(
            f"{name:<38}{row['micro_batch']:>6}{row['seconds']:>9.2f}"
            f"{1000 * row['seconds'] / row['n']:>9.1f}{row['bytes'] / 2**20:>8.0f}"
        )
    for name, share in report["bfloat16"].items():
        lines.append(f"bfloat16, {name}: {100 * share:.0f} % of the answers token for token")
    return "\n".join(lines)


def _systems(ledger: Ledger, shape: str) -> list[str]:
    rows = ledger.select(part="answers", shape=shape)
    return list(dict.fromkeys(row["system"] for row in rows if "bfloat16" not in row["system"]))


def _fastest(ledger: Ledger, shape: str, system: str, clock: str) -> dict[str, Any] | None:
    """Return the medians over rounds at the batch size where they are least."""
    rows = ledger.select(part="answers", shape=shape, system=system)
    sizes = sorted({row["micro_batch"] for row in rows})
    at = [_medians([row for row in rows if row["micro_batch"] == size], clock) for size in sizes]
    return min(at, key=lambda row: float(row["seconds"]), default=None)


def _medians(rows: Sequence[dict[str, Any]], clock: str) -> dict[str, Any]:
    seconds = [row[clock][0] for row in rows]
    first = rows[0]
    return {
        **{name: first[name] for name in ("part", "shape", "system", "micro_batch")},
        "n": len(first.get("answers", ())) or first.get("n_examples", 128),
        "seconds": median(seconds),
        "rounds": seconds,
        "bytes": median(above_baseline(row) for row in rows),
        "answers": first.get("answers"),
    }


def _cascade(ledger: Ledger, clock: str) -> list[dict[str, Any]]:
    found = []
    for system in ("one_stage", "cascade"):
        rows = ledger.select(part="cascade", system=system)
        if rows:
            found.append(_medians(rows, clock))
    return found


def _latencies(ledger: Ledger) -> list[dict[str, Any]]:
    found = []
    for row in ledger.select(part="latency"):
        seconds = row["turn_seconds"]
        found.append(
            {
                **{name: row[name] for name in ("part", "shape", "system", "micro_batch")},
                "n": len(seconds),
                "median_seconds": median(seconds),
                "p95_seconds": quantiles(seconds, n=20)[-1],
            }
        )
    return found


def _streams(ledger: Ledger, clock: str) -> list[dict[str, Any]]:
    rows = sorted(ledger.select(part="stream"), key=lambda row: int(row["n_examples"]))
    return [_medians([row], clock) for row in rows]


def _bfloat16(ledger: Ledger) -> dict[str, float]:
    """Return how many answers in bfloat16 are those of plain generation of 16 prompts together."""
    rows = {
        (row["system"], row["micro_batch"]): row["answers"]
        for row in ledger.select(part="answers")
        if "bfloat16" in row["system"]
    }
    base = rows.get(("hf_generate_bfloat16", 16))
    if base is None:
        return {}
    names = {
        ("hf_generate_bfloat16", 1): "plain generation one at a time",
        ("rationale_bfloat16", 16): "recap, 16 together",
        ("rationale_bfloat16", 1): "recap, one at a time",
    }
    return {
        name: sum(a == b for a, b in zip(rows[key], base, strict=True)) / len(base)
        for key, name in names.items()
        if key in rows
    }
