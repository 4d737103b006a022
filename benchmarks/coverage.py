"""How often intervals over clusters hold the truth, on a grid; the page docs/coverage.md.

python benchmarks/coverage.py                          all of it: about a quarter of an hour
python benchmarks/coverage.py --quick                  a tenth of the data sets
python benchmarks/coverage.py --json FILE --page FILE  also write every figure, and the page
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, product
from pathlib import Path
from typing import Any

import yaml

from significance import options_parser, simulate
from simulations.coverage import LEVEL, Setting, replicate

REPLICATIONS = 2000
"""Data sets of each setting."""

LEAST = 0.93
"""What every interval that is printed has to cover."""

TEXTS = Path(__file__).with_suffix(".yaml")
"""The words of the page."""

CLUSTERS = (10, 20, 40, 80)


def settings() -> Iterator[Setting]:
    """Yield the grid, study after study."""
    for uneven, share, rho, n in product((False, True), (0.02, 0.05, 0.15, 0.5), _RHO, CLUSTERS):
        yield Setting(study="prevalence", clusters=n, correlation=rho, share=share, uneven=uneven)
    for known, share, rho, n in product((200, 1000), (0.05, 0.2), (0.0, 0.3), CLUSTERS):
        yield Setting(study="correction", clusters=n, correlation=rho, share=share, known=known)
    for labels, rho, n in product(("two", "thirteen"), _RHO, CLUSTERS):
        yield Setting(study="scores", clusters=n, correlation=rho, labels=labels)
    for share, rho, n in product((0.05, 0.3), _RHO, CLUSTERS):
        yield Setting(study="agreement", clusters=n, correlation=rho, share=share)
    for share, rho, n in product((0.005, 0.02, 0.1), _RHO, CLUSTERS):
        yield Setting(study="correlation", clusters=n, correlation=rho, share=share)
    for n, carriers in product((50, 200), (1, 2, 3, 5, 10)):
        yield Setting(study="carriers", clusters=n, correlation=0.0, carriers=carriers)


_RHO = (0.0, 0.1, 0.3)


def main(arguments: list[str] | None = None) -> int:
    """Simulate, write, and return the exit code: 1 where an interval covers less than it should."""
    parser = options_parser(__doc__)
    parser.add_argument("--page", type=Path, help="file for the page")
    parser.add_argument("--studies", default="", help="some of the studies, with commas")
    options = parser.parse_args(arguments)
    chosen = [one for one in settings() if one.study in options.studies or not options.studies]
    report = {"seed": options.seed, "level": LEVEL, "rows": _simulated(options, chosen)}
    text = page(report)
    print(text)
    for file, content in (
        (options.json, json.dumps(report, indent=1) + "\n"),
        (options.page, text),
    ):
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")
    return 1 if below(report) else 0


def _simulated(options: argparse.Namespace, chosen: Sequence[Setting]) -> list[dict[str, Any]]:
    wanted = options.replications or (REPLICATIONS // 10 if options.quick else REPLICATIONS)
    return simulate(
        *(chosen, replicate, summarize, wanted), seed=options.seed, processes=options.processes
    )


def summarize(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the share of intervals that hold the truth, among those that are printed."""
    rows = {}
    for name in dict.fromkeys(name for chunk in chunks for name in chunk["intervals"]):
        counted = [chunk["intervals"][name] for chunk in chunks if name in chunk["intervals"]]
        total = {key: sum(chunk[key] for chunk in counted) for key in counted[0]}
        there = total["held"] + total["below"] + total["above"]
        rows[name] = {
            "covered": total["held"] / there if there else None,
            "printed": there / (there + total["none"]),
            "n": there,
            "too_low": total["below"] / there if there else None,
            "too_high": total["above"] / there if there else None,
            "mean_width": total["width"] / there if there else None,
        }
    return {"intervals": rows}


def below(report: Mapping[str, Any]) -> list[str]:
    """Return the intervals that cover less than :data:`LEAST` by more than chance."""
    return [
        f"{row['study']}: {name}"
        for row in report["rows"]
        for name, one in row["intervals"].items()
        if one["n"] and one["covered"] + 2 * math.sqrt(LEAST * (1 - LEAST) / one["n"]) < LEAST
    ]


def page(report: Mapping[str, Any]) -> str:
    """Return the page: what was drawn, and a table a study."""
    texts = yaml.safe_load(TEXTS.read_text(encoding="utf-8"))
    every = [
        (one["covered"], name, row)
        for row in report["rows"]
        for name, one in row["intervals"].items()
        if one["n"] >= report["rows"][0]["replications"] / 10
    ]
    least, name, row = min(every, key=lambda one: one[0])
    replications = max(row["replications"] for row in report["rows"])
    lines = [
        *texts["head"]
        .format(
            replications=f"{replications:,}",
            error=f"{100 * math.sqrt(0.05 * 0.95 / replications):.1f}",
            least=_percent(least),
            where=f"{name}, {_setting(row)}",
            intervals=f"{len(every):,}",
            under=sum(share < LEAST for share, _, _ in every),
        )
        .splitlines()
    ]
    for study, rows in groupby(report["rows"], key=lambda row: row["study"]):
        said = texts["studies"][study]
        lines += ["", f"## {said['title']}", "", said["drawn"], "", *_table(list(rows))]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    names = list(rows[0]["intervals"])
    keys = [key for key in _COLUMNS if len({row[key] for row in rows}) > 1]
    yield f"| {' | '.join([*(_COLUMNS[key] for key in keys), *names])} |"
    yield f"|{'---|' * len(keys)}{'---:|' * len(names)}"
    for row in rows:
        cells = [_shown(row[key]) for key in keys]
        yield f"| {' | '.join([*cells, *(_cell(row['intervals'].get(name)) for name in names)])} |"


_COLUMNS = {
    "labels": "labels",
    "known": "examples of the matrix",
    "uneven": "sizes",
    "share": "share",
    "correlation": "correlation",
    "clusters": "clusters",
    "carriers": "with it",
}


def _shown(value: object) -> str:
    return {True: "uneven", False: "equal"}[value] if isinstance(value, bool) else f"{value}"


def _setting(row: Mapping[str, Any]) -> str:
    told = {key: title for key, title in _COLUMNS.items() if row[key] and key != "labels"}
    listed = ", ".join(f"{title} {_shown(row[key])}" for key, title in told.items())
    return f"{row['labels']} labels, {listed}" if row["study"] == "scores" else listed


def _cell(one: Mapping[str, Any] | None) -> str:
    """Return the coverage in percent, and how many were printed where not all were."""
    if one is None or one["covered"] is None:
        return "–"
    printed = "" if one["printed"] == 1 else f" ({100 * one['printed']:.1f})"
    return f"{_percent(one['covered'])}{printed}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


if __name__ == "__main__":
    # A process a core: more threads would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
